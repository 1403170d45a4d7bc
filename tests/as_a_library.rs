//! What a test of a user's own looks like: a scenario in code, a run, and what it must show.

mod common;

use std::{net::TcpStream, time::Duration};

use fleetproof::{
    Trial,
    check::verdict::{CheckId, Outcome},
    live::Pipeline,
    run::Target,
    scenario::Scenario,
};

#[test]
fn a_small_burst_is_reflected_although_the_registry_is_killed() -> Result<(), Box<dyn std::error::Error>> {
    let scenario = Scenario::asking("Is a small burst reflected, with the registry killed?")
        .set("fleet.raes", 10)
        .set("fleet.snapshot_every", "2s")
        .phase("burst", "6s", 4.0)
        .fault("burst + 1s", "kill = { part = 'registry', back_after = '1s' }")
        .build()?;
    let outcome = Trial::of(scenario).binary(env!("CARGO_BIN_EXE_fleetproof")).run()?;
    assert!(outcome.passed(), "{outcome}");
    assert!(matches!(outcome.check(CheckId::C5).outcome, Outcome::Pass));
    assert!(outcome.figures.converged_after_s.is_some_and(|after| after < 20.0));
    Ok(())
}

#[test]
fn without_the_binary_bridge_and_registry_are_part_of_the_test_and_only_killing_them_is_refused() {
    let asking = |fault: &str| {
        let scenario = Scenario::asking("Does it run within a test?").set("fleet.raes", 5);
        let scenario = scenario.set("fleet.snapshot_every", "2s").phase("load", "4s", 2.0).fault("load + 1s", fault);
        Trial::of(scenario.build().unwrap_or_else(|error| panic!("{error}"))).run()
    };
    let outcome = asking("slow_store = { delay = '5ms', lasts = '1s' }").expect("it can be carried out");
    assert!(outcome.passed(), "{outcome}");
    let refused = asking("kill = { part = 'registry', back_after = '1s' }").expect_err("a part of this process");
    assert!(refused.to_string().contains("give the binary's path"), "{refused}");
}

#[tokio::test]
async fn a_pipeline_alone_is_there_for_a_tests_own_clients_and_gone_with_its_value() {
    let scenario = Scenario::asking("What is to be started?").phase("none", "1s", 0.0).build();
    let scenario = scenario.unwrap_or_else(|error| panic!("{error}"));
    let pipeline = Pipeline::start(&Target::Embedded, &scenario, None, true).await.expect("it starts");
    let endpoints = pipeline.endpoints().clone();
    let broker = endpoints.mqtt.trim_start_matches("mqtt://");
    for address in [broker, &endpoints.kafka] {
        assert!(TcpStream::connect(address).is_ok(), "{address}");
    }
    assert_eq!(endpoints.metrics.len(), 2, "a bridge and a registry: {:?}", endpoints.metrics);
    drop(pipeline);
    // Not at once: a child that another test starts holds every socket until it has become its program.
    common::eventually("the broker is gone", Duration::from_secs(5), || TcpStream::connect(broker).is_err());
}

#[test]
fn the_readme_shows_the_first_test_as_it_is() {
    let test = include_str!("as_a_library.rs").split("\n\n").find(|part| part.starts_with("#[test]"));
    let test = test.expect("there is one");
    assert!(test.lines().count() < 15, "{test}");
    assert!(include_str!("../README.md").contains(test), "README.md shows another");
}
