//! Black-box observation of a running pipeline: the log by an own reader, committed offsets, then rows, end offsets last.

pub(super) mod baseline;
pub(super) mod consumer;
pub(super) mod down;
pub(super) mod gauges;
pub(super) mod log;
pub(super) mod offsets;
pub(super) mod sample;
pub(super) mod store;
