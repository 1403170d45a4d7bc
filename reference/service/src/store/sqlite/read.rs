//! Reading: one statement, or one read transaction, sees one moment.

use std::collections::BTreeMap;

use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::Feed,
    time::Wall,
};
use rusqlite::{CachedStatement, Connection, Params, Row};
use uuid::Uuid;

use crate::store::{
    Record, StoreError,
    record::{Assembly, RawVersion, RecordRow, decode_presence, decode_rae},
};

type Records = BTreeMap<Device, Record>;

pub(super) fn records(connection: &mut Connection) -> rusqlite::Result<Result<Records, StoreError>> {
    let mut assembly = Assembly::default();
    let mut statement = connection.prepare_cached(include_str!("records.sql"))?;
    let taken = take_all(&mut assembly, &mut statement, [])?;
    Ok(taken.map(|()| assembly.finish()))
}

pub(super) fn records_of(
    connection: &mut Connection,
    devices: &[Device],
) -> rusqlite::Result<Result<Records, StoreError>> {
    let mut assembly = Assembly::default();
    let transaction = connection.transaction()?;
    {
        let mut statement = transaction.prepare_cached(include_str!("record_of.sql"))?;
        for device in devices {
            if let Err(error) = take_all(&mut assembly, &mut statement, [device.0.as_bytes()])? {
                return Ok(Err(error));
            }
        }
    }
    transaction.commit()?;
    Ok(Ok(assembly.finish()))
}

pub(super) fn feeds(connection: &mut Connection) -> rusqlite::Result<Result<Vec<Feed>, StoreError>> {
    let sql = "SELECT partition, next_offset, received FROM feed ORDER BY partition";
    let mut statement = connection.prepare_cached(sql)?;
    let feed =
        |row: &Row<'_>| Ok(Feed { partition: row.get(0)?, next_offset: row.get(1)?, received: Wall(row.get(2)?) });
    statement.query_map([], feed)?.collect::<rusqlite::Result<_>>().map(Ok)
}

pub(super) fn presence(connection: &mut Connection) -> rusqlite::Result<Result<BTreeMap<Rae, Presence>, StoreError>> {
    let mut statement = connection.prepare_cached("SELECT rae, boot, connection, offline FROM rae")?;
    let mut rows = statement.query([])?;
    let mut presence = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (boot, connection, offline) = (row.get(1)?, row.get(2)?, row.get(3)?);
        match (decode_rae(&row.get::<_, String>(0)?), decode_presence(boot, connection, offline)) {
            (Ok(rae), Ok(said)) => presence.insert(rae, said),
            (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
        };
    }
    Ok(Ok(presence))
}

fn take_all(
    assembly: &mut Assembly,
    statement: &mut CachedStatement<'_>,
    params: impl Params,
) -> rusqlite::Result<Result<(), StoreError>> {
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        if let Err(error) = take(assembly, row)? {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Columns in the order of `records.sql`.
fn take(assembly: &mut Assembly, row: &Row<'_>) -> rusqlite::Result<Result<(), StoreError>> {
    let version = |epoch, session, seq| {
        Ok::<_, rusqlite::Error>(RawVersion(row.get(epoch)?, Uuid::from_bytes(row.get(session)?), row.get(seq)?))
    };
    let attribute = match row.get_ref(7)?.as_str_or_null()? {
        Some(name) => Some((name, row.get_ref(8)?.as_str()?, version(9, 10, 11)?)),
        None => None,
    };
    let row = RecordRow {
        device: Uuid::from_bytes(row.get(0)?),
        floor: version(1, 2, 3)?,
        rae: row.get_ref(4)?.as_str()?,
        seen_at: row.get(5)?,
        stale: row.get(6)?,
        attribute,
    };
    Ok(assembly.take(&row))
}
