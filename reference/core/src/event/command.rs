//! Payloads of the way down: commands.
//!
//! ```text
//! cmd    {"v":1,"kind":"snapshot"|"probe","id":UUID,"expires_at":RFC 3339}
//!        {"v":1,"kind":"set",       ..., "set":{name: value},"unset":[name]}     at least one of the two
//!        {"v":1,"kind":"reonboard", ..., "device":UUID,"epoch":NUMBER}
//! ```
//!
//! A command is decoded field by field, so that each kind of malformedness has its own error, and an id that can be read
//! is told with it: its issuer gets an answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::{AttributeName, CONNECTION, MAX_PAYLOAD_BYTES, NameError, Value, ValueError, WIRE_VERSION};
use crate::{
    id::{Device, Epoch},
    time::Wall,
};

/// A command to one session; at least once, deduplicated by `id` at the agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Ties repeats and the reply to this command.
    pub id: Uuid,
    /// When issuer and bridge give up on it; never judged by a RAE, whose clock may be wrong.
    pub expires_at: Wall,
    /// What to do.
    pub kind: CommandKind,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandKind {
    /// Publish a snapshot of the session's device now.
    Snapshot,
    /// Probe the device now.
    Probe,
    /// Change attributes on the device.
    Set {
        /// New values.
        set: BTreeMap<AttributeName, Value>,
        /// Attributes to remove; disjoint from `set`.
        unset: BTreeSet<AttributeName>,
    },
    /// The session lost to one of `epoch`: probe, then open a new session above it or forget the device.
    Reonboard {
        /// The device.
        device: Device,
        /// The epoch that beat the session.
        epoch: Epoch,
    },
}

/// What a command asks for, without its arguments: for facts and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandName {
    /// [`CommandKind::Snapshot`].
    Snapshot,
    /// [`CommandKind::Probe`].
    Probe,
    /// [`CommandKind::Set`].
    Set,
    /// [`CommandKind::Reonboard`].
    Reonboard,
}

impl CommandName {
    /// Every name, in the order of the declaration.
    pub const ALL: [CommandName; 4] =
        [CommandName::Snapshot, CommandName::Probe, CommandName::Set, CommandName::Reonboard];

    /// Its text in the payload's `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CommandName::Snapshot => "snapshot",
            CommandName::Probe => "probe",
            CommandName::Set => "set",
            CommandName::Reonboard => "reonboard",
        }
    }
}

impl fmt::Display for CommandName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl CommandKind {
    /// What it asks for, without its arguments.
    #[must_use]
    pub fn name(&self) -> CommandName {
        match self {
            CommandKind::Snapshot => CommandName::Snapshot,
            CommandKind::Probe => CommandName::Probe,
            CommandKind::Set { .. } => CommandName::Set,
            CommandKind::Reonboard { .. } => CommandName::Reonboard,
        }
    }
}

/// A payload on `cmd` that is no command.
#[derive(Debug, thiserror::Error)]
#[error("command {}", self.named())]
pub struct BadCommand {
    /// Its id, where that can be read: then its issuer gets an error reply.
    pub id: Option<Uuid>,
    /// What is wrong.
    #[source]
    pub error: CommandError,
}

/// Why a payload on `cmd` is no command. Each kind has its own reason word.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// Larger than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of {0} bytes is above {MAX_PAYLOAD_BYTES}")]
    Oversized(usize),
    /// Not JSON, or a number in it that is none.
    #[error("payload is not JSON")]
    Json(#[source] serde_json::Error),
    /// JSON, but no object.
    #[error("payload is not a JSON object")]
    NotAnObject,
    /// Nothing ties repeats and reply to it.
    #[error("command has no id")]
    NoId,
    /// An id that is no UUID.
    #[error("id {0} is not a UUID")]
    Id(String),
    /// Another version of the contract, or none.
    #[error("wire version {0} is not known; only {WIRE_VERSION} is")]
    WireVersion(String),
    /// No command that is known.
    #[error("kind {0} is not snapshot, probe, set or reonboard")]
    Kind(String),
    /// No time, or none that can be read.
    #[error("expires_at {0} is not an RFC 3339 time")]
    ExpiresAt(String),
    /// An argument that this kind needs is not there.
    #[error("{kind} needs {argument}")]
    Missing {
        /// What was asked for.
        kind: CommandName,
        /// What is missing.
        argument: &'static str,
    },
    /// An argument is of another type than it should be.
    #[error("{argument} is not {expected}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Not an attribute's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The agent's own attribute, which nobody else sets.
    #[error("attribute {CONNECTION} is the agent's own")]
    Reserved,
    /// Not an attribute's value.
    #[error("value of {name} is refused")]
    Value {
        /// The attribute.
        name: AttributeName,
        /// What is wrong with its value.
        source: ValueError,
    },
    /// Set and unset in one command.
    #[error("command both sets and unsets {0}")]
    SetAndUnset(AttributeName),
    /// Not 1 to 2^53 - 1.
    #[error("epoch {0} is not within 1 to 2^53 - 1")]
    Epoch(String),
}

impl CommandError {
    /// One word per kind, for facts, headers and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            CommandError::Oversized(_) => "oversized",
            CommandError::Json(_) => "json",
            CommandError::NotAnObject => "not-an-object",
            CommandError::NoId => "no-id",
            CommandError::Id(_) => "id",
            CommandError::WireVersion(_) => "wire-version",
            CommandError::Kind(_) => "kind",
            CommandError::ExpiresAt(_) => "expires-at",
            CommandError::Missing { .. } => "missing",
            CommandError::Argument { .. } => "argument",
            CommandError::Name(_) => "name",
            CommandError::Reserved => "reserved",
            CommandError::Value { .. } => "value",
            CommandError::SetAndUnset(_) => "set-and-unset",
            CommandError::Epoch(_) => "epoch",
        }
    }

    /// The whole chain of causes in one line, for an error reply or a dead letter.
    #[must_use]
    pub fn detail(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {source}"),
            None => self.to_string(),
        }
    }
}

impl BadCommand {
    fn named(&self) -> String {
        self.id.map_or_else(|| "without a readable id".to_owned(), |id| id.to_string())
    }
}

impl Command {
    /// Decodes a message that travelled down on a `cmd` topic.
    ///
    /// # Errors
    /// [`BadCommand`] for whatever is not of the contract, with the id where one can be read; never panics, whatever the
    /// bytes.
    pub fn decode(payload: &[u8]) -> Result<Command, BadCommand> {
        let id = read_id(payload).map_err(|error| BadCommand { id: None, error })?;
        rest(id, payload).map_err(|error| BadCommand { id: Some(id), error })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = json!({
            "v": WIRE_VERSION, "kind": self.kind.name().as_str(), "id": self.id, "expires_at": self.expires_at.to_string(),
        });
        match &self.kind {
            CommandKind::Snapshot | CommandKind::Probe => {}
            CommandKind::Set { set, unset } => {
                out["set"] = set.iter().map(|(name, value)| (name.to_string(), Json::from(value.clone()))).collect();
                out["unset"] = unset.iter().map(AttributeName::as_str).collect();
            }
            CommandKind::Reonboard { device, epoch } => {
                out["device"] = json!(device);
                out["epoch"] = json!(epoch.get());
            }
        }
        out.to_string().into_bytes()
    }
}

/// The id alone: of the rest it suffices that it has the form of JSON.
fn read_id(payload: &[u8]) -> Result<Uuid, CommandError> {
    #[derive(Deserialize)]
    struct OnlyId {
        #[serde(default)]
        id: Json,
    }
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(CommandError::Oversized(payload.len()));
    }
    // A list would be taken for the fields in their order.
    if payload.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(match serde_json::from_slice::<IgnoredAny>(payload) {
            Ok(IgnoredAny) => CommandError::NotAnObject,
            Err(error) => CommandError::Json(error),
        });
    }
    let OnlyId { id } = serde_json::from_slice(payload).map_err(CommandError::Json)?;
    match &id {
        Json::Null => Err(CommandError::NoId),
        Json::String(text) => Uuid::try_parse(text).map_err(|_| CommandError::Id(shown(&id))),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => Err(CommandError::Id(shown(&id))),
    }
}

fn rest(id: Uuid, payload: &[u8]) -> Result<Command, CommandError> {
    let mut fields: Map<String, Json> = serde_json::from_slice(payload).map_err(CommandError::Json)?;
    let v = fields.remove("v").unwrap_or_default();
    if v.as_u64() != Some(WIRE_VERSION) {
        return Err(CommandError::WireVersion(shown(&v)));
    }
    let kind = fields.remove("kind").unwrap_or_default();
    let named = CommandName::ALL.into_iter().find(|name| kind.as_str() == Some(name.as_str()));
    let named = named.ok_or_else(|| CommandError::Kind(shown(&kind)))?;
    let expires_at = fields.remove("expires_at").unwrap_or_default();
    let expires_at = expires_at
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| CommandError::ExpiresAt(shown(&expires_at)))?;
    let kind = match named {
        CommandName::Snapshot => CommandKind::Snapshot,
        CommandName::Probe => CommandKind::Probe,
        CommandName::Set => set(&mut fields)?,
        CommandName::Reonboard => reonboard(&mut fields)?,
    };
    Ok(Command { id, expires_at, kind })
}

fn set(fields: &mut Map<String, Json>) -> Result<CommandKind, CommandError> {
    let (set, unset) = (fields.remove("set"), fields.remove("unset"));
    if set.is_none() && unset.is_none() {
        return Err(CommandError::Missing { kind: CommandName::Set, argument: "set or unset" });
    }
    let set: BTreeMap<String, Json> = argument(set.unwrap_or_else(|| json!({})), "set", "an object")?;
    let unset: BTreeSet<String> = argument(unset.unwrap_or_else(|| json!([])), "unset", "a list of names")?;
    let set = set.into_iter().map(|(name, value)| {
        let name = own_name(&name)?;
        match Value::try_from(value) {
            Ok(value) => Ok((name, value)),
            Err(source) => Err(CommandError::Value { name, source }),
        }
    });
    let set: BTreeMap<AttributeName, Value> = set.collect::<Result<_, _>>()?;
    let unset: BTreeSet<AttributeName> = unset.iter().map(|name| own_name(name)).collect::<Result<_, _>>()?;
    match unset.iter().find(|name| set.contains_key(*name)) {
        Some(name) => Err(CommandError::SetAndUnset(name.clone())),
        None => Ok(CommandKind::Set { set, unset }),
    }
}

fn reonboard(fields: &mut Map<String, Json>) -> Result<CommandKind, CommandError> {
    let mut needed = |argument: &'static str| {
        fields.remove(argument).ok_or(CommandError::Missing { kind: CommandName::Reonboard, argument })
    };
    let device = argument(needed("device")?, "device", "a UUID")?;
    let given = needed("epoch")?;
    let epoch = given.as_u64().and_then(|number| Epoch::try_from(number).ok());
    let epoch = epoch.ok_or_else(|| CommandError::Epoch(shown(&given)))?;
    Ok(CommandKind::Reonboard { device, epoch })
}

fn own_name(text: &str) -> Result<AttributeName, CommandError> {
    let name = AttributeName::try_from(text)?;
    if name.as_str() == CONNECTION { Err(CommandError::Reserved) } else { Ok(name) }
}

fn argument<T: DeserializeOwned>(
    json: Json,
    argument: &'static str,
    expected: &'static str,
) -> Result<T, CommandError> {
    serde_json::from_value(json).map_err(|_mistyped| CommandError::Argument { argument, expected })
}

/// A part of the payload, cut: it goes into an error reply.
fn shown(json: &Json) -> String {
    json.to_string().chars().take(80).collect()
}
