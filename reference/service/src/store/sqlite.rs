//! The embedded store: one SQLite file in WAL mode, which several processes may open at once.
//!
//! Three threads, each with its own connection: one writes, one reads whole records, one answers the short questions, so
//! that a long read delays neither. WAL lets readers see one moment while a writer goes on; writers of several processes
//! take turns by `BEGIN IMMEDIATE` and wait for each other within a bound.
//!
//! A commit is handed to the operating system, not to the disk (`synchronous=NORMAL`), unless the URL asks for `full`.
//! The registry commits Kafka offsets on the strength of it, so what may be lost must be said: nothing when processes
//! die, however; the newest commits when the machine loses power, which the devices' next snapshots heal. The embedded
//! store is for one machine under test, where an `fsync` per batch would measure the disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::{Feed, Rows},
};
use rusqlite::Connection;

use super::{Access, Record, SqliteUrl, Store, StoreError, WriteOutcome, columns::Columns};

mod connect;
mod forget;
mod lane;
mod read;
mod sweep;
mod view;
mod write;

use lane::{Lane, LaneError};

/// A store in one file.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Lane,
    whole: Lane,
    quick: Lane,
    path: Arc<str>,
}

impl SqliteStore {
    /// Opens the file, and creates it for [`Access::Write`] in a directory that exists.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::ReadOnly`], or what SQLite says.
    pub async fn open(url: &SqliteUrl, access: Access) -> Result<SqliteStore, StoreError> {
        let path: Arc<str> = url.path.display().to_string().into();
        let start = |name, access| {
            let url = url.clone();
            Lane::start(name, move || connect::open(&url, access))
        };
        // The writer first: it is the one that creates the file.
        let writer = start("store-write", access).await?;
        let whole = start("store-read", Access::Read).await?;
        let quick = start("store-poll", Access::Read).await?;
        Ok(SqliteStore { writer, whole, quick, path })
    }

    async fn on<T: Send + 'static>(
        &self,
        lane: &Lane,
        job: impl FnOnce(&mut Connection) -> rusqlite::Result<Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let path = Arc::clone(&self.path);
        lane.run(move |connection| job(connection).unwrap_or_else(|error| Err(connect::classified(&path, &error))))
            .await
            .map_err(|LaneError { .. }| StoreError::Lost(format!("thread of {} has ended", self.path)))?
    }
}

impl Store for SqliteStore {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        self.on(&self.writer, move |connection| connect::migrate(connection, snapshot_period)).await
    }

    async fn write(&self, rows: &Rows) -> WriteOutcome {
        let columns = Columns::of(rows);
        let path = Arc::clone(&self.path);
        match self.writer.run(move |connection| write::write(connection, &columns, &path)).await {
            Ok(outcome) => outcome,
            Err(LaneError { started }) => {
                let reason = format!("thread of {} has ended", self.path);
                if started { WriteOutcome::Ambiguous { reason } } else { WriteOutcome::Aborted { reason } }
            }
        }
    }

    async fn clean(&self) -> Result<u64, StoreError> {
        let (mut deleted, mut next) = (0, Some(uuid::Uuid::nil()));
        while let Some(from) = next {
            let page = self.on(&self.writer, move |connection| sweep::clean_page(connection, from).map(Ok)).await?;
            deleted += page.deleted;
            next = page.next;
        }
        Ok(deleted)
    }

    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        let mut retired = 0;
        loop {
            let batch =
                self.on(&self.writer, move |connection| sweep::retire_batch(connection, retire_after).map(Ok)).await?;
            if batch == 0 {
                return Ok(retired);
            }
            retired += batch;
        }
    }

    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.on(&self.whole, read::records).await
    }

    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        let devices = devices.to_vec();
        self.on(&self.quick, move |connection| read::records_of(connection, &devices)).await
    }

    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        self.on(&self.quick, read::feeds).await
    }

    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        self.on(&self.quick, read::presence).await
    }
}
