//! An assignment's life: offset commits, drains, losses, stops.

use super::*;

#[test]
fn offsets_are_committed_after_so_many_records_or_so_much_time_one_commit_at_a_time() {
    let mut bench = Bench::assigned(Config { commit_records: 8, ..config() });
    let mut effects: Vec<_> = (0..4).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    effects = bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(commits(&effects), [], "4 of 8 records");
    effects = (4..8).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    effects = bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    let [(id, generation, offsets)] = commits(&effects).try_into().expect("one commit");
    assert_eq!((generation, offsets), (G1, vec![(0, 8)]));
    effects = (8..20).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    while let [write] = writes_of(&effects).as_slice() {
        effects = bench.writes(write, WriteOutcome::Committed { beaten: vec![] });
        assert_eq!(commits(&effects), [], "one is under way");
    }
    effects = bench.tell(Event::Committed(id, CommitOutcome::Committed));
    assert_eq!(effects[0], Effect::Fact(Fact::Committed(0, 8)));
    assert_eq!(commits(&effects)[0].2, [(0, 20)]);
    bench.tell(Event::Committed(commits(&effects)[0].0, CommitOutcome::Committed));
    bench.reads(good(1, 0));
    let write = write_of(&bench.wait());
    bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    assert_eq!(bench.commit_due().2, [(1, 1)], "only what moved");
    assert_eq!(bench.now.mono, Mono(0) + COMMIT_EVERY);
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    bench.wait();
    bench.now.mono = bench.now.mono + COMMIT_EVERY * 3;
    assert_eq!(commits(&bench.reads(good(0, 1))), []);
    assert_eq!(bench.registry.deadline(), None, "all waits for the store");
}

#[test]
fn a_failed_commit_is_repeated_later_with_what_is_newest_then() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..4).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    let first = bench.commit_due();
    let effects = bench.tell(Event::Committed(first.0, CommitOutcome::Failed { reason: "timed out".to_owned() }));
    assert_eq!(effects, [Effect::Fact(Fact::FailedCommit)]);
    let effects: Vec<_> = (4..8).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    let second = bench.commit_due();
    assert_eq!((first.2, second.2), (vec![(0, 4)], vec![(0, 8)]));
    assert!(bench.now.mono >= Mono(0) + COMMIT_EVERY + Duration::from_millis(50), "after a back-off");
}

#[test]
fn a_stale_commit_drops_the_generation_and_its_revocation_is_still_answered_once() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..8).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    let effects = bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    let orphan = write_of(&effects);
    let commit = bench.commit_due();
    assert_eq!(bench.tell(Event::Committed(commit.0, CommitOutcome::Stale)), []);
    assert_eq!(bench.writes(&orphan, WriteOutcome::Committed { beaten: vec![] }), []);
    assert_eq!(bench.reads(wide(0, 8)), []);
    assert_eq!(bench.tell(Event::Revoked(G1)), [Effect::Drained(G1)]);
    assert_eq!(bench.tell(Event::Revoked(G1)), []);
}

#[test]
fn a_revoked_generation_drains_commits_and_then_says_so() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    let letter = letter_of(&bench.reads(poison(0, 1)));
    let write = write_of(&bench.tell(Event::Revoked(G1)));
    assert_eq!(bench.reads(good(0, 2)), [], "left to the next owner");
    bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    let effects = bench.quarantines(&letter, STORED);
    let [commit] = commits(&effects).try_into().expect("the last commit, at once");
    assert_eq!(commit.2, [(0, 2)]);
    assert!(!effects.contains(&Effect::Drained(G1)), "not before the answer");
    let effects = bench.tell(Event::Committed(commit.0, CommitOutcome::Committed));
    assert_eq!(effects, [Effect::Fact(Fact::Committed(0, 2)), Effect::Drained(G1)]);
}

#[test]
fn a_generation_without_work_is_drained_at_once() {
    assert_eq!(Bench::assigned(config()).tell(Event::Revoked(G1)), [Effect::Drained(G1)]);
}

#[test]
fn a_drain_ends_at_its_bound_with_what_is_durable() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..8).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    let effects = bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    let slow = write_of(&effects);
    bench.tell(Event::Revoked(G1));
    // The interval's commit is due first; with it unanswered nothing more can be sent.
    let commit = bench.commit_due();
    assert_eq!(commit.2, [(0, 4)]);
    assert_eq!(bench.wait(), [Effect::Drained(G1)]);
    assert_eq!(bench.now.mono, Mono(0) + DRAIN_WITHIN);
    assert_eq!(bench.writes(&slow, WriteOutcome::Committed { beaten: vec![] }), []);
    assert_eq!(bench.tell(Event::Revoked(G1)), [], "said once");
}

#[test]
fn at_the_bound_of_a_drain_the_last_commit_is_sent_before_the_word() {
    let mut bench = Bench::assigned(Config { drain_within: COMMIT_EVERY / 2, ..config() });
    let effects: Vec<_> = (0..8).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    bench.writes(&write_of(&effects), WriteOutcome::Committed { beaten: vec![] });
    bench.tell(Event::Revoked(G1));
    let effects = bench.wait();
    assert_eq!(commits(&effects)[0].2, [(0, 4)]);
    assert_eq!(effects.last(), Some(&Effect::Drained(G1)));
}

#[test]
fn a_lost_generation_is_dropped_at_once_and_its_answers_are_ignored() {
    let mut bench = Bench::assigned(config());
    let effects: Vec<_> = (0..4).flat_map(|offset| bench.reads(wide(0, offset))).collect();
    let write = write_of(&effects);
    assert_eq!(bench.tell(Event::Lost(G1)), []);
    assert_eq!(bench.registry.deadline(), None);
    bench.tell(Event::Assigned(G2, vec![(0, 0)]));
    assert_eq!(bench.writes(&write, WriteOutcome::Committed { beaten: vec![] }), []);
    assert_eq!(bench.reads(good(0, 0)), [], "a record of the old generation");
    assert_eq!((bench.partition(0).buffered, bench.partition(0).durable), (0, 0));
    bench.tell(Event::Record(G2, good(0, 0)));
    assert_eq!(bench.partition(0).buffered, 1);
    assert_eq!(bench.tell(Event::Lost(G1)), [], "late news of the old one");
    assert_eq!(bench.partition(0).buffered, 1);
}

#[test]
fn a_generation_that_is_lost_or_replaced_while_it_drains_is_told_as_drained() {
    for news in [Event::Lost(G1), Event::Assigned(G2, vec![])] {
        let mut bench = Bench::assigned(config());
        bench.reads(good(0, 0));
        bench.tell(Event::Revoked(G1));
        assert_eq!(bench.tell(news), [Effect::Drained(G1)]);
    }
}

#[test]
fn a_stop_drains_commits_and_stops() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    let write = write_of(&bench.tell(Event::Stop { within: Duration::from_secs(3) }));
    let effects = bench.writes(&write, WriteOutcome::Committed { beaten: vec![] });
    let commit = commits(&effects).remove(0);
    let effects = bench.tell(Event::Committed(commit.0, CommitOutcome::Committed));
    assert_eq!(effects, [Effect::Fact(Fact::Committed(0, 1)), Effect::Stopped]);
    assert_eq!(bench.tell(Event::Assigned(G2, vec![(0, 0)])), [], "nothing follows");
}

#[test]
fn a_stop_ends_at_its_bound_and_answers_a_revocation_that_came_meanwhile() {
    let mut bench = Bench::assigned(config());
    bench.reads(good(0, 0));
    bench.tell(Event::Stop { within: Duration::from_secs(3) });
    assert_eq!(bench.tell(Event::Revoked(G1)), []);
    assert_eq!(bench.wait(), [Effect::Drained(G1), Effect::Stopped]);
    assert_eq!(bench.now.mono, Mono(0) + Duration::from_secs(3));
}

#[test]
fn a_stop_without_an_assignment_ends_at_once() {
    assert_eq!(Bench::new(config()).tell(Event::Stop { within: Duration::from_secs(3) }), [Effect::Stopped]);
}
