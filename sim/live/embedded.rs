//! The embedded target: brokers and store inside this process, so that a run needs nothing installed.

pub mod kafka;
pub mod mqtt;
