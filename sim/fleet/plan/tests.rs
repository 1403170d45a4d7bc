//! What the plan says is true of itself, the same for the same seed, and not shifted by another RAE.

use super::*;
use crate::scenario::Scenario;

const SCENARIO: &str = r#"# What is true?
seed = 11
[fleet]
raes = 6
devices_per_rae = 5
update_every = "2s"
unset_share = 0.3
reattach_every = "10s"
[[phase]]
name = "load"
lasts = "30s"
[[phase]]
name = "canary"
lasts = "5s"
canary = { clients = 4, over = "2s", messages = 3 }
"#;

fn plan() -> Plan {
    Plan::new(&Scenario::from_text("truth", SCENARIO, &[], None).expect("a correct scenario"))
}

fn all_changes(plan: &Plan) -> impl Iterator<Item = (DeviceIndex, ChangeNumber)> {
    (0..)
        .map(DeviceIndex)
        .zip(&plan.devices)
        .flat_map(|(index, device)| (0..=device.changes.len() as u32).map(move |number| (index, ChangeNumber(number))))
}

#[test]
fn every_value_leads_back_to_the_change_that_set_it() {
    let plan = plan();
    for (device, number) in all_changes(&plan) {
        for (name, value) in plan.record(device, number) {
            let index = ATTRIBUTES.iter().position(|&known| known == name.as_str()).expect("a known name");
            let (origin, present) = plan.origin(device, number, index);
            assert!(present);
            let source = plan.source(device, name.as_str(), &value, number).expect("it had this value");
            // Two changes may give the same boolean; then the later one is as true.
            assert!(source == origin || name.as_str() == "charging", "{name} {value}: {source:?}, {origin:?}");
        }
    }
}

#[test]
fn a_value_that_a_device_never_had_has_no_source() {
    let plan = plan();
    let (device, last) = (DeviceIndex(3), plan.change_at(DeviceIndex(3), Duration::from_secs(1_000)));
    assert_eq!(plan.source(device, "rev", &Value::Integer(1_000_000), last), None);
    assert_eq!(plan.source(device, "firmware", &Value::Text("7.2.999999".into()), last), None);
    assert_eq!(plan.source(device, "no_such_name", &Value::Bool(true), last), None);
}

#[test]
fn a_change_sets_rev_to_its_number_unless_it_unplugs() {
    let plan = plan();
    for (device, number) in all_changes(&plan).filter(|(_, number)| number.0 > 0) {
        let change = plan.devices[device.0 as usize].changes[number.0 as usize - 1];
        let rev = plan.record(device, number)["rev"].clone();
        assert_eq!(rev == Value::Integer(number.0.into()), change.kind != ChangeKind::Detach);
    }
}

#[test]
fn every_device_is_plugged_in_at_the_end_and_nothing_updates_while_it_is_not() {
    let plan = plan();
    for (index, device) in (0..).map(DeviceIndex).zip(&plan.devices) {
        let mut attached = true;
        for change in &device.changes {
            match change.kind {
                ChangeKind::Update { .. } => assert!(attached),
                ChangeKind::Detach => assert!(std::mem::replace(&mut attached, false)),
                ChangeKind::Attach => assert!(!std::mem::replace(&mut attached, true)),
            }
        }
        assert!(attached && plan.attached(index, ChangeNumber(device.changes.len() as u32)));
    }
}

/// Moves both ways among churn and flapping, RAEs that are gone, and clocks that are wrong.
const UPSET: &str = r#"# Who is where?
seed = 21
[fleet]
raes = 12
devices_per_rae = 5
update_every = "2s"
reattach_every = "10s"
clock_offset = "2h"
[[phase]]
name = "load"
lasts = "40s"
[[fault]]
at = "2s"
move = { share = 0.4, over = "10s" }
[[fault]]
at = "4s"
flapping = { share = 0.3, every = "1s", lasts = "10s" }
[[fault]]
at = "8s"
clock_step = { share = 0.5, by = "-3h", lasts = "10s" }
[[fault]]
at = "10s"
clock_drift = { share = 0.5, rate = 60, lasts = "10s" }
[[fault]]
at = "15s"
move = { share = 0.3, over = "6s", old = "down", back_after = "4s" }
[[fault]]
at = "20s"
gone = { share = 0.25 }
"#;

fn upset_with(raes: u32) -> (Scenario, Plan) {
    let text = UPSET.replace("raes = 12", &format!("raes = {raes}"));
    let scenario = Scenario::from_text("upset", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
    let plan = Plan::new(&scenario);
    (scenario, plan)
}

/// The last change of a device.
fn last(device: &DevicePlan) -> ChangeNumber {
    ChangeNumber(device.changes.len() as u32)
}

#[test]
fn a_device_moves_by_being_unplugged_where_it_is_and_plugged_in_elsewhere_and_counts_on() {
    let (_, plan) = upset_with(12);
    let mut moved = 0;
    for device in &plan.devices {
        let mut home = device.rae;
        for Move { change, to, .. } in &device.moves {
            moved += 1;
            let before = ChangeNumber(change.0 - 1);
            assert_eq!(device.changes[before.0 as usize].kind, ChangeKind::Attach);
            assert!(!device.attached(before) && device.attached(*change));
            assert_eq!((device.home(before), device.home(*change)), (home, *to));
            assert_ne!(home, *to);
            home = *to;
        }
        assert_eq!(device.home(last(device)), home);
        assert!(device.changes.is_sorted_by_key(|change| change.at));
        assert!(device.lost_from.is_some() || device.attached(last(device)));
    }
    assert!(moved > 20, "{moved}");
}

#[test]
fn a_rae_knows_every_device_that_is_ever_on_it_once() {
    let (_, plan) = upset_with(12);
    for (index, rae) in (0..).map(RaeIndex).zip(&plan.raes) {
        let ever: Vec<_> = rae.ever().collect();
        let mut once = ever.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), ever.len());
        for (number, device) in (0..).map(DeviceIndex).zip(&plan.devices) {
            let on = device.rae == index || device.moves.iter().any(|moved| moved.to == index);
            assert_eq!(on, ever.contains(&number));
        }
    }
}

#[test]
fn nobody_moves_to_a_rae_that_will_be_gone_or_that_the_same_fault_takes_down() {
    let (scenario, plan) = upset_with(12);
    for moved in plan.devices.iter().flat_map(|device| &device.moves) {
        assert_eq!(plan.raes[moved.to.0 as usize].gone_at, None);
    }
    let down = |rae: RaeIndex| hits(scenario.seed, 4, rae.0.into(), 0.3);
    let carried = plan.devices.iter().flat_map(|device| {
        let late = |moved: &&Move| device.changes[moved.change.0 as usize - 1].at > Duration::from_secs(15);
        device.moves.iter().filter(late).map(|moved| (device.home(ChangeNumber(moved.change.0 - 1)), moved.to))
    });
    let carried: Vec<_> = carried.collect();
    assert!(carried.len() > 5, "{}", carried.len());
    assert!(carried.iter().all(|&(from, to)| down(from) && !down(to)), "{carried:?}");
}

#[test]
fn from_a_rae_that_is_isolated_the_same_devices_are_carried_away_at_the_same_times_as_from_one_that_is_down() {
    let text = UPSET.replace("old = \"down\"", "old = \"isolated\"");
    let isolated = Scenario::from_text("upset", &text, &[], None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(isolated.faults[4].kind.powers_off(), None);
    let (down, plan) = upset_with(12);
    assert_eq!(down.faults[4].kind.powers_off(), Some(0.3));
    for (device, other) in plan.devices.iter().zip(&Plan::new(&isolated).devices) {
        assert_eq!((&device.changes, &device.moves), (&other.changes, &other.moves));
    }
}

#[test]
fn a_device_of_a_rae_that_is_gone_stays_as_it_was() {
    let (_, plan) = upset_with(12);
    let mut lost = 0;
    for device in &plan.devices {
        assert_eq!(device.lost_from, plan.raes[device.home(last(device)).0 as usize].gone_at);
        let Some(from) = device.lost_from else { continue };
        lost += 1;
        assert!(device.changes.iter().all(|change| change.at < from));
    }
    assert!(lost > 3, "{lost}");
}

#[test]
fn another_rae_takes_only_those_moves_that_are_drawn_to_it_and_shifts_no_clock() {
    let ((_, plan), (_, more)) = (upset_with(12), upset_with(13));
    let added = RaeIndex(12);
    let mut drawn = 0;
    for (device, other) in plan.devices.iter().zip(&more.devices) {
        if other.moves.iter().any(|moved| moved.to == added) {
            drawn += 1;
        } else {
            assert_eq!((&device.changes, &device.moves), (&other.changes, &other.moves));
        }
    }
    assert!((1..30).contains(&drawn), "{drawn}");
    for (rae, other) in plan.raes.iter().zip(&more.raes).take(12) {
        assert_eq!(rae.clock, other.clock);
    }
    assert_eq!(format!("{plan:?}"), format!("{:?}", upset_with(12).1), "the same seed, the same plan");
}

#[test]
fn a_clock_is_wrong_by_its_offset_and_by_the_steps_and_drifts_that_hit_it() {
    let (scenario, plan) = upset_with(12);
    let hours = |clock: &RaeClock, at: u64| clock.ahead(Some(Duration::from_secs(at))).millis() as f64 / 3.6e6;
    let mut seen = std::collections::BTreeSet::new();
    for (number, rae) in (0..).zip(&plan.raes) {
        let offset = rae.clock.ahead(None).millis() as f64 / 3.6e6;
        assert!(offset.abs() <= 2.0);
        let steps = if hits(scenario.seed, 2, number, 0.5) { -3.0 } else { 0.0 };
        let drifts = if hits(scenario.seed, 3, number, 0.5) { 1.0 } else { 0.0 };
        let close = |at, wanted: f64| assert!((hours(&rae.clock, at) - wanted).abs() < 1e-5, "{at} s: {wanted}");
        close(7, offset);
        close(9, offset + steps);
        close(15, offset + steps + drifts * 5.0 * 60.0 / 3600.0);
        // The step was taken back; what a drift has gained stays.
        close(30, offset + drifts * 10.0 * 60.0 / 3600.0);
        seen.insert((steps as i64, drifts as i64));
    }
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn payloads_come_out_at_about_the_size_asked_for() {
    let plan = plan();
    let record = plan.record(DeviceIndex(0), ChangeNumber(0));
    let bytes: usize = record.iter().map(|(name, value)| name.as_str().len() + value.to_string().len() + 8).sum();
    assert!((600..1_100).contains(&bytes), "{bytes}");
}

#[test]
fn another_rae_does_not_shift_the_changes_of_the_others() {
    let more = SCENARIO.replace("raes = 6", "raes = 7");
    let more = Plan::new(&Scenario::from_text("truth", &more, &[], None).expect("a correct scenario"));
    for (device, other) in plan().devices.iter().zip(&more.devices).take(30) {
        assert_eq!(device.changes, other.changes);
    }
}
