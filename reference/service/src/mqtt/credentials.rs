//! User and password, and a type that keeps a password out of logs.

use std::{fmt, sync::Arc};

/// A text that never shows itself: its `Debug` form is a placeholder, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<Arc<str>>) -> Secret {
        Secret(text.into())
    }

    /// The secret itself, for the wire.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// User name and password of a connection (MQTT 3.1.1, section 3.1.3.4 and 3.1.3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name; brokers with access lists expect the RAE serial here.
    pub user: String,
    /// Password.
    pub password: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_in_the_debug_output() {
        let credentials = Credentials { user: "RAE-1".into(), password: Some(Secret::new("hunter2")) };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
