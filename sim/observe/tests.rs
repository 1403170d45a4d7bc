//! Figures held against histories whose figures are known.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{
    agent::SnapshotCause,
    event::{AttributeName, Body, CommandName, Event, StateEvent, Value},
    id::{Epoch, Seq, Session, Version},
    time::Wall,
};

use super::FiguresFold;
use crate::{
    fleet::plan::{DeviceIndex, Plan, RaeIndex},
    history::{Appended, Copy, Down, Entry, Gauge, Issued, PayloadHash, Process, Publish, Stage, What},
    scenario::{Addressee, Part, Scenario},
};

const TEXT: &str = r#"# What are the figures?
seed = 7
[fleet]
raes = 1
devices_per_rae = 1
update_every = "1s"
snapshot_every = "5s"
[[phase]]
name = "steady"
lasts = "10s"
[[fault]]
at = "steady + 1s"
cut_link = { lasts = "1s" }
"#;

const DEVICE: DeviceIndex = DeviceIndex(0);

struct Run {
    plan: Arc<Plan>,
    fold: FiguresFold,
}

impl Run {
    /// A run whose load begins at 2 s.
    fn new() -> Run {
        let scenario = Arc::new(Scenario::from_text("figures", TEXT, &[], None).expect("a valid scenario"));
        let plan = Arc::new(Plan::new(&scenario));
        let mut run = Run { fold: FiguresFold::new(scenario, plan.clone()), plan };
        run.enter(0, What::Phase { name: "warm-up".into(), stage: Stage::WarmUp });
        run.enter(1_000, What::Reflected { device: DEVICE, rev: 0 });
        run.enter(2_000, What::Phase { name: "steady".into(), stage: Stage::Load });
        run
    }

    fn enter(&mut self, at_ms: u64, what: What) {
        self.fold.observe(&Entry { at: Duration::from_millis(at_ms), what });
    }

    /// When a change is intended, in milliseconds on the run's clock.
    fn intended_ms(&self, change: usize) -> u64 {
        2_000 + u64::try_from(self.plan.devices[0].changes[change - 1].at.as_millis()).expect("small")
    }

    fn version(seq: u64) -> Version {
        let session = Session(uuid::Uuid::from_u128(1));
        Version { epoch: Epoch::FIRST, session, seq: Seq::try_from(seq).expect("in range") }
    }

    fn appended(&mut self, at_ms: u64, offset: i64, rev: i64, snapshot: bool) {
        let name = AttributeName::try_from("rev").expect("valid");
        let body = if snapshot {
            Body::Snapshot { attributes: BTreeMap::from([(name, (Value::Integer(rev), Seq::FIRST))]) }
        } else {
            Body::Delta { set: BTreeMap::from([(name, Value::Integer(rev))]), unset: Default::default() }
        };
        let rae = self.plan.raes[0].serial.clone();
        let device = self.plan.devices[0].id;
        let version = Run::version(offset as u64 + 2);
        let event = Event::State(StateEvent { rae, device, version, at: Wall::default(), body });
        self.enter(
            at_ms,
            What::Appended(Box::new(Appended {
                partition: 0,
                offset,
                key: "key".into(),
                payload: PayloadHash::of(b""),
                timestamp_ms: 0,
                retained: false,
                event: Some(Arc::new(event)),
                poison: None,
            })),
        );
    }
}

#[test]
fn latency_counts_from_the_intended_time_for_every_change_that_a_rev_covers() {
    let mut run = Run::new();
    let seen = run.intended_ms(2) + 100;
    let slowest = seen - run.intended_ms(1);
    run.enter(seen, What::Reflected { device: DEVICE, rev: 2 });
    let figures = run.fold.finish();
    let latency = figures.phases[1].latency_ms;
    assert_eq!(latency.count, 2);
    assert!((latency.max - slowest as f64).abs() <= slowest as f64 * 0.002 + 1.0, "{latency:?}, {slowest}");
    assert!((latency.p50 - 100.0).abs() <= 2.0 || slowest < 102, "{latency:?}");
}

#[test]
fn staleness_is_the_age_of_the_oldest_change_that_is_not_shown() {
    let mut run = Run::new();
    let first = run.intended_ms(1);
    run.enter(first + 3_000, What::Lateness(Duration::ZERO));
    let figures = run.fold.finish();
    let staleness = figures.phases[1].staleness_ms;
    assert!((2_700.0..=3_010.0).contains(&staleness.max), "{staleness:?}");
    assert_eq!(figures.series.last().map(|point| point.devices_behind), Some(1));
    assert_eq!(figures.phases[0].staleness_ms.max, 0.0);
}

#[test]
fn a_change_is_healed_by_what_brings_it_into_the_log_first() {
    let mut run = Run::new();
    let all = run.plan.devices[0].changes.len() as u64;
    run.appended(3_000, 0, 1, false);
    run.appended(4_000, 1, 3, true);
    run.appended(5_000, 2, 2, false);
    let healed = run.fold.finish().healed_by;
    assert_eq!((healed.own_update, healed.snapshot.count, healed.never), (1, 2, all - 3));
}

#[test]
fn a_missed_change_is_healed_when_the_store_reflects_what_filled_its_gap_and_not_by_a_later_update() {
    let mut run = Run::new();
    run.appended(3_000, 0, 2, false);
    run.appended(3_500, 1, 4, false);
    // Change 1 comes late, by its own update; change 3 with a snapshot that was asked for.
    run.appended(4_000, 2, 1, false);
    let publish = Publish { device: DEVICE, rae: RaeIndex(0), version: Run::version(5), snapshot: true };
    run.enter(4_400, What::Cause(publish, SnapshotCause::Requested));
    run.appended(4_500, 3, 4, true);
    let first = run.intended_ms(1);
    let third = run.intended_ms(3);
    let late = first.max(third) + 10_000;
    run.enter(late, What::Feed { partition: 0, next_offset: 3 });
    run.enter(late + 1_000, What::Feed { partition: 0, next_offset: 4 });
    let figures = run.fold.finish();
    let healed = figures.healed_by;
    assert_eq!((healed.own_update, healed.update.count, healed.requested_snapshot.count), (2, 1, 1));
    assert_eq!(healed.snapshot.count, 0);
    let about = |ms: f64, wanted: u64| (ms - wanted as f64).abs() <= wanted as f64 * 0.002 + 1.0;
    assert!(about(healed.update.after_ms.max, late - first), "{healed:?}");
    assert!(about(healed.requested_snapshot.after_ms.max, late + 1_000 - third), "{healed:?}");
    assert_eq!((figures.repaired_ms.count, figures.unrepaired_ms.count), (1, 0));
}

#[test]
fn a_round_trip_counts_from_the_time_a_command_was_due_until_its_first_reply_or_its_expiry() {
    let mut run = Run::new();
    let due = |ms| Duration::from_millis(ms);
    for (id, to) in [(1, Addressee::Living), (2, Addressee::Living), (3, Addressee::AbsentRae)] {
        let id = uuid::Uuid::from_u128(id);
        let (name, rae) = (CommandName::Probe, RaeIndex(0));
        let issued = Issued { id, due: due(3_000), expires: due(9_000), name, to, device: DEVICE, rae };
        run.enter(3_000, What::Down(Down::Issued(Box::new(issued))));
    }
    for at in [3_040, 3_500] {
        let (id, topic, payload) = (uuid::Uuid::from_u128(1), "reply".into(), PayloadHash::of(b""));
        run.enter(at, What::Down(Down::Replied { id, error: None, topic, payload }));
    }
    run.enter(5_000, What::Lateness(Duration::ZERO));
    let trips = run.fold.finish().phases[1].command_ms;
    assert_eq!(trips.count, 2);
    assert!((trips.p50 - 40.0).abs() < 1.0 && (trips.max - 2_000.0).abs() < 5.0, "{trips:?}");
}

#[test]
fn lag_is_given_in_records_twice_and_in_seconds() {
    let mut run = Run::new();
    for offset in 0..10 {
        run.appended(3_000 + offset as u64 * 100, offset, 0, false);
    }
    run.enter(4_000, What::Committed { partition: 0, offset: 4 });
    run.enter(4_000, What::Feed { partition: 0, next_offset: 9 });
    run.enter(4_000, What::End { partition: 0, offset: 10 });
    run.enter(5_000, What::Lateness(Duration::from_millis(7)));
    let snapshot = run.fold.snapshot();
    assert_eq!((snapshot.lag, snapshot.phase.as_str(), snapshot.stage), (6, "steady", Some(Stage::Load)));
    let figures = run.fold.finish();
    let point = figures.series.last().expect("five seconds have points");
    assert_eq!((point.lag_committed, point.lag_reflected), (6, 1));
    assert!((point.lag_committed_s - 1.6).abs() < 1e-9, "{point:?}");
    assert_eq!(figures.phases[1].lag_committed.max, 6.0);
    assert_eq!(figures.phases[1].appended, 10);
    assert_eq!(figures.lateness_ms_max, 7.0);
}

#[test]
fn rates_queues_memory_and_faults_are_kept() {
    let mut run = Run::new();
    let publish = Publish { device: DEVICE, rae: RaeIndex(0), version: Run::version(1), snapshot: true };
    for _ in 0..50 {
        run.enter(2_500, What::Sent(publish, Copy::First, PayloadHash::of(b"")));
    }
    run.enter(2_600, What::FaultBegan(0));
    let process = Process { part: Part::Registry, index: 1 };
    let gauge = |name: &str, value| Gauge { name: name.into(), value, cap: None };
    run.enter(2_700, What::Gauges(process, vec![gauge("buffered", 4), gauge("memory_bytes", 77)]));
    assert_eq!(run.fold.snapshot().faults, ["cut_link"]);
    run.enter(3_600, What::FaultEnded(0));
    let figures = run.fold.finish();
    let point = &figures.series[2];
    assert_eq!((point.at_s, point.published_per_s, point.queues["buffered"]), (3.0, 50.0, 4));
    assert_eq!(figures.memory_bytes["registry 1"], 77);
    let fault = &figures.faults[0];
    assert!(fault.what.contains("cut_link") && fault.began_s == 2.6 && fault.ended_s == Some(3.6), "{fault:?}");
}
