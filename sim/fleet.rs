//! The simulated fleet: who exists, what happens on each device and when.

use std::time::Duration;

use dmp_core::agent::Backoff;

mod demand;
pub mod plan;
mod run_prefix;

pub use demand::Demand;
pub use run_prefix::{NotARunPrefix, RunPrefix};

/// Each snapshot interval is drawn from the mean times 1 +- this many thousandths.
pub const SNAPSHOT_JITTER_PERMILLE: u16 = 200;

/// Events in the outbox of an agent: more than a RAE with a dozen devices makes in a minute of burst.
pub const OUTBOX_EVENTS: usize = 400;

/// Waits of an agent between connection attempts.
pub const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };
