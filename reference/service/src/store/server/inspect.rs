//! What the server's clock shows, and what this user may do.

use dmp_core::time::Wall;

use super::{ServerStore, classify::query_error};
use crate::store::{StoreError, inspect::Rights};

const NOW: &str = "SELECT (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::INT8";

/// Of each table that is there; for those that are not, whether they could be made.
const RIGHTS: &str = "SELECT t.name,
  COALESCE(has_table_privilege(to_regclass(t.name), 'SELECT'), FALSE),
  COALESCE(has_table_privilege(to_regclass(t.name), 'INSERT'), FALSE),
  COALESCE(has_table_privilege(to_regclass(t.name), 'UPDATE'), FALSE),
  COALESCE(has_table_privilege(to_regclass(t.name), 'DELETE'), FALSE),
  to_regclass(t.name) IS NOT NULL,
  COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)
FROM unnest($1::TEXT[]) AS t(name)";

impl ServerStore {
    pub(in crate::store) async fn now(&self) -> Result<Wall, StoreError> {
        self.with(async |client| {
            let row = client.query_one(NOW, &[]).await.map_err(|error| query_error(&error))?;
            row.try_get(0).map(Wall).map_err(|error| query_error(&error))
        })
        .await
    }

    pub(in crate::store) async fn rights(&self, tables: &[&str]) -> Result<Vec<Rights>, StoreError> {
        self.with(async |client| {
            let rows = client.query(RIGHTS, &[&tables]).await.map_err(|error| query_error(&error))?;
            let right = |row: &tokio_postgres::Row| {
                Ok(Rights {
                    table: row.try_get(0)?,
                    read: row.try_get(1)?,
                    insert: row.try_get(2)?,
                    update: row.try_get(3)?,
                    delete: row.try_get(4)?,
                    there: row.try_get(5)?,
                    make: row.try_get(6)?,
                })
            };
            rows.iter().map(right).collect::<Result<_, _>>().map_err(|error| query_error(&error))
        })
        .await
    }
}
