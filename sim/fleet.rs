//! The simulated fleet: who exists, what happens on each device and when.

pub mod plan;
