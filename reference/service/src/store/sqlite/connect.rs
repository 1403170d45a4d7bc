//! Opening and migrating a file, and what SQLite's error codes mean for a caller.

use std::{fs, io, thread, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::store::{Access, SCHEMA_VERSION, SqliteUrl, StoreError, Synchronous, as_millis};

/// How often a lock that another connection holds is tried, with [`BUSY_WAIT`] between: 5 s in all. Longer than any
/// transaction here takes; shorter than the patience of whoever waits for a process that was paused in one.
const BUSY_TRIES: i32 = 5_000;

/// SQLite's own busy timeout backs off to 100 ms, which two busy registries would feel in their latency.
const BUSY_WAIT: Duration = Duration::from_millis(1);

/// Pages in the WAL before a commit folds them back: 16 MiB, so that a burst is not slowed by it every few commits.
const CHECKPOINT_PAGES: i64 = 4_096;

/// The WAL file is cut back to this when it restarts, after a long read let it grow.
const WAL_LIMIT_BYTES: i64 = 64 << 20;

/// Page cache of each connection, in KiB (negative, as SQLite wants it).
const CACHE_KIB: i64 = -16_384;

pub(super) fn open(url: &SqliteUrl, access: Access) -> Result<Connection, StoreError> {
    let path = url.path.display().to_string();
    exists(url, access)?;
    let create = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_CREATE,
        Access::Read => OpenFlags::empty(),
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let unusable = |error| not_opened(url, access, &error);
    let mut connection = Connection::open_with_flags(&url.path, flags).map_err(unusable)?;
    configure(&mut connection, url, access).map_err(unusable)?;
    match (access, connection.is_readonly("main")) {
        (Access::Read, _) | (Access::Write, Ok(false)) => Ok(connection),
        (Access::Write, Ok(true)) => Err(StoreError::ReadOnly(path)),
        (Access::Write, Err(error)) => Err(classified(&path, &error)),
    }
}

/// Creates the schema, or sees that it is ours; sets the snapshot period.
pub(super) fn migrate(
    connection: &mut Connection,
    snapshot_period: Duration,
) -> rusqlite::Result<Result<(), StoreError>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    match version(&transaction)? {
        Some(SCHEMA_VERSION) => {}
        Some(other) => return Ok(Err(StoreError::Schema { found: Some(other) })),
        None => {
            transaction.execute_batch(include_str!("schema.sql"))?;
            set(&transaction, "schema_version", SCHEMA_VERSION)?;
        }
    }
    set(&transaction, "snapshot_period_ms", as_millis(snapshot_period))?;
    transaction.commit()?;
    Ok(Ok(()))
}

/// What an error of SQLite means for a caller.
pub(super) fn classified(path: &str, error: &rusqlite::Error) -> StoreError {
    let words = format!("{path}: {error}");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy(words),
        Some(ErrorCode::ReadOnly) => StoreError::ReadOnly(path.to_owned()),
        Some(ErrorCode::DiskFull) => StoreError::DiskFull(path.to_owned()),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
            StoreError::Refused(words)
        }
        Some(_) | None if words.contains("no such table") => StoreError::Schema { found: None },
        Some(_) | None => StoreError::Failed(words),
    }
}

/// SQLite keeps to itself why a file cannot be opened, so the system is asked again.
fn not_opened(url: &SqliteUrl, access: Access, error: &rusqlite::Error) -> StoreError {
    let path = url.path.display().to_string();
    if error.sqlite_error_code() != Some(ErrorCode::CannotOpen) {
        return classified(&path, error);
    }
    let again = match access {
        Access::Write => fs::File::options().read(true).write(true).create(true).truncate(false).open(&url.path),
        Access::Read => fs::File::open(&url.path),
    };
    match again {
        Ok(_) => classified(&path, error),
        Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly(path),
        Err(cause) if cause.kind() == io::ErrorKind::StorageFull => StoreError::DiskFull(path),
        Err(cause) => StoreError::Failed(format!("{path}: {cause}")),
    }
}

fn exists(url: &SqliteUrl, access: Access) -> Result<(), StoreError> {
    let needed = match access {
        Access::Read => url.path.as_path(),
        Access::Write => match url.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            Some(_) | None => return Ok(()),
        },
    };
    match fs::metadata(needed) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing(needed.display().to_string())),
        Err(error) => Err(StoreError::Failed(format!("{}: {error}", needed.display()))),
    }
}

fn configure(connection: &mut Connection, url: &SqliteUrl, access: Access) -> rusqlite::Result<()> {
    connection.busy_handler(Some(|tries| {
        thread::sleep(BUSY_WAIT);
        tries < BUSY_TRIES
    }))?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    match access {
        Access::Read => connection.pragma_update(None, "query_only", true)?,
        Access::Write => {
            write_ahead(connection)?;
            connection.pragma_update(None, "journal_size_limit", WAL_LIMIT_BYTES)?;
            connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
            let synchronous = match url.synchronous {
                Synchronous::Normal => "NORMAL",
                Synchronous::Full => "FULL",
            };
            connection.pragma_update(None, "synchronous", synchronous)?;
        }
    }
    // Reads the file's header: what is not a database says so here, and not at the first write.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Turns on the WAL. SQLite does not call the busy handler for it, and two processes may open a new file at once.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)) {
            Ok(_) => return Ok(()),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < BUSY_TRIES => {
                tries += 1;
                thread::sleep(BUSY_WAIT);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Version of the schema; `None` for a file that has none.
fn version(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'setting'";
    if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(None);
    }
    let version = "SELECT value FROM setting WHERE name = 'schema_version'";
    connection.query_row(version, [], |row| row.get(0)).optional()
}

fn set(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let upsert =
        "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.execute(upsert, (name, value)).map(|_| ())
}
