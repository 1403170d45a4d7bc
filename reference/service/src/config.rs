//! Configuration of a program: a TOML file, then the environment over it, parsed once into validated types.
//!
//! Every error names the file, the line and the key. An environment variable overrides one key: the program's prefix,
//! then the key in upper case with `__` between its levels, for example `DMP_BRIDGE_MQTT__ADDRESS`. Its value is read as
//! TOML (`4`, `true`, `["a", "b"]`) and, where it is not TOML, as text. Secrets never stand in the file itself: they are
//! named by file (`password_file`) or come from the environment ([`Secret`]).

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

pub mod common;
pub mod unit;

mod locate;

pub use common::{Backoff, Http, Kafka, KafkaSecurity, Mqtt, MqttTls, Secret, Start};

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("reading configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file says something wrong.
    #[error("{}:{line}: key `{key}`: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Dotted key, as far as it is known.
        key: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// An environment variable says something wrong.
    #[error("environment variable {variable}: key `{key}`: {reason}")]
    Environment {
        /// The variable.
        variable: String,
        /// The key that it overrides.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A file that holds a secret could not be read.
    #[error("reading the secret for `{key}` from {}", path.display())]
    Secret {
        /// The key that names the file.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A fault in a value that parsed: told by [`Checked::check`] and turned into a [`ConfigError::Key`] with its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted key.
    pub key: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Fault {
    /// A fault at `key`.
    pub fn at(key: impl Into<String>, reason: impl Into<String>) -> Fault {
        Fault { key: key.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key `{}`: {}", self.key, self.reason)
    }
}

/// A configuration that can tell what is wrong beyond its types.
pub trait Checked {
    /// Prefix of its environment variables, for example `DMP_BRIDGE_`.
    const PREFIX: &'static str;

    /// The first value that parsed but cannot be.
    ///
    /// # Errors
    /// [`Fault`] at the key.
    fn check(&self) -> Result<(), Fault>;

    /// Reads the secrets that its files and the environment name.
    ///
    /// # Errors
    /// [`ConfigError::Secret`] for a file that cannot be read.
    fn load_secrets(&mut self, environment: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError>;
}

/// Loads `path` with the process's environment over it.
///
/// # Errors
/// [`ConfigError`], at the key.
pub fn load<T: DeserializeOwned + Checked>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text, std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))))
}

/// Parses `text`, which stands in `path`, with `environment` over it.
///
/// # Errors
/// [`ConfigError`], at the key.
pub fn parse<T: DeserializeOwned + Checked>(
    path: &Path,
    text: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let (secrets, overrides) = split_environment::<T>(environment);
    let in_file = |error: toml::de::Error| locate::parse_error(path, text, &error);
    let file: toml::Table = toml::from_str(text).map_err(in_file)?;
    let mut config: T = if overrides.is_empty() {
        toml::from_str(text).map_err(in_file)?
    } else {
        let merged = overlay(file.clone(), &overrides);
        T::deserialize(merged).map_err(|error| blame::<T>(path, text, &file, &overrides, &error))?
    };
    config.check().map_err(|fault| locate_fault(path, text, &overrides, fault))?;
    config.load_secrets(&|name| {
        let variable = format!("{}{name}", T::PREFIX);
        secrets.iter().find(|(key, _)| *key == variable).map(|(_, value)| value.clone())
    })?;
    Ok(config)
}

/// One key that an environment variable overrides.
struct Override {
    variable: String,
    path: Vec<String>,
    value: toml::Value,
}

impl Override {
    fn key(&self) -> String {
        self.path.join(".")
    }
}

type Variables = Vec<(String, String)>;

/// Variables that end in `_PASSWORD` are secrets and no keys.
fn split_environment<T: Checked>(
    environment: impl IntoIterator<Item = (String, String)>,
) -> (Variables, Vec<Override>) {
    let mut ours: Variables = environment.into_iter().filter(|(key, _)| key.starts_with(T::PREFIX)).collect();
    ours.sort();
    let (secrets, keys): (Variables, Variables) = ours.into_iter().partition(|(key, _)| key.ends_with("_PASSWORD"));
    let overrides = keys
        .into_iter()
        .map(|(variable, value)| Override {
            path: variable[T::PREFIX.len()..].split("__").map(str::to_lowercase).collect(),
            value: read_value(value),
            variable,
        })
        .collect();
    (secrets, overrides)
}

fn read_value(text: String) -> toml::Value {
    match toml::from_str::<toml::Table>(&format!("value = {text}")) {
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or(toml::Value::String(text)),
        Ok(_) | Err(_) => toml::Value::String(text),
    }
}

fn overlay<'a>(mut table: toml::Table, overrides: impl IntoIterator<Item = &'a Override>) -> toml::Table {
    for one in overrides {
        let (last, levels) = one.path.split_last().expect("splitting a text gives at least one part");
        let mut at = &mut table;
        for level in levels {
            let below = at.entry(level).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if !below.is_table() {
                *below = toml::Value::Table(toml::Table::new());
            }
            at = below.as_table_mut().expect("made a table above");
        }
        at.insert(last.clone(), one.value.clone());
    }
    table
}

/// Whose fault an error of file and environment together is: that of the variable without which it goes away, else the
/// file's.
fn blame<T: DeserializeOwned>(
    path: &Path,
    text: &str,
    file: &toml::Table,
    overrides: &[Override],
    error: &toml::de::Error,
) -> ConfigError {
    let same = |other: &toml::de::Error| other.message() == error.message();
    let guilty = overrides.iter().find(|suspect| {
        let others = overrides.iter().filter(|other| other.variable != suspect.variable);
        T::deserialize(overlay(file.clone(), others)).err().is_none_or(|without| !same(&without))
    });
    match (guilty, toml::from_str::<T>(text)) {
        (Some(guilty), _) => ConfigError::Environment {
            variable: guilty.variable.clone(),
            key: guilty.key(),
            reason: error.message().to_owned(),
        },
        (None, Err(in_file)) => locate::parse_error(path, text, &in_file),
        (None, Ok(_)) => {
            ConfigError::Key { path: path.to_owned(), line: 1, key: "?".to_owned(), reason: error.message().to_owned() }
        }
    }
}

fn locate_fault(path: &Path, text: &str, overrides: &[Override], fault: Fault) -> ConfigError {
    match overrides.iter().find(|one| one.key() == fault.key) {
        Some(one) => ConfigError::Environment { variable: one.variable.clone(), key: fault.key, reason: fault.reason },
        None => ConfigError::Key {
            path: path.to_owned(),
            line: locate::line_of(text, &fault.key),
            key: fault.key,
            reason: fault.reason,
        },
    }
}
