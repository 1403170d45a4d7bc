//! What the core asks of the reading thread, as state and not as a queue: bounded by its shape.
//!
//! One commit (the core has at most one under way), one wish per partition (the newest wins), one drained generation.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dmp_core::{
    core::EffectId,
    registry::{Generation, Offset, Partition},
};
use tokio::sync::Notify;

/// A commit that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommitRequest {
    pub(super) id: EffectId,
    pub(super) generation: Generation,
    pub(super) offsets: Vec<(Partition, Offset)>,
}

/// Whether a partition is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Pause,
    Resume,
}

/// All that is asked for at one moment.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) commit: Option<CommitRequest>,
    pub(super) flows: BTreeMap<Partition, (Generation, Flow)>,
    pub(super) drained: Option<Generation>,
    pub(super) stop: bool,
}

/// Shared by the core's side and the reading thread.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    requests: Mutex<Requests>,
    /// Rung when a request comes in, and when librdkafka has something to read.
    pub(super) bell: Notify,
}

impl Mailbox {
    /// Changes the requests and rings.
    pub(super) fn post<T>(&self, change: impl FnOnce(&mut Requests) -> T) -> T {
        let changed = change(&mut self.lock());
        self.bell.notify_one();
        changed
    }

    /// Takes what is to be done; `drained` and `stop` stay.
    pub(super) fn take(&self) -> (Option<CommitRequest>, BTreeMap<Partition, (Generation, Flow)>) {
        let mut requests = self.lock();
        (requests.commit.take(), std::mem::take(&mut requests.flows))
    }

    pub(super) fn stopping(&self) -> bool {
        self.lock().stop
    }

    pub(super) fn drained(&self, generation: Generation) -> bool {
        self.lock().drained.is_some_and(|drained| drained >= generation)
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
