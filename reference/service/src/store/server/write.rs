//! One batch, one transaction, one round trip; in the same trip, behind it, the question which sessions lost.

use deadpool_postgres::Client;
use dmp_core::registry::Beaten;
use tokio_postgres::{Error, Row, Statement, types::ToSql};

use super::classify::{outcome, query_error};
use crate::store::{WriteOutcome, columns::Columns, error::chain, guard::guarded, record::decode_beaten};

type Param<'a> = &'a (dyn ToSql + Sync);

pub(super) async fn write(client: &Client, columns: &Columns) -> WriteOutcome {
    let statements = match Statements::prepare(client).await {
        Ok(statements) => statements,
        // Nothing of the transaction has been sent.
        Err(error) => return query_error(&error).before_commit(),
    };
    let Columns { devices, attributes, sessions, standings, raes, feed } = columns;
    let partition = feed.map(|feed| feed.partition);
    let (partitions, next_offsets, received): (Vec<_>, Vec<_>, Vec<_>) = (
        feed.iter().map(|feed| feed.partition).collect(),
        feed.iter().map(|feed| feed.next_offset).collect(),
        feed.iter().map(|feed| feed.received).collect(),
    );
    let device_params: [Param<'_>; 8] = [
        &devices.device,
        &devices.version.epoch,
        &devices.version.session,
        &devices.version.seq,
        &devices.names,
        &devices.rae,
        &devices.seen_at,
        &partition,
    ];
    let attribute_params: [Param<'_>; 6] = [
        &attributes.device,
        &attributes.name,
        &attributes.version.epoch,
        &attributes.version.session,
        &attributes.version.seq,
        &attributes.value,
    ];
    let session_params: [Param<'_>; 5] =
        [&sessions.device, &sessions.session, &sessions.epoch, &sessions.rae, &sessions.opened];
    let standing_params: [Param<'_>; 4] =
        [&standings.device, &standings.session, &standings.epoch, &standings.snapshot];
    let rae_params: [Param<'_>; 4] = [&raes.rae, &raes.boot, &raes.connection, &raes.offline];
    let feed_params: [Param<'_>; 3] = [&partitions, &next_offsets, &received];
    // What a batch has no rows for is not sent: most are deltas alone, with no floor, no session to ask for and no RAE.
    let write = async |rows: usize, statement: &Statement, params: &[Param<'_>]| match rows {
        0 => Ok(0),
        _ => client.execute(statement, params).await,
    };
    // Each future sends when it is first polled: `biased` makes that the order of the lines.
    let (begin, devices, attributes, sessions, raes, feed, commit, beaten) = tokio::join!(
        biased;
        client.batch_execute("BEGIN"),
        write(devices.device.len(), &statements.devices, &device_params),
        write(attributes.device.len(), &statements.attributes, &attribute_params),
        write(sessions.device.len(), &statements.sessions, &session_params),
        write(raes.rae.len(), &statements.raes, &rae_params),
        write(partitions.len(), &statements.feed, &feed_params),
        client.batch_execute("COMMIT"),
        async {
            match standings.device.len() {
                0 => Ok(Vec::new()),
                _ => look(client, &statements.beaten, &standing_params).await,
            }
        },
    );
    let [devices, attributes, sessions, raes, feed] =
        [devices, attributes, sessions, raes, feed].map(|result| result.map(|_rows| ()));
    let ended = outcome([begin, devices, attributes, sessions, raes, feed], commit);
    ended.unwrap_or_else(|| {
        let beaten = beaten.unwrap_or_else(|error| {
            // What was written stays so; the next snapshot of a session that lost asks again.
            tracing::warn!("asking which sessions lost: {}", chain(&error));
            Vec::new()
        });
        WriteOutcome::Committed { beaten: beaten.iter().filter_map(decode).collect() }
    })
}

/// Asks in a transaction of its own that serializable ones do not heed: were it of the write, or serializable itself, then
/// those that open sessions meanwhile would be aborted for it, or it for them.
async fn look(client: &Client, statement: &Statement, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
    let (begin, rows, commit) = tokio::join!(
        biased;
        client.batch_execute("BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"),
        client.query(statement, params),
        client.batch_execute("COMMIT"),
    );
    begin.and(commit).and(rows)
}

/// The columns have the types that the statement names.
fn decode(row: &Row) -> Option<Beaten> {
    decode_beaten(row.try_get(0).ok()?, row.try_get(1).ok()?, row.try_get(2).ok()?)
}

/// Prepared once per connection.
struct Statements {
    devices: Statement,
    attributes: Statement,
    sessions: Statement,
    beaten: Statement,
    raes: Statement,
    feed: Statement,
}

impl Statements {
    async fn prepare(client: &Client) -> Result<Statements, Error> {
        let (devices, attributes) =
            (guarded(include_str!("write_devices.sql")), guarded(include_str!("write_attributes.sql")));
        let (devices, attributes, sessions, beaten, raes, feed) = tokio::try_join!(
            client.prepare_cached(&devices),
            client.prepare_cached(&attributes),
            client.prepare_cached(include_str!("write_sessions.sql")),
            client.prepare_cached(include_str!("beaten.sql")),
            client.prepare_cached(include_str!("write_raes.sql")),
            client.prepare_cached(include_str!("write_feed.sql")),
        )?;
        Ok(Statements { devices, attributes, sessions, beaten, raes, feed })
    }
}
