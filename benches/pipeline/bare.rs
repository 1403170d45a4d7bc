//! What bridge and registry are held against: the same messages and rows with nothing in between.

use std::time::Duration;

use dmp_core::{
    event::{Event, StateEvent, subscriptions},
    merge::Rows,
    time::Wall,
};
use dmp_service::mqtt::Incoming;
use tokio::{task::JoinSet, time::Instant};
use tokio_postgres::NoTls;
use uuid::Uuid;

use crate::{
    parts::{NewStore, Parts},
    steps::{Session, publish},
};

/// Events whose rows go into one statement: as many as the registry has in a batch.
const EVENTS_A_BATCH: usize = 16;

/// Connections that write, as many as a registry has.
const WRITERS: usize = 4;

/// Takes and acknowledges a backlog of messages, and does nothing with them: the time from the first to the last.
pub async fn subscribe(parts: &Parts, messages: u64) -> Duration {
    let name = parts.name("bare");
    Session::open(parts, &name, subscriptions(0, 1)).await.close().await;
    publish(parts, messages).await;
    let mut session = Session::open(parts, &name, subscriptions(0, 1)).await;
    let mut began = None;
    for _ in 0..messages {
        let message = loop {
            if let Incoming::Message(message) = session.next().await {
                break message;
            }
        };
        began.get_or_insert_with(Instant::now);
        if let Some(packet) = message.packet {
            session.acknowledge(packet);
        }
    }
    let took = began.expect("there were messages").elapsed();
    session.forget(parts).await;
    took
}

/// One row of an attribute.
struct Attribute {
    device: Uuid,
    name: String,
    value: String,
    session: Uuid,
    seq: i64,
}

/// Writes the rows of `events` as they come, in batches, without a guard, a merge or an order: the time that it takes.
pub async fn upsert(parts: &Parts, events: &[StateEvent]) -> Duration {
    let store = parts.new_store().await;
    let batches: Vec<Vec<Attribute>> = events.chunks(EVENTS_A_BATCH).map(batch).collect();
    let took = match &store {
        NewStore::File(path) => upsert_file(path.clone(), batches).await,
        NewStore::Database(url) => upsert_server(url, batches).await,
    };
    parts.remove(store).await;
    took
}

/// The rows of some events, each key once: a statement takes none twice.
fn batch(events: &[StateEvent]) -> Vec<Attribute> {
    let mut rows = Rows::default();
    for event in events {
        rows.apply(&Event::State(event.clone()), Wall(0));
    }
    let of_device = |(device, state): (dmp_core::id::Device, dmp_core::merge::DeviceState)| {
        state.attributes.into_iter().map(move |(name, offer)| Attribute {
            device: device.0,
            name: name.to_string(),
            value: serde_json::to_string(&offer.value).expect("values are JSON"),
            session: offer.version.session.0,
            seq: i64::try_from(offer.version.seq.get()).expect("small"),
        })
    };
    rows.devices.into_iter().flat_map(of_device).collect()
}

const TABLE: &str = "CREATE TABLE raw_attribute (
    device uuid NOT NULL, name text NOT NULL, value text NOT NULL, session uuid NOT NULL, seq int8 NOT NULL,
    PRIMARY KEY (device, name))";

const UPSERT: &str = "INSERT INTO raw_attribute SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::int8[])
    ON CONFLICT (device, name) DO UPDATE SET value = excluded.value, session = excluded.session, seq = excluded.seq";

async fn upsert_server(url: &str, batches: Vec<Vec<Attribute>>) -> Duration {
    connect(url).await.batch_execute(TABLE).await.expect("the table can be made");
    let mut shares: Vec<Vec<Vec<Attribute>>> = (0..WRITERS).map(|_| Vec::new()).collect();
    for (number, batch) in batches.into_iter().enumerate() {
        shares[number % WRITERS].push(batch);
    }
    let mut writers = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..WRITERS {
        clients.push(connect(url).await);
    }
    let began = Instant::now();
    for (client, share) in clients.into_iter().zip(shares) {
        writers.spawn(async move {
            let statement = client.prepare(UPSERT).await.expect("the statement is right");
            for rows in share {
                let column = |of: fn(&Attribute) -> String| rows.iter().map(of).collect::<Vec<_>>();
                let ids = |of: fn(&Attribute) -> Uuid| rows.iter().map(of).collect::<Vec<_>>();
                let seqs: Vec<i64> = rows.iter().map(|row| row.seq).collect();
                let (devices, sessions) = (ids(|row| row.device), ids(|row| row.session));
                let (names, values) = (column(|row| row.name.clone()), column(|row| row.value.clone()));
                let written = client.execute(&statement, &[&devices, &names, &values, &sessions, &seqs]).await;
                written.expect("the rows are right");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer does not panic");
    }
    began.elapsed()
}

async fn upsert_file(path: String, batches: Vec<Vec<Attribute>>) -> Duration {
    let written = tokio::task::spawn_blocking(move || {
        let mut connection = rusqlite::Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        connection.pragma_update(None, "synchronous", "normal")?;
        connection.execute_batch(
            "CREATE TABLE raw_attribute (device BLOB NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
                session BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (device, name)) WITHOUT ROWID",
        )?;
        let began = Instant::now();
        for rows in batches {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(
                "INSERT INTO raw_attribute VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE
                    SET value = excluded.value, session = excluded.session, seq = excluded.seq",
            )?;
            for Attribute { device, name, value, session, seq } in &rows {
                statement.execute((&device.as_bytes()[..], name, value, &session.as_bytes()[..], seq))?;
            }
            drop(statement);
            transaction.commit()?;
        }
        Ok::<_, rusqlite::Error>(began.elapsed())
    });
    written.await.expect("the writer does not panic").expect("the file can be written")
}

/// A connection without TLS.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the server of the store answers");
    tokio::spawn(connection);
    client
}
