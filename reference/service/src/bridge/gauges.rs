//! Metrics of one shard group.

use crate::metrics::{Counter, Gauge, Latency, Metrics};

/// Handles on the series of one group.
#[derive(Clone)]
pub(super) struct Gauges {
    pub(super) messages: Counter,
    pub(super) forwarded: Counter,
    pub(super) ignored_retained: Counter,
    pub(super) dead_lettered: Counter,
    pub(super) retried: Counter,
    pub(super) orphaned: Counter,
    pub(super) connects: Counter,
    pub(super) disconnects: Counter,
    pub(super) restarts: Counter,
    pub(super) produce: Latency,
    window: Gauge,
    window_cap: Gauge,
    in_flight: Gauge,
    retrying: Gauge,
    paused: Gauge,
    connected: Gauge,
    pub(super) producer_queue: Gauge,
    pub(super) producer_queue_cap: Gauge,
}

impl Gauges {
    pub(super) fn new(metrics: &Metrics, group: u8) -> Gauges {
        let group = group.to_string();
        let labels = &[("group", group.as_str())];
        let counter = |name, help| metrics.counter(name, help, labels);
        let gauge = |name, help| metrics.gauge(name, help, labels);
        Gauges {
            messages: counter("dmp_bridge_messages_total", "Messages received."),
            forwarded: counter("dmp_bridge_forwarded_total", "Messages stored in Kafka and acknowledged."),
            ignored_retained: counter(
                "dmp_bridge_ignored_retained_total",
                "Retained messages outside status, ignored.",
            ),
            dead_lettered: counter("dmp_bridge_dead_lettered_total", "Messages that went to the dead-letter topic."),
            retried: counter("dmp_bridge_retries_total", "Records produced again."),
            orphaned: counter("dmp_bridge_orphaned_total", "Records stored after their connection had gone."),
            connects: counter("dmp_bridge_connects_total", "Connections that the broker accepted."),
            disconnects: counter("dmp_bridge_disconnects_total", "Connections that ended or could not be made."),
            restarts: counter("dmp_bridge_stage_restarts_total", "Times the group was started again after a panic."),
            produce: metrics.latency("dmp_bridge_produce_seconds", "From hand-over to Kafka to its answer.", labels),
            window: gauge("dmp_bridge_window", "Messages that wait for Kafka."),
            window_cap: gauge("dmp_bridge_window_cap", "Bound of dmp_bridge_window, at which reading pauses."),
            in_flight: gauge("dmp_bridge_in_flight", "Records handed to Kafka and not yet answered."),
            retrying: gauge("dmp_bridge_retrying", "Records that wait to be produced again."),
            paused: gauge("dmp_bridge_paused", "1 while reading is paused."),
            connected: gauge("dmp_bridge_connected", "1 while the broker accepts the connection."),
            producer_queue: gauge("dmp_bridge_producer_queue", "Records in front of the producer's buffer."),
            producer_queue_cap: gauge("dmp_bridge_producer_queue_cap", "Bound of dmp_bridge_producer_queue."),
        }
    }

    pub(super) fn show(&self, core: &dmp_core::bridge::Gauges) {
        let dmp_core::bridge::Gauges { window, window_cap, in_flight, retrying, paused, connected } = *core;
        self.window.set_count(window);
        self.window_cap.set_count(window_cap);
        self.in_flight.set_count(in_flight);
        self.retrying.set_count(retrying);
        self.paused.set(paused.into());
        self.connected.set(connected.into());
    }
}
