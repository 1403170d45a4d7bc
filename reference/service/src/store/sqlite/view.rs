//! Reading a view over other tables.

use std::collections::BTreeMap;

use dmp_core::id::Device;
use rusqlite::{Connection, Row, types::ValueRef};
use uuid::Uuid;

use super::SqliteStore;
use crate::store::{
    StoreError,
    record::RawVersion,
    view::{Attributes, Shown, ViewRow},
};

impl SqliteStore {
    /// Names of the columns of a view or table.
    pub(in crate::store) async fn columns_of(&self, view: &str) -> Result<Vec<String>, StoreError> {
        let view = view.to_owned();
        self.on(&self.whole, move |connection| match connection.prepare(&format!("SELECT * FROM {view} LIMIT 0")) {
            Ok(statement) => Ok(Ok(statement.column_names().map(str::to_owned).collect())),
            Err(error) if error.to_string().contains("no such table") => {
                Ok(Err(StoreError::view(&view, "does not exist")))
            }
            Err(error) => Err(error),
        })
        .await
    }

    /// What a view shows, of `devices` alone where they are given.
    pub(in crate::store) async fn shown_by(
        &self,
        view: &str,
        devices: Option<&[Device]>,
    ) -> Result<BTreeMap<Device, Attributes>, StoreError> {
        let (view, devices) = (view.to_owned(), devices.map(<[Device]>::to_vec));
        self.on(&self.whole, move |connection| shown(connection, &view, devices.as_deref())).await
    }
}

fn shown(
    connection: &mut Connection,
    view: &str,
    devices: Option<&[Device]>,
) -> rusqlite::Result<Result<BTreeMap<Device, Attributes>, StoreError>> {
    let all = format!("SELECT device, attribute, value, epoch, session, seq FROM {view} WHERE value IS NOT NULL");
    let mut shown = Shown::default();
    let transaction = connection.transaction()?;
    match devices {
        None => {
            let mut statement = transaction.prepare_cached(&all)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if let Err(error) = take(&mut shown, row)? {
                    return Ok(Err(error));
                }
            }
        }
        Some(devices) => {
            let mut statement = transaction.prepare_cached(&format!("{all} AND (device = ?1 OR device = ?2)"))?;
            for device in devices {
                let mut rows = statement.query((device.0.as_bytes(), device.0.to_string()))?;
                while let Some(row) = rows.next()? {
                    if let Err(error) = take(&mut shown, row)? {
                        return Ok(Err(error));
                    }
                }
            }
        }
    }
    transaction.commit()?;
    Ok(Ok(shown.finish()))
}

fn take(shown: &mut Shown, row: &Row<'_>) -> rusqlite::Result<Result<(), StoreError>> {
    let (device, session) = match (uuid(row.get_ref(0)?), uuid(row.get_ref(4)?)) {
        (Ok(device), Ok(session)) => (device, session),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error)),
    };
    let version = RawVersion(row.get(3)?, session, row.get(5)?);
    Ok(shown.take(&ViewRow { device, attribute: row.get_ref(1)?.as_str()?, value: row.get_ref(2)?.as_str()?, version }))
}

/// SQLite has no such type: 16 bytes, or a text.
fn uuid(value: ValueRef<'_>) -> Result<Uuid, StoreError> {
    let read = match value {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes).ok(),
        ValueRef::Text(text) => Uuid::try_parse_ascii(text).ok(),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => None,
    };
    read.ok_or_else(|| StoreError::corrupt("device or session", format!("{value:?}")))
}
