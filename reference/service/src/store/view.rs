//! A view over somebody's own tables, read and never written: one row per attribute that is shown, with its version.
//!
//! Its columns are `device` and `session` (UUIDs), `attribute`, `value` (JSON), `epoch` and `seq`; in whatever types these
//! can be cast from. Nothing is known of floors, RAEs and presence there.

use std::collections::BTreeMap;

use dmp_core::{
    event::{AttributeName, Value},
    id::{Device, Version},
};
use uuid::Uuid;

use super::{
    Access, ServerStore, SqliteStore, StoreError, StoreUrl,
    record::{RawVersion, decode_value, decode_version},
};

/// What a view must have.
pub const VIEW_COLUMNS: [&str; 6] = ["device", "attribute", "value", "epoch", "session", "seq"];

/// Attributes of one device.
pub type Attributes = BTreeMap<AttributeName, (Value, Version)>;

/// A view in a store of either kind.
#[derive(Debug)]
pub struct View {
    store: Backend,
    name: String,
}

#[derive(Debug)]
enum Backend {
    Sqlite(SqliteStore),
    Server(ServerStore),
}

/// One row, as it comes from either driver.
pub(super) struct ViewRow<'a> {
    pub(super) device: Uuid,
    pub(super) attribute: &'a str,
    pub(super) value: &'a str,
    pub(super) version: RawVersion,
}

/// Puts rows together.
#[derive(Default)]
pub(super) struct Shown(BTreeMap<Device, Attributes>);

impl View {
    /// Opens the store and sees that the view is there, with all its columns. `name` goes into statements as it is: its
    /// giver must have seen that it is a name.
    ///
    /// # Errors
    /// [`StoreError::View`] where it is not there or lacks a column; else as opening a store.
    pub async fn open(url: &StoreUrl, name: &str) -> Result<View, StoreError> {
        let store = match url {
            StoreUrl::Sqlite(url) => Backend::Sqlite(SqliteStore::open(url, Access::Read).await?),
            StoreUrl::Server(url) => Backend::Server(ServerStore::open(url).await?),
        };
        let there = match &store {
            Backend::Sqlite(store) => store.columns_of(name).await?,
            Backend::Server(store) => store.columns_of(name).await?,
        };
        let missing: Vec<_> =
            VIEW_COLUMNS.into_iter().filter(|column| !there.iter().any(|there| there == column)).collect();
        match missing[..] {
            [] => {}
            [one] => return Err(StoreError::view(name, format!("has no column {one}"))),
            _ => return Err(StoreError::view(name, format!("has no columns {}", missing.join(", ")))),
        }
        let view = View { store, name: name.to_owned() };
        view.of(&[]).await?;
        Ok(view)
    }

    /// What is shown of every device.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn all(&self) -> Result<BTreeMap<Device, Attributes>, StoreError> {
        match &self.store {
            Backend::Sqlite(store) => store.shown_by(&self.name, None).await,
            Backend::Server(store) => store.shown_by(&self.name, None).await,
        }
    }

    /// What is shown of these devices.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Attributes>, StoreError> {
        match &self.store {
            Backend::Sqlite(store) => store.shown_by(&self.name, Some(devices)).await,
            Backend::Server(store) => store.shown_by(&self.name, Some(devices)).await,
        }
    }
}

impl Shown {
    pub(super) fn take(&mut self, row: &ViewRow<'_>) -> Result<(), StoreError> {
        let name =
            AttributeName::try_from(row.attribute).map_err(|_| StoreError::corrupt("attribute", row.attribute))?;
        let shown = (decode_value(row.value)?, decode_version(row.version)?);
        self.0.entry(Device(row.device)).or_default().insert(name, shown);
        Ok(())
    }

    pub(super) fn finish(self) -> BTreeMap<Device, Attributes> {
        self.0
    }
}
