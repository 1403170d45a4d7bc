//! The live driver: real sockets, real brokers, a real database.
//!
//! [`run`] carries a scenario out on the embedded target; [`up`] starts the target alone, for anybody's clients.

mod child;
mod clock;
mod copies;
pub mod embedded;
mod faults;
mod faulty_store;
mod fleet;
mod journal;

mod observe;
mod poisoner;
mod process;
pub mod proxy;
mod rae;

mod up;

pub use child::{ChildFailed, child_process, janitor};

pub use up::{Endpoints, up};
