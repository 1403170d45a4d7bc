//! Metrics of the way down.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dmp_core::{
    bridge::downlink::{End, PartitionGauges},
    consume::Partition,
};

use crate::metrics::{Counter, Gauge, Latency, Metrics};

/// Handles on the series of a downlink.
#[derive(Clone)]
pub(super) struct Gauges {
    metrics: Metrics,
    pub(super) records: Counter,
    pub(super) published: Counter,
    pub(super) resent: Counter,
    pub(super) retried: Counter,
    pub(super) unacknowledged: Counter,
    pub(super) pauses: Counter,
    pub(super) resumes: Counter,
    pub(super) commits: Counter,
    pub(super) stale_commits: Counter,
    pub(super) failed_commits: Counter,
    pub(super) assignments: Counter,
    pub(super) revocations: Counter,
    pub(super) losses: Counter,
    pub(super) connects: Counter,
    pub(super) disconnects: Counter,
    pub(super) restarts: Counter,
    pub(super) reader_restarts: Counter,
    ended: [Counter; 4],
    delivery: Latency,
    waiting: Gauge,
    waiting_cap: Gauge,
    window: Gauge,
    window_cap: Gauge,
    producing: Gauge,
    producing_cap: Gauge,
    connected: Gauge,
    draining: Gauge,
    queues: [Gauge; 2],
    partitions: Arc<Mutex<BTreeMap<Partition, PartitionSeries>>>,
}

/// Gauges of one partition.
struct PartitionSeries {
    assigned: Gauge,
    buffered: Gauge,
    buffered_cap: Gauge,
    buffered_bytes: Gauge,
    buffered_bytes_cap: Gauge,
    paused: Gauge,
    next: Gauge,
    ended: Gauge,
    committed: Gauge,
}

/// Names of the queues in the order of `Gauges::queues`.
const QUEUES: [&str; 2] = ["reader", "producer"];

/// How a command comes to its end, in the order of `Gauges::ended`.
const ENDS: [&str; 4] = ["delivered", "expired", "expired_in_doubt", "dead_lettered"];

impl Gauges {
    pub(super) fn new(metrics: &Metrics) -> Gauges {
        let counter = |name, help| metrics.counter(name, help, &[]);
        let gauge = |name, help| metrics.gauge(name, help, &[]);
        let restarts = |stage| {
            let help = "Times a stage of the way down was started again after a failure.";
            metrics.counter("dmp_downlink_stage_restarts_total", help, &[("stage", stage)])
        };
        let ends = "Commands that came to their end, by how.";
        Gauges {
            records: counter("dmp_downlink_records_total", "Records read from the commands' topic."),
            published: counter("dmp_downlink_published_total", "Commands published for the first time."),
            resent: counter("dmp_downlink_resent_total", "Commands published again on a new connection."),
            retried: counter("dmp_downlink_produce_retries_total", "Replies and dead letters produced again."),
            unacknowledged: counter(
                "dmp_downlink_unacknowledged_total",
                "Connections given up because the broker did not acknowledge in time.",
            ),
            pauses: counter("dmp_downlink_pauses_total", "Partitions paused for want of credit."),
            resumes: counter("dmp_downlink_resumes_total", "Partitions resumed."),
            commits: counter("dmp_downlink_commits_total", "Offset commits that Kafka took."),
            stale_commits: counter("dmp_downlink_commits_stale_total", "Offset commits refused: the group moved on."),
            failed_commits: counter("dmp_downlink_commits_failed_total", "Offset commits that failed."),
            assignments: counter("dmp_downlink_assignments_total", "Assignments of partitions."),
            revocations: counter("dmp_downlink_revocations_total", "Revocations of partitions."),
            losses: counter("dmp_downlink_losses_total", "Assignments lost without a drain."),
            connects: counter("dmp_downlink_connects_total", "Connections that the broker accepted."),
            disconnects: counter("dmp_downlink_disconnects_total", "Connections that ended or could not be made."),
            restarts: restarts("core"),
            reader_restarts: restarts("reader"),
            ended: ENDS.map(|end| metrics.counter("dmp_downlink_ended_total", ends, &[("end", end)])),
            delivery: metrics.latency(
                "dmp_downlink_delivery_seconds",
                "From reading a command to the broker's acknowledgement.",
                &[],
            ),
            waiting: gauge("dmp_downlink_waiting", "Commands that wait to be published."),
            waiting_cap: gauge("dmp_downlink_waiting_cap", "Bound of dmp_downlink_waiting: all partitions' credit."),
            window: gauge("dmp_downlink_window", "Publishes that the broker has not acknowledged."),
            window_cap: gauge("dmp_downlink_window_cap", "Bound of dmp_downlink_window."),
            producing: gauge("dmp_downlink_producing", "Replies and dead letters not yet stored."),
            producing_cap: gauge(
                "dmp_downlink_producing_cap",
                "Bound of dmp_downlink_producing: all partitions' credit.",
            ),
            connected: gauge("dmp_downlink_connected", "1 while the broker accepts the connection."),
            draining: gauge("dmp_downlink_draining", "1 while partitions are being drained."),
            queues: QUEUES.map(|queue| metrics.gauge("dmp_downlink_queue", "Depth of a queue.", &[("queue", queue)])),
            partitions: Arc::default(),
            metrics: metrics.clone(),
        }
    }

    pub(super) fn ended(&self, end: End, took: Option<Duration>) {
        let index = match end {
            End::Delivered => 0,
            End::Expired => 1,
            End::ExpiredInDoubt => 2,
            End::DeadLettered(reason) => {
                let help = "Records that are no commands, by reason.";
                self.metrics.counter("dmp_downlink_dead_lettered_total", help, &[("reason", reason)]).increment();
                3
            }
        };
        self.ended[index].increment();
        if let (End::Delivered, Some(took)) = (end, took) {
            self.delivery.record(took);
        }
    }

    pub(super) fn queue_caps(&self, reader: usize, producer: usize) {
        for (queue, cap) in QUEUES.into_iter().zip([reader, producer]) {
            self.metrics.gauge("dmp_downlink_queue_cap", "Bound of a queue.", &[("queue", queue)]).set_count(cap);
        }
    }

    pub(super) fn queues(&self, reader: usize, producer: usize) {
        for (gauge, depth) in self.queues.iter().zip([reader, producer]) {
            gauge.set_count(depth);
        }
    }

    pub(super) fn show(&self, core: &dmp_core::bridge::downlink::Gauges) {
        let credit: usize = core.partitions.iter().map(|partition| partition.buffered_cap).sum();
        self.waiting.set_count(core.waiting);
        self.waiting_cap.set_count(credit);
        self.window.set_count(core.window);
        self.window_cap.set_count(core.window_cap);
        self.producing.set_count(core.producing);
        self.producing_cap.set_count(credit);
        self.connected.set(core.connected.into());
        self.draining.set(core.draining.into());
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
        for gauge in [&series.assigned, &series.buffered, &series.buffered_bytes, &series.paused] {
            gauge.set(0);
        }
    }
}

impl PartitionSeries {
    fn new(metrics: &Metrics, partition: Partition) -> PartitionSeries {
        let partition = partition.to_string();
        let gauge = |name, help| metrics.gauge(name, help, &[("partition", &partition)]);
        PartitionSeries {
            assigned: gauge("dmp_downlink_partition_assigned", "1 while the partition is this member's."),
            buffered: gauge("dmp_downlink_buffered", "Records read and not yet behind the ended offset."),
            buffered_cap: gauge(
                "dmp_downlink_buffered_cap",
                "Bound of dmp_downlink_buffered, at which reading pauses.",
            ),
            buffered_bytes: gauge("dmp_downlink_buffered_bytes", "Bytes of those records."),
            buffered_bytes_cap: gauge("dmp_downlink_buffered_bytes_cap", "Bound of dmp_downlink_buffered_bytes."),
            paused: gauge("dmp_downlink_paused", "1 while the partition is paused."),
            next: gauge("dmp_downlink_offset_next", "The next offset to be read."),
            ended: gauge("dmp_downlink_offset_ended", "Everything below came to its end."),
            committed: gauge("dmp_downlink_offset_committed", "The newest committed offset."),
        }
    }

    fn show(&self, shown: &PartitionGauges) {
        self.assigned.set(1);
        self.buffered.set_count(shown.buffered);
        self.buffered_cap.set_count(shown.buffered_cap);
        self.buffered_bytes.set_count(shown.buffered_bytes);
        self.buffered_bytes_cap.set_count(shown.buffered_bytes_cap);
        self.paused.set(shown.paused.into());
        self.next.set(shown.next);
        self.ended.set(shown.ended);
        self.committed.set(shown.committed);
    }
}
