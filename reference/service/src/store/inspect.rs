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
    /// Whether rows may be inserted.
    pub insert: bool,
    /// Whether rows may be changed.
    pub update: bool,
    /// Whether rows may be removed.
    pub delete: bool,
    /// Whether tables may be made beside it.
    pub make: bool,
}

impl Rights {
    /// Whether they suffice for what a registry does to the table: what [`Role::Writer`](super::Role::Writer) has.
    #[must_use]
    pub fn let_write(&self) -> bool {
        match self.table.as_str() {
            "device" | "device_attribute" => self.read && self.insert && self.update && self.delete,
            "device_session" => self.read && self.insert && self.delete,
            "setting" | "rae" | "feed" => self.read && self.insert && self.update,
            _it_does_nothing_there => true,
        }
    }

    /// Whether they suffice to remove what RAEs have left in the table.
    #[must_use]
    pub fn let_forget(&self) -> bool {
        match self.table.as_str() {
            "device" | "device_attribute" | "device_session" | "rae" => self.read && self.delete,
            _keeps_nothing_of_a_rae => true,
        }
    }
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
