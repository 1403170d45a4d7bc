//! The writes of a partition: one in flight, repeated with the same rows, halved when the store refuses them.

use std::{mem, ops::Range, sync::Arc};

use super::{PartitionState, Serial};
use crate::{
    merge::Rows,
    registry::{
        Awaited, Beaten, Context, Effect, Fact, WriteOutcome,
        batch::Batch,
        entry::{Entry, Stage, read},
    },
    time::Mono,
};

#[derive(Debug)]
pub(super) enum Write {
    Idle,
    InFlight(Job),
    Waiting { until: Mono, job: Job },
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) range: Range<Serial>,
    pub(super) rows: Arc<Rows>,
    pub(super) failures: u32,
}

impl PartitionState {
    pub(in crate::registry) fn written(&mut self, outcome: WriteOutcome, context: &mut Context<'_>) {
        let Write::InFlight(job) = mem::replace(&mut self.write, Write::Idle) else {
            unreachable!("a write that is awaited is in flight")
        };
        match outcome {
            WriteOutcome::Committed { beaten } => {
                self.reflect(&job.range, context);
                beaten.iter().for_each(|beaten| tell(beaten, &job.rows, context));
                self.settle(context);
            }
            WriteOutcome::Aborted { .. } | WriteOutcome::Ambiguous { .. } => self.wait(job, context),
            WriteOutcome::Refused { reason } => self.refused(job, reason, context),
        }
        self.start_write(context);
    }

    /// Starts the next write if none is under way and a batch is full, old enough, or to be drained.
    pub(super) fn start_write(&mut self, context: &mut Context<'_>) {
        if !matches!(self.write, Write::Idle) {
            return;
        }
        let draining = self.draining;
        let is_due = |open: &mut Batch| draining || context.now.mono >= open.opened + context.config.batch_wait;
        let Some(batch) = self.closed.pop_front().or_else(|| self.open.take_if(is_due)) else { return };
        context.fact(Fact::Buffered(self.number, self.entries.len()));
        let (range, rows) = batch.into_rows();
        self.send_write(Job { range, rows: Arc::new(rows), failures: 0 }, context);
    }

    /// Repeats the write that has waited long enough.
    pub(super) fn retry_write(&mut self, context: &mut Context<'_>) {
        match mem::replace(&mut self.write, Write::Idle) {
            Write::Waiting { until, job } if until <= context.now.mono => {
                context.fact(Fact::RetriedWrite(self.number));
                self.send_write(job, context);
            }
            write => self.write = write,
        }
        self.start_write(context);
    }

    fn send_write(&mut self, job: Job, context: &mut Context<'_>) {
        let id = context.await_answer(Awaited::Write(self.number));
        context.effects.push(Effect::Write(id, self.number, job.rows.clone()));
        self.write = Write::InFlight(job);
    }

    fn wait(&mut self, job: Job, context: &mut Context<'_>) {
        let until = context.retry_at(job.failures);
        self.write = Write::Waiting { until, job: Job { failures: job.failures.saturating_add(1), ..job } };
    }

    fn reflect(&mut self, range: &Range<Serial>, context: &mut Context<'_>) {
        for serial in range.start.max(self.first)..range.end {
            let index = self.index(serial);
            let Entry { record, stage } = &mut self.entries[index];
            if let Stage::Batched(class) = *stage {
                *stage = Stage::Done;
                let (partition, offset, received) = (self.number, record.offset, record.timestamp);
                context.fact(Fact::Reflected { partition, offset, class, received });
            }
        }
    }

    /// Halves what the store refused until the one record is found, and quarantines it.
    fn refused(&mut self, job: Job, reason: String, context: &mut Context<'_>) {
        let batched = |serial: &Serial| matches!(self.entries[self.index(*serial)].stage, Stage::Batched(_));
        let suspects: Vec<Serial> = (job.range.start.max(self.first)..job.range.end).filter(batched).collect();
        match *suspects.as_slice() {
            // Nothing but the feed: no record is to blame, the store itself is wrong.
            [] => self.wait(job, context),
            [bad] => {
                // With no later batch to carry it, the feed is written alone.
                if self.closed.is_empty() && self.open.is_none() {
                    self.closed.extend(self.rebuild(bad + 1..job.range.end, &job, context));
                }
                self.quarantine(bad, "store", reason, context);
            }
            [first, .., _] => {
                let middle = suspects[suspects.len() / 2];
                for half in [middle..job.range.end, first..middle] {
                    if let Some(batch) = self.rebuild(half, &job, context) {
                        self.closed.push_front(batch);
                    }
                }
            }
        }
    }

    /// The batch of some of a job's records. Decoding again is rare, and cheaper than keeping every event.
    fn rebuild(&self, range: Range<Serial>, job: &Job, context: &Context<'_>) -> Option<Batch> {
        let feed = job.rows.feed?;
        let mut batch = Batch::new(range.start, context.now.mono, feed);
        for serial in range {
            let Entry { record, stage } = &self.entries[self.index(serial)];
            let event = match stage {
                Stage::Batched(_) => read(record).ok().flatten(),
                Stage::Quarantining { .. } | Stage::Done => None,
            };
            batch.push(record.offset, record.timestamp, record.bytes(), event.as_ref());
        }
        Some(batch)
    }
}

/// Tells a session whose snapshot these rows held that it lost.
fn tell(beaten: &Beaten, rows: &Rows, context: &mut Context<'_>) {
    let Beaten { device, session, by } = *beaten;
    let Some((row, received)) = rows.sessions.get(&(device, session)).and_then(|row| Some((row, row.snapshot?))) else {
        return;
    };
    if let Some(orders) = context.orders {
        orders.lost(context.now, (device, session, row.rae.clone()), by, received, context.effects);
    }
}
