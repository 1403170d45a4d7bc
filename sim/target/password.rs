//! A password: named by a file or an environment variable, read when it is needed, and never shown.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use super::SERIAL;

/// Where a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// In this file, less its last line break; with one file per RAE where the name holds [`SERIAL`].
    File(PathBuf),
    /// What an environment variable held when the target was read.
    Held(String),
}

impl Password {
    /// Whether each RAE has its own.
    #[must_use]
    pub fn individual(&self) -> bool {
        matches!(self, Password::File(path) if path.to_string_lossy().contains(SERIAL))
    }

    /// The password itself, for the one place that needs it; `serial` where it is a RAE's.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(&self, serial: Option<&str>) -> io::Result<String> {
        match self {
            Password::Held(password) => Ok(password.clone()),
            Password::File(path) => {
                let path = of_rae(path, serial);
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(&path).map_err(named)?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::File(path) => write!(f, "Password(in {})", path.display()),
            Password::Held(_) => f.write_str("Password(held)"),
        }
    }
}

/// A path that belongs to a RAE.
pub(crate) fn of_rae(path: &Path, serial: Option<&str>) -> PathBuf {
    match (path.to_str(), serial) {
        (Some(text), Some(serial)) => text.replace(SERIAL, serial).into(),
        (_, _) => path.to_owned(),
    }
}
