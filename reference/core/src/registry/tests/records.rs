//! From record to row or dead letter: batches, retries, quarantine, classes, back-pressure.

use super::{feedback::snapshot, *};

#[test]
fn a_batch_is_written_when_its_first_record_is_old_enough() {
    let mut bench = Bench::assigned(config());
    assert!(writes_of(&bench.reads(good(0, 0))).is_empty());
    bench.now.mono = Mono(0) + BATCH_WAIT / 2;
    assert!(writes_of(&bench.reads(good(0, 1))).is_empty());
    let (_, partition, rows) = write_of(&bench.wait());
    assert_eq!(bench.now.mono, Mono(0) + BATCH_WAIT);
    assert_eq!((partition, rows.devices.len(), rows.len()), (0, 1, 1), "merged per device");
    let feed = rows.feed.expect("a feed");
    assert_eq!((feed.partition, feed.next_offset, feed.received), (0, 2, Wall(1_001)));
}

#[test]
fn a_batch_is_written_when_it_has_enough_rows() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..4).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    assert_eq!(write_of(&effects).2.len(), 4);
}

#[test]
fn a_batch_is_closed_by_its_bytes_however_few_its_rows() {
    let mut bench = Bench::assigned(Config { batch_rows: 1_000, partition_credit: 1_000, ..config() });
    let mut effects = Vec::new();
    for offset in 0..20 {
        let mut event = event(7, u64::try_from(offset).expect("small") + 1);
        let text = Value::Text("x".repeat(250 * 1024).into());
        event.body = Body::Delta { set: [("blob".try_into().expect("a name"), text)].into(), unset: [].into() };
        effects.extend(bench.reads(record(0, offset, &event)));
    }
    assert_eq!(next_offset(&write_of(&effects).2), 17);
}

#[test]
fn one_write_per_partition_is_in_flight_and_a_slow_one_blocks_no_other_partition() {
    let mut bench = Bench::assigned(config());
    let mut effects: Vec<_> = (0..12).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    let slow = write_of(&effects);
    for offset in 0..12 {
        effects = bench.reads(wide(1, offset));
        while let [write] = writes_of(&effects).as_slice() {
            assert_eq!(write.1, 1);
            effects = bench.writes(write, WriteOutcome::Committed { beaten: vec![] });
        }
    }
    assert_eq!((bench.partition(0).durable, bench.partition(1).durable), (0, 12));
    let second = write_of(&bench.writes(&slow, WriteOutcome::Committed { beaten: vec![] }));
    assert_eq!((next_offset(&slow.2), next_offset(&second.2)), (4, 8), "in order");
}

#[test]
fn an_aborted_or_ambiguous_write_is_repeated_with_the_same_rows_after_a_back_off() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    let first = write_of(&bench.wait());
    bench.reads(good(0, 1));
    assert_eq!(bench.writes(&first, aborted()), []);
    let effects = bench.wait();
    assert_eq!(effects[0], Effect::Fact(Fact::RetriedWrite(0)));
    let second = write_of(&effects);
    assert!(bench.now.mono >= Mono(0) + BATCH_WAIT + Duration::from_millis(50));
    assert_eq!(bench.writes(&second, WriteOutcome::Ambiguous { reason: "connection lost".to_owned() }), []);
    let third = write_of(&bench.wait());
    assert!(Arc::ptr_eq(&first.2, &second.2) && Arc::ptr_eq(&first.2, &third.2), "not copied");
    assert_eq!(bench.partition(0).durable, 0);
    let effects = bench.writes(&third, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(reflected(&effects), [(0, Class::Applied)]);
    assert_eq!((bench.partition(0).durable, next_offset(&write_of(&effects).2)), (1, 2));
}

#[test]
fn the_one_record_that_the_store_refuses_is_found_and_quarantined_and_its_neighbours_are_written() {
    let mut bench = Bench::assigned(Config { batch_rows: 100, ..config() });
    (0..8).for_each(|offset| drop(bench.reads(wide(0, offset))));
    let bad = Device(uuid::Uuid::from_u128(6));
    let (mut effects, mut done, mut letters) = (bench.wait(), Vec::new(), Vec::new());
    let mut tries = 0;
    while let [write] = writes_of(&effects).as_slice() {
        tries += 1;
        let outcome =
            if write.2.devices.contains_key(&bad) { refused() } else { WriteOutcome::Committed { beaten: vec![] } };
        effects = bench.writes(write, outcome);
        done.extend(reflected(&effects).into_iter().map(|(offset, _)| offset));
        if effects.iter().any(|effect| matches!(effect, Effect::Quarantine(..))) {
            letters.push(letter_of(&effects));
        }
    }
    assert_eq!(done, [0, 1, 2, 3, 4, 6, 7]);
    assert!(tries <= 8, "{tries} writes for 8 records");
    let [letter] = letters.try_into().expect("one letter");
    let headers: BTreeMap<_, _> = letter.1.headers.iter().cloned().collect();
    assert_eq!((headers["reason"].as_str(), headers["detail"].as_str()), ("store", "22021"));
    assert_eq!((headers["source-partition"].as_str(), headers["source-offset"].as_str()), ("0", "5"));
    assert_eq!(bench.partition(0).durable, 5, "not past a record that is nowhere");
    let effects = bench.quarantines(&letter, STORED);
    assert!(effects.contains(&Effect::Fact(Fact::Quarantined { partition: 0, offset: 5, reason: "store" })));
    assert_eq!(bench.partition(0).durable, 8);
}

#[test]
fn the_feed_is_written_also_where_the_last_record_was_refused_or_poison() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    let write = write_of(&bench.wait());
    let feed_alone = write_of(&bench.writes(&write, refused()));
    assert_eq!((feed_alone.2.len(), next_offset(&feed_alone.2)), (0, 1));
    bench.writes(&feed_alone, WriteOutcome::Committed { beaten: vec![] });
    bench.reads(poison(0, 1));
    assert_eq!(next_offset(&write_of(&bench.wait()).2), 2);
}

#[test]
fn a_store_that_refuses_the_feed_alone_is_retried_and_blames_no_record() {
    let mut bench = Bench::assigned(config());
    bench.reads(poison(0, 0));
    let write = write_of(&bench.wait());
    assert_eq!(bench.writes(&write, refused()), []);
    assert!(Arc::ptr_eq(&write_of(&bench.wait()).2, &write.2));
}

#[test]
fn poison_is_quarantined_at_once_and_the_offset_passes_it_only_when_its_letter_is_stored() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    let letter = letter_of(&bench.reads(poison(0, 1)));
    assert_eq!(letter.1.value, b"\xffnot JSON"[..]);
    bench.reads(good(0, 2));
    let write = write_of(&bench.wait());
    let effects = bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(reflected(&effects), [(0, Class::Applied), (2, Class::Applied)]);
    assert_eq!(bench.partition(0).durable, 1);
    let mut letter = letter;
    let reason = String::new();
    let failures = [
        ProduceOutcome::Failed { reason: reason.clone() },
        ProduceOutcome::Unknown { reason: reason.clone() },
        ProduceOutcome::Refused { reason },
    ];
    for failure in failures {
        assert_eq!(bench.quarantines(&letter, failure), []);
        let effects = bench.wait();
        assert_eq!(effects[0], Effect::Fact(Fact::RetriedQuarantine(0)));
        letter = letter_of(&effects);
    }
    assert_eq!((bench.partition(0).durable, bench.partition(0).quarantining), (1, 1));
    bench.quarantines(&letter, STORED);
    assert_eq!((bench.partition(0).durable, bench.partition(0).quarantining), (3, 0));
}

#[test]
fn a_record_without_a_topic_or_without_a_value_is_poison() {
    let mut bench = Bench::assigned(config());
    let headless = [
        Record { key: None, ..good(0, 0) },
        Record { key: Some(Bytes::from_static(b"\xff")), ..good(0, 1) },
        Record { value: None, ..good(0, 2) },
    ];
    let reasons = headless.map(|record| letter_of(&bench.reads(record)).1.headers[0].1.clone());
    assert_eq!(reasons, ["key", "key", "json"]);
}

#[test]
fn a_retained_status_is_applied_and_any_other_retained_message_ignored() {
    let mut bench = Bench::assigned(config());
    let presence = crate::event::Presence {
        boot: Epoch::FIRST,
        connection: Seq::FIRST,
        state: crate::event::PresenceState::Online,
    };
    let rae = Rae::try_from("RAE-1").expect("a serial");
    let status = Record {
        key: Some(crate::event::Topic::Status(rae.clone()).to_string().into()),
        value: Some(presence.encode().into()),
        retained: true,
        ..good(0, 0)
    };
    bench.reads(status);
    bench.reads(Record { retained: true, ..good(0, 1) });
    bench.reads(Record { retained: true, ..poison(0, 2) });
    let write = write_of(&bench.wait());
    assert_eq!((write.2.raes.get(&rae), write.2.devices.len()), (Some(&presence), 0));
    let effects = bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(reflected(&effects), [(0, Class::Other), (1, Class::Other), (2, Class::Other)]);
}

#[test]
fn duplicates_and_gaps_are_told_and_what_its_batch_overtook_is_superseded() {
    let mut bench = Bench::assigned(Config { batch_rows: 100, ..config() });
    let newer_session = |seq| {
        let mut event = event(1, seq);
        event.version.session = Session(uuid::Uuid::from_u128(99));
        event.version.epoch = Epoch::try_from(9).expect("an epoch");
        event
    };
    let events = [event(1, 5), event(1, 6), event(1, 6), newer_session(1), event(1, 9)];
    let effects: Vec<_> =
        events.iter().zip(0..).flat_map(|(event, offset)| bench.reads(record(0, offset, event))).collect();
    let gap = Fact::GapOpened { device: event(1, 6).device, after: event(1, 6).version, before: event(1, 9).version };
    assert_eq!(effects, [Effect::Fact(gap)]);
    let write = write_of(&bench.wait());
    let classes = [Class::Applied, Class::Applied, Class::Duplicate, Class::Applied, Class::Superseded];
    let effects = bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(reflected(&effects), (0..).zip(classes).collect::<Vec<_>>());
    assert_eq!(write.2.sessions.len(), 2, "the session that lost is entered too");
}

#[test]
fn a_record_that_is_fetched_again_after_a_pause_is_taken_once() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 3));
    assert_eq!(bench.reads(good(0, 3)), []);
    assert_eq!(bench.reads(good(0, 2)), []);
    assert_eq!(bench.partition(0).buffered, 1);
}

#[test]
fn a_full_buffer_pauses_its_partition_only_and_half_of_it_resumes() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..20).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    assert!(effects.ends_with(&[Effect::Pause(G1, 0), Effect::Fact(Fact::Paused(0))]));
    bench.reads(wide(0, 20));
    assert_eq!((bench.partition(0).buffered, bench.partition(0).paused), (21, true), "a late one is taken");
    assert!(!bench.partition(1).paused);
    let mut write = write_of(&effects);
    loop {
        let effects = bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
        let resumed = effects.contains(&Effect::Resume(G1, 0));
        assert_eq!(resumed, bench.partition(0).buffered <= 10);
        if resumed {
            break;
        }
        write = write_of(&effects);
    }
}

#[test]
fn a_partition_is_paused_by_bytes_too() {
    let mut bench = Bench::assigned(Config { partition_credit: 1_000, ..config() });
    let large = Bytes::from(vec![b'x'; 1024 * 1024]);
    let paused = (0..).find(|&offset| {
        bench.reads(Record { value: Some(large.clone()), ..good(0, offset) }).contains(&Effect::Pause(G1, 0))
    });
    assert_eq!(paused, Some(24), "at 25 MiB");
}

#[test]
fn a_receive_time_from_the_future_moves_neither_the_feed_nor_what_was_seen_far_ahead_of_the_registrys_clock() {
    let mut bench = Bench::assigned(config());
    bench.reads(Record { timestamp: Wall(i64::MAX), ..record(0, 0, &snapshot(7, 1)) });
    let (_, _, rows) = write_of(&bench.wait());
    let latest = Wall(bench.now.wall.0 + 1_000);
    let seen_at = rows.devices.values().filter_map(|state| state.floor.as_ref()).map(|floor| floor.seen_at).max();
    assert!(rows.feed.expect("a feed").received <= latest && seen_at.is_some_and(|seen_at| seen_at <= latest));
}
