//! The background jobs, a bounded batch at a time: between two, writers have their turn.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use crate::store::{CLEAN_PAGE_DEVICES, RETIRE_BATCH_DEVICES, SweptPage, as_millis};

/// Cleans the next devices from `from` on.
pub(super) fn clean_page(connection: &mut Connection, from: Uuid) -> rusqlite::Result<SweptPage> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let page = include_str!("page.sql");
    let last: Option<[u8; 16]> =
        transaction.prepare_cached(page)?.query_row((from.as_bytes(), CLEAN_PAGE_DEVICES), |row| row.get(0))?;
    let Some(last) = last.map(Uuid::from_bytes) else { return Ok(SweptPage::default()) };
    let deleted = transaction.prepare_cached(include_str!("clean.sql"))?.execute((from.as_bytes(), last.as_bytes()))?;
    transaction.commit()?;
    Ok(SweptPage { deleted: deleted as u64, next: last.as_u128().checked_add(1).map(Uuid::from_u128) })
}

/// Retires some devices that are due; returns how many.
pub(super) fn retire_batch(connection: &mut Connection, retire_after: Duration) -> rusqlite::Result<u64> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let retired: Vec<[u8; 16]> = transaction
        .prepare_cached(include_str!("retire.sql"))?
        .query_map((as_millis(retire_after), RETIRE_BATCH_DEVICES), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for device in &retired {
        for table in ["DELETE FROM device_attribute WHERE device = ?1", "DELETE FROM device_session WHERE device = ?1"]
        {
            transaction.prepare_cached(table)?.execute([device])?;
        }
    }
    transaction.commit()?;
    Ok(retired.len() as u64)
}
