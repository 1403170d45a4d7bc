//! The downlink on its own: every claim of its header as a test, then random histories.

mod random;

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::{
    agent::Backoff,
    bridge::OutgoingRecord,
    event::{Command, CommandKind, MAX_PAYLOAD_BYTES, Reply, ReplyOutcome, Topic},
    id::{Rae, Session},
};

const C1: ConnectionId = ConnectionId(1);
const C2: ConnectionId = ConnectionId(2);
const G1: Generation = Generation(1);
const STORED: ProduceOutcome = ProduceOutcome::Stored { partition: 0, offset: 0 };
const COMMIT_EVERY: Duration = Duration::from_secs(1);
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
const START: Wall = Wall(1_000_000);
/// How long commands live unless a test says otherwise.
const LIFE: i64 = 100_000;

fn config(window: u16) -> Config {
    Config {
        window,
        partition_credit: 6,
        acknowledged_within: Duration::from_secs(30),
        commit_records: 1_000,
        commit_every: COMMIT_EVERY,
        drain_within: DRAIN_WITHIN,
        backoff: Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) },
    }
}

fn topic(session: u128) -> Topic {
    Topic::Command(Rae::try_from("RAE-1").expect("a serial"), Session(Uuid::from_u128(session)))
}

/// The command number `offset` of a partition to a session, which expires `life` ms after the start.
fn command(partition: Partition, offset: Offset, session: u128, life: i64) -> Record {
    let id = Uuid::from_u64_pair(partition.unsigned_abs().into(), offset.unsigned_abs());
    let command = Command { id, expires_at: Wall(START.0 + life), kind: CommandKind::Snapshot };
    Record {
        partition,
        offset,
        timestamp: START,
        key: Some(topic(session).to_string().into()),
        value: Some(command.encode().into()),
        retained: false,
    }
}

fn failed() -> ProduceOutcome {
    ProduceOutcome::Failed { reason: "queue is full".to_owned() }
}

/// A downlink under hand control.
struct Bench {
    downlink: Downlink,
    now: Now,
}

impl Bench {
    fn new(config: Config) -> Bench {
        Bench { downlink: Downlink::new(config, 7), now: Now { mono: Mono(0), wall: START } }
    }

    /// Connected, with partitions 0 and 1 of generation 1, from offset 0.
    fn ready(window: u16) -> Bench {
        let mut bench = Bench::new(config(window));
        assert_eq!(bench.tell(Event::Start), [Effect::Connect(C1)]);
        bench.tell(Event::Connected(C1));
        bench.tell(Event::Assigned(G1, vec![(0, 0), (1, 0)]));
        bench
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.downlink.handle(self.now, event, &mut effects);
        effects
    }

    fn reads(&mut self, record: Record) -> Vec<Effect> {
        self.tell(Event::Record(G1, record))
    }

    /// Lets time pass until the deadline, on both clocks.
    fn wait(&mut self) -> Vec<Effect> {
        let at = self.downlink.deadline().expect("something waits");
        self.pass(at.since(self.now.mono))
    }

    fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let ms = |mono: Mono| i64::try_from(mono.0 / 1_000_000).expect("short");
        let before = ms(self.now.mono);
        self.now.mono = self.now.mono + time;
        self.now.wall.0 += ms(self.now.mono) - before;
        let mut effects = Vec::new();
        self.downlink.wake(self.now, &mut effects);
        effects
    }

    fn commit_due(&mut self) -> Vec<(Partition, Offset)> {
        loop {
            if let Some(offsets) = commit_of(&self.wait()) {
                return offsets;
            }
        }
    }
}

/// Packet id, DUP and topic of every publish.
fn publishes(effects: &[Effect]) -> Vec<(u16, bool, String)> {
    let publish = |effect: &Effect| match effect {
        Effect::Publish { packet, dup, message, .. } => Some((packet.0, *dup, message.topic.to_string())),
        _ => None,
    };
    effects.iter().filter_map(publish).collect()
}

fn produced(effects: &[Effect]) -> (EffectId, OutgoingRecord) {
    let produce = |effect: &Effect| match effect {
        Effect::Produce(id, record) => Some((*id, record.clone())),
        _ => None,
    };
    match effects.iter().filter_map(produce).collect::<Vec<_>>().as_slice() {
        [one] => one.clone(),
        other => panic!("expected one produce, got {other:?}"),
    }
}

fn commit_of(effects: &[Effect]) -> Option<Vec<(Partition, Offset)>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Commit(_, _, offsets) => Some(offsets.clone()),
        _ => None,
    })
}

fn ends(effects: &[Effect]) -> Vec<(Offset, End)> {
    let end = |effect: &Effect| match effect {
        Effect::Fact(Fact::Ended(_, offset, end)) => Some((*offset, *end)),
        _ => None,
    };
    effects.iter().filter_map(end).collect()
}

fn headers(record: &OutgoingRecord) -> BTreeMap<&str, &str> {
    record.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn a_record_becomes_one_publish_with_its_value_untouched_and_is_committed_after_the_acknowledgement() {
    let mut bench = Bench::ready(10);
    let record = command(0, 0, 1, LIFE);
    let effects = bench.reads(record.clone());
    let Effect::Publish { connection: C1, packet, dup: false, message } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!((&*message.topic, &message.payload), (topic(1).to_string().as_str(), record.value.as_ref().unwrap()));
    assert_eq!((message.qos, message.retain), (Qos::AtLeastOnce, false));
    assert_eq!(bench.downlink.deadline(), Some(Mono(0) + Duration::from_secs(30)), "nothing to commit");
    assert_eq!(ends(&bench.tell(Event::Acknowledged(C1, *packet))), [(0, End::Delivered)]);
    assert_eq!(bench.commit_due(), [(0, 1)]);
    assert_eq!(bench.now.mono, Mono(0) + COMMIT_EVERY);
}

#[test]
fn an_offset_is_not_committed_over_one_that_waits() {
    let mut bench = Bench::ready(10);
    let first = publishes(&bench.reads(command(0, 0, 1, LIFE)))[0].0;
    let second = publishes(&bench.reads(command(0, 1, 2, LIFE)))[0].0;
    bench.tell(Event::Acknowledged(C1, PacketId(second)));
    assert_eq!(commit_of(&bench.pass(COMMIT_EVERY * 2)), None);
    assert_eq!(commit_of(&bench.tell(Event::Acknowledged(C1, PacketId(first)))), Some(vec![(0, 2)]));
}

#[test]
fn a_full_window_holds_the_rest_back_in_order() {
    let mut bench = Bench::ready(2);
    let sent: Vec<_> = (0..4).map(|offset| publishes(&bench.reads(command(0, offset, 1, LIFE)))).collect();
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 0, 0]);
    let next = bench.tell(Event::Acknowledged(C1, PacketId(sent[0][0].0)));
    assert_eq!(next.last(), Some(&Effect::Fact(Fact::Published(0, 2))));
    assert_eq!(bench.downlink.gauges().window, 2);
}

#[test]
fn what_is_unacknowledged_is_sent_again_in_order_with_dup_before_anything_new() {
    let mut bench = Bench::ready(2);
    for offset in 0..3 {
        bench.reads(command(0, offset, offset.unsigned_abs().into(), LIFE));
    }
    bench.tell(Event::Disconnected(C1));
    assert_eq!(bench.tell(Event::Acknowledged(C1, PacketId(1))), [], "of a connection that is gone");
    assert_eq!(bench.wait(), [Effect::Connect(C2)]);
    let again = publishes(&bench.tell(Event::Connected(C2)));
    assert_eq!(again, [(1, true, topic(0).to_string()), (2, true, topic(1).to_string())]);
    let effects = bench.tell(Event::Acknowledged(C2, PacketId(1)));
    assert_eq!(publishes(&effects), [(3, false, topic(2).to_string())]);
}

#[test]
fn an_expired_command_is_not_published_and_its_issuer_is_told() {
    let mut bench = Bench::ready(10);
    let effects = bench.reads(command(0, 0, 1, 0));
    assert_eq!(publishes(&effects), []);
    let (id, reply) = produced(&effects);
    let Topic::Command(rae, session) = topic(1) else { unreachable!() };
    assert_eq!((reply.topic, &*reply.key), ("dmp.replies", Topic::Reply(rae, session).to_string().as_bytes()));
    let said: Reply = Reply::decode(&reply.value).expect("a reply");
    assert_eq!(said, Reply { id: Uuid::from_u64_pair(0, 0), outcome: ReplyOutcome::Error(EXPIRED.to_owned()) });
    assert_eq!(bench.tell(Event::Produced(id, failed())), []);
    let (id, again) = produced(&bench.wait());
    assert_eq!(again, reply);
    assert_eq!(ends(&bench.tell(Event::Produced(id, STORED))), [(0, End::Expired)]);
    assert_eq!(bench.commit_due(), [(0, 1)]);
}

#[test]
fn commands_expire_on_time_while_the_broker_is_away_and_are_not_kept() {
    let mut bench = Bench::ready(10);
    bench.tell(Event::Disconnected(C1));
    for offset in 0..4 {
        bench.reads(command(0, offset, 1, 1_000 * (offset + 1)));
    }
    let mut expired = Vec::new();
    while expired.len() < 4 {
        let effects = bench.wait();
        if let Some(Effect::Connect(connection)) = effects.first() {
            bench.tell(Event::Disconnected(*connection));
        } else if commit_of(&effects).is_none() {
            let (id, _) = produced(&effects);
            expired.push((bench.now.wall.0 - START.0, ends(&bench.tell(Event::Produced(id, STORED)))[0].0));
        }
    }
    assert_eq!(expired, [(1_000, 0), (2_000, 1), (3_000, 2), (4_000, 3)]);
    assert_eq!(bench.downlink.gauges().waiting, 0);
}

#[test]
fn a_wall_clock_that_is_set_back_lets_commands_live_longer_and_never_spins() {
    let mut bench = Bench::ready(10);
    bench.tell(Event::Disconnected(C1));
    bench.tell(Event::Connected(C1));
    bench.reads(command(0, 0, 1, 60));
    bench.now.wall.0 -= 5_000;
    while bench.now.mono < Mono(0) + Duration::from_millis(60) {
        assert!(bench.wait().iter().all(|effect| matches!(effect, Effect::Connect(_))));
    }
    assert!(bench.downlink.deadline() > Some(bench.now.mono));
    assert_eq!(bench.downlink.gauges().waiting, 1);
}

#[test]
fn one_that_expired_unacknowledged_is_not_sent_again_and_its_issuer_is_told_of_the_doubt() {
    let mut bench = Bench::ready(10);
    bench.reads(command(0, 0, 1, 1_000));
    bench.reads(command(0, 1, 2, LIFE));
    bench.tell(Event::Disconnected(C1));
    bench.pass(Duration::from_secs(2));
    let effects = bench.tell(Event::Connected(C2));
    assert_eq!(publishes(&effects), [(2, true, topic(2).to_string())]);
    let (id, reply) = produced(&effects);
    let said: Reply = Reply::decode(&reply.value).expect("a reply");
    assert_eq!(said.outcome, ReplyOutcome::Error(EXPIRED_IN_DOUBT.to_owned()));
    assert_eq!(ends(&bench.tell(Event::Produced(id, STORED))), [(0, End::ExpiredInDoubt)]);
}

#[test]
fn what_is_no_command_goes_to_the_dead_letters_with_its_source_and_its_neighbours_are_published() {
    let good = |offset| command(0, offset, 1, LIFE);
    let keyed = |offset, key: &str| Record { key: Some(key.to_owned().into()), ..good(offset) };
    let valued = |offset, value: &str| Record { value: Some(value.to_owned().into()), ..good(offset) };
    let ided = |rest: &str| format!(r#"{{"id":"00000000-0000-0000-0000-000000000001",{rest}}}"#);
    let malformed = [
        (Record { key: None, ..good(0) }, "key"),
        (Record { key: Some(Bytes::from_static(b"\xff")), ..good(0) }, "key"),
        (keyed(0, "dmp/v1/s00"), "topic"),
        (keyed(0, &topic(1).to_string().replace("cmd", "state")), "direction"),
        (keyed(0, &topic(1).to_string().replace("cmd", "cmd/x")), "topic"),
        (Record { value: None, ..good(0) }, "json"),
        (valued(0, "{"), "json"),
        (valued(0, "[]"), "not-an-object"),
        (valued(0, r#"{"v":1,"id":1,"expires_at":"2030-01-01T00:00:00Z","kind":"snapshot"}"#), "id"),
        (valued(0, r#"{"v":1,"expires_at":"2030-01-01T00:00:00Z","kind":"snapshot"}"#), "no-id"),
        (valued(0, &ided(r#""v":2,"expires_at":"2030-01-01T00:00:00Z","kind":"snapshot""#)), "wire-version"),
        (valued(0, &ided(r#""v":1,"expires_at":5,"kind":"snapshot""#)), "expires-at"),
        (valued(0, &ided(r#""v":1,"expires_at":"2030-01-01T00:00:00Z","kind":"explode""#)), "kind"),
        (Record { value: Some(vec![b' '; MAX_PAYLOAD_BYTES + 1].into()), ..good(0) }, "oversized"),
        (Record { retained: true, ..good(0) }, "retained"),
    ];
    for (record, reason) in malformed {
        let mut bench = Bench::ready(10);
        let effects = bench.reads(record);
        assert_eq!(publishes(&effects), [], "{reason}");
        let (id, letter) = produced(&effects);
        let found = headers(&letter);
        assert_eq!((letter.topic, found["reason"]), ("dmp.dead-letter", reason), "{}", found["detail"]);
        let source = (found["source-topic"], found["source-partition"], found["source-offset"]);
        assert_eq!(source, ("dmp.commands", "0", "0"));
        let neighbour = publishes(&bench.reads(good(1)))[0].0;
        bench.tell(Event::Acknowledged(C1, PacketId(neighbour)));
        assert_eq!(ends(&bench.tell(Event::Produced(id, STORED))), [(0, End::DeadLettered(reason))]);
        assert_eq!(bench.commit_due(), [(0, 2)]);
    }
}

#[test]
fn a_partition_is_paused_at_its_credit_and_resumed_at_half_of_it() {
    let mut bench = Bench::ready(10);
    let effects: Vec<_> = (0..6).map(|offset| bench.reads(command(0, offset, 1, LIFE))).collect();
    assert!(effects[5].contains(&Effect::Pause(G1, 0)));
    let late = bench.reads(command(0, 6, 1, LIFE));
    assert_eq!(publishes(&late).len(), 1, "what had been fetched already is taken");
    let resumed: Vec<_> = (1..=7)
        .map(|packet| bench.tell(Event::Acknowledged(C1, PacketId(packet))).contains(&Effect::Resume(G1, 0)))
        .collect();
    assert_eq!(resumed, [false, false, false, true, false, false, false]);
}

#[test]
fn a_broker_that_falls_silent_is_given_up() {
    let mut bench = Bench::ready(10);
    bench.reads(command(0, 0, 1, LIFE));
    let effects = bench.pass(Duration::from_secs(30));
    assert_eq!(effects, [Effect::Fact(Fact::Unacknowledged), Effect::Disconnect(C1)]);
    bench.tell(Event::Disconnected(C1));
    assert_eq!(bench.wait(), [Effect::Connect(C2)]);
    assert_eq!(publishes(&bench.tell(Event::Connected(C2))).len(), 1);
}

#[test]
fn a_revocation_waits_for_what_is_published_and_leaves_the_rest_to_the_next_owner() {
    let mut bench = Bench::ready(1);
    bench.reads(command(0, 0, 1, LIFE));
    bench.reads(command(0, 1, 1, LIFE));
    assert_eq!(bench.tell(Event::Revoked(G1)), []);
    let effects = bench.tell(Event::Acknowledged(C1, PacketId(1)));
    assert_eq!((publishes(&effects), commit_of(&effects)), (vec![], Some(vec![(0, 1)])));
    let Some(Effect::Commit(id, ..)) = effects.last() else { panic!("{effects:?}") };
    let effects = bench.tell(Event::Committed(*id, CommitOutcome::Committed));
    assert_eq!(effects, [Effect::Fact(Fact::Committed(0, 1)), Effect::Drained(G1)]);
}

#[test]
fn a_revocation_ends_at_its_bound_and_at_once_without_a_connection() {
    let mut bench = Bench::ready(1);
    bench.reads(command(0, 0, 1, LIFE));
    bench.tell(Event::Revoked(G1));
    assert_eq!(bench.wait(), [Effect::Drained(G1)]);
    assert_eq!(bench.now.mono, Mono(0) + DRAIN_WITHIN);
    let mut bench = Bench::ready(1);
    bench.reads(command(0, 0, 1, LIFE));
    bench.tell(Event::Disconnected(C1));
    assert_eq!(bench.tell(Event::Revoked(G1)), [Effect::Drained(G1)]);
    bench.wait();
    assert_eq!(publishes(&bench.tell(Event::Connected(C2))), [], "it is no longer ours");
}

#[test]
fn a_lost_assignment_is_forgotten_but_its_packet_ids_are_not_reused_on_the_connection() {
    let mut bench = Bench::ready(2);
    bench.reads(command(0, 0, 1, LIFE));
    bench.tell(Event::Lost(G1));
    bench.tell(Event::Assigned(Generation(2), vec![(0, 0)]));
    let effects = bench.tell(Event::Record(Generation(2), command(0, 0, 1, LIFE)));
    assert_eq!(publishes(&effects)[0].0, 2);
    assert_eq!(ends(&bench.tell(Event::Acknowledged(C1, PacketId(1)))), [], "of the former assignment");
    assert_eq!(ends(&bench.tell(Event::Acknowledged(C1, PacketId(2)))), [(0, End::Delivered)]);
}

#[test]
fn a_stop_waits_for_the_acknowledgement_commits_and_disconnects() {
    let mut bench = Bench::ready(10);
    bench.reads(command(0, 0, 1, LIFE));
    bench.tell(Event::Stop { within: Duration::from_secs(3) });
    let effects = bench.tell(Event::Acknowledged(C1, PacketId(1)));
    let Some(Effect::Commit(id, ..)) = effects.last() else { panic!("{effects:?}") };
    let effects = bench.tell(Event::Committed(*id, CommitOutcome::Committed));
    assert_eq!(effects[1..], [Effect::Disconnect(C1), Effect::Stopped]);
    assert_eq!(bench.downlink.deadline(), None);
    let mut bench = Bench::ready(10);
    bench.reads(command(0, 0, 1, LIFE));
    bench.tell(Event::Stop { within: Duration::from_secs(3) });
    assert_eq!(bench.wait(), [Effect::Disconnect(C1), Effect::Stopped], "at its bound");
    assert_eq!(bench.now.mono, Mono(0) + Duration::from_secs(3));
    assert_eq!(Bench::new(config(1)).tell(Event::Stop { within: DRAIN_WITHIN }), [Effect::Stopped]);
}
