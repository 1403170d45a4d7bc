//! What can be done and seen on somebody's servers, judged before anything is begun.

use super::hooks::Hooked;
use crate::{
    check::Observable,
    fleet::Demand,
    run::Target,
    scenario::{FaultKind, Part, Scenario, Server, ServerFault, quantity::show_whole},
    target::{Deployment, Subject},
};

/// What a deployment shows beside its log, committed offsets and rows.
pub(super) fn shows(deployment: &Deployment) -> Observable {
    let bring = deployment.bring;
    Observable {
        // A proxy reads what passes, and TLS is there to prevent that.
        wire: bring.bridge && !deployment.mqtt.bridge_door.tls,
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
        FaultKind::Scale { part, .. } if !deployment.bring.has(part) => {
            let part = Subject::Part(part).key();
            Err(format!("it needs a {part} that is brought: [bring] {part} = true"))
        }
        FaultKind::WipeStore { .. } => Err("a store that is somebody's is never wiped".to_owned()),
        FaultKind::NewConsumer { .. } => Err("it needs a second store, and there is one".to_owned()),
        FaultKind::Kill { .. }
        | FaultKind::Pause { .. }
        | FaultKind::Scale { .. }
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
    if scenario.pipeline.baseline {
        return Err(format!("pipeline.baseline needs a store of its own, and {name} has one store"));
    }
    let switched = scenario.phases.iter().any(|phase| phase.repair != scenario.pipeline.repair);
    if switched && !deployment.bring.registry {
        return Err(format!("phases switch `repair`, a setting of registries that {name} does not let be brought"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn deployment(more: &str) -> Deployment {
        let text = "[mqtt]\nurl = \"mqtt://127.0.0.1:1883\"\n[kafka]\nbootstrap = \"127.0.0.1:9092\"\n\
                    [store]\nurl = \"postgres://reader@127.0.0.1/dmp\"\n";
        let read = Deployment::from_text("target.toml", &format!("{text}{more}"), Path::new(""), &|_| None);
        read.unwrap_or_else(|error| panic!("{error}"))
    }

    fn fault(text: &str) -> FaultKind {
        let text = format!("# Can it?\n[[phase]]\nname = \"load\"\nlasts = \"9s\"\n[[fault]]\nat = \"1s\"\n{text}\n");
        let scenario = Scenario::from_text("fault", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
        scenario.faults[0].kind.clone()
    }

    #[test]
    fn what_the_harness_does_not_start_is_broken_by_hooks_and_by_nothing_else() {
        for (text, begin, end) in [
            ("kill = { part = \"registry\", back_after = \"1s\" }", "registry.kill", "registry.start"),
            ("pause = { part = \"bridge\", lasts = \"1s\" }", "bridge.pause", "bridge.resume"),
            ("kill = { part = \"broker\", back_after = \"1s\" }", "broker.kill", "broker.start"),
            ("restart = { part = \"kafka\", back_after = \"1s\" }", "kafka.stop", "kafka.start"),
            ("pause = { part = \"store\", lasts = \"1s\" }", "store.pause", "store.resume"),
            ("cut_link = { to = \"kafka\", lasts = \"1s\" }", "kafka.cut_link", "kafka.mend_link"),
        ] {
            let fault = fault(text);
            let refused = can(&deployment(""), &fault).expect_err(text);
            assert!(refused.contains(&format!("no hooks.{begin}")), "{refused}");
            let hooks = format!("[hooks]\n{begin} = \"true\"\n{end} = \"true\"\n");
            assert_eq!(can(&deployment(&hooks), &fault), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_it_brings_it_breaks_itself_and_the_link_to_the_broker_where_it_can_read_it() {
        let both = "[bring]\nbridge = true\nregistry = true\n";
        for text in [
            "kill = { part = \"bridge\", back_after = \"1s\" }",
            "scale = { part = \"registry\", to = 2 }",
            "slow_store = { delay = \"1ms\", lasts = \"1s\" }",
            "cut_link = { lasts = \"1s\" }",
            "slow_link = { delay = \"1ms\", lasts = \"1s\" }",
        ] {
            let fault = fault(text);
            assert_eq!(can(&deployment(both), &fault), Ok(()), "{text}");
            assert_eq!(Hooked::of(&deployment(both), &fault), None, "{text}");
            assert!(can(&deployment(""), &fault).is_err(), "{text}");
        }
        let scale = fault("scale = { part = \"registry\", to = 2 }");
        let refused = can(&deployment("[bring]\nbridge = true\n"), &scale).expect_err("the registry is somebody's");
        assert!(refused.ends_with("[bring] registry = true"), "{refused}");
        let mut over_tls = deployment(both);
        over_tls.mqtt.bridge_door.tls = true;
        let slow = fault("slow_link = { delay = \"1ms\", lasts = \"1s\" }");
        assert!(can(&over_tls, &slow).expect_err("nobody reads it").contains("without TLS"));
        for text in [
            "full_disk = { part = \"broker\", lasts = \"1s\" }",
            "slow_link = { to = \"store\", delay = \"1ms\", lasts = \"1s\" }",
            "wipe_store = { back_after = \"1s\" }",
            "new_consumer = { from = \"latest\" }",
        ] {
            assert!(can(&deployment(both), &fault(text)).is_err(), "{text}");
        }
    }
}
