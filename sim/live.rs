//! The live driver: real sockets, real brokers, a real database.
//!
//! [`run`] carries a scenario out on the embedded target; [`up`] starts the target alone, for anybody's clients.

mod child;
mod clock;
#[cfg(feature = "containers")]
pub mod containers;
mod copies;
mod directory;
mod disk;
pub mod embedded;
mod faults;
mod faulty_store;
mod fleet;
mod http;
mod issuer;
mod journal;
mod judge;
mod limits;
mod observe;
mod poisoner;
mod primary;
mod process;
pub mod proxy;
mod rae;
mod run;
mod stack;
mod up;

pub use child::{child_process, janitor};
pub use disk::room_for;
pub use run::run;
pub use up::{Endpoints, up};
