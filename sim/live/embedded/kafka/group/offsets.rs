//! Committed offsets of a group. They outlive its members and generations.

use bytes::{Buf, Bytes};
use dmp_core::time::Mono;
use kafka_protocol::{
    ResponseError,
    messages::ConsumerProtocolSubscription,
    protocol::{Decodable, Message},
};

use super::{Caller, Group, Phase};

/// Longest note on a committed offset (Kafka, `offset.metadata.max.bytes`).
const METADATA_BYTES_MAX: usize = 4_096;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    pub(in super::super) topic: String,
    pub(in super::super) partition: i32,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Committed {
    /// Offset of the next record to be read.
    pub(in super::super) offset: i64,
    /// The consumer's own note.
    pub(in super::super) metadata: String,
}

impl Group {
    /// Says whether `caller` may commit now. Without a generation, an operator's tool may while nobody is in the group.
    ///
    /// # Errors
    /// The caller's generation is over, it is no member, or partitions are being assigned.
    pub(in super::super) fn may_commit(&mut self, now: Mono, caller: Caller<'_>) -> Result<(), ResponseError> {
        if caller.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check(caller)?;
        if self.phase == Phase::Completing {
            return Err(ResponseError::RebalanceInProgress);
        }
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.seen(now);
        }
        Ok(())
    }

    /// Stores one offset, for a caller that may.
    ///
    /// # Errors
    /// The note is too long.
    pub(in super::super) fn commit(&mut self, place: Place, committed: Committed) -> Result<(), ResponseError> {
        if committed.metadata.len() > METADATA_BYTES_MAX {
            return Err(ResponseError::OffsetMetadataTooLarge);
        }
        self.committed.insert(place, committed);
        Ok(())
    }

    /// The offset committed for a partition.
    pub(in super::super) fn committed(&self, place: &Place) -> Option<&Committed> {
        self.committed.get(place)
    }

    /// All partitions with a committed offset, in order.
    pub(in super::super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.committed.keys()
    }

    /// Removes the offset of a partition that nobody in the group reads.
    ///
    /// # Errors
    /// A member is subscribed to the topic, or it cannot be told.
    pub(in super::super) fn delete_offset(&mut self, place: &Place) -> Result<(), ResponseError> {
        let subscriptions = self.members.values().map(|member| member.subscription(&self.protocol));
        for subscription in subscriptions {
            if subscription.and_then(topics_of).is_none_or(|topics| topics.contains(&place.topic)) {
                return Err(ResponseError::GroupSubscribedToTopic);
            }
        }
        self.committed.remove(place);
        Ok(())
    }

    /// Forgets a topic that was deleted.
    pub(in super::super) fn forget_topic(&mut self, topic: &str) {
        self.committed.retain(|place, _| place.topic != topic);
    }
}

/// The topics in a consumer's subscription; `None` where it is not a consumer's.
fn topics_of(subscription: &Bytes) -> Option<Vec<String>> {
    let mut bytes = subscription.clone();
    let version = bytes.try_get_i16().ok()?.min(ConsumerProtocolSubscription::VERSIONS.max);
    let subscription = ConsumerProtocolSubscription::decode(&mut bytes, version).ok()?;
    Some(subscription.topics.iter().map(|topic| topic.to_string()).collect())
}
