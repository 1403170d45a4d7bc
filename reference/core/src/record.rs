//! What a reader of the store gets: one record per device.

use std::collections::BTreeMap;

use crate::{
    event::{AttributeName, Value},
    id::{Rae, Version},
    time::Wall,
};

/// A device as a reader of the store sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Version of its newest snapshot; its session is the device's current session.
    pub floor: Version,
    /// The RAE that sent that snapshot.
    pub rae: Rae,
    /// When that snapshot was received.
    pub seen_at: Wall,
    /// Whether that is more than three snapshot periods behind what has been read of its partition.
    pub stale: bool,
    /// What is visible: value, and the version under which it was published.
    pub attributes: BTreeMap<AttributeName, (Value, Version)>,
}
