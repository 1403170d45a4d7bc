//! What goes down: who is told, who is asked, how often, and when not at all.

use super::*;
use crate::event::{Command, CommandKind, Topic, kafka_topic};

const PERIOD: Duration = Duration::from_secs(30);
const GAP_WAIT: Duration = Duration::from_secs(2);
/// The wall clock when a test begins.
const START: i64 = 1_000_000_000;

fn feedback() -> Feedback {
    Feedback { gap_wait: GAP_WAIT, expires_after: Duration::from_secs(10), ..Feedback::with_period(PERIOD) }
}

fn bench(feedback: Option<Feedback>) -> Bench {
    let mut bench = Bench::new(Config { feedback, ..config() });
    bench.now.wall = Wall(START);
    bench.tell(Event::Assigned(G1, vec![(0, 0), (1, 0)]));
    bench
}

/// Lets time pass on both clocks, waking at each deadline; what is to be written and committed is.
fn pass(bench: &mut Bench, time: Duration) -> Vec<Effect> {
    let (until, wall) = (bench.now.mono + time, bench.now.wall.0 + i64::try_from(time.as_millis()).expect("short"));
    bench.now.wall = Wall(wall);
    let mut all = Vec::new();
    while bench.registry.deadline().is_some_and(|at| at <= until) {
        let mut effects = bench.wait();
        for write in writes_of(&effects) {
            effects.extend(bench.writes(&write, WriteOutcome::Committed { beaten: vec![] }));
        }
        for (id, ..) in commits(&effects) {
            bench.tell(Event::Committed(id, CommitOutcome::Committed));
        }
        all.extend(effects);
    }
    bench.now.mono = until;
    all
}

pub(super) fn snapshot(device: u128, seq: u64) -> StateEvent {
    StateEvent { body: Body::Snapshot { attributes: [].into() }, ..event(device, seq) }
}

fn received(bench: &Bench, offset: Offset, event: &StateEvent, age: Duration) -> Record {
    let timestamp = Wall(bench.now.wall.0 - i64::try_from(age.as_millis()).expect("short"));
    Record { timestamp, ..record(0, offset, event) }
}

/// A snapshot is read, written, and found to have lost to a session of epoch `by`.
fn loses(bench: &mut Bench, offset: Offset, event: &StateEvent, age: Duration, by: u64) -> Vec<Effect> {
    let record = received(bench, offset, event, age);
    bench.reads(record);
    let write = loop {
        let effects = bench.wait();
        if let [write] = writes_of(&effects).as_slice() {
            break write.clone();
        }
    };
    let by = Epoch::try_from(by).expect("an epoch");
    let beaten = vec![Beaten { device: event.device, session: event.version.session, by }];
    bench.writes(&write, WriteOutcome::Committed { beaten })
}

fn sent(effects: &[Effect]) -> Vec<(EffectId, OutgoingRecord)> {
    let command = |effect: &Effect| match effect {
        Effect::Command(id, record) => Some((*id, record.clone())),
        _ => None,
    };
    effects.iter().filter_map(command).collect()
}

fn kinds(effects: &[Effect]) -> Vec<CommandKind> {
    sent(effects).iter().map(|(_, record)| command_in(record).kind).collect()
}

fn command_in(record: &OutgoingRecord) -> Command {
    Command::decode(&record.value).expect("a command")
}

fn ends_of_gaps(effects: &[Effect]) -> Vec<GapEnd> {
    let end = |effect: &Effect| match effect {
        Effect::Fact(Fact::GapClosed { by, .. }) => Some(*by),
        _ => None,
    };
    effects.iter().filter_map(end).collect()
}

#[test]
fn a_session_whose_snapshot_lost_is_told_the_epoch_that_beat_it() {
    let mut bench = bench(Some(feedback()));
    let event = snapshot(7, 1);
    let effects = loses(&mut bench, 0, &event, Duration::ZERO, 9);
    let [(_, record)] = sent(&effects).try_into().expect("one command");
    let topic = Topic::Command(event.rae.clone(), event.version.session).to_string();
    assert_eq!((record.topic, &*record.key), (kafka_topic::COMMANDS, topic.as_bytes()));
    assert_eq!(record.headers, [("issuer", "dmp-registry".to_owned())]);
    let command = command_in(&record);
    let epoch = Epoch::try_from(9).expect("an epoch");
    assert_eq!(command.kind, CommandKind::Reonboard { device: event.device, epoch });
    assert_eq!(command.expires_at, Wall(bench.now.wall.0 + 10_000));
    let session = event.version.session;
    assert!(effects.contains(&Effect::Fact(Fact::NoticeSent { device: event.device, session, epoch })));
}

#[test]
fn without_feedback_nothing_is_ever_sent() {
    let mut bench = bench(None);
    assert_eq!(sent(&loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9)), []);
    let record = received(&bench, 1, &event(7, 5), Duration::ZERO);
    let effects = bench.reads(record);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Fact(Fact::GapOpened { .. }))), "it is seen");
    assert_eq!(sent(&pass(&mut bench, PERIOD)), []);
    assert_eq!(bench.registry.gauges().feedback, None);
}

#[test]
fn a_session_is_told_once_per_period_and_again_for_the_snapshot_after_that() {
    let mut bench = bench(Some(feedback()));
    assert_eq!(sent(&loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9)).len(), 1);
    pass(&mut bench, PERIOD / 2);
    assert_eq!(sent(&loses(&mut bench, 1, &snapshot(7, 2), Duration::ZERO, 9)).len(), 0, "in flight still");
    assert_eq!(sent(&loses(&mut bench, 2, &snapshot(8, 1), Duration::ZERO, 9)).len(), 1, "another session");
    pass(&mut bench, PERIOD * 2 / 5);
    assert_eq!(sent(&loses(&mut bench, 3, &snapshot(7, 3), Duration::ZERO, 9)).len(), 0, "the period is not over");
    pass(&mut bench, PERIOD / 10);
    assert_eq!(sent(&loses(&mut bench, 4, &snapshot(7, 4), Duration::ZERO, 9)).len(), 1);
}

#[test]
fn a_rebalance_does_not_repeat_what_was_told() {
    let mut bench = bench(Some(feedback()));
    let [(id, _)] = sent(&loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9)).try_into().expect("one");
    bench.tell(Event::Commanded(id, STORED));
    bench.tell(Event::Lost(G1));
    bench.tell(Event::Assigned(G1, vec![(0, 0)]));
    assert_eq!(sent(&loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9)), []);
}

#[test]
fn records_as_old_as_a_period_are_no_reason_to_tell_or_ask_and_one_from_the_future_counts_as_received_now() {
    for (age, told) in [(Duration::ZERO, 1), (PERIOD - Duration::from_millis(100), 1), (PERIOD, 0), (PERIOD * 1_000, 0)]
    {
        let mut bench = bench(Some(feedback()));
        assert_eq!(sent(&loses(&mut bench, 0, &snapshot(7, 1), age, 9)).len(), told, "{age:?}");
        let gap = received(&bench, 1, &event(7, 5), age);
        bench.reads(gap);
        let asked = kinds(&pass(&mut bench, PERIOD)).len();
        assert_eq!(asked, 0, "it lost: what it misses is nobody's concern");
        let opened = received(&bench, 2, &event(8, 1), age);
        bench.reads(opened);
        let gap = received(&bench, 3, &event(8, 5), age);
        bench.reads(gap);
        // The wall clock goes on while the gap waits.
        let asked = kinds(&pass(&mut bench, GAP_WAIT)).len();
        assert_eq!(asked, usize::from(age == Duration::ZERO), "{age:?}");
    }
    for (ahead, told) in [(5_000, 1), (40_000, 1), (i64::MAX - START, 1), (i64::MIN, 0)] {
        let mut bench = bench(Some(feedback()));
        let record = Record { timestamp: Wall(START.saturating_add(ahead)), ..record(0, 0, &snapshot(7, 1)) };
        bench.reads(record);
        let write = write_of(&bench.wait());
        let beaten =
            vec![Beaten { device: event(7, 1).device, session: event(7, 1).version.session, by: Epoch::FIRST }];
        assert_eq!(sent(&bench.writes(&write, WriteOutcome::Committed { beaten })).len(), told, "{ahead}");
    }
}

#[test]
fn a_gap_that_is_not_filled_in_time_makes_the_registry_ask_for_a_snapshot_once() {
    let mut bench = bench(Some(feedback()));
    for (offset, seq) in [(0, 3), (1, 4), (2, 7)] {
        let record = received(&bench, offset, &event(7, seq), Duration::ZERO);
        bench.reads(record);
    }
    assert_eq!(sent(&pass(&mut bench, GAP_WAIT - Duration::from_millis(1))), []);
    let effects = pass(&mut bench, Duration::from_millis(1));
    assert_eq!(kinds(&effects), [CommandKind::Snapshot]);
    assert!(effects.contains(&Effect::Fact(Fact::RepairRequested(event(7, 1).device, event(7, 1).version.session))));
    let more = received(&bench, 3, &event(7, 9), Duration::ZERO);
    bench.reads(more);
    assert_eq!(sent(&pass(&mut bench, GAP_WAIT * 2)), [], "once per session and period");
    let answer = received(&bench, 4, &snapshot(7, 10), Duration::ZERO);
    let effects = bench.reads(answer);
    assert_eq!(ends_of_gaps(&effects), [GapEnd::RequestedSnapshot, GapEnd::Snapshot]);
    assert_eq!(bench.partition(0).gaps, 0);
    assert_eq!(sent(&pass(&mut bench, PERIOD * 2)), []);
}

#[test]
fn a_gap_that_is_filled_or_covered_in_time_asks_for_nothing_and_the_first_record_is_the_baseline() {
    let mut bench = bench(Some(feedback()));
    let mut ends = Vec::new();
    for (offset, event) in [event(7, 50), event(7, 52), event(7, 51), event(7, 54), snapshot(7, 55)].iter().enumerate()
    {
        let record = received(&bench, Offset::try_from(offset).expect("small"), event, Duration::ZERO);
        ends.extend(ends_of_gaps(&bench.reads(record)));
    }
    assert_eq!(ends, [GapEnd::Update, GapEnd::Snapshot]);
    assert_eq!(sent(&pass(&mut bench, PERIOD)), []);
}

#[test]
fn passive_healing_alone_asks_for_nothing_and_tells_all_the_same() {
    let mut bench = bench(Some(Feedback { repair: false, ..feedback() }));
    for (offset, seq) in [(0, 1), (1, 4)] {
        let record = received(&bench, offset, &event(7, seq), Duration::ZERO);
        bench.reads(record);
    }
    assert_eq!(sent(&pass(&mut bench, PERIOD / 2)), []);
    let effects = loses(&mut bench, 2, &snapshot(7, 5), Duration::ZERO, 9);
    assert_eq!(kinds(&effects).len(), 1);
}

#[test]
fn gaps_are_forgotten_with_their_assignment() {
    let mut bench = bench(Some(feedback()));
    for (offset, seq) in [(0, 1), (1, 4)] {
        let record = received(&bench, offset, &event(7, seq), Duration::ZERO);
        bench.reads(record);
    }
    bench.tell(Event::Lost(G1));
    bench.tell(Event::Assigned(G2, vec![(0, 2)]));
    assert_eq!(sent(&pass(&mut bench, PERIOD)), []);
}

#[test]
fn requests_above_the_budget_wait_their_turn_and_those_above_the_queue_are_dropped() {
    let small = Feedback { requests_per_s: 2, waiting: 5, ..feedback() };
    let mut bench = bench(Some(small));
    let mut offset = 0;
    for device in 1..=10 {
        for seq in [1, 3] {
            let record = received(&bench, offset, &event(device, seq), Duration::ZERO);
            offset += 1;
            let effects = bench.reads(record);
            for write in writes_of(&effects) {
                bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
            }
        }
    }
    let effects = pass(&mut bench, GAP_WAIT);
    let dropped = |effect: &&Effect| matches!(effect, Effect::Fact(Fact::CommandDropped { why: Dropped::Full, .. }));
    assert_eq!((sent(&effects).len(), effects.iter().filter(dropped).count()), (2, 5), "ten, of which five wait");
    let gauges = bench.registry.gauges().feedback.expect("it is on");
    assert_eq!((gauges.requests, gauges.waiting_cap), (3, 5));
    let effects = pass(&mut bench, Duration::from_secs(1));
    assert_eq!(sent(&effects).len(), 2);
    let healed = received(&bench, 1_000, &snapshot(5, 4), Duration::ZERO);
    assert_eq!(ends_of_gaps(&bench.reads(healed)), [GapEnd::Snapshot], "its request was not sent yet");
    assert_eq!(sent(&pass(&mut bench, Duration::from_secs(5))), [], "and need not be");
}

#[test]
fn commands_under_way_are_bounded_and_a_failed_one_is_tried_until_it_expires() {
    let mut bench = bench(Some(Feedback { under_way: 1, ..feedback() }));
    let [(id, first)] = sent(&loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9)).try_into().expect("one");
    assert_eq!(sent(&loses(&mut bench, 1, &snapshot(8, 1), Duration::ZERO, 9)), [], "one at a time");
    let mut effects = bench.tell(Event::Commanded(id, ProduceOutcome::Failed { reason: String::new() }));
    let (mut tries, began) = (1, bench.now.mono);
    while !effects.iter().any(|effect| matches!(effect, Effect::Fact(Fact::CommandDropped { .. }))) {
        effects = pass(&mut bench, Duration::from_millis(50));
        if let [(id, again)] = sent(&effects).as_slice() {
            assert_eq!(*again, first, "the same command, with its id");
            effects = bench.tell(Event::Commanded(*id, ProduceOutcome::Unknown { reason: String::new() }));
            tries += 1;
        }
    }
    assert!(tries > 5 && bench.now.mono.since(began) <= Duration::from_secs(10), "{tries} tries");
    assert_eq!(sent(&effects).len(), 1, "then the next has its turn");
    bench.tell(Event::Commanded(sent(&effects)[0].0, STORED));
    let effects = loses(&mut bench, 2, &snapshot(7, 2), Duration::ZERO, 9);
    assert_eq!(kinds(&effects).len(), 1, "what was never sent is told with the next snapshot");
}

#[test]
fn memory_of_sessions_is_bounded_and_what_does_not_fit_is_dropped_with_a_fact() {
    let mut bench = bench(Some(Feedback { sessions: 2, ..feedback() }));
    let told: Vec<_> = (1..=4)
        .map(|device| {
            let offset = Offset::try_from(device).expect("small");
            sent(&loses(&mut bench, offset, &snapshot(device, 1), Duration::ZERO, 9)).len()
        })
        .collect();
    assert_eq!(told, [1, 1, 0, 0]);
    let gauges = bench.registry.gauges().feedback.expect("it is on");
    assert_eq!((gauges.sessions, gauges.sessions_cap), (2, 2));
    pass(&mut bench, PERIOD);
    assert_eq!(sent(&loses(&mut bench, 5, &snapshot(3, 2), Duration::ZERO, 9)).len(), 1);
}

#[test]
fn a_drain_does_not_wait_for_commands() {
    let mut bench = bench(Some(feedback()));
    loses(&mut bench, 0, &snapshot(7, 1), Duration::ZERO, 9);
    let effects = bench.tell(Event::Revoked(G1));
    let (id, ..) = commits(&effects)[0].clone();
    let effects = bench.tell(Event::Committed(id, CommitOutcome::Committed));
    assert_eq!(effects.last(), Some(&Effect::Drained(G1)));
    let unassigned =
        |effect: &Effect| matches!(effect, Effect::Fact(Fact::CommandDropped { why: Dropped::Unassigned, .. }));
    assert!(effects.iter().any(unassigned));
}
