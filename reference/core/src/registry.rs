//! The Cloud Registry: records in, guarded rows out, offsets committed only after the rows are durable.
//!
//! In order within a partition, parallel across partitions. Records are decoded, merged per device into batches by
//! rows or time, and written with one write in flight per partition. Back-pressure is credit-based: a partition whose
//! buffer is full is paused. Poison is quarantined in the dead-letter topic, also what only the store refuses (found by
//! bisection). Answers of an older generation are ignored.

mod interface;

pub use interface::*;
