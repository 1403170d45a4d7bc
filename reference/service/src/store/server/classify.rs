//! What the server's errors mean: SQLSTATE classes (PostgreSQL, appendix A; CockroachDB, "Common Errors") as
//! [`StoreError`].

use deadpool_postgres::PoolError;
use tokio_postgres::{Error, error::DbError};

use crate::store::{StoreError, WriteOutcome, error::chain};

/// CockroachDB's `statement completion unknown`: the one state in which a server that answers does not know.
const COMPLETION_UNKNOWN: &str = "40003";

/// An error of a statement, or of a connection that was open.
pub(super) fn query_error(error: &Error) -> StoreError {
    match error.as_db_error() {
        Some(error) => db_error(error),
        None => StoreError::Lost(chain(error)),
    }
}

/// An error on the way to a connection.
pub(super) fn pool_error(error: PoolError, endpoint: &str, user: &str) -> StoreError {
    match error {
        PoolError::Backend(error) => match error.as_db_error().map(|error| (error.code().code(), error)) {
            Some(("28000" | "28P01", _)) => {
                StoreError::Credentials { endpoint: endpoint.to_owned(), user: user.to_owned() }
            }
            Some(("3D000", error)) => StoreError::Missing(format!("{endpoint}: {}", error.message())),
            Some((_, error)) => match db_error(error) {
                StoreError::Lost(words) => StoreError::Busy(words),
                other => other,
            },
            None => StoreError::Unreachable { endpoint: endpoint.to_owned(), cause: error.into() },
        },
        PoolError::Timeout(kind) => StoreError::Busy(format!("{endpoint}: no connection in time ({kind:?})")),
        error @ (PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_)) => {
            StoreError::Failed(format!("{endpoint}: {error}"))
        }
    }
}

/// How a transaction ended whose statements and commit were all sent before any was answered; `None` where it is
/// committed.
pub(super) fn outcome(
    statements: impl IntoIterator<Item = Result<(), Error>>,
    commit: Result<(), Error>,
) -> Option<WriteOutcome> {
    for result in statements {
        let Err(error) = result else { continue };
        return Some(match error.as_db_error() {
            // A statement that fails makes the commit behind it a rollback.
            Some(error) if error.code().code() != COMPLETION_UNKNOWN => db_error(error).before_commit(),
            Some(_) | None => WriteOutcome::Ambiguous { reason: chain(&error) },
        });
    }
    let Err(error) = commit else { return None };
    Some(match error.as_db_error().map(|error| (db_error(error), error.code().code())) {
        Some((StoreError::Lost(_), _)) | Some((_, COMPLETION_UNKNOWN)) | None => {
            WriteOutcome::Ambiguous { reason: format!("commit: {}", chain(&error)) }
        }
        Some((known, _)) => known.before_commit(),
    })
}

fn db_error(error: &DbError) -> StoreError {
    let code = error.code().code();
    let words = match error.detail() {
        // Names the row, whose value may be long.
        Some(detail) => format!("{} ({}), {code}", error.message(), detail.chars().take(120).collect::<String>()),
        None => format!("{}, {code}", error.message()),
    };
    match (&code[..2], code) {
        (_, "53100") => StoreError::DiskFull(words),
        (_, "25006") => StoreError::ReadOnly(words),
        (_, "42501") => StoreError::Denied(words),
        (_, "42P01" | "42703" | "3F000") => StoreError::Schema { found: None },
        // Data, constraints, limits: the rows themselves.
        ("22" | "23" | "54", _) => StoreError::Refused(words),
        // Serialization, deadlock, resources, locks, cancelled by a timeout.
        ("40" | "53" | "55", _) | (_, "57014") => StoreError::Busy(words),
        // Shutdown, crash, starting up, broken connection.
        ("57" | "08", _) => StoreError::Lost(words),
        (_, _) => StoreError::Failed(words),
    }
}
