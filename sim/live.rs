//! The live driver: real sockets, real brokers, a real database.
//!
//! [`run`] carries a scenario out on a target; [`up`] starts the embedded one alone, for anybody's clients. [`doctor`] looks
//! at somebody's servers before a run, and [`Leavings`] is what a run has left there.

mod abort;
mod access;
mod allowed;
mod baseline;
mod child;
mod clean;
mod clock;
#[cfg(feature = "containers")]
pub mod containers;
mod copies;
mod deployed;
mod directory;
mod disk;
mod doctor;
pub mod embedded;
mod faults;
mod faulty_store;
mod fleet;
mod hooks;
mod http;
mod issuer;
mod journal;
mod judge;
mod limits;
mod observe;
mod peer;
mod poisoner;
mod primary;
mod process;
pub mod proxy;
mod rae;
mod run;
mod stack;
pub(crate) mod store_url;
mod store_view;
mod up;

pub use child::{child_process, janitor};
pub use clean::Leavings;
pub use disk::room_for;
pub use doctor::{Finding, Mark, doctor};
pub use run::run;
pub use up::{Endpoints, Pipeline, up};
