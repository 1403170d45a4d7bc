//! Fleetproof: proves that the cloud state of a device fleet converges.
//!
//! ```text
//! scenario -> fleet -> faults -> observe -> check -> report
//!                 \    /           ^
//!                 driver ----------+     live: tokio, real brokers, real database
//! ```
//!
//! A [`scenario`] says what is asked. The [`fleet`] holds the truth (the device plan) and fakes the RAEs. [`live`] drives
//! agents, bridges and registries on a target, breaks things, and observes. Everything between the running system and
//! the verdict is one typed, ordered [`history`]. A [`Trial`] is all of that as a test of somebody's own.

pub mod check;
pub mod cli;
pub mod faults;
pub mod fleet;
pub mod history;
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the live driver is where the clock is read, and no plan or verdict depends on the order of its maps"
)]
pub mod live;
pub mod observe;
pub mod random;
pub mod report;
pub mod run;
mod sabotage;
pub mod scenario;
pub mod target;
mod trial;

pub use trial::Trial;
