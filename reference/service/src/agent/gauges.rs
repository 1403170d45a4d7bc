//! Metrics of the agent.

use std::time::Duration;

use dmp_core::{
    agent::{Fact, Published},
    event::CommandName,
};

use crate::metrics::{Counter, Gauge, Latency, Metrics};

/// What is published, as the label `kind` has it.
const KINDS: [&str; 4] = ["status", "delta", "snapshot", "reply"];

/// Handles on the series of an agent.
#[derive(Clone)]
pub(super) struct Gauges {
    recorded: [Counter; KINDS.len()],
    acknowledged: [Counter; KINDS.len()],
    shed: Counter,
    refused_reports: Counter,
    refused_devices: Counter,
    save_retries: Counter,
    commands: [Counter; 4],
    repeated_commands: Counter,
    refused_commands: Counter,
    forgotten: Counter,
    outbox: Gauge,
    pub(super) present: Gauge,
    pub(super) connects: Counter,
    pub(super) disconnects: Counter,
    pub(super) restarts: Counter,
    pub(super) save_restarts: Counter,
    save: Latency,
}

impl Gauges {
    pub(super) fn new(metrics: &Metrics, outbox_cap: usize) -> Gauges {
        let by_kind = |name, help| KINDS.map(|kind| metrics.counter(name, help, &[("kind", kind)]));
        let counter = |name, help| metrics.counter(name, help, &[]);
        let restarts = |stage| {
            let help = "Times a stage was started again after a failure.";
            metrics.counter("dmp_agent_stage_restarts_total", help, &[("stage", stage)])
        };
        metrics.gauge("dmp_agent_outbox_cap", "Bound of dmp_agent_outbox.", &[]).set_count(outbox_cap);
        Gauges {
            recorded: by_kind("dmp_agent_recorded_total", "Events numbered and saved."),
            acknowledged: by_kind("dmp_agent_acknowledged_total", "Events that the broker acknowledged."),
            shed: counter("dmp_agent_shed_total", "Events dropped from the full outbox."),
            refused_reports: counter("dmp_agent_refused_reports_total", "Reports or probes refused."),
            refused_devices: counter("dmp_agent_refused_devices_total", "Devices not taken: too many."),
            save_retries: counter("dmp_agent_save_retries_total", "Saves that failed, or may have."),
            commands: CommandName::ALL.map(|name| {
                let help = "Commands that were executed, well or in vain.";
                metrics.counter("dmp_agent_commands_total", help, &[("kind", name.as_str())])
            }),
            repeated_commands: counter("dmp_agent_repeated_commands_total", "Commands that came again."),
            refused_commands: counter("dmp_agent_refused_commands_total", "Commands that were not executed."),
            forgotten: counter("dmp_agent_forgotten_total", "Devices forgotten."),
            outbox: metrics.gauge("dmp_agent_outbox", "Events that wait, to within a tenth of the bound.", &[]),
            present: metrics.gauge("dmp_agent_devices_present", "Devices attached and heard.", &[]),
            connects: counter("dmp_agent_connects_total", "Connections that the broker accepted."),
            disconnects: counter("dmp_agent_disconnects_total", "Connections that ended or could not be made."),
            restarts: restarts("core"),
            save_restarts: restarts("records"),
            save: metrics.latency("dmp_agent_save_seconds", "Duration of a save, sync included.", &[]),
        }
    }

    pub(super) fn saved(&self, took: Duration) {
        self.save.record(took);
    }

    pub(super) fn tell(&self, fact: &Fact) {
        match fact {
            Fact::Recorded(of) => self.recorded[kind(of)].increment(),
            Fact::Acknowledged(of) => self.acknowledged[kind(of)].increment(),
            Fact::Shed(..) => self.shed.increment(),
            Fact::RefusedReport(_) => self.refused_reports.increment(),
            Fact::RefusedDevice(_) => self.refused_devices.increment(),
            Fact::SaveRetried => self.save_retries.increment(),
            Fact::TookCommand(..) => {}
            Fact::ExecutedCommand { name, .. } => self.commands[*name as usize].increment(),
            Fact::RepeatedCommand(_) => self.repeated_commands.increment(),
            Fact::RefusedCommand { .. } => self.refused_commands.increment(),
            Fact::Forgotten(_) => self.forgotten.increment(),
            Fact::Outbox(depth) => self.outbox.set_count(*depth),
        }
    }
}

fn kind(of: &Published) -> usize {
    match of {
        Published::Status => 0,
        Published::Delta(..) => 1,
        Published::Snapshot(..) => 2,
        Published::Reply(_) => 3,
    }
}
