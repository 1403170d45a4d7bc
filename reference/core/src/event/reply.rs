//! Payloads of the answers to commands, up again.
//!
//! ```text
//! reply  {"v":1,"kind":"reply","id":UUID,"ok":true} or {..., "error":"why"}
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{MAX_PAYLOAD_BYTES, WIRE_VERSION};

/// Longest text of an error reply, in characters: it is kept with the command's id, and read by people.
pub const MAX_ERROR_CHARS: usize = 200;

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The command's id.
    pub id: Uuid,
    /// How it ended.
    pub outcome: ReplyOutcome,
}

/// How a command ended at the RAE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyOutcome {
    /// Executed.
    Ok,
    /// Not executed, or in vain, and why; at most [`MAX_ERROR_CHARS`].
    Error(String),
}

impl ReplyOutcome {
    /// An error reply, cut at [`MAX_ERROR_CHARS`].
    #[must_use]
    pub fn error(why: impl fmt::Display) -> ReplyOutcome {
        ReplyOutcome::Error(why.to_string().chars().take(MAX_ERROR_CHARS).collect())
    }
}

/// Why a payload on `reply` is no reply.
#[derive(Debug, thiserror::Error)]
pub enum BadReply {
    /// Larger than [`MAX_PAYLOAD_BYTES`].
    #[error("payload of {0} bytes is above {MAX_PAYLOAD_BYTES}")]
    Oversized(usize),
    /// Not a JSON object of the contract's form.
    #[error("payload is not JSON of the contract's form")]
    Json(#[source] serde_json::Error),
    /// Another version of the contract.
    #[error("wire version {0} is not known; only {WIRE_VERSION} is")]
    WireVersion(u64),
    /// Neither `ok` nor `error`, or both.
    #[error("reply {0} does not say one of ok and error")]
    Outcome(Uuid),
}

impl Reply {
    /// Decodes a message that travelled up on a `reply` topic.
    ///
    /// # Errors
    /// [`BadReply`] for whatever is not of the contract; never panics, whatever the bytes.
    pub fn decode(payload: &[u8]) -> Result<Reply, BadReply> {
        #[derive(Deserialize)]
        struct In {
            v: u64,
            id: Uuid,
            ok: Option<bool>,
            error: Option<String>,
        }
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(BadReply::Oversized(payload.len()));
        }
        let raw: In = serde_json::from_slice(payload).map_err(BadReply::Json)?;
        let outcome = match (raw.v, raw.ok, raw.error) {
            (WIRE_VERSION, Some(true), None) => ReplyOutcome::Ok,
            (WIRE_VERSION, None, Some(why)) => ReplyOutcome::error(why),
            (WIRE_VERSION, _, _) => return Err(BadReply::Outcome(raw.id)),
            (other, _, _) => return Err(BadReply::WireVersion(other)),
        };
        Ok(Reply { id: raw.id, outcome })
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = json!({ "v": WIRE_VERSION, "kind": "reply", "id": self.id });
        match &self.outcome {
            ReplyOutcome::Ok => out["ok"] = Json::Bool(true),
            ReplyOutcome::Error(why) => out["error"] = Json::String(why.clone()),
        }
        out.to_string().into_bytes()
    }
}
