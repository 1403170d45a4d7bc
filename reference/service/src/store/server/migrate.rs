//! The schema on a server. Two processes may migrate at once: what the second trips over is there at its next try.

use std::time::Duration;

use deadpool_postgres::Client;
use tokio_postgres::{Error, error::SqlState};

use super::classify::query_error;
use crate::store::{SCHEMA_VERSION, StoreError, as_millis};

/// Tries, and the wait between them: a migration of empty tables takes well below a second.
const TRIES: u32 = 20;
const TRY_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn migrate(client: &Client, snapshot_period: Duration) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match attempt(client, snapshot_period).await {
            Ok(Some(SCHEMA_VERSION)) => return Ok(()),
            Ok(found) => return Err(StoreError::Schema { found }),
            Err(error) if tries < TRIES && is_a_race(&error) => {
                tries += 1;
                tokio::time::sleep(TRY_EVERY).await;
            }
            Err(error) => return Err(query_error(&error)),
        }
    }
}

/// Returns the version that is there in the end; sets the period only if it is ours.
async fn attempt(client: &Client, snapshot_period: Duration) -> Result<Option<i64>, Error> {
    let set = include_str!("set.sql");
    let mut found = version(client).await?;
    if found.is_none() {
        client.batch_execute(include_str!("schema.sql")).await?;
        client.execute(set, &[&"schema_version", &SCHEMA_VERSION]).await?;
        found = Some(SCHEMA_VERSION);
    }
    if found == Some(SCHEMA_VERSION) {
        client.execute(set, &[&"snapshot_period_ms", &as_millis(snapshot_period)]).await?;
    }
    Ok(found)
}

async fn version(client: &Client) -> Result<Option<i64>, Error> {
    match client.query_opt(include_str!("version.sql"), &[]).await {
        Ok(row) => row.map(|row| row.try_get(0)).transpose(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// PostgreSQL's `IF NOT EXISTS` looks first and creates then: another may have come in between.
fn is_a_race(error: &Error) -> bool {
    let code = error.code().map(SqlState::code);
    let concurrently = error.as_db_error().is_some_and(|error| error.message().contains("concurrently"));
    concurrently || matches!(code, Some("23505" | "42P07" | "42710" | "40001" | "40P01"))
}
