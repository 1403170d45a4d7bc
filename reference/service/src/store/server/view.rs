//! Reading a view over other tables.

use std::collections::BTreeMap;

use dmp_core::id::Device;
use tokio_postgres::{Error, Row, error::SqlState};
use uuid::Uuid;

use super::{ServerStore, classify::query_error};
use crate::store::{
    StoreError,
    record::RawVersion,
    view::{Attributes, Shown, ViewRow},
};

impl ServerStore {
    /// Names of the columns of a view or table.
    pub(in crate::store) async fn columns_of(&self, view: &str) -> Result<Vec<String>, StoreError> {
        let sql = format!("SELECT * FROM {view} LIMIT 0");
        self.with(async |client| {
            let statement = client.prepare(&sql).await.map_err(|error| unusable(view, &error))?;
            // Whether it may be read shows only when it is.
            client.query(&statement, &[]).await.map_err(|error| unusable(view, &error))?;
            Ok(statement.columns().iter().map(|column| column.name().to_owned()).collect())
        })
        .await
    }

    /// What a view shows, of `devices` alone where they are given.
    pub(in crate::store) async fn shown_by(
        &self,
        view: &str,
        devices: Option<&[Device]>,
    ) -> Result<BTreeMap<Device, Attributes>, StoreError> {
        let of: Option<Vec<Uuid>> = devices.map(|devices| devices.iter().map(|device| device.0).collect());
        let sql = format!(
            "SELECT device::UUID, attribute::TEXT, value::TEXT, epoch::INT8, session::UUID, seq::INT8 FROM {view} \
             WHERE value IS NOT NULL AND ($1::UUID[] IS NULL OR device::UUID = ANY ($1::UUID[]))"
        );
        self.with(async |client| {
            let unusable = |error: Error| unusable(view, &error);
            let statement = client.prepare_cached(&sql).await.map_err(unusable)?;
            let mut shown = Shown::default();
            for row in client.query(&statement, &[&of]).await.map_err(unusable)? {
                shown.take(&decoded(&row).map_err(|error| query_error(&error))?)?;
            }
            Ok(shown.finish())
        })
        .await
    }
}

fn decoded(row: &Row) -> Result<ViewRow<'_>, Error> {
    let version = RawVersion(row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    Ok(ViewRow { device: row.try_get(0)?, attribute: row.try_get(1)?, value: row.try_get(2)?, version })
}

fn unusable(view: &str, error: &Error) -> StoreError {
    match error.code() {
        Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME) => StoreError::view(view, "does not exist"),
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => StoreError::view(view, "may not be read by this user"),
        Some(
            &SqlState::CANNOT_COERCE
            | &SqlState::INVALID_TEXT_REPRESENTATION
            | &SqlState::DATATYPE_MISMATCH
            | &SqlState::UNDEFINED_FUNCTION,
        ) => {
            let words = error.as_db_error().map_or_else(String::new, |error| error.message().to_owned());
            StoreError::view(view, format!("has a column of a wrong type: {words}"))
        }
        Some(_) | None => query_error(error),
    }
}
