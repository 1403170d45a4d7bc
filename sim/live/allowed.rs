//! What can be done and seen on somebody's servers, judged before anything is begun.

use super::hooks::Hooked;
use crate::{
    check::Observable,
    fleet::Demand,
    run::Target,
    scenario::{FaultKind, Part, Scenario, Server, ServerFault, quantity::show_whole},
    target::Deployment,
};

/// What a deployment shows beside its log, committed offsets and rows.
pub(super) fn shows(deployment: &Deployment) -> Observable {
    let bring = deployment.bring;
    Observable {
        // A proxy reads what passes, and TLS is there to prevent that.
        wire: bring.bridge && !deployment.mqtt.tls,
        dead_letters: deployment.observe.dead_letters,
        gauges: bring.bridge || bring.registry,
        processes: bring.registry,
        // What others publish is left out where it is read.
        shared: false,
        settings: bring.registry && deployment.observe.commands,
        records: deployment.store.view.is_none(),
    }
}

/// Whether a fault can be done there.
///
/// # Errors
/// Why it cannot, and what would make it possible.
pub(super) fn can(deployment: &Deployment, fault: &FaultKind) -> Result<(), String> {
    if let Some(Hooked { begin, .. }) = Hooked::of(deployment, fault) {
        return match deployment.hooks.commands.contains_key(&begin) {
            true => Ok(()),
            false => Err(format!("the harness does not bring it, and there is no hooks.{}", begin.key())),
        };
    }
    match *fault {
        FaultKind::Server(ref fault) => of_a_server(deployment, fault),
        FaultKind::StageFailure { .. } | FaultKind::ThrottledStore { .. } | FaultKind::SlowStore { .. }
            if !deployment.bring.registry =>
        {
            Err("it needs a registry that is brought: [bring] registry = true".to_owned())
        }
        FaultKind::WipeStore { .. } => Err("a store that is somebody's is never wiped".to_owned()),
        FaultKind::NewConsumer { .. } => Err("it needs a second store, and there is one".to_owned()),
        FaultKind::Kill { .. }
        | FaultKind::Pause { .. }
        | FaultKind::StageFailure { .. }
        | FaultKind::ThrottledStore { .. }
        | FaultKind::SlowStore { .. }
        | FaultKind::MissedUpdates { .. }
        | FaultKind::Qos0Loss { .. }
        | FaultKind::Duplicates { .. }
        | FaultKind::DelayedTails { .. }
        | FaultKind::Poison { .. }
        | FaultKind::Reboot { .. }
        | FaultKind::Wipe { .. }
        | FaultKind::Gone { .. }
        | FaultKind::ClockStep { .. }
        | FaultKind::ClockDrift { .. }
        | FaultKind::Move { .. }
        | FaultKind::CommandLoss { .. }
        | FaultKind::CommandDuplicates { .. }
        | FaultKind::LateCommands { .. }
        | FaultKind::Flapping { .. }
        | FaultKind::Disconnect { .. } => Ok(()),
    }
}

/// What no hook does: only where the harness is on the wire to the broker it can be slow, or carry nothing.
fn of_a_server(deployment: &Deployment, fault: &ServerFault) -> Result<(), String> {
    match fault {
        ServerFault::FullDisk { .. } => Err("a disk that is somebody's is never filled".to_owned()),
        fault if fault.is_of_link() && fault.server() == Server::Broker => match shows(deployment).wire {
            true => Ok(()),
            false => Err("it needs a bridge that is brought, and a broker without TLS".to_owned()),
        },
        _ => Err("the harness is not on that way".to_owned()),
    }
}

/// Whether a fault kills or pauses what the harness brings.
pub(super) fn needs_a_process(target: &Target, fault: &FaultKind) -> bool {
    let brings = |part| match target {
        Target::Embedded | Target::Containers(_) => true,
        Target::Deployed(deployment) => deployment.bring.has(part),
    };
    match *fault {
        FaultKind::Kill { part, .. } | FaultKind::Pause { part, .. } => brings(part),
        FaultKind::WipeStore { .. } => brings(Part::Registry),
        _ => false,
    }
}

/// Whether a deployment allows a scenario, its faults apart.
///
/// # Errors
/// Why it does not.
pub(super) fn allows(deployment: &Deployment, scenario: &Scenario) -> Result<(), String> {
    let (planned, limits, name) = (Demand::of(scenario), deployment.limits, &deployment.name);
    let of = [
        ("messages a second", "max_messages_per_s", planned.messages_per_s, limits.max_messages_per_s),
        ("MQTT connections", "max_connections", planned.connections, limits.max_connections),
    ];
    for (what, key, planned, limit) in of {
        if let Some(limit) = limit.filter(|&limit| planned > limit) {
            let (planned, limit) = (show_whole(planned), show_whole(limit));
            return Err(format!("this run plans up to {planned} {what}, and limits.{key} of {name} allows {limit}"));
        }
    }
    if !deployment.observe.commands && !scenario.commands.is_empty() {
        return Err(format!("the scenario sends commands, and {name} says observe.commands = false"));
    }
    let switched = scenario.phases.iter().any(|phase| phase.repair != scenario.pipeline.repair);
    if switched && !deployment.bring.registry {
        return Err(format!("phases switch `repair`, a setting of registries that {name} does not let be brought"));
    }
    Ok(())
}
