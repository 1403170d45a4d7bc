//! What a record of `dmp.commands` asks for, and why it may be refused.

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    bridge::OutgoingRecord,
    consume::Record,
    event::{Command, CommandError, Reply, ReplyOutcome, Topic, TopicError, kafka_topic},
    id::{Rae, Session},
    time::Wall,
};

/// The error of a reply to a command that was never published.
pub const EXPIRED: &str = "expired";

/// The error of a reply to a command that was published, but not acknowledged before it expired.
pub const EXPIRED_IN_DOUBT: &str = "expired, and may have been delivered";

/// A command, as far as its way is concerned.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) topic: Arc<str>,
    pub(super) expires_at: Wall,
    rae: Rae,
    session: Session,
    id: Uuid,
}

/// Why a record is no command.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("record has no key that is a topic")]
    Key,
    #[error("key is not a topic of the platform")]
    Topic(#[source] TopicError),
    #[error("topic {0} does not carry commands")]
    Direction(Topic),
    #[error("commands are not retained")]
    Retained,
    #[error("value is not a command")]
    Command(#[source] CommandError),
}

impl Malformed {
    /// One word per kind, of those that [`crate::event::Poison::reason`] and [`CommandError::reason`] have.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Malformed::Key => "key",
            Malformed::Topic(_) => "topic",
            Malformed::Direction(_) => "direction",
            Malformed::Retained => "retained",
            Malformed::Command(error) => error.reason(),
        }
    }

    /// The whole chain of causes in one line.
    pub(super) fn detail(&self) -> String {
        match self {
            Malformed::Topic(error) => format!("{self}: {error}"),
            Malformed::Command(error) => format!("{self}: {}", error.detail()),
            Malformed::Key | Malformed::Direction(_) | Malformed::Retained => self.to_string(),
        }
    }
}

impl Order {
    /// # Errors
    /// For whatever no agent could execute; never panics, whatever the bytes.
    pub(super) fn read(record: &Record) -> Result<Order, Malformed> {
        let topic = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).ok_or(Malformed::Key)?;
        let (rae, session) = match topic.parse().map_err(Malformed::Topic)? {
            Topic::Command(rae, session) => (rae, session),
            other @ (Topic::State(..) | Topic::Reply(..) | Topic::Status(_)) => {
                return Err(Malformed::Direction(other));
            }
        };
        if record.retained {
            return Err(Malformed::Retained);
        }
        let value = record.value.as_deref().unwrap_or_default();
        let command = Command::decode(value).map_err(|bad| Malformed::Command(bad.error))?;
        let Command { id, expires_at, kind: _ } = command;
        Ok(Order { topic: topic.into(), expires_at, rae, session, id })
    }

    /// Tells the issuer that the command expired.
    pub(super) fn expired(&self, now: Wall, error: &str) -> OutgoingRecord {
        let reply = Reply { id: self.id, outcome: ReplyOutcome::Error(error.to_owned()) };
        OutgoingRecord {
            topic: kafka_topic::REPLIES,
            key: Topic::Reply(self.rae.clone(), self.session).to_string().into(),
            value: reply.encode().into(),
            timestamp: now,
            headers: Vec::new(),
        }
    }
}
