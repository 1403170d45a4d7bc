//! WHAT NOT TO DO: a consumer as it was before, the baseline that a scenario can hold the registries against.
//!
//! It has four defects, on purpose, and they are nowhere else:
//! - nothing holds back what it reads: the queue in its memory has no bound;
//! - it writes one record at a time;
//! - it commits an offset for each record;
//! - the newest timestamp wins: an update applies where the stored time is earlier. So equal times lose an update, and
//!   after a clock has stepped back every one, until that clock has caught up.
//!
//! All else is the registry's own: the Kafka client, the tables, and the same limits on the store. What differs between the
//! two comes from these four.

use std::time::Duration;

use anyhow::Context;
use dmp_core::{
    consume::{CommitOutcome, Generation, Record},
    core::EffectId,
    event::{Body, Event, StateEvent, decode, kafka_topic},
    id::{Epoch, MAX_EXACT, Seq, Session, Version},
    merge::{Feed, Rows},
    registry::WriteOutcome,
    time::Wall,
};
use dmp_service::{
    config::{self, Start},
    http::{self, Endpoint, Health},
    kafka::{self, Consumer, ConsumerConfig},
    metrics::{Counter, Gauge, Metrics},
    program::Running,
    registry,
    store::{Access, Database, Store},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::faulty_store::{Brake, FaultyStore};

/// Metric: records that were read and are not yet written.
pub(super) const QUEUE: &str = "baseline_queue";

/// Metric: offset commits that Kafka took.
pub(super) const COMMITS: &str = "baseline_commits_total";

/// Events between the thread that reads Kafka and the queue, which takes them at once.
const EVENTS: usize = 64;

/// Rest before a write that failed is tried again.
const REST: Duration = Duration::from_millis(100);

/// The baseline commits what it has written; there is nothing to drain.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// How it is set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) kafka: config::Kafka,
    pub(super) group: String,
    pub(super) store: registry::StoreConfig,
    pub(super) snapshot_period: Duration,
}

/// A baseline that runs.
struct Baseline {
    endpoint: Endpoint,
    consumer: Consumer,
    events: mpsc::Receiver<kafka::Event>,
    store: FaultyStore<Database>,
    queue: Gauge,
    commits: Counter,
}

/// Joins the group, on a store that is made ready.
pub(super) async fn start(config: Config, brake: Brake) -> anyhow::Result<Running> {
    let metrics = Metrics::default();
    let endpoint = http::serve(([127, 0, 0, 1], 0).into(), Health::default(), metrics.clone()).await?;
    let url = config.store.full_url().context("parsing the URL of the baseline's store")?;
    let database = Database::open(&url, Access::Write).await.context("opening the baseline's store")?;
    let store = FaultyStore::new(database, brake);
    store.migrate(config.snapshot_period).await.context("preparing the baseline's store")?;
    let (tell, events) = mpsc::channel(EVENTS);
    let member = ConsumerConfig {
        client_id: config.group.clone(),
        group: config.group,
        kafka: config.kafka,
        topic: kafka_topic::EVENTS,
        fetch: kafka::Fetch::Prompt,
        start: Start::Earliest,
        drain_within: DRAIN_WITHIN,
        backoff: config::Backoff::default(),
        fault: Box::new(|| false),
        restarted: Box::new(|reason: &str| tracing::warn!(reason, "the reader was started again")),
    };
    let http = endpoint.address;
    let baseline = Baseline {
        endpoint,
        consumer: Consumer::start(member, tell)?,
        events,
        store,
        queue: metrics.gauge(QUEUE, "Records read and not yet written; without a bound.", &[]),
        commits: metrics.counter(COMMITS, "Offset commits that Kafka took.", &[]),
    };
    Ok(Running::spawn(http, |mut stop| async move { baseline.until(stop.wait()).await }))
}

impl Baseline {
    /// Consumes until `shutdown` ends; what is queued then is dropped, and read again by whoever comes next.
    async fn until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Baseline { endpoint: _open_until_the_end, consumer, mut events, store, queue: depth, commits } = self;
        // The defect that the platform bans everywhere else.
        let (queued, mut queue) = mpsc::unbounded_channel();
        let (answered, mut answers) = mpsc::channel(1);
        let reading = async {
            while let Some(event) = events.recv().await {
                match event {
                    kafka::Event::Record(generation, record) => {
                        let _writer_gone = queued.send((generation, record));
                    }
                    kafka::Event::Committed(_, outcome) => {
                        let _writer_gone = answered.send(outcome).await;
                    }
                    kafka::Event::Revoked(generation) => consumer.drained(generation),
                    kafka::Event::Assigned(..) | kafka::Event::Lost(_) => {}
                }
            }
        };
        let writing = async {
            while let Some((generation, record)) = queue.recv().await {
                depth.set_count(queue.len() + 1);
                write(&store, &record).await;
                if commit(&consumer, generation, &record, &mut answers).await {
                    commits.increment();
                }
                depth.set_count(queue.len());
            }
        };
        tokio::select! {
            () = reading => anyhow::bail!("the reader of Kafka has ended"),
            () = writing => anyhow::bail!("the queue has ended"),
            () = shutdown => {}
        }
        consumer.stop().await;
        Ok(())
    }
}

/// Commits the offset behind one record, and waits for the answer: whether Kafka took it.
async fn commit(
    consumer: &Consumer,
    generation: Generation,
    record: &Record,
    answers: &mut mpsc::Receiver<CommitOutcome>,
) -> bool {
    // One commit is under way at a time: its number tells nothing.
    consumer.commit(EffectId(0), generation, vec![(record.partition, record.offset + 1)]);
    answers.recv().await == Some(CommitOutcome::Committed)
}

/// Writes one record; one that can never be written is skipped.
async fn write(store: &impl Store, record: &Record) {
    let rows = match rows(record) {
        Some(rows) if !rows.is_empty() => rows,
        Some(_) | None => return,
    };
    loop {
        match store.write(&rows).await {
            WriteOutcome::Committed { .. } | WriteOutcome::Refused { .. } => return,
            WriteOutcome::Aborted { .. } | WriteOutcome::Ambiguous { .. } => tokio::time::sleep(REST).await,
        }
    }
}

/// The rows of one record, with its time in place of its version; `None` of what cannot be decoded.
fn rows(record: &Record) -> Option<Rows> {
    let topic = str::from_utf8(record.key.as_deref()?).ok()?;
    let mut rows = Rows::default();
    match decode(topic, record.value.as_deref()?).ok()? {
        Event::State(state) => rows.apply(&Event::State(by_time(state)), record.timestamp),
        status @ Event::Status(..) => rows.apply(&status, record.timestamp),
    };
    let next_offset = record.offset + 1;
    rows.feed = Some(Feed { partition: record.partition, next_offset, received: record.timestamp });
    Some(rows)
}

/// The event as a consumer sees it that orders by time alone: the tables' guard then lets an update pass where what is
/// stored is earlier.
fn by_time(event: StateEvent) -> StateEvent {
    let body = match event.body {
        delta @ Body::Delta { .. } => delta,
        Body::Snapshot { attributes } => {
            let at_once = |(name, (value, _))| (name, (value, Seq::FIRST));
            Body::Snapshot { attributes: attributes.into_iter().map(at_once).collect() }
        }
    };
    let version = Version { epoch: epoch_of(event.at), session: Session(Uuid::nil()), seq: Seq::FIRST };
    StateEvent { version, body, ..event }
}

fn epoch_of(at: Wall) -> Epoch {
    let exact = u64::try_from(at.0).unwrap_or(0).clamp(Epoch::FIRST.get(), MAX_EXACT);
    Epoch::try_from(exact).expect("clamped to its range")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dmp_core::{event::Value, id::Device, merge::DeviceState};

    use super::*;

    /// An update of `rev` at a time, numbered as its agent numbers it.
    fn update(seq: u64, at_ms: i64, rev: i64) -> Record {
        let event = StateEvent {
            rae: "RAE-0000001".try_into().expect("a serial"),
            device: Device::of_hardware("one"),
            version: Version {
                epoch: Epoch::FIRST,
                session: Session(Uuid::from_u128(7)),
                seq: Seq::try_from(seq).expect("in range"),
            },
            at: Wall(at_ms),
            body: Body::Delta {
                set: BTreeMap::from([("rev".try_into().expect("a name"), Value::Integer(rev))]),
                unset: Default::default(),
            },
        };
        Record {
            partition: 0,
            offset: i64::try_from(seq).expect("small"),
            timestamp: Wall(1),
            key: Some(event.topic().to_string().into_bytes().into()),
            value: Some(event.encode().into()),
            retained: false,
        }
    }

    /// What the tables hold after these records, written one by one.
    fn stored(records: &[Record]) -> Option<Value> {
        let mut state = DeviceState::default();
        for record in records {
            for written in rows(record).expect("decodes").devices.into_values() {
                for (name, offer) in written.attributes {
                    // The guard of the tables.
                    let stored = state.attributes.get(&name).map(|stored| stored.version);
                    if stored.is_none_or(|stored| offer.version > stored) {
                        state.attributes.insert(name, offer);
                    }
                }
            }
        }
        state.attributes.into_values().next()?.value
    }

    #[test]
    fn the_newest_timestamp_wins_so_a_clock_that_steps_back_loses_what_is_newer() {
        assert_eq!(stored(&[update(1, 5_000, 1), update(2, 6_000, 2)]), Some(Value::Integer(2)));
        assert_eq!(stored(&[update(1, 5_000, 1), update(2, 4_000, 2)]), Some(Value::Integer(1)));
    }

    #[test]
    fn of_two_updates_at_the_same_time_the_second_is_lost() {
        assert_eq!(stored(&[update(1, 5_000, 1), update(2, 5_000, 2)]), Some(Value::Integer(1)));
    }

    #[test]
    fn what_cannot_be_decoded_has_no_rows() {
        let poison = Record { value: Some("{".into()), ..update(1, 5_000, 1) };
        assert_eq!(rows(&poison), None);
    }
}
