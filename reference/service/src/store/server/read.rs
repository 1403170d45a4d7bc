//! Reading: one statement each, so one moment each.

use std::collections::BTreeMap;

use deadpool_postgres::Client;
use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::Feed,
    time::Wall,
};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::{Error, Row, types::ToSql};
use uuid::Uuid;

use super::classify::query_error;
use crate::store::{
    Record, StoreError,
    record::{Assembly, RawVersion, RecordRow, decode_presence, decode_rae},
};

pub(super) async fn records(client: &Client) -> Result<BTreeMap<Device, Record>, StoreError> {
    assembled(client, include_str!("records.sql"), &[]).await
}

pub(super) async fn records_of(client: &Client, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
    let devices: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
    assembled(client, include_str!("records_of.sql"), &[&devices]).await
}

pub(super) async fn feeds(client: &Client) -> Result<Vec<Feed>, StoreError> {
    let rows = rows(client, include_str!("feeds.sql")).await.map_err(|error| query_error(&error))?;
    rows.iter()
        .map(|row| {
            let column = |at| row.try_get::<_, i64>(at).map_err(|error| query_error(&error));
            let number = column(0)?;
            let partition = i32::try_from(number).map_err(|_| StoreError::corrupt("feed.partition", number))?;
            Ok(Feed { partition, next_offset: column(1)?, received: Wall(column(2)?) })
        })
        .collect()
}

pub(super) async fn presence(client: &Client) -> Result<BTreeMap<Rae, Presence>, StoreError> {
    let rows = rows(client, include_str!("presence.sql")).await.map_err(|error| query_error(&error))?;
    rows.iter()
        .map(|row| {
            let raw = || Ok::<_, Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
            let (rae, boot, connection, offline) = raw().map_err(|error| query_error(&error))?;
            Ok((decode_rae(rae)?, decode_presence(boot, connection, offline)?))
        })
        .collect()
}

async fn rows(client: &Client, sql: &str) -> Result<Vec<Row>, Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[]).await
}

/// Row by row as they arrive: the answer of a whole fleet is not held twice.
async fn assembled(
    client: &Client,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
) -> Result<BTreeMap<Device, Record>, StoreError> {
    let failed = |error: Error| query_error(&error);
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    let rows = client.query_raw(&statement, params.iter().copied()).await.map_err(failed)?;
    pin_mut!(rows);
    let mut assembly = Assembly::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        assembly.take(&decoded(&row).map_err(failed)?)?;
    }
    Ok(assembly.finish())
}

/// Columns in the order of `records.sql`.
fn decoded(row: &Row) -> Result<RecordRow<'_>, Error> {
    let version =
        |epoch, session, seq| Ok::<_, Error>(RawVersion(row.try_get(epoch)?, row.try_get(session)?, row.try_get(seq)?));
    let attribute = match row.try_get(7)? {
        Some(name) => Some((name, row.try_get(8)?, version(9, 10, 11)?)),
        None => None,
    };
    Ok(RecordRow {
        device: row.try_get(0)?,
        floor: version(1, 2, 3)?,
        rae: row.try_get(4)?,
        seen_at: row.try_get(5)?,
        stale: row.try_get(6)?,
        attribute,
    })
}
