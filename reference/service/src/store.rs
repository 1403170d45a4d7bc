//! The store: what the registry writes and everybody else reads. One trait, two implementations, one schema in shape.
//!
//! [`SqliteStore`] is the embedded default; [`ServerStore`] speaks to PostgreSQL and CockroachDB with the same SQL. Both
//! hold `device` (floors), `device_attribute` (newest offer per name), `device_session`, `rae` (presence) and `feed` (how
//! far each partition is read), and show them through the view `device_record`, which applies the visibility rule.
//!
//! A write is one transaction of statements that each keep what is newer, so that a repeated, reordered or concurrent
//! write ends in the same state. Nothing here retries a write: the registry does, on [`WriteOutcome`].
//!
//! The longest value is [`MAX_VALUE_BYTES`], by a constraint of the schema. The wire contract allows longer ones: such a
//! record decodes and is then refused by the store, for ever, which is the registry's cue to quarantine it.

use std::{collections::BTreeMap, future::Future, time::Duration};

use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::{Feed, Rows},
};

pub use dmp_core::registry::WriteOutcome;

mod columns;
mod error;
mod forget;
mod guard;
mod inspect;
mod record;
mod server;
mod sqlite;
mod url;
mod view;

pub use dmp_core::record::Record;
pub use error::StoreError;
pub use forget::{Known, Traces};
pub use inspect::{Rights, TABLES};
pub use server::ServerStore;
pub use sqlite::SqliteStore;
pub use url::{Roots, ServerUrl, SqliteUrl, StoreUrl, StoreUrlError, Synchronous, Tls};
pub use view::{Attributes, VIEW_COLUMNS, View};

/// Longest value of an attribute, in bytes of its JSON form: `CHECK` of `device_attribute.value`.
pub const MAX_VALUE_BYTES: usize = 65_536;

/// Version of the schema that this code reads and writes; held in table `setting`.
pub const SCHEMA_VERSION: i64 = 1;

/// A device is stale when its newest snapshot is more than this many snapshot periods behind its feed.
pub const STALE_AFTER_PERIODS: u32 = 3;

/// Devices whose attributes one transaction of [`Store::clean`] looks at: some thousand rows, a few milliseconds.
const CLEAN_PAGE_DEVICES: i64 = 500;

/// Devices that one transaction of [`Store::retire`] deletes.
const RETIRE_BATCH_DEVICES: i64 = 100;

/// What a store does. Dropping a future never leaves a transaction half done: it ends by itself, either way.
pub trait Store: Send + Sync + 'static {
    /// Brings the schema up to [`SCHEMA_VERSION`] and sets the snapshot period, on which the view's `stale` rests.
    ///
    /// Safe to be called by several processes at once, and again.
    ///
    /// # Errors
    /// [`StoreError::Schema`] where the store holds another version.
    fn migrate(&self, snapshot_period: Duration) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes `rows` in one transaction, and looks in it which of the sessions with a snapshot in them are not the newest
    /// of their device.
    ///
    /// `Refused` only where the fault is in the rows; a store that is full, read-only or not migrated answers `Aborted`,
    /// lest good records be quarantined for it.
    fn write(&self, rows: &Rows) -> impl Future<Output = WriteOutcome> + Send;

    /// Deletes what can never be visible again, in bounded batches: attributes at or below their device's floor whose
    /// name is not in its names. Returns how many.
    ///
    /// # Errors
    /// Whatever the store says; what was deleted until then stays deleted.
    fn clean(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Deletes whole, in bounded batches, every device that has been stale for longer than `retire_after`. Returns how
    /// many.
    ///
    /// # Errors
    /// Whatever the store says; what was deleted until then stays deleted.
    fn retire(&self, retire_after: Duration) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Every device with a floor, and what is visible of it, as of one moment.
    ///
    /// # Errors
    /// Whatever the store says.
    fn records(&self) -> impl Future<Output = Result<BTreeMap<Device, Record>, StoreError>> + Send;

    /// The same of the given devices alone, by primary key.
    ///
    /// # Errors
    /// Whatever the store says.
    fn records_of(
        &self,
        devices: &[Device],
    ) -> impl Future<Output = Result<BTreeMap<Device, Record>, StoreError>> + Send;

    /// How far each partition is read, by partition.
    ///
    /// # Errors
    /// Whatever the store says.
    fn feeds(&self) -> impl Future<Output = Result<Vec<Feed>, StoreError>> + Send;

    /// Presence of every RAE that ever said something.
    ///
    /// # Errors
    /// Whatever the store says.
    fn presence(&self) -> impl Future<Output = Result<BTreeMap<Rae, Presence>, StoreError>> + Send;
}

/// What the opener is going to do with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Write, and create the file of an embedded store where it is missing.
    Write,
    /// Read what is there.
    Read,
}

/// What somebody is to a store on a server; neither can change the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Does what the registry does: reads, writes and cleans up rows.
    Writer,
    /// Reads the view `device_record`, and no table.
    Reader,
}

/// A store of either kind, as named by a [`StoreUrl`].
#[derive(Debug)]
pub enum Database {
    /// One file.
    Sqlite(SqliteStore),
    /// PostgreSQL or CockroachDB.
    Server(ServerStore),
}

impl Database {
    /// Opens the store and sees that it answers. Does not migrate.
    ///
    /// # Errors
    /// [`StoreError`]: missing, read-only where it is to be written, unreachable, credentials refused.
    pub async fn open(url: &StoreUrl, access: Access) -> Result<Database, StoreError> {
        match url {
            StoreUrl::Sqlite(url) => SqliteStore::open(url, access).await.map(Database::Sqlite),
            StoreUrl::Server(url) => ServerStore::open(url).await.map(Database::Server),
        }
    }
}

/// Calls the same method of whichever store it is.
macro_rules! whichever {
    ($database:expr, $store:ident => $call:expr) => {
        match $database {
            Database::Sqlite($store) => $call.await,
            Database::Server($store) => $call.await,
        }
    };
}

impl Store for Database {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        whichever!(self, store => store.migrate(snapshot_period))
    }

    async fn write(&self, rows: &Rows) -> WriteOutcome {
        whichever!(self, store => store.write(rows))
    }

    async fn clean(&self) -> Result<u64, StoreError> {
        whichever!(self, store => store.clean())
    }

    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        whichever!(self, store => store.retire(retire_after))
    }

    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        whichever!(self, store => store.records())
    }

    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        whichever!(self, store => store.records_of(devices))
    }

    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        whichever!(self, store => store.feeds())
    }

    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        whichever!(self, store => store.presence())
    }
}

/// What one transaction of [`Store::clean`] did.
#[derive(Default)]
struct SweptPage {
    deleted: u64,
    /// Where the next one starts; `None` after the last device.
    next: Option<uuid::Uuid>,
}

/// For arithmetic in SQL: clamped, so that it does not overflow there.
fn as_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX).min(i64::MAX / 8)
}
