//! Attribute names and values.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::id::MAX_EXACT;

/// Longest attribute name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Name of an attribute: 1 to 64 of `[a-z0-9_.]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct AttributeName(Arc<str>);

/// Why an attribute name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attribute name {0:?} is not 1 to 64 of [a-z0-9_.]")]
pub struct NameError(pub String);

impl AttributeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<Arc<str>> for AttributeName {
    type Error = NameError;
    fn try_from(name: Arc<str>) -> Result<AttributeName, NameError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'.');
        if fits { Ok(AttributeName(name)) } else { Err(NameError(name.chars().take(80).collect())) }
    }
}

impl TryFrom<&str> for AttributeName {
    type Error = NameError;
    fn try_from(name: &str) -> Result<AttributeName, NameError> {
        AttributeName::try_from(Arc::<str>::from(name))
    }
}

impl From<AttributeName> for Arc<str> {
    fn from(name: AttributeName) -> Arc<str> {
        name.0
    }
}

impl Borrow<str> for AttributeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AttributeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Value of an attribute. Absence is not a value: `null` is refused, that is what `unset` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum Value {
    /// Text without NUL.
    Text(Arc<str>),
    /// `true` or `false`.
    Bool(bool),
    /// An integer within +-2^53.
    Integer(i64),
    /// A finite float.
    Float(f64),
}

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// A text with NUL, which no store takes.
    #[error("text holds NUL")]
    Nul,
    /// `null`.
    #[error("null is not a value; unset the attribute")]
    Null,
    /// An integer that JSON numbers do not hold exactly.
    #[error("integer {0} is not within +-2^53")]
    OutOfRange(String),
    /// A float that JSON does not know.
    #[error("float is not finite")]
    NotFinite,
    /// A list or an object.
    #[error("{0} is not a string, boolean or number")]
    Nested(&'static str),
}

impl Value {
    /// Checks a value that did not come out of JSON.
    ///
    /// # Errors
    /// [`ValueError`] for what would be refused when it is decoded.
    pub fn check(&self) -> Result<(), ValueError> {
        match self {
            Value::Text(text) if text.contains('\0') => Err(ValueError::Nul),
            Value::Integer(integer) if integer.unsigned_abs() > LIMIT => {
                Err(ValueError::OutOfRange(integer.to_string()))
            }
            Value::Float(float) if !float.is_finite() => Err(ValueError::NotFinite),
            Value::Text(_) | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => Ok(()),
        }
    }

    /// An upper bound of the length of its JSON form, exact for texts, without encoding it.
    #[must_use]
    pub fn json_len_at_most(&self) -> usize {
        match self {
            Value::Text(text) => 2 + text.bytes().map(escaped_len).sum::<usize>(),
            Value::Bool(_) => "false".len(),
            Value::Integer(_) => "-9007199254740992".len(),
            Value::Float(_) => "-2.2250738585072014e-308".len(),
        }
    }
}

/// Length of one byte of a text in JSON.
fn escaped_len(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        0x20.. => 1,
    }
}

/// Largest integer either way.
const LIMIT: u64 = MAX_EXACT + 1;

impl TryFrom<serde_json::Value> for Value {
    type Error = ValueError;
    fn try_from(json: serde_json::Value) -> Result<Value, ValueError> {
        match json {
            serde_json::Value::Null => Err(ValueError::Null),
            serde_json::Value::Bool(is) => Ok(Value::Bool(is)),
            serde_json::Value::String(text) if text.contains('\0') => Err(ValueError::Nul),
            serde_json::Value::String(text) => Ok(Value::Text(text.into())),
            serde_json::Value::Array(_) => Err(ValueError::Nested("a list")),
            serde_json::Value::Object(_) => Err(ValueError::Nested("an object")),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(integer), _) if integer.unsigned_abs() <= LIMIT => Ok(Value::Integer(integer)),
                (None, Some(float)) if number.is_f64() => Ok(Value::Float(float)),
                (_, _) => Err(ValueError::OutOfRange(number.to_string())),
            },
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> serde_json::Value {
        match value {
            Value::Text(text) => serde_json::Value::String(text.as_ref().to_owned()),
            Value::Bool(is) => serde_json::Value::Bool(is),
            Value::Integer(integer) => integer.into(),
            Value::Float(float) => float.into(),
        }
    }
}

impl fmt::Display for Value {
    /// The value as JSON; also its form in the store.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).expect("a value always has a JSON form"))
    }
}
