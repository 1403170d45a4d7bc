//! Metrics of the agent.

use std::time::Duration;

use dmp_core::{
    agent::{Fact, MAX_UNDER_WAY, Published, SetOutcome},
    event::CommandName,
};

use super::adapter::SAVE_QUEUE;
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
    metrics: Metrics,
    taken_commands: [Counter; 4],
    executed_commands: [[Counter; 2]; 4],
    repeated_commands: Counter,
    unanswered_refusals: Counter,
    sets: [Counter; 3],
    set: Latency,
    pub(super) set_restarts: Counter,
    pub(super) changes: Gauge,
    pub(super) saves: Gauge,
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
        metrics.gauge("dmp_agent_saves_cap", "Bound of dmp_agent_saves.", &[]).set_count(SAVE_QUEUE);
        metrics.gauge("dmp_agent_changes_cap", "Bound of dmp_agent_changes.", &[]).set_count(MAX_UNDER_WAY);
        Gauges {
            recorded: by_kind("dmp_agent_recorded_total", "Events numbered and saved."),
            acknowledged: by_kind("dmp_agent_acknowledged_total", "Events that the broker acknowledged."),
            shed: counter("dmp_agent_shed_total", "Events dropped from the full outbox."),
            refused_reports: counter("dmp_agent_refused_reports_total", "Reports or probes refused."),
            refused_devices: counter("dmp_agent_refused_devices_total", "Devices not taken: too many."),
            save_retries: counter("dmp_agent_save_retries_total", "Saves that failed, or may have."),
            taken_commands: CommandName::ALL.map(|name| {
                let help = "Commands whose id is durable: executed from then on.";
                metrics.counter("dmp_agent_commands_taken_total", help, &[("kind", name.as_str())])
            }),
            executed_commands: CommandName::ALL.map(|name| {
                OUTCOMES.map(|outcome| {
                    let (help, labels) =
                        ("Commands that ended, by their reply.", [("kind", name.as_str()), ("outcome", outcome)]);
                    metrics.counter("dmp_agent_commands_total", help, &labels)
                })
            }),
            repeated_commands: counter("dmp_agent_repeated_commands_total", "Commands that came again."),
            unanswered_refusals: counter(
                "dmp_agent_unanswered_refusals_total",
                "Commands that were not executed and got no reply: no id, or no room.",
            ),
            sets: ["done", "refused", "unknown"].map(|outcome| {
                metrics.counter("dmp_agent_sets_total", "Changes asked of devices.", &[("outcome", outcome)])
            }),
            set: metrics.latency("dmp_agent_set_seconds", "From asking a device for a change to its answer.", &[]),
            set_restarts: restarts("sets"),
            changes: metrics.gauge("dmp_agent_changes", "Changes that wait for their devices.", &[]),
            saves: metrics.gauge("dmp_agent_saves", "Saves that wait for the disk.", &[]),
            metrics: metrics.clone(),
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

    pub(super) fn set_ended(&self, outcome: &SetOutcome, took: Duration) {
        let index = match outcome {
            SetOutcome::Done => 0,
            SetOutcome::Refused(_) => 1,
            SetOutcome::Unknown => 2,
        };
        self.sets[index].increment();
        self.set.record(took);
    }

    fn refused(&self, reason: &'static str, replied: bool) {
        let help = "Commands that were not executed, by reason.";
        self.metrics.counter("dmp_agent_refused_commands_total", help, &[("reason", reason)]).increment();
        if !replied {
            self.unanswered_refusals.increment();
        }
    }

    pub(super) fn tell(&self, fact: &Fact) {
        match fact {
            Fact::Recorded(of) => self.recorded[kind(of)].increment(),
            Fact::Acknowledged(of) => self.acknowledged[kind(of)].increment(),
            Fact::Shed(..) => self.shed.increment(),
            Fact::RefusedReport(_) => self.refused_reports.increment(),
            Fact::RefusedDevice(_) => self.refused_devices.increment(),
            Fact::SaveRetried => self.save_retries.increment(),
            Fact::TookCommand(_, name) => self.taken_commands[*name as usize].increment(),
            Fact::ExecutedCommand { name, ok, .. } => {
                self.executed_commands[*name as usize][usize::from(!*ok)].increment();
            }
            Fact::RepeatedCommand(_) => self.repeated_commands.increment(),
            Fact::RefusedCommand { reason, replied, .. } => self.refused(reason, *replied),
            Fact::Forgotten(_) => self.forgotten.increment(),
            Fact::Outbox(depth) => self.outbox.set_count(*depth),
        }
    }
}

/// How a command ended, as the label `outcome` has it.
const OUTCOMES: [&str; 2] = ["ok", "error"];

fn kind(of: &Published) -> usize {
    match of {
        Published::Status => 0,
        Published::Delta(..) => 1,
        Published::Snapshot(..) => 2,
        Published::Reply(_) => 3,
    }
}
