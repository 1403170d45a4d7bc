//! What members of a group get: partitions shared, taken over, and taken away; commits kept, and refused.

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    producer::Producer,
};

use super::{
    Bench, PATIENCE,
    client::{commit, committed, eventually, poll, read, send, settle},
};

pub(super) async fn members_share_the_partitions_and_take_over_from_those_that_leave(bench: &Bench) {
    for strategy in ["range", "cooperative-sticky"] {
        let settings = [("partition.assignment.strategy", strategy)];
        let one = bench.member("one", strategy, &settings);
        settle(&[(&one, 4)]);
        let two = bench.member("two", strategy, &settings);
        settle(&[(&one, 2), (&two, 2)]);
        let three = bench.member("three", strategy, &settings);
        // Of four partitions somebody has two.
        let counts = |all: [&BaseConsumer; 3]| {
            let mut counts = all.map(|one| one.assignment().expect("an assignment").count());
            counts.sort_unstable();
            counts
        };
        eventually("three members share", || {
            [&one, &two, &three].into_iter().for_each(poll);
            counts([&one, &two, &three]) == [1, 1, 2]
        });
        drop(two);
        settle(&[(&one, 2), (&three, 2)]);
        drop(one);
        settle(&[(&three, 4)]);
    }
}

pub(super) async fn a_silent_member_is_expelled_and_its_late_commit_refused(bench: &Bench) {
    let settings = [("session.timeout.ms", "1000"), ("topic.metadata.refresh.interval.ms", "-1")];
    let zombie = bench.member("zombie", "g", &settings);
    settle(&[(&zombie, 4)]);
    commit(bench, &zombie, 0, 5).expect("a member commits");
    bench.link().silence(&bench.named("zombie"));
    let heir = bench.member("heir", "g", &settings);
    settle(&[(&heir, 4)]);
    commit(bench, &heir, 0, 9).expect("the new owner commits");
    bench.link().heal(&bench.named("zombie"));
    let refused = commit(bench, &zombie, 0, 7).expect_err("its generation is over");
    let code = refused.rdkafka_error_code().expect("a code");
    assert!([RDKafkaErrorCode::UnknownMemberId, RDKafkaErrorCode::IllegalGeneration].contains(&code), "{code:?}");
    assert_eq!(committed(bench, &heir, 0), Offset::Offset(9));
}

pub(super) async fn a_commit_survives_its_member_and_tells_the_lag(bench: &Bench) {
    let producer = bench.producer("producer", &[]);
    send(bench, &producer, 100, 1);
    producer.flush(PATIENCE).expect("flushed");
    let one = bench.member("one", "g", &[]);
    let (partition, _) = read(&one, 40)["k0"];
    commit(bench, &one, partition, 40).expect("committed");
    drop(one);
    let two = bench.member("two", "g", &[]);
    assert_eq!(committed(bench, &two, partition), Offset::Offset(40));
    assert_eq!(bench.watermarks(partition), (0, 100));
    assert_eq!(read(&two, 60)["k0"].1, (40..100).collect::<Vec<_>>());
    let other = bench.consumer("other", "other", &[]);
    assert_eq!(committed(bench, &other, partition), Offset::Invalid, "of another group nothing is committed");
}

pub(super) async fn a_commit_may_go_back(bench: &Bench) {
    let one = bench.member("one", "g", &[]);
    settle(&[(&one, 4)]);
    for offset in [7, 3] {
        commit(bench, &one, 0, offset).expect("a member commits");
        assert_eq!(committed(bench, &one, 0), Offset::Offset(offset), "the broker keeps no greatest offset");
    }
}

pub(super) async fn groups_are_listed_with_their_states(bench: &Bench) {
    let one = bench.member("one", "g", &[]);
    settle(&[(&one, 4)]);
    let name = bench.named("g");
    let listed = one.fetch_group_list(Some(&name), PATIENCE).expect("groups");
    let group = listed.groups().iter().find(|group| group.name() == name).expect("the group");
    assert_eq!((group.state(), group.protocol_type(), group.members().len()), ("Stable", "consumer", 1));
    assert_eq!(group.members()[0].client_id(), bench.named("one"));
}
