//! The server store: PostgreSQL and CockroachDB with the same SQL, every statement of which stands in a file beside this.
//!
//! A write sends its whole transaction at once, `BEGIN` to `COMMIT`, and behind it the question which sessions lost; it
//! reads the answers as they come: one round trip. So once it is sent, a lost connection leaves its end unknown, and is reported as such. Reading is one statement on the
//! view, which sees one moment at any isolation level.
//!
//! Nothing waits for ever: connections, statements, idle transactions and whole calls each have a bound.

use std::{collections::BTreeMap, time::Duration};

use deadpool_postgres::{Client, Pool};
use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::{Feed, Rows},
};
use tokio::time::timeout;

use super::{Record, Role, ServerUrl, Store, StoreError, WriteOutcome, columns::Columns};

mod classify;
mod connect;
mod forget;
mod grant;
mod inspect;
mod migrate;
mod read;
mod sweep;
mod view;
mod write;

/// Longest a write may take from the moment it has a connection; above `statement_timeout`, so that the server speaks
/// first where it can.
const WRITE_WITHIN: Duration = Duration::from_secs(20);

/// Longest any other call may take: a million rows of the view at 50,000 a second.
const CALL_WITHIN: Duration = Duration::from_secs(30);

/// A store on a server.
pub struct ServerStore {
    pool: Pool,
    endpoint: String,
    user: String,
}

impl ServerStore {
    /// Connects, and sees that the server answers.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Credentials`], [`StoreError::Missing`] for a database that is not
    /// there, [`StoreError::Certificates`].
    pub async fn open(url: &ServerUrl) -> Result<ServerStore, StoreError> {
        let pool = connect::pool(url)?;
        let store = ServerStore { pool, endpoint: url.endpoint(), user: url.user().to_owned() };
        drop(store.client().await?);
        Ok(store)
    }

    /// Gives exactly the rights of `role` on a migrated schema to the user or group `name`. For the schema's owner.
    ///
    /// # Errors
    /// Whatever the store says, for example that there is nobody of this name.
    pub async fn grant(&self, role: Role, name: &str) -> Result<(), StoreError> {
        self.with(async |client| grant::grant(client, role, name).await).await
    }

    async fn client(&self) -> Result<Client, StoreError> {
        self.pool.get().await.map_err(|error| classify::pool_error(error, &self.endpoint, &self.user))
    }

    /// Runs `call` with a connection, within [`CALL_WITHIN`]. A connection on which something is still under way when
    /// time is up is closed, not handed to the next caller.
    async fn with<T>(&self, call: impl AsyncFnOnce(&mut Client) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut client = self.client().await?;
        match timeout(CALL_WITHIN, call(&mut client)).await {
            Ok(result) => result,
            Err(_elapsed) => {
                drop(Client::take(client));
                Err(StoreError::Busy(format!("{} did not answer within {CALL_WITHIN:?}", self.endpoint)))
            }
        }
    }
}

impl std::fmt::Debug for ServerStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerStore").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Store for ServerStore {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        self.with(async |client| migrate::migrate(client, snapshot_period).await).await
    }

    async fn write(&self, rows: &Rows) -> WriteOutcome {
        let client = match self.client().await {
            Ok(client) => client,
            Err(error) => return error.before_commit(),
        };
        let columns = Columns::of(rows);
        match timeout(WRITE_WITHIN, write::write(&client, &columns)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                drop(Client::take(client));
                WriteOutcome::Ambiguous { reason: format!("{} did not answer within {WRITE_WITHIN:?}", self.endpoint) }
            }
        }
    }

    async fn clean(&self) -> Result<u64, StoreError> {
        let (mut deleted, mut next) = (0, Some(uuid::Uuid::nil()));
        while let Some(from) = next {
            let page = self.with(async |client| sweep::clean_page(client, from).await).await?;
            deleted += page.deleted;
            next = page.next;
        }
        Ok(deleted)
    }

    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        let mut retired = 0;
        loop {
            let batch = self.with(async |client| sweep::retire_batch(client, retire_after).await).await?;
            if batch == 0 {
                return Ok(retired);
            }
            retired += batch;
        }
    }

    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.with(async |client| read::records(client).await).await
    }

    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.with(async |client| read::records_of(client, devices).await).await
    }

    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        self.with(async |client| read::feeds(client).await).await
    }

    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        self.with(async |client| read::presence(client).await).await
    }
}
