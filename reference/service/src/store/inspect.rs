//! Looking at a store before it is used: its clock, and what this user may do there.

use dmp_core::time::Wall;

use super::{Database, StoreError};

/// The tables of the reference, and its view.
pub const TABLES: [&str; 7] =
    ["setting", "device", "device_attribute", "device_session", "rae", "feed", "device_record"];

/// What may be done to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// Its name.
    pub table: String,
    /// Whether it is there.
    pub there: bool,
    /// Whether it may be read.
    pub read: bool,
    /// Whether rows may be inserted, changed and removed.
    pub write: bool,
    /// Whether tables may be made beside it.
    pub make: bool,
}

impl Database {
    /// What the server's clock shows; `None` for a file, whose clock is this machine's.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn now(&self) -> Result<Option<Wall>, StoreError> {
        match self {
            Database::Sqlite(_) => Ok(None),
            Database::Server(store) => store.now().await.map(Some),
        }
    }

    /// What may be done to each of [`TABLES`]; `None` for a file, where opening it has told.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn rights(&self) -> Result<Option<Vec<Rights>>, StoreError> {
        match self {
            Database::Sqlite(_) => Ok(None),
            Database::Server(store) => store.rights(&TABLES).await.map(Some),
        }
    }
}
