//! Metrics of the registry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dmp_core::{
    registry::{Class, Dropped, FeedbackGauges, GapEnd, Order, Partition, PartitionGauges, WriteOutcome},
    time::Wall,
};

use super::adapter::READ_AHEAD;
use crate::{
    drive,
    metrics::{Counter, Gauge, Latency, Metrics},
};

/// Handles on the series of a registry.
#[derive(Clone)]
pub(super) struct Gauges {
    metrics: Metrics,
    pub(super) records: Counter,
    reflected: [Counter; 4],
    latency: Latency,
    write: Latency,
    writes: [Counter; 4],
    pub(super) gaps: Counter,
    pub(super) commands: Counter,
    pub(super) retried_commands: Counter,
    pub(super) pauses: Counter,
    pub(super) resumes: Counter,
    pub(super) commits: Counter,
    pub(super) stale_commits: Counter,
    pub(super) failed_commits: Counter,
    pub(super) retried_writes: Counter,
    pub(super) retried_quarantines: Counter,
    pub(super) assignments: Counter,
    pub(super) revocations: Counter,
    pub(super) losses: Counter,
    pub(super) cleaned: Counter,
    pub(super) retired: Counter,
    draining: Gauge,
    feedback: [Gauge; 4],
    feedback_caps: [Gauge; 4],
    speaks: Gauge,
    queues: [Gauge; 3],
    partitions: Arc<Mutex<BTreeMap<Partition, PartitionSeries>>>,
}

/// Gauges of one partition.
struct PartitionSeries {
    assigned: Gauge,
    buffered: Gauge,
    buffered_cap: Gauge,
    buffered_bytes: Gauge,
    buffered_bytes_cap: Gauge,
    writing: Gauge,
    quarantining: Gauge,
    sessions: Gauge,
    sessions_cap: Gauge,
    gaps: Gauge,
    paused: Gauge,
    next: Gauge,
    durable: Gauge,
    committed: Gauge,
}

/// The classes in the order of `Gauges::reflected`.
const CLASSES: [(Class, &str); 4] = [
    (Class::Applied, "applied"),
    (Class::Superseded, "superseded"),
    (Class::Duplicate, "duplicate"),
    (Class::Other, "other"),
];

/// Names of the queues in the order of `Gauges::queues`.
const QUEUES: [&str; 3] = ["reader", "writer", "producer"];

/// Bounded parts of what goes down, in the order of `Gauges::feedback`.
const FEEDBACK: [&str; 4] = ["notices", "requests", "under_way", "sessions"];

impl Gauges {
    pub(super) fn new(metrics: Metrics) -> Gauges {
        let counter = |name, help| metrics.counter(name, help, &[]);
        let reflected = "Records durable in the store, by what they did.";
        let writes = "Writes by outcome.";
        Gauges {
            records: counter("dmp_registry_records_total", "Records read."),
            reflected: CLASSES
                .map(|(_, class)| metrics.counter("dmp_registry_reflected_total", reflected, &[("class", class)])),
            latency: metrics.latency(
                "dmp_registry_latency_seconds",
                "From receive time at the bridge to the durable row.",
                &[],
            ),
            write: metrics.latency("dmp_registry_write_seconds", "Duration of a write.", &[]),
            writes: ["committed", "aborted", "ambiguous", "refused"]
                .map(|outcome| metrics.counter("dmp_registry_writes_total", writes, &[("outcome", outcome)])),
            gaps: counter("dmp_registry_gaps_total", "Places where seqs of a session are missing."),
            commands: counter("dmp_registry_commands_stored_total", "Commands that Kafka took."),
            retried_commands: counter("dmp_registry_command_retries_total", "Commands produced again."),
            pauses: counter("dmp_registry_pauses_total", "Partitions paused for want of credit."),
            resumes: counter("dmp_registry_resumes_total", "Partitions resumed."),
            commits: counter("dmp_registry_commits_total", "Offset commits that Kafka took."),
            stale_commits: counter("dmp_registry_commits_stale_total", "Offset commits refused: the group moved on."),
            failed_commits: counter("dmp_registry_commits_failed_total", "Offset commits that failed."),
            retried_writes: counter("dmp_registry_write_retries_total", "Writes tried again."),
            retried_quarantines: counter("dmp_registry_quarantine_retries_total", "Dead letters produced again."),
            assignments: counter("dmp_registry_assignments_total", "Assignments of partitions."),
            revocations: counter("dmp_registry_revocations_total", "Revocations of partitions."),
            losses: counter("dmp_registry_losses_total", "Assignments lost without a drain."),
            cleaned: counter("dmp_registry_cleaned_total", "Attributes deleted because they can never be visible."),
            retired: counter("dmp_registry_retired_total", "Devices deleted because they were stale for too long."),
            draining: metrics.gauge("dmp_registry_draining", "1 while partitions are being drained.", &[]),
            feedback: FEEDBACK.map(|part| {
                let help = "What goes down: waiting notices and requests, commands under way, sessions remembered.";
                metrics.gauge("dmp_registry_feedback", help, &[("part", part)])
            }),
            feedback_caps: FEEDBACK.map(|part| {
                metrics.gauge("dmp_registry_feedback_cap", "Bound of dmp_registry_feedback.", &[("part", part)])
            }),
            speaks: metrics.gauge("dmp_registry_feedback_enabled", "1 if this registry sends commands.", &[]),
            queues: QUEUES.map(|queue| metrics.gauge("dmp_registry_queue", "Depth of a queue.", &[("queue", queue)])),
            partitions: Arc::default(),
            metrics,
        }
    }

    /// The counter of restarts of a stage.
    pub(super) fn restarts(&self, stage: &str) -> Counter {
        let help = "Times a stage was started again after a failure.";
        self.metrics.counter("dmp_registry_stage_restarts_total", help, &[("stage", stage)])
    }

    /// The lag gauge of a partition.
    pub(super) fn lag(&self, partition: Partition) -> Gauge {
        let help = "End offset less committed offset, as of the last look.";
        self.metrics.gauge("dmp_registry_lag", help, &[("partition", &partition.to_string())])
    }

    pub(super) fn reflected(&self, class: Class, received: Wall) {
        let index = CLASSES.iter().position(|(of, _)| *of == class).expect("every class is listed");
        self.reflected[index].increment();
        // A clock that stepped back makes this negative: shown as zero.
        let took = u64::try_from(drive::wall().0.saturating_sub(received.0)).unwrap_or(0);
        self.latency.record(Duration::from_millis(took));
    }

    pub(super) fn closed_gap(&self, by: GapEnd) {
        let by = match by {
            GapEnd::Update => "update",
            GapEnd::Snapshot => "snapshot",
            GapEnd::RequestedSnapshot => "requested_snapshot",
            GapEnd::Forgotten => "forgotten",
        };
        let help = "Gaps that ended, by what ended them.";
        self.metrics.counter("dmp_registry_gaps_closed_total", help, &[("by", by)]).increment();
    }

    pub(super) fn ordered(&self, order: Order) {
        let help = "Commands sent, by what they ask for.";
        self.metrics.counter("dmp_registry_commands_total", help, &[("order", word_of(order))]).increment();
    }

    pub(super) fn dropped(&self, order: Order, why: Dropped) {
        let why = match why {
            Dropped::Full => "full",
            Dropped::Crowded => "crowded",
            Dropped::Expired => "expired",
            Dropped::Refused => "refused",
            Dropped::Unassigned => "unassigned",
        };
        let (help, labels) = ("Commands given up, by reason.", [("order", word_of(order)), ("why", why)]);
        self.metrics.counter("dmp_registry_commands_dropped_total", help, &labels).increment();
    }

    pub(super) fn quarantined(&self, reason: &str) {
        let help = "Records quarantined, by reason.";
        self.metrics.counter("dmp_registry_quarantined_total", help, &[("reason", reason)]).increment();
    }

    pub(super) fn wrote(&self, outcome: &WriteOutcome, took: Duration) {
        let index = match outcome {
            WriteOutcome::Committed { .. } => 0,
            WriteOutcome::Aborted { .. } => 1,
            WriteOutcome::Ambiguous { .. } => 2,
            WriteOutcome::Refused { .. } => 3,
        };
        self.writes[index].increment();
        self.write.record(took);
    }

    pub(super) fn queue_caps(&self, reader: usize, writer: usize, producer: usize) {
        for (queue, cap) in QUEUES.into_iter().zip([reader, writer, producer]) {
            self.metrics.gauge("dmp_registry_queue_cap", "Bound of a queue.", &[("queue", queue)]).set_count(cap);
        }
    }

    pub(super) fn queues(&self, reader: usize, writer: usize, producer: usize) {
        for (gauge, depth) in self.queues.iter().zip([reader, writer, producer]) {
            gauge.set_count(depth);
        }
    }

    pub(super) fn show(&self, core: &dmp_core::registry::Gauges) {
        self.draining.set(core.draining.into());
        self.speaks.set(core.feedback.is_some().into());
        if let Some(feedback) = core.feedback {
            let FeedbackGauges { notices, requests, waiting_cap, under_way, under_way_cap, sessions, sessions_cap } =
                feedback;
            let depths = [notices, requests, under_way, sessions];
            let caps = [waiting_cap, waiting_cap, under_way_cap, sessions_cap];
            self.feedback.iter().zip(depths).for_each(|(gauge, depth)| gauge.set_count(depth));
            self.feedback_caps.iter().zip(caps).for_each(|(gauge, cap)| gauge.set_count(cap));
        }
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        for shown in &core.partitions {
            let series = partitions
                .entry(shown.partition)
                .or_insert_with(|| PartitionSeries::new(&self.metrics, shown.partition));
            series.show(shown);
        }
    }

    /// A partition that is not ours any more holds nothing here; its offsets stay as they were last seen.
    pub(super) fn partition_gone(&self, partition: Partition) {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(series) = partitions.get(&partition) else { return };
        for gauge in [&series.assigned, &series.buffered, &series.buffered_bytes, &series.writing] {
            gauge.set(0);
        }
        for gauge in [&series.quarantining, &series.paused, &series.sessions, &series.gaps] {
            gauge.set(0);
        }
    }
}

impl PartitionSeries {
    fn new(metrics: &Metrics, partition: Partition) -> PartitionSeries {
        let partition = partition.to_string();
        let gauge = |name, help| metrics.gauge(name, help, &[("partition", &partition)]);
        PartitionSeries {
            assigned: gauge("dmp_registry_partition_assigned", "1 while the partition is this member's."),
            buffered: gauge("dmp_registry_buffered", "Records read and not yet behind the durable offset."),
            buffered_cap: gauge(
                "dmp_registry_buffered_cap",
                "Bound of dmp_registry_buffered: where reading pauses, and what is under way by then.",
            ),
            buffered_bytes: gauge("dmp_registry_buffered_bytes", "Payload bytes of those records."),
            buffered_bytes_cap: gauge("dmp_registry_buffered_bytes_cap", "Bound of dmp_registry_buffered_bytes."),
            writing: gauge("dmp_registry_writing", "Records in the write under way."),
            quarantining: gauge("dmp_registry_quarantining", "Dead letters not yet stored."),
            sessions: gauge("dmp_registry_sessions", "Sessions whose last seq is remembered."),
            sessions_cap: gauge("dmp_registry_sessions_cap", "Bound of dmp_registry_sessions."),
            gaps: gauge("dmp_registry_gaps_open", "Sessions with a gap among them."),
            paused: gauge("dmp_registry_paused", "1 while the partition is paused."),
            next: gauge("dmp_registry_offset_next", "The next offset to be read."),
            durable: gauge("dmp_registry_offset_durable", "Everything below is durable or quarantined."),
            committed: gauge("dmp_registry_offset_committed", "The newest committed offset."),
        }
    }

    fn show(&self, shown: &PartitionGauges) {
        self.assigned.set(1);
        self.buffered.set_count(shown.buffered);
        self.buffered_cap.set_count(shown.buffered_cap + READ_AHEAD);
        self.buffered_bytes.set_count(shown.buffered_bytes);
        self.buffered_bytes_cap.set_count(shown.buffered_bytes_cap);
        self.writing.set_count(shown.writing);
        self.quarantining.set_count(shown.quarantining);
        self.sessions.set_count(shown.sessions);
        self.sessions_cap.set_count(shown.sessions_cap);
        self.gaps.set_count(shown.gaps);
        self.paused.set(shown.paused.into());
        self.next.set(shown.next);
        self.durable.set(shown.durable);
        self.committed.set(shown.committed);
    }
}

fn word_of(order: Order) -> &'static str {
    match order {
        Order::Notice => "reonboard",
        Order::Repair => "snapshot",
    }
}
