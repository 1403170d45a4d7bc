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
    /// A list or an object.
    #[error("{0} is not a string, boolean or number")]
    Nested(&'static str),
}

impl TryFrom<serde_json::Value> for Value {
    type Error = ValueError;
    fn try_from(json: serde_json::Value) -> Result<Value, ValueError> {
        const LIMIT: u64 = MAX_EXACT + 1;
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
