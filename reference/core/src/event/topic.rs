//! MQTT topics: build, parse, and what a bridge subscribes to.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::id::{IdError, Rae, Session, Shard};

/// A topic of the platform. Its text is also the key of the Kafka record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `dmp/v1/<shard>/<rae>/<session>/state`: deltas and snapshots, up.
    State(Rae, Session),
    /// `dmp/v1/<shard>/<rae>/<session>/cmd`: commands, down.
    Command(Rae, Session),
    /// `dmp/v1/<shard>/<rae>/<session>/reply`: replies, up.
    Reply(Rae, Session),
    /// `dmp/v1/<shard>/<rae>/status`: presence of the RAE, retained, up.
    Status(Rae),
}

impl Topic {
    /// The RAE that the topic belongs to.
    #[must_use]
    pub fn rae(&self) -> &Rae {
        match self {
            Topic::State(rae, _) | Topic::Command(rae, _) | Topic::Reply(rae, _) | Topic::Status(rae) => rae,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rae = self.rae();
        write!(f, "dmp/v1/{}/{rae}/", rae.shard())?;
        match self {
            Topic::State(_, session) => write!(f, "{session}/state"),
            Topic::Command(_, session) => write!(f, "{session}/cmd"),
            Topic::Reply(_, session) => write!(f, "{session}/reply"),
            Topic::Status(_) => f.write_str("status"),
        }
    }
}

/// Why a topic was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Not of the platform's form.
    #[error("topic {0:?} is not dmp/v1/<shard>/<rae>/<session>/(state|cmd|reply) or dmp/v1/<shard>/<rae>/status")]
    Form(String),
    /// A level that is not the id it stands for.
    #[error("topic {topic:?} holds a wrong id")]
    Id {
        /// The topic, cut at 200 characters.
        topic: String,
        /// What is wrong.
        #[source]
        source: IdError,
    },
    /// A session that is not a hyphenated lower-case UUID.
    #[error("topic {0:?} holds a session that is not a hyphenated lower-case UUID")]
    Session(String),
    /// The shard is not the one that the serial belongs to.
    #[error("topic {topic:?} names a wrong shard; {rae} belongs to {right}")]
    Shard {
        /// The topic.
        topic: String,
        /// The RAE named in it.
        rae: Rae,
        /// The shard it belongs to.
        right: Shard,
    },
}

impl FromStr for Topic {
    type Err = TopicError;

    fn from_str(text: &str) -> Result<Topic, TopicError> {
        let shown = || text.chars().take(200).collect::<String>();
        let form = || TopicError::Form(shown());
        let id = |source| TopicError::Id { topic: shown(), source };
        let mut levels = text.strip_prefix("dmp/v1/").ok_or_else(form)?.split('/');
        let mut level = || levels.next().ok_or_else(form);
        let shard: Shard = level()?.parse().map_err(id)?;
        let rae = Rae::try_from(level()?).map_err(id)?;
        let third = level()?;
        let topic = if third == "status" {
            Topic::Status(rae)
        } else {
            let session = parse_session(third).ok_or_else(|| TopicError::Session(shown()))?;
            match level()? {
                "state" => Topic::State(rae, session),
                "cmd" => Topic::Command(rae, session),
                "reply" => Topic::Reply(rae, session),
                _ => return Err(form()),
            }
        };
        if levels.next().is_some() {
            return Err(form());
        }
        let right = topic.rae().shard();
        if right != shard {
            return Err(TopicError::Shard { topic: shown(), rae: topic.rae().clone(), right });
        }
        Ok(topic)
    }
}

/// Only the canonical form: two texts for one session would be two keys, and lose their order.
fn parse_session(text: &str) -> Option<Session> {
    let session = Uuid::try_parse(text).ok()?;
    let mut canonical = Uuid::encode_buffer();
    (session.hyphenated().encode_lower(&mut canonical) == text).then_some(Session(session))
}

/// Topic filters of the bridge for shard group `group` of `groups`: what travels up.
///
/// # Panics
/// If `groups` is not 1, 2, 4, 8 or 16, or `group` is not below it.
#[must_use]
pub fn subscriptions(group: u8, groups: u8) -> Vec<String> {
    assert!(matches!(groups, 1 | 2 | 4 | 8 | 16), "shards divide into 1, 2, 4, 8 or 16 groups, not {groups}");
    assert!(group < groups, "group {group} is not below {groups}");
    let shards = if groups == 1 {
        vec!["+".to_owned()]
    } else {
        (0..Shard::COUNT).filter(|shard| shard % groups == group).map(|shard| format!("s{shard:02}")).collect()
    };
    shards
        .iter()
        .flat_map(|shard| {
            [
                format!("dmp/v1/{shard}/+/+/state"),
                format!("dmp/v1/{shard}/+/+/reply"),
                format!("dmp/v1/{shard}/+/status"),
            ]
        })
        .collect()
}

/// Topic filter of one RAE: the commands to all of its sessions, down.
#[must_use]
pub fn commands_filter(rae: &Rae) -> String {
    format!("dmp/v1/{}/{rae}/+/cmd", rae.shard())
}
