//! A group member as registry and downlink see it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmp_core::{
    bridge::ProduceOutcome,
    consume::{CommitOutcome, Offset, Partition},
    core::EffectId,
};
use dmp_service::{config::Start, kafka::Event};
use tokio::time::timeout;

use super::{Member, answer, producer, record};
use crate::kafka::{Bench, PARTITIONS, PATIENCE};

pub(crate) async fn a_commit_while_giving_partitions_away_is_where_the_next_owner_starts(bench: &Bench) {
    bench.produce(400).await;
    let mut first = Member::join(bench, &bench.kafka(), "first");
    let (generation, starts) = first.assigned().await;
    assert_eq!(starts, (0..PARTITIONS).map(|partition| (partition, 0)).collect());
    assert_eq!(first.commit(generation, &[(0, 3)]).await, CommitOutcome::Committed);

    let mut second = Member::join(bench, &bench.kafka(), "second");
    assert_eq!(first.revoked().await, generation);
    let drained: Vec<(Partition, Offset)> =
        (0..PARTITIONS).map(|partition| (partition, 5 + i64::from(partition))).collect();
    assert_eq!(first.commit(generation, &drained).await, CommitOutcome::Committed);
    first.consumer.drained(generation);

    let (newer, mut starts) = first.assigned_of(2).await;
    starts.extend(second.assigned_of(2).await.1);
    assert_eq!(starts, drained.into_iter().collect(), "each starts at what was committed");
    assert_eq!(first.commit(generation, &[(0, 99)]).await, CommitOutcome::Stale, "of a generation that is over");
    assert!(newer > generation);
    assert_eq!(bench.inspector().committed(bench.topic).await.expect("the broker answers")[&0], 5);

    // A member that leaves hands over to the one that stays.
    timeout(PATIENCE, second.consumer.stop()).await.expect("it leaves");
    let (_, starts) = first.assigned_of(4).await;
    assert_eq!(starts.len(), 4);
}

pub(crate) async fn a_member_that_is_not_polled_is_expelled_and_its_late_commit_is_stale(bench: &Bench) {
    late_commit(bench, true).await;
}

pub(crate) async fn a_member_that_is_not_polled_while_others_join_has_a_stale_commit(bench: &Bench) {
    late_commit(bench, false).await;
}

/// A member sleeps beyond its interval: until it is expelled by its own silence, or in the middle of a round in which it
/// was asked for its partitions.
async fn late_commit(bench: &Bench, alone: bool) {
    let mut kafka = bench.kafka();
    // Heartbeats come from librdkafka's own thread: it is the interval between polls that ends this member.
    kafka.max_poll_interval = kafka.session_timeout;
    let asleep = Arc::new(AtomicBool::new(false));
    let sleeps = asleep.clone();
    let mut zombie = Member::join_with(bench, &kafka, "zombie", Start::Earliest, move || {
        while sleeps.load(Ordering::Relaxed) {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        false
    });
    let (generation, _) = zombie.assigned().await;
    assert_eq!(zombie.commit(generation, &[(0, 1)]).await, CommitOutcome::Committed);
    asleep.store(true, Ordering::Relaxed);
    if alone {
        bench.wait_until_empty().await;
    }

    let mut heir = Member::join(bench, &bench.kafka(), "heir");
    let (inherited, starts) = heir.assigned_of(4).await;
    assert_eq!(starts[&0], 1);
    assert_eq!(heir.commit(inherited, &[(0, 9)]).await, CommitOutcome::Committed);

    // The commit waits for the thread to wake up, and must not be let through by it.
    zombie.consumer.commit(EffectId(1), generation, vec![(0, 5)]);
    asleep.store(false, Ordering::Relaxed);
    let (mut given_up, mut outcome) = (false, None);
    while !(given_up && outcome.is_some()) {
        match zombie.next().await {
            Event::Lost(gone) => given_up = gone == generation,
            Event::Revoked(gone) if !alone => {
                zombie.consumer.drained(gone);
                given_up = true;
            }
            Event::Committed(EffectId(1), told) => outcome = Some(told),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcome, Some(CommitOutcome::Stale), "alone: {alone}");
    assert_eq!(bench.inspector().committed(bench.topic).await.expect("the broker answers")[&0], 9);
}

pub(crate) async fn pausing_and_resuming_again_and_again_keeps_order_and_loses_nothing(bench: &Bench) {
    bench.produce(4_000).await;
    let mut left = bench.inspector().end_offsets(bench.topic).await.expect("the broker answers");
    let mut member = Member::join(bench, &bench.kafka(), "member");
    let (generation, _) = member.assigned().await;
    let mut next: BTreeMap<Partition, Offset> = BTreeMap::new();
    let (mut paused, mut pauses): (Option<(Partition, u32)>, u32) = (None, 0);
    for _ in 0..4_000 {
        let record = member.record().await;
        let expected = next.entry(record.partition).or_insert(0);
        assert_eq!(record.offset, *expected, "partition {}", record.partition);
        *expected += 1;
        *left.get_mut(&record.partition).expect("a partition of the topic") -= 1;
        // What came of a paused partition may still be in the channel; others must have enough to go on without it.
        let others = left.iter().filter(|(partition, _)| **partition != record.partition).map(|(_, left)| left);
        paused = match paused {
            None if others.sum::<Offset>() > 60 => {
                member.consumer.pause(generation, record.partition);
                pauses += 1;
                Some((record.partition, 50))
            }
            None => None,
            Some((partition, 0)) => {
                member.consumer.resume(generation, partition);
                None
            }
            Some((partition, count)) => Some((partition, count - 1)),
        };
    }
    assert!(pauses > 40, "{pauses}");
    assert_eq!(next.values().sum::<i64>(), 4_000);
}

pub(crate) async fn a_lag_read_while_records_flow_is_never_negative(bench: &Bench) {
    let inspector = bench.inspector();
    let (producer, mut answers) = producer(bench, &bench.kafka());
    let mut member = Member::join(bench, &bench.kafka(), "member");
    let (generation, _) = member.assigned().await;
    let mut next: BTreeMap<Partition, Offset> = BTreeMap::new();
    for round in 0..20 {
        for number in round * 20..(round + 1) * 20 {
            producer.produce(EffectId(number), record(bench, number)).expect("the queue has room");
        }
        for _ in 0..20 {
            assert!(matches!(answer(&mut answers).await.1, ProduceOutcome::Stored { .. }));
            let record = member.record().await;
            next.insert(record.partition, record.offset + 1);
        }
        member.consumer.commit(EffectId(round), generation, next.clone().into_iter().collect());
        let committed = inspector.committed(bench.topic).await.expect("the broker answers");
        let ends = inspector.end_offsets(bench.topic).await.expect("the broker answers");
        for (partition, offset) in &committed {
            assert!(offset <= &ends[partition], "partition {partition}: {offset} of {}", ends[partition]);
        }
        assert!(matches!(member.next().await, Event::Committed(id, CommitOutcome::Committed) if id.0 == round));
        assert_eq!(inspector.committed(bench.topic).await.expect("the broker answers"), next, "no lag is left");
    }
}

pub(crate) async fn a_consumer_ends_in_any_state(bench: &Bench) {
    bench.produce(1_000).await;
    // With its channel full, with partitions paused, with a revoked generation that nobody drains, and without a broker.
    for state in 0..4 {
        let mut member = Member::join(bench, &bench.kafka(), "member");
        let (generation, _) = member.assigned().await;
        let mut other = None;
        match state {
            0 => drop(member.record().await),
            1 => (0..PARTITIONS).for_each(|partition| member.consumer.pause(generation, partition)),
            2 => {
                other = Some(Member::join(bench, &bench.kafka(), "other"));
                member.revoked().await;
            }
            _ => bench.link().cut(&bench.named("member")),
        }
        let Member { consumer, events } = member;
        timeout(PATIENCE, consumer.stop()).await.expect("it ends");
        drop(events);
        if let Some(mut other) = other {
            other.assigned_of(4).await;
            timeout(PATIENCE, other.consumer.stop()).await.expect("it ends");
        }
    }
    let member = Member::join(bench, &bench.kafka(), "member");
    bench.link().refuse(&bench.named("member"));
    timeout(PATIENCE, member.consumer.stop()).await.expect("it ends without a broker");
}

pub(crate) async fn what_retention_has_deleted_is_skipped_and_reading_goes_on_at_the_oldest_record(bench: &Bench) {
    bench.produce(400).await;
    let mut member = Member::join(bench, &bench.kafka(), "member");
    let (generation, _) = member.assigned().await;
    assert_eq!(member.commit(generation, &[(0, 3)]).await, CommitOutcome::Committed);
    timeout(PATIENCE, member.consumer.stop()).await.expect("it leaves");
    assert_eq!(bench.delete_before(0, 10).await, rdkafka::Offset::Offset(10));

    let mut member = Member::join(bench, &bench.kafka(), "member");
    let (_, starts) = member.assigned().await;
    assert_eq!(starts[&0], 3, "what is committed is not moved by what is deleted");
    let first = loop {
        let record = member.record().await;
        if record.partition == 0 {
            break record.offset;
        }
    };
    assert_eq!(first, 10, "neither stuck, nor at the end");
    let marks = bench.inspector().watermarks(bench.topic).await.expect("the broker answers");
    assert_eq!(marks[&0].0, 10);
}

pub(crate) async fn a_group_that_starts_at_the_latest_offset_starts_where_that_was_the_first_time(bench: &Bench) {
    bench.produce(30).await;
    let ends = bench.inspector().end_offsets(bench.topic).await.expect("the broker answers");
    let latest = || Member::join_with(bench, &bench.kafka(), "member", Start::Latest, || false);
    let mut member = latest();
    assert_eq!(member.assigned().await.1, ends, "nothing older is read");
    // It ends before it commits anything itself, and records come before its successor is there.
    timeout(PATIENCE, member.consumer.stop()).await.expect("it leaves");
    bench.produce(20).await;
    let mut member = latest();
    assert_eq!(member.assigned().await.1, ends, "nothing newer is skipped");
    for _ in 0..20 {
        member.record().await;
    }
}
