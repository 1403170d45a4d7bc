//! What RAEs have left, and removing it.

use dmp_core::id::{Device, Rae};
use rusqlite::{Connection, ToSql, Transaction, TransactionBehavior};
use uuid::Uuid;

use super::SqliteStore;
use crate::store::{StoreError, forget::Traces};

const SERIALS: &str = "SELECT rae FROM rae WHERE rae LIKE ?1
UNION SELECT rae FROM device WHERE rae LIKE ?1
UNION SELECT rae FROM device_session WHERE rae LIKE ?1 ORDER BY 1";

const DEVICES: &str = "SELECT device FROM device WHERE rae = ?1
UNION SELECT device FROM device_session WHERE rae = ?1";

impl SqliteStore {
    pub(in crate::store) async fn serials(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let like = format!("{prefix}%");
        self.on(&self.whole, move |connection| {
            connection.prepare(SERIALS)?.query_map([like], |row| row.get(0))?.collect::<rusqlite::Result<_>>().map(Ok)
        })
        .await
    }

    pub(in crate::store) async fn devices_under(&self, raes: &[Rae]) -> Result<Vec<Device>, StoreError> {
        let raes: Vec<String> = raes.iter().map(Rae::to_string).collect();
        self.on(&self.whole, move |connection| {
            let mut statement = connection.prepare(DEVICES)?;
            let mut devices = std::collections::BTreeSet::new();
            for rae in raes {
                for device in statement.query_map([rae], |row| row.get(0))? {
                    devices.insert(Device(Uuid::from_bytes(device?)));
                }
            }
            Ok(Ok(devices.into_iter().collect()))
        })
        .await
    }

    pub(in crate::store) async fn rows_of(
        &self,
        devices: &[Device],
        raes: &[Rae],
        remove: bool,
    ) -> Result<Traces, StoreError> {
        let devices: Vec<Device> = devices.to_vec();
        let raes: Vec<String> = raes.iter().map(Rae::to_string).collect();
        let lane = if remove { &self.writer } else { &self.whole };
        self.on(lane, move |connection| rows_of(connection, &devices, &raes, remove).map(Ok)).await
    }
}

fn rows_of(connection: &mut Connection, devices: &[Device], raes: &[String], remove: bool) -> rusqlite::Result<Traces> {
    let behavior = if remove { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
    let transaction = connection.transaction_with_behavior(behavior)?;
    let mut traces = Traces::default();
    for device in devices {
        let id: &[u8] = device.0.as_bytes();
        traces.devices += rows(&transaction, "device", "device", &id, remove)?;
        traces.attributes += rows(&transaction, "device_attribute", "device", &id, remove)?;
        traces.sessions += rows(&transaction, "device_session", "device", &id, remove)?;
    }
    for rae in raes {
        traces.raes += rows(&transaction, "rae", "rae", rae, remove)?;
    }
    transaction.commit()?;
    Ok(traces)
}

fn rows(transaction: &Transaction<'_>, table: &str, key: &str, of: &dyn ToSql, remove: bool) -> rusqlite::Result<u64> {
    if remove {
        let removed = transaction.prepare_cached(&format!("DELETE FROM {table} WHERE {key} = ?1"))?.execute([of])?;
        return Ok(removed as u64);
    }
    let sql = format!("SELECT count(*) FROM {table} WHERE {key} = ?1");
    transaction.prepare_cached(&sql)?.query_row([of], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs)
}
