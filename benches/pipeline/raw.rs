//! What the registry is held against: upserts of the same rows into the same tables, made ready beforehand.
//!
//! The same batches, as many at a time, each a transaction of one round trip, a partition's one after the other. Left out
//! is what a registry does besides: reading and decoding records, merging them, comparing versions, telling how far it is.

use std::{collections::BTreeMap, sync::Arc};

use dmp_core::{
    event::{AttributeName, Event},
    id::{Device, Session},
    merge::{Floor, Offer, Rows, SessionRow},
    registry::Partition,
};
use dmp_service::{
    drive,
    registry::{Config, Pipeline},
    store::{Access, Store},
};
use tokio::task::JoinSet;
use tokio_postgres::{Client, Statement, types::ToSql};
use uuid::Uuid;

use crate::{
    cpu::{Run, Stopwatch},
    registry::Span,
    servers::{Servers, connect},
};

const DEVICES: &str = "INSERT INTO device (device, epoch, session, seq, names, rae, seen_at)
    SELECT u.device, u.epoch, u.session, u.seq, string_to_array(u.names, '|'), u.rae, u.seen_at
    FROM unnest($1::UUID[], $2::INT8[], $3::UUID[], $4::INT8[], $5::TEXT[], $6::TEXT[], $7::INT8[])
      AS u(device, epoch, session, seq, names, rae, seen_at)
    ON CONFLICT (device) DO UPDATE SET epoch = excluded.epoch, session = excluded.session, seq = excluded.seq,
      names = excluded.names, rae = excluded.rae, seen_at = excluded.seen_at";

const ATTRIBUTES: &str = "INSERT INTO device_attribute (device, name, epoch, session, seq, value)
    SELECT * FROM unnest($1::UUID[], $2::TEXT[], $3::INT8[], $4::UUID[], $5::INT8[], $6::TEXT[])
    ON CONFLICT (device, name) DO UPDATE SET epoch = excluded.epoch, session = excluded.session, seq = excluded.seq,
      value = excluded.value";

const SESSIONS: &str = "INSERT INTO device_session (device, session, epoch, rae, opened)
    SELECT * FROM unnest($1::UUID[], $2::UUID[], $3::INT8[], $4::TEXT[], $5::INT8[])
    ON CONFLICT (device, session) DO NOTHING";

/// The values of all rows of a table in one column.
type Column = Arc<dyn ToSql + Send + Sync>;

/// The rows of one batch, table by table.
#[derive(Clone)]
pub(crate) struct Batch {
    devices: Vec<Column>,
    attributes: Vec<Column>,
    sessions: Vec<Column>,
}

/// The batches of each writer, a partition's all with the same one: they write the same rows, and would wait for each other.
pub(crate) fn batches(span: &Span) -> Vec<Vec<Batch>> {
    let Pipeline { batch_rows, writers, .. } = Pipeline::default();
    let mut open: BTreeMap<Partition, Rows> = BTreeMap::new();
    let mut closed: BTreeMap<Partition, Vec<Batch>> = BTreeMap::new();
    for (number, &partition) in (0..).zip(&span.partitions) {
        let rows = open.entry(partition).or_default();
        rows.apply(&Event::State(span.keys.event(number)), drive::wall());
        if rows.len() >= batch_rows {
            closed.entry(partition).or_default().push(Batch::of(&std::mem::take(rows)));
        }
    }
    for (partition, rows) in open {
        closed.entry(partition).or_default().push(Batch::of(&rows));
    }
    // The longest first, each to the writer that has least: as even as whole partitions can be.
    let mut partitions: Vec<Vec<Batch>> = closed.into_values().collect();
    partitions.sort_by_key(|batches| std::cmp::Reverse(batches.len()));
    let mut shares = vec![Vec::new(); writers];
    for batches in partitions {
        let least = shares.iter_mut().min_by_key(|share| share.len()).expect("there are writers");
        least.extend(batches);
    }
    shares
}

/// Writes all batches into an empty database.
pub(crate) async fn upsert(servers: &Servers, shares: &[Vec<Batch>], records: u64) -> Run {
    let database = servers.make_database().await;
    let period = Config::reading(servers.kafka.clone()).snapshot_period;
    database.open(Access::Write).await.migrate(period).await.expect("the tables can be made");
    let mut writers = Vec::new();
    for share in shares {
        writers.push((Writer::new(connect(&database.url).await).await, share.clone()));
    }
    let mut writing = JoinSet::new();
    let stopwatch = Stopwatch::start();
    for (writer, share) in writers {
        writing.spawn(async move {
            for batch in &share {
                writer.write(batch).await.expect("the rows are right");
            }
            writer
        });
    }
    let writers = writing.join_all().await;
    let run = stopwatch.stop(records);
    // Not before: the CPU time of a connection's process is gone with it.
    drop(writers);
    servers.remove_database(database).await;
    run
}

impl Batch {
    fn of(rows: &Rows) -> Batch {
        let mut floors: Vec<(Uuid, &Floor)> = Vec::new();
        let mut offers: Vec<(Uuid, &AttributeName, &Offer)> = Vec::new();
        for (device, state) in &rows.devices {
            floors.extend(state.floor.as_ref().map(|floor| (device.0, floor)));
            offers.extend(state.attributes.iter().map(|(name, offer)| (device.0, name, offer)));
        }
        let sessions: Vec<(&(Device, Session), &SessionRow)> = rows.sessions.iter().collect();
        let joined = |floor: &Floor| floor.names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join("|");
        Batch {
            devices: vec![
                column(&floors, |(device, _)| *device),
                column(&floors, |(_, floor)| floor.version.epoch.get().cast_signed()),
                column(&floors, |(_, floor)| floor.version.session.0),
                column(&floors, |(_, floor)| floor.version.seq.get().cast_signed()),
                column(&floors, |(_, floor)| joined(floor)),
                column(&floors, |(_, floor)| floor.rae.to_string()),
                column(&floors, |(_, floor)| floor.seen_at.0),
            ],
            attributes: vec![
                column(&offers, |(device, ..)| *device),
                column(&offers, |(_, name, _)| name.to_string()),
                column(&offers, |(_, _, offer)| offer.version.epoch.get().cast_signed()),
                column(&offers, |(_, _, offer)| offer.version.session.0),
                column(&offers, |(_, _, offer)| offer.version.seq.get().cast_signed()),
                column(&offers, |(_, _, offer)| offer.value.as_ref().map(ToString::to_string)),
            ],
            sessions: vec![
                column(&sessions, |((device, _), _)| device.0),
                column(&sessions, |((_, session), _)| session.0),
                column(&sessions, |(_, row)| row.epoch.get().cast_signed()),
                column(&sessions, |(_, row)| row.rae.to_string()),
                column(&sessions, |(_, row)| row.opened.0),
            ],
        }
    }
}

fn column<R, T: ToSql + Send + Sync + 'static>(rows: &[R], of: impl Fn(&R) -> T) -> Column {
    Arc::new(rows.iter().map(of).collect::<Vec<T>>())
}

/// A connection with its statements.
struct Writer {
    client: Client,
    devices: Statement,
    attributes: Statement,
    sessions: Statement,
}

impl Writer {
    async fn new(client: Client) -> Writer {
        let prepared = tokio::try_join!(client.prepare(DEVICES), client.prepare(ATTRIBUTES), client.prepare(SESSIONS));
        let (devices, attributes, sessions) = prepared.expect("the statements are right");
        Writer { client, devices, attributes, sessions }
    }

    async fn write(&self, batch: &Batch) -> Result<(), tokio_postgres::Error> {
        let [devices, attributes, sessions] = [&batch.devices, &batch.attributes, &batch.sessions]
            .map(|columns| columns.iter().map(|column| &**column as &(dyn ToSql + Sync)).collect::<Vec<_>>());
        // Each future sends when it is first polled: `biased` makes that the order of the lines.
        tokio::try_join!(
            biased;
            self.client.batch_execute("BEGIN"),
            self.client.execute(&self.devices, &devices),
            self.client.execute(&self.attributes, &attributes),
            self.client.execute(&self.sessions, &sessions),
            self.client.batch_execute("COMMIT"),
        )?;
        Ok(())
    }
}
