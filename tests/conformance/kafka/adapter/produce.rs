//! The producer as the bridge sees it.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    bridge::{OutgoingRecord, ProduceOutcome},
    consume::{Offset, Partition},
    core::EffectId,
};
use dmp_service::kafka::inspect::Tail;
use tokio::{sync::mpsc, time::timeout};

use super::{answer, number, producer, record};
use crate::kafka::{Bench, PATIENCE};

pub(crate) async fn the_producer_keeps_order_and_stores_once_while_connections_are_cut(bench: &Bench) {
    let (producer, mut answers) = producer(bench, &bench.kafka());
    let mut ends: BTreeMap<Partition, Offset> = BTreeMap::new();
    let (mut sent, mut answered) = (0, 0);
    while answered < 5_000_u64 {
        while sent < 5_000 && sent < answered + 500 {
            producer.produce(EffectId(sent), record(bench, sent)).expect("the queue has room");
            sent += 1;
        }
        if answered.is_multiple_of(250) {
            bench.link().cut(&bench.named("producer"));
        }
        match answer(&mut answers).await.1 {
            ProduceOutcome::Stored { partition, offset } => {
                let end = ends.entry(partition).or_insert(0);
                *end = (*end).max(offset + 1);
            }
            other => panic!("{other:?}"),
        }
        answered += 1;
    }
    let (sender, mut tailed) = mpsc::channel(16);
    let _tail = Tail::start(&bench.kafka(), bench.topic, BTreeMap::new(), sender).await.expect("the topic is there");
    let mut seen: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
    for _ in 0..5_000 {
        let record = timeout(PATIENCE, tailed.recv()).await.expect("in time").expect("the tail lives");
        let headers: Vec<_> = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        assert_eq!(headers, [("mqtt-qos", Some(b"1".as_slice())), ("bridge", Some(b"b"))]);
        seen.entry(record.partition).or_default().push(number(record.value.as_deref()));
    }
    for (partition, numbers) in &seen {
        assert!(numbers.is_sorted_by(|one, next| one < next), "partition {partition}: each once, in order");
    }
    assert_eq!(bench.inspector().end_offsets(bench.topic).await.expect("the broker answers"), ends);
    assert_eq!(ends.values().sum::<i64>(), 5_000, "nothing is stored twice");
}

pub(crate) async fn an_oversized_record_is_refused_and_its_neighbours_are_stored(bench: &Bench) {
    let mut kafka = bench.kafka();
    let (small, mut answers) = producer(bench, &kafka);
    let large = OutgoingRecord { value: vec![b'v'; 2 << 20].into(), ..record(bench, 1) };
    for (id, record) in [(0, record(bench, 0)), (1, large.clone()), (2, record(bench, 2))] {
        small.produce(EffectId(id), record).expect("the queue has room");
    }
    let mut outcomes = BTreeMap::new();
    for _ in 0..3 {
        outcomes.extend([answer(&mut answers).await]);
    }
    assert!(matches!(outcomes[&EffectId(0)], ProduceOutcome::Stored { .. }));
    assert!(matches!(outcomes[&EffectId(1)], ProduceOutcome::Refused { .. }), "{outcomes:?}");
    assert!(matches!(outcomes[&EffectId(2)], ProduceOutcome::Stored { .. }));

    // Here it is the broker that refuses it.
    kafka.extra.insert("message.max.bytes".to_owned(), "8000000".to_owned());
    let (generous, mut answers) = producer(bench, &kafka);
    generous.produce(EffectId(0), large).expect("the queue has room");
    let (_, outcome) = answer(&mut answers).await;
    assert!(matches!(outcome, ProduceOutcome::Refused { .. }), "{outcome:?}");
}

pub(crate) async fn a_record_that_no_broker_takes_in_time_is_answered_and_never_as_stored(bench: &Bench) {
    let mut kafka = bench.kafka();
    // Long enough for the first record, which waits for the connection.
    kafka.message_timeout = Duration::from_secs(5);
    let (producer, mut answers) = producer(bench, &kafka);
    producer.produce(EffectId(0), record(bench, 0)).expect("the queue has room");
    assert!(matches!(answer(&mut answers).await.1, ProduceOutcome::Stored { .. }));
    bench.link().refuse(&bench.named("producer"));
    producer.produce(EffectId(1), record(bench, 1)).expect("the queue has room");
    let (id, outcome) = answer(&mut answers).await;
    assert_eq!(id, EffectId(1));
    assert!(matches!(outcome, ProduceOutcome::Unknown { .. } | ProduceOutcome::Failed { .. }), "{outcome:?}");
}
