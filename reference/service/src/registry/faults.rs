//! Failures of stages, provoked from outside: how supervision is tested in a running registry.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// A handle on the stages of one registry; clones speak to the same one.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Pending>);

#[derive(Debug, Default)]
struct Pending {
    writer: AtomicU32,
    reader: AtomicU32,
}

impl Faults {
    /// Makes the writer stage panic on each of its next `times` writes, before the store sees them.
    ///
    /// Eight in a row on the same rows, and these count as what breaks a writer: they are bisected and quarantined.
    pub fn panic_writer(&self, times: u32) {
        self.0.writer.fetch_add(times, Ordering::Relaxed);
    }

    /// Makes the reader stage fail on each of its next `times` polls.
    pub fn fail_reader(&self, times: u32) {
        self.0.reader.fetch_add(times, Ordering::Relaxed);
    }

    /// Whether this write is to panic; counts it.
    pub(crate) fn writer_panics(&self) -> bool {
        take(&self.0.writer)
    }

    /// Whether this poll is to fail; counts it.
    pub(crate) fn reader_fails(&self) -> bool {
        take(&self.0.reader)
    }
}

fn take(pending: &AtomicU32) -> bool {
    pending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
