//! What can go wrong with a store, one variant per thing a caller can do differently. No variant holds a password.

use dmp_core::registry::WriteOutcome;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is nothing at the given place.
    #[error("{0} does not exist")]
    Missing(String),
    /// The file, the server or the user may not write.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// No space is left.
    #[error("{0}: disk full")]
    DiskFull(String),
    /// Nobody answers there, or answers with TLS that is not trusted.
    #[error("cannot connect to {endpoint}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server does not take this user or its password.
    #[error("{endpoint} refuses user {user:?}")]
    Credentials {
        /// Host and port.
        endpoint: String,
        /// The user.
        user: String,
    },
    /// The user may come in and may not do this.
    #[error("the store does not give its user the right: {0}")]
    Denied(String),
    /// The store holds another schema than this program's.
    #[error("schema is {}, this program needs version {}", found_version(*.found), super::SCHEMA_VERSION)]
    Schema {
        /// Version found; `None` where the store was never migrated.
        found: Option<i64>,
    },
    /// A view over other tables is not as it must be.
    #[error("view {view} {what}")]
    View {
        /// Its name.
        view: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of certificates cannot be used.
    #[error("cannot read certificates from {path}")]
    Certificates {
        /// The file.
        path: String,
        /// Why.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Others are in the way: a later attempt may succeed.
    #[error("store is busy: {0}")]
    Busy(String),
    /// The connection, or the thread that holds it, is gone; what was under way may have been done.
    #[error("connection to the store was lost: {0}")]
    Lost(String),
    /// The store can never take these rows.
    #[error("rows refused: {0}")]
    Refused(String),
    /// A stored row is not of the form in which it was written.
    #[error("stored {what} cannot be read: {value:?}")]
    Corrupt {
        /// Table and column.
        what: &'static str,
        /// What stands there, cut at 80 characters.
        value: String,
    },
    /// Anything else, in the store's words.
    #[error("store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// What this means for a write that had not reached its commit.
    pub(super) fn before_commit(self) -> WriteOutcome {
        let reason = chain(&self);
        match self {
            StoreError::Refused(reason) => WriteOutcome::Refused { reason },
            StoreError::Missing(_)
            | StoreError::ReadOnly(_)
            | StoreError::DiskFull(_)
            | StoreError::Unreachable { .. }
            | StoreError::Credentials { .. }
            | StoreError::Denied(_)
            | StoreError::Schema { .. }
            | StoreError::View { .. }
            | StoreError::Certificates { .. }
            | StoreError::Busy(_)
            | StoreError::Lost(_)
            | StoreError::Corrupt { .. }
            | StoreError::Failed(_) => WriteOutcome::Aborted { reason },
        }
    }

    pub(super) fn view(view: &str, what: impl Into<String>) -> StoreError {
        StoreError::View { view: view.to_owned(), what: what.into() }
    }

    pub(super) fn corrupt(what: &'static str, value: impl std::fmt::Display) -> StoreError {
        StoreError::Corrupt { what, value: value.to_string().chars().take(80).collect() }
    }
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        // Several libraries repeat their cause in their own text.
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

fn found_version(found: Option<i64>) -> String {
    found.map_or_else(|| "missing".to_owned(), |version| format!("version {version}"))
}
