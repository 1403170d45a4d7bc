//! The catalogue of topics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use super::partition::{Disk, Partition};

/// Partitions of all topics together: each keeps at least one file open, and a process may open 20,000.
const PARTITIONS_MAX: usize = 2_000;
/// Longest topic name (Kafka, `Topic.MAX_NAME_LENGTH`).
const NAME_BYTES_MAX: usize = 249;

/// All topics of a broker.
#[derive(Debug)]
pub(super) struct Topics {
    disk: Arc<Disk>,
    by_name: RwLock<BTreeMap<String, Vec<Arc<Log>>>>,
    partitions: AtomicUsize,
    auto_create: Option<u32>,
    appended: Notify,
}

/// A partition that connections share.
#[derive(Debug)]
pub(super) struct Log(Mutex<Partition>);

impl Log {
    /// The partition, for as long as the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, Partition> {
        // A partition is changed last, after all that can fail: what a panic left behind is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topics {
    /// An empty catalogue; a client that asks for an unknown topic gets one of `auto_create` partitions, if any.
    pub(super) fn new(disk: Disk, auto_create: Option<u32>) -> Topics {
        Topics {
            disk: Arc::new(disk),
            by_name: RwLock::default(),
            partitions: AtomicUsize::new(0),
            auto_create,
            appended: Notify::new(),
        }
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// It exists, or name or number of partitions is not allowed.
    pub(super) fn create(&self, name: &str, partitions: u32) -> Result<(), ResponseError> {
        check_name(name)?;
        let mut topics = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if topics.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let logs = self.new_logs(partitions as usize)?;
        topics.insert(name.to_owned(), logs);
        Ok(())
    }

    /// Partitions that a topic gets where nobody says how many.
    pub(super) fn default_partitions(&self) -> u32 {
        self.auto_create.unwrap_or(1)
    }

    /// Number of partitions of a topic; an unknown one is made first where that is wished and configured.
    ///
    /// # Errors
    /// The topic is unknown and is not made.
    pub(super) fn find(&self, name: &str, may_create: bool) -> Result<usize, ResponseError> {
        if let Some(partitions) = self.partitions_of(name) {
            return Ok(partitions);
        }
        check_name(name)?;
        let Some(partitions) = self.auto_create.filter(|_| may_create) else {
            return Err(ResponseError::UnknownTopicOrPartition);
        };
        match self.create(name, partitions) {
            // Somebody else was faster.
            Ok(()) | Err(ResponseError::TopicAlreadyExists) => Ok(partitions as usize),
            Err(error) => Err(error),
        }
    }

    /// Grows a topic to `partitions`.
    ///
    /// # Errors
    /// It is unknown, or has as many already.
    pub(super) fn grow(&self, name: &str, partitions: u32) -> Result<(), ResponseError> {
        let mut topics = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let logs = topics.get_mut(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let more = (partitions as usize).checked_sub(logs.len()).ok_or(ResponseError::InvalidPartitions)?;
        logs.extend(self.new_logs(more)?);
        Ok(())
    }

    /// Removes a topic and its records.
    ///
    /// # Errors
    /// It is unknown.
    pub(super) fn delete(&self, name: &str) -> Result<(), ResponseError> {
        let mut topics = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        let logs = topics.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.partitions.fetch_sub(logs.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Names of all topics, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// Number of partitions of a topic.
    pub(super) fn partitions_of(&self, name: &str) -> Option<usize> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Vec::len)
    }

    /// One partition.
    ///
    /// # Errors
    /// It is unknown.
    pub(super) fn log(&self, name: &str, partition: i32) -> Result<Arc<Log>, ResponseError> {
        let topics = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        let logs = topics.get(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        let index = usize::try_from(partition).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
        logs.get(index).cloned().ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Wakes whoever waits for records.
    pub(super) fn tell_appended(&self) {
        self.appended.notify_waiters();
    }

    /// Told whenever records were appended anywhere.
    pub(super) fn appended(&self) -> &Notify {
        &self.appended
    }

    /// Bytes in all logs.
    pub(super) fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// Largest batch taken.
    pub(super) fn batch_bytes_max(&self) -> usize {
        self.disk.batch_bytes_max
    }

    fn new_logs(&self, count: usize) -> Result<Vec<Arc<Log>>, ResponseError> {
        if count == 0 || self.partitions.load(Ordering::Relaxed) + count > PARTITIONS_MAX {
            return Err(ResponseError::InvalidPartitions);
        }
        self.partitions.fetch_add(count, Ordering::Relaxed);
        Ok((0..count).map(|_| Arc::new(Log(Mutex::new(Partition::new(self.disk.clone()))))).collect())
    }
}

fn check_name(name: &str) -> Result<(), ResponseError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != "..";
    if good { Ok(()) } else { Err(ResponseError::InvalidTopicException) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(auto_create: Option<u32>) -> Topics {
        Topics::new(Disk::new(std::env::temp_dir().into(), 1 << 20, 1 << 30), auto_create)
    }

    #[test]
    fn an_unknown_topic_is_made_only_where_configured_and_wished() {
        assert_eq!(topics(None).find("a", true), Err(ResponseError::UnknownTopicOrPartition));
        assert_eq!(topics(Some(3)).find("a", false), Err(ResponseError::UnknownTopicOrPartition));
        let made = topics(Some(3));
        assert_eq!((made.find("a", true), made.find("a", false)), (Ok(3), Ok(3)));
    }

    #[test]
    fn names_that_kafka_refuses_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "ä", &"n".repeat(250)] {
            assert_eq!(topics(None).create(name, 1), Err(ResponseError::InvalidTopicException), "{name:?}");
        }
        assert_eq!(topics(None).create(&"n".repeat(249), 1), Ok(()));
    }

    #[test]
    fn partitions_only_grow_and_their_number_is_bounded() {
        let topics = topics(None);
        assert_eq!(topics.create("a", 0), Err(ResponseError::InvalidPartitions));
        assert_eq!(topics.create("a", 2), Ok(()));
        assert_eq!(topics.create("a", 2), Err(ResponseError::TopicAlreadyExists));
        assert_eq!(topics.grow("a", 2), Err(ResponseError::InvalidPartitions));
        assert_eq!(topics.grow("a", 5), Ok(()));
        assert!(topics.log("a", 4).is_ok() && topics.log("a", 5).is_err() && topics.log("a", -1).is_err());
        assert_eq!(topics.create("b", PARTITIONS_MAX as u32 - 4), Err(ResponseError::InvalidPartitions));
        assert_eq!(topics.delete("a"), Ok(()));
        assert_eq!(topics.create("b", PARTITIONS_MAX as u32), Ok(()));
    }
}
