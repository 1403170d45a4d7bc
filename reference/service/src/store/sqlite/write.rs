//! One batch, one transaction: the same guarded statement per row, which costs SQLite less than one over many rows.
//!
//! A refused `ON CONFLICT` neither locks nor logs here, so the unchanged attributes of a snapshot need no anti-join.

use dmp_core::registry::Beaten;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::connect::classified;
use crate::store::{WriteOutcome, columns::Columns, guard::guarded, record::decode_beaten};

pub(super) fn write(connection: &mut Connection, columns: &Columns, path: &str) -> WriteOutcome {
    let before_commit = |error| classified(path, &error).before_commit();
    let transaction = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
        Ok(transaction) => transaction,
        Err(error) => return before_commit(error),
    };
    let beaten = match fill(&transaction, columns).and_then(|()| beaten(&transaction, columns)) {
        Ok(beaten) => beaten,
        Err(error) => return before_commit(error),
    };
    match transaction.commit() {
        Ok(()) => WriteOutcome::Committed { beaten },
        Err(error) => match error.sqlite_error_code() {
            // SQLite says these before it writes the commit's frame, and has rolled back by now.
            Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull) => before_commit(error),
            Some(_) | None => WriteOutcome::Ambiguous { reason: format!("{path}: commit: {error}") },
        },
    }
}

fn fill(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<()> {
    devices(transaction, columns)?;
    attributes(transaction, columns)?;
    sessions(transaction, columns)?;
    raes(transaction, columns)?;
    let mut feed = transaction.prepare_cached(include_str!("write_feed.sql"))?;
    if let Some(row) = columns.feed {
        feed.execute((row.partition, row.next_offset, row.received))?;
    }
    Ok(())
}

fn devices(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<()> {
    let rows = &columns.devices;
    let partition = columns.feed.map(|feed| feed.partition);
    let mut statement = transaction.prepare_cached(&guarded(include_str!("write_device.sql")))?;
    for at in 0..rows.device.len() {
        statement.execute(params![
            rows.device[at].as_bytes(),
            rows.version.epoch[at],
            rows.version.session[at].as_bytes(),
            rows.version.seq[at],
            rows.names[at],
            rows.rae[at],
            rows.seen_at[at],
            partition,
        ])?;
    }
    Ok(())
}

fn attributes(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<()> {
    let rows = &columns.attributes;
    let mut statement = transaction.prepare_cached(&guarded(include_str!("write_attribute.sql")))?;
    for at in 0..rows.device.len() {
        statement.execute(params![
            rows.device[at].as_bytes(),
            rows.name[at],
            rows.version.epoch[at],
            rows.version.session[at].as_bytes(),
            rows.version.seq[at],
            rows.value[at],
        ])?;
    }
    Ok(())
}

fn sessions(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<()> {
    let rows = &columns.sessions;
    let mut statement = transaction.prepare_cached(include_str!("write_session.sql"))?;
    for at in 0..rows.device.len() {
        statement.execute(params![
            rows.device[at].as_bytes(),
            rows.session[at].as_bytes(),
            rows.epoch[at],
            rows.rae[at],
            rows.opened[at],
        ])?;
    }
    Ok(())
}

fn raes(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<()> {
    let rows = &columns.raes;
    let mut statement = transaction.prepare_cached(include_str!("write_rae.sql"))?;
    for at in 0..rows.rae.len() {
        statement.execute(params![rows.rae[at], rows.boot[at], rows.connection[at], rows.offline[at]])?;
    }
    Ok(())
}

/// The sessions that are not the newest of their device.
fn beaten(transaction: &Transaction<'_>, columns: &Columns) -> rusqlite::Result<Vec<Beaten>> {
    let rows = &columns.standings;
    let mut statement = transaction.prepare_cached(include_str!("beaten.sql"))?;
    let mut beaten = Vec::new();
    for at in 0..rows.device.len() {
        let params =
            params![rows.device[at].as_bytes(), rows.session[at].as_bytes(), rows.epoch[at], rows.snapshot[at]];
        if let Some(by) = statement.query_row(params, |row| row.get(0)).optional()? {
            beaten.extend(decode_beaten(rows.device[at], rows.session[at], by));
        }
    }
    Ok(beaten)
}
