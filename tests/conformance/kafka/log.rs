//! What a client finds in a log: keys, partitions, order, once each; what is deleted, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AdminOptions, NewPartitions, NewTopic, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseRecord, Producer},
};

use super::{
    Bench, PARTITIONS, PATIENCE,
    client::{ByKey, eventually, expected, read, send, without_partitions},
};

/// Kafka's own hash of keys and what it makes of them (`org.apache.kafka.common.utils.UtilsTest`, `testMurmur2`).
const MURMUR2: [(&str, i32); 6] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
];

pub(super) async fn a_key_goes_to_the_partition_that_javas_hash_gives_it(bench: &Bench) {
    let producer = bench.producer("producer", &[("partitioner", "murmur2_random")]);
    for (key, _) in MURMUR2 {
        producer
            .send(BaseRecord::to(bench.topic).key(key).payload("v"))
            .map_err(|(error, _)| error)
            .expect("the queue has room");
    }
    producer.flush(PATIENCE).expect("flushed");
    let consumer = bench.assigned("consumer");
    let mut found = BTreeMap::new();
    eventually("all records are read", || {
        if let Some(Ok(record)) = consumer.poll(std::time::Duration::from_millis(100)) {
            let key = String::from_utf8(record.key().expect("a key").to_vec()).expect("text");
            found.insert(key, record.partition());
        }
        found.len() == MURMUR2.len()
    });
    // Without the sign, as its partitioner does.
    let expected = MURMUR2.map(|(key, hash)| (key.to_owned(), (hash & i32::MAX) % PARTITIONS));
    assert_eq!(found, expected.into());
}

pub(super) async fn keys_headers_and_order_come_through(bench: &Bench) {
    let producer = bench.producer("producer", &[("compression.type", "lz4")]);
    send(bench, &producer, 5_000, 20);
    producer.flush(PATIENCE).expect("flushed");
    let found: ByKey = read(&bench.member("consumer", "g", &[]), 5_000);
    let partitions: BTreeSet<i32> = found.values().map(|(partition, _)| *partition).collect();
    assert_eq!(partitions, (0..PARTITIONS).collect(), "all partitions are used");
    assert_eq!(without_partitions(found), expected(5_000, 20));
}

pub(super) async fn an_idempotent_producer_whose_answers_are_lost_stores_each_record_once_and_in_order(bench: &Bench) {
    let unlucky = bench.named("unlucky");
    bench.link().lose(&unlucky, 15);
    let producer = bench.producer("unlucky", &[("batch.num.messages", "5")]);
    send(bench, &producer, 4_000, 20);
    producer.flush(PATIENCE).expect("flushed");
    let lost = bench.link().lost(&unlucky);
    assert!(lost > 10, "{lost} answers were lost");
    assert!(producer.context().failed().is_empty());
    let ends: i64 = (0..PARTITIONS).map(|partition| bench.watermarks(partition).1).sum();
    assert_eq!(ends, 4_000);
    assert_eq!(without_partitions(read(&bench.member("consumer", "g", &[]), 4_000)), expected(4_000, 20));
}

pub(super) async fn clients_carry_on_after_their_connections_are_cut(bench: &Bench) {
    let (producer, consumer) = (bench.producer("producer", &[]), bench.member("consumer", "g", &[]));
    super::client::settle(&[(&consumer, 4)]);
    bench.link().cut(&bench.named(""));
    send(bench, &producer, 100, 5);
    assert_eq!(without_partitions(read(&consumer, 100)), expected(100, 5));
}

pub(super) async fn an_offset_that_was_deleted_is_out_of_range(bench: &Bench) {
    let producer = bench.producer("producer", &[]);
    send(bench, &producer, 100, 1);
    producer.flush(PATIENCE).expect("flushed");
    let (partition, _) = read(&bench.member("before", "before", &[]), 100)["k0"];
    assert_eq!(bench.delete_before(partition, 30).await, Offset::Offset(30));
    assert_eq!(bench.watermarks(partition), (30, 100));

    let strict = bench.consumer("strict", "strict", &[("auto.offset.reset", "error")]);
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(bench.topic, partition, Offset::Offset(10)).expect("a partition");
    strict.assign(&start).expect("assigned");
    let error = strict.poll(PATIENCE).expect("an answer").expect_err("the record is gone");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset), "{error}");
    assert_eq!(read(&bench.member("lenient", "lenient", &[]), 70)["k0"].1, (30..100).collect::<Vec<_>>());
}

pub(super) async fn an_offset_beyond_the_end_is_out_of_range(bench: &Bench) {
    let producer = bench.producer("producer", &[]);
    send(bench, &producer, 10, 1);
    producer.flush(PATIENCE).expect("flushed");
    let strict = bench.consumer("strict", "strict", &[("auto.offset.reset", "error")]);
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(bench.topic, 0, Offset::Offset(1_000)).expect("a partition");
    strict.assign(&start).expect("assigned");
    let error = strict.poll(PATIENCE).expect("an answer").expect_err("no record was ever there");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset), "{error}");
}

pub(super) async fn an_oversized_record_is_refused_by_the_broker_and_others_are_not(bench: &Bench) {
    let producer = bench.producer("generous", &[("message.max.bytes", "4000000")]);
    let large = vec![b'v'; 2 << 20];
    producer
        .send(BaseRecord::to(bench.topic).key("k").payload(&large))
        .map_err(|(error, _)| error)
        .expect("the queue has room");
    producer.flush(PATIENCE).expect("flushed");
    assert_eq!(producer.context().failed(), [RDKafkaErrorCode::MessageSizeTooLarge]);
    let producer = bench.producer("producer", &[]);
    send(bench, &producer, 10, 1);
    assert_eq!(without_partitions(read(&bench.member("consumer", "g", &[]), 10)), expected(10, 1));
}

pub(super) async fn a_time_leads_to_an_offset_and_a_record_keeps_its_own(bench: &Bench) {
    let producer = bench.producer("producer", &[]);
    for at in [1_000, 2_000, 3_000] {
        let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some("v") });
        let record = BaseRecord::to(bench.topic).partition(0).key("k").payload("v").headers(headers).timestamp(at);
        producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
    }
    producer.flush(PATIENCE).expect("flushed");
    let consumer = bench.assigned("consumer");
    let at = |timestamp: i64| {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(bench.topic, 0, Offset::Offset(timestamp)).expect("a partition");
        let found = consumer.offsets_for_times(asked, PATIENCE).expect("offsets");
        found.find_partition(bench.topic, 0).expect("the partition").offset()
    };
    assert_eq!([at(0), at(1_001), at(3_000)], [Offset::Offset(0), Offset::Offset(1), Offset::Offset(2)]);
    assert_eq!(at(3_001), Offset::End);
    for at in [1_000, 2_000, 3_000] {
        let record = consumer.poll(PATIENCE).expect("in time").expect("a record");
        assert_eq!(record.timestamp().to_millis(), Some(at), "the create time, not that of its arrival");
        assert_eq!(record.headers().map(Headers::count), Some(1));
    }
}

pub(super) async fn topics_are_made_grown_and_removed_by_an_admin_client(bench: &Bench) {
    let (admin, options) = (bench.admin(), AdminOptions::new().operation_timeout(Some(PATIENCE)));
    let name = bench.named("new");
    let topic = NewTopic::new(&name, 2, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &options).await.expect("an answer");
    assert_eq!(made, [Ok(name.clone())]);
    let again = admin.create_topics([&topic], &options).await.expect("an answer");
    assert_eq!(again, [Err((name.clone(), RDKafkaErrorCode::TopicAlreadyExists))]);
    let grown = admin.create_partitions([&NewPartitions::new(&name, 6)], &options).await.expect("an answer");
    assert_eq!(grown, [Ok(name.clone())]);
    let look: BaseConsumer = bench.consumer("look", "look", &[]);
    let partitions = || {
        let metadata = look.fetch_metadata(Some(&name), PATIENCE).expect("metadata");
        (metadata.topics()[0].partitions().len(), metadata.topics()[0].error().is_some())
    };
    eventually("all see the new partitions", || partitions() == (6, false));
    assert_eq!(admin.delete_topics(&[&name], &options).await.expect("an answer"), [Ok(name.clone())]);
    eventually("an unknown topic is refused", || partitions() == (0, true));
}
