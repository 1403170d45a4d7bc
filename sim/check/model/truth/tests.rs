//! When rows count as right: of devices that move, and of those whose RAE is gone.

use std::sync::Arc;

use dmp_core::id::{Epoch, Seq, Session, Version};

use super::*;
use crate::{
    check::model::Mark,
    fleet::plan::RaeIndex,
    history::{Appended, PayloadHash, Publish},
    scenario::Scenario,
};

const TEXT: &str = r#"# Where is it?
seed = 5
[fleet]
raes = 6
devices_per_rae = 3
update_every = "2s"
[[phase]]
name = "load"
lasts = "20s"
[[fault]]
at = "2s"
move = { share = 0.5, over = "4s" }
[[fault]]
at = "10s"
gone = { share = 0.5 }
"#;

fn plan() -> Plan {
    Plan::new(&Scenario::from_text("truth", TEXT, &[], None).unwrap_or_else(|error| panic!("{error}")))
}

fn version(seq: u64) -> Version {
    let session = Session(uuid::Uuid::from_u128(7));
    Version { epoch: Epoch::FIRST, session, seq: Seq::try_from(seq).expect("in range") }
}

/// Rows that show the device as it was after `change`, under `rae`.
fn rows(plan: &Plan, device: DeviceIndex, change: ChangeNumber, rae: RaeIndex) -> Rows {
    let mut rows = Rows::new(plan.devices.len(), true);
    for (name, value) in plan.shown(device, change) {
        let source = match name.as_str() {
            CONNECTION => Source::Connection,
            known => Source::Change(plan.source(device, known, &value, change).expect("it has this value")),
        };
        rows.row(device, &name, version(1), Digest::of(&value), source, Duration::ZERO);
    }
    rows.floor(device, version(1), Some(rae), Duration::ZERO);
    rows
}

/// A ledger in which the device has told its changes up to `told`, and has dropped an event after that if `dropped`.
fn ledger(plan: &Plan, device: DeviceIndex, told: ChangeNumber, dropped: bool) -> Ledger {
    let mut ledger = Ledger::new(plan.devices.len());
    let publish = |seq| Publish { device, rae: RaeIndex(0), version: version(seq), snapshot: seq == 1 };
    let payload = PayloadHash { crc: 0, bytes: 0 };
    let (key, event, at) = (Arc::from("topic"), None, Duration::ZERO);
    let (retained, poison) = (false, None);
    let record = Appended { partition: 0, offset: 0, key, payload, timestamp_ms: 0, retained, event, poison };
    ledger.recorded(&publish(1), at);
    ledger.appended(device, version(1), &record, Some(told.0), at);
    if dropped {
        ledger.recorded(&publish(2), at);
        ledger.mark(&publish(2), Mark::Withheld, at);
    }
    ledger
}

#[test]
fn a_device_that_has_moved_is_right_under_its_new_rae_alone() {
    let plan = plan();
    let moves = |device: &crate::fleet::plan::DevicePlan| !device.moves.is_empty() && device.lost_from.is_none();
    let device = DeviceIndex(plan.devices.iter().position(moves).expect("some move") as u32);
    let planned = &plan.devices[device.0 as usize];
    let change = planned.moves[0].change;
    let at = Some(plan.intended(device, change));
    let ledger = Ledger::new(plan.devices.len());
    let under = |rae| difference(&plan, &rows(&plan, device, change, rae), &ledger, &Commands::default(), device, at);
    assert_eq!(under(planned.moves[0].to), None);
    assert_eq!(under(planned.rae), Some(Difference::Rae));
    // Unplugged, it still is where it was.
    let before = ChangeNumber(change.0 - 1);
    let at = Some(plan.intended(device, before));
    let detached = rows(&plan, device, before, planned.rae);
    assert_eq!(difference(&plan, &detached, &ledger, &Commands::default(), device, at), None);
    assert!(
        difference(&plan, &rows(&plan, device, change, planned.moves[0].to), &ledger, &Commands::default(), device, at)
            .is_some()
    );
}

#[test]
fn a_device_whose_rae_is_gone_is_right_as_it_was_at_any_moment_since_it_last_told() {
    let plan = plan();
    let lost = |device: &crate::fleet::plan::DevicePlan| device.lost_from.is_some() && device.changes.len() >= 4;
    let device = DeviceIndex(plan.devices.iter().position(lost).expect("some are lost") as u32);
    let last = plan.devices[device.0 as usize].changes.len() as u32;
    let gone = plan.devices[device.0 as usize].lost_from.expect("chosen so");
    let judged = |shown: u32, told: u32, dropped: bool, at: Duration| {
        let shown = ChangeNumber(shown);
        let rows = rows(&plan, device, shown, plan.home(device, shown));
        difference(
            &plan,
            &rows,
            &ledger(&plan, device, ChangeNumber(told), dropped),
            &Commands::default(),
            device,
            Some(at),
        )
    };
    let before = gone - Duration::from_nanos(1);
    assert_eq!(judged(last, last, false, gone), None);
    assert_eq!(judged(last - 1, last - 1, false, gone), None, "its last change may have died with the RAE");
    assert_eq!(judged(last, last - 1, false, gone), None, "or not");
    assert!(judged(last - 1, last, false, gone).is_some(), "it had told more");
    assert!(judged(last - 1, last - 1, false, before).is_some(), "its RAE was there");
    assert_eq!(judged(last - 1, last, true, gone), None, "what was dropped is healed by no snapshot any more");
}
