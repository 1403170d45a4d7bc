//! The background jobs, a bounded transaction at a time, each tried again where a writer was in its way.

use std::time::Duration;

use deadpool_postgres::Client;
use tokio_postgres::Error;
use uuid::Uuid;

use super::classify::query_error;
use crate::store::{CLEAN_PAGE_DEVICES, RETIRE_BATCH_DEVICES, StoreError, SweptPage, as_millis};

/// Tries of one transaction, and the longest wait before the second; it grows with each.
const TRIES: u32 = 10;
const FIRST_WAIT_MS: u32 = 10;

/// Cleans the next devices from `from` on.
pub(super) async fn clean_page(client: &Client, from: Uuid) -> Result<SweptPage, StoreError> {
    let mut tries = Tries::default();
    loop {
        match clean_once(client, from).await {
            Ok(page) => return Ok(page),
            Err(error) => tries.again(query_error(&error)).await?,
        }
    }
}

/// Retires some devices that are due; returns how many.
pub(super) async fn retire_batch(client: &mut Client, retire_after: Duration) -> Result<u64, StoreError> {
    let mut tries = Tries::default();
    loop {
        match retire_once(client, retire_after).await {
            Ok(retired) => return Ok(retired),
            Err(error) => tries.again(query_error(&error)).await?,
        }
    }
}

async fn clean_once(client: &Client, from: Uuid) -> Result<SweptPage, Error> {
    let page = client.prepare_cached(include_str!("page.sql")).await?;
    let Some(row) = client.query_opt(&page, &[&from, &CLEAN_PAGE_DEVICES]).await? else {
        return Ok(SweptPage::default());
    };
    let last: Uuid = row.try_get(0)?;
    let clean = client.prepare_cached(include_str!("clean.sql")).await?;
    let deleted = client.execute(&clean, &[&from, &last]).await?;
    Ok(SweptPage { deleted, next: last.as_u128().checked_add(1).map(Uuid::from_u128) })
}

async fn retire_once(client: &mut Client, retire_after: Duration) -> Result<u64, Error> {
    let transaction = client.transaction().await?;
    let retire = transaction.prepare_cached(include_str!("retire.sql")).await?;
    let rows = transaction.query(&retire, &[&as_millis(retire_after), &RETIRE_BATCH_DEVICES]).await?;
    let devices = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<Uuid>, Error>>()?;
    for sql in [include_str!("retire_attributes.sql"), include_str!("retire_sessions.sql")] {
        let statement = transaction.prepare_cached(sql).await?;
        transaction.execute(&statement, &[&devices]).await?;
    }
    transaction.commit().await?;
    Ok(devices.len() as u64)
}

#[derive(Default)]
struct Tries(u32);

impl Tries {
    /// Waits, or returns the error where another try would not help or was the last.
    async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.0 += 1;
        if !matches!(error, StoreError::Busy(_)) || self.0 == TRIES {
            return Err(error);
        }
        let wait = rand::random_range(1..=FIRST_WAIT_MS * self.0);
        tokio::time::sleep(Duration::from_millis(wait.into())).await;
        Ok(())
    }
}
