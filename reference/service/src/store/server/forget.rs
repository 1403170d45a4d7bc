//! What RAEs have left, and removing it.

use deadpool_postgres::Transaction;
use dmp_core::id::{Device, Rae};
use tokio_postgres::{Error, types::ToSql};
use uuid::Uuid;

use super::{ServerStore, classify::query_error};
use crate::store::{StoreError, forget::Traces};

const SERIALS: &str = "SELECT rae FROM rae WHERE rae LIKE $1::TEXT
UNION SELECT rae FROM device WHERE rae LIKE $1::TEXT
UNION SELECT rae FROM device_session WHERE rae LIKE $1::TEXT ORDER BY 1";

const DEVICES: &str = "SELECT device FROM device WHERE rae = ANY ($1::TEXT[])
UNION SELECT device FROM device_session WHERE rae = ANY ($1::TEXT[]) ORDER BY 1";

impl ServerStore {
    pub(in crate::store) async fn serials(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let like = format!("{prefix}%");
        self.with(async |client| {
            let rows = client.query(SERIALS, &[&like]).await.map_err(|error| query_error(&error))?;
            rows.iter().map(|row| row.try_get(0).map_err(|error| query_error(&error))).collect()
        })
        .await
    }

    pub(in crate::store) async fn devices_under(&self, raes: &[Rae]) -> Result<Vec<Device>, StoreError> {
        let raes: Vec<&str> = raes.iter().map(Rae::as_str).collect();
        self.with(async |client| {
            let rows = client.query(DEVICES, &[&raes]).await.map_err(|error| query_error(&error))?;
            rows.iter().map(|row| row.try_get(0).map(Device).map_err(|error| query_error(&error))).collect()
        })
        .await
    }

    pub(in crate::store) async fn rows_of(
        &self,
        devices: &[Device],
        raes: &[Rae],
        remove: bool,
    ) -> Result<Traces, StoreError> {
        let devices: Vec<Uuid> = devices.iter().map(|device| device.0).collect();
        let raes: Vec<&str> = raes.iter().map(Rae::as_str).collect();
        self.with(async |client| {
            let failed = |error: Error| query_error(&error);
            let transaction = client.transaction().await.map_err(failed)?;
            let of_devices = |table| rows(&transaction, table, "device = ANY ($1::UUID[])", &devices, remove);
            let traces = Traces {
                // `device` first, as retirement does: two that remove at once take the locks in one order.
                devices: of_devices("device").await.map_err(failed)?,
                attributes: of_devices("device_attribute").await.map_err(failed)?,
                sessions: of_devices("device_session").await.map_err(failed)?,
                raes: rows(&transaction, "rae", "rae = ANY ($1::TEXT[])", &raes, remove).await.map_err(failed)?,
            };
            transaction.commit().await.map_err(failed)?;
            Ok(traces)
        })
        .await
    }
}

async fn rows(
    transaction: &Transaction<'_>,
    table: &str,
    which: &str,
    of: &(dyn ToSql + Sync),
    remove: bool,
) -> Result<u64, Error> {
    if remove {
        return transaction.execute(&format!("DELETE FROM {table} WHERE {which}"), &[of]).await;
    }
    let counted = transaction.query_one(&format!("SELECT count(*) FROM {table} WHERE {which}"), &[of]).await?;
    counted.try_get::<_, i64>(0).map(i64::unsigned_abs)
}
