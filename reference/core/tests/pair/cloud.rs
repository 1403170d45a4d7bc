//! A tiny log and a tiny store, each with the invariant that it watches as things happen.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dmp_core::{
    bridge::OutgoingRecord,
    dead_letter::header,
    event::{self, Command, Event, Reply, kafka_topic},
    id::{Device, Rae, Session},
    merge::{DeviceState, Rows, SessionRow},
    registry::{Beaten, Offset, Partition, Record},
};
use uuid::Uuid;

pub(crate) const PARTITIONS: usize = 3;

/// Committed offsets of a group, per partition.
pub(crate) type Committed = [Offset; PARTITIONS];

/// The topics of one Kafka.
#[derive(Default)]
pub(crate) struct Log {
    events: [Vec<Record>; PARTITIONS],
    commands: [Vec<Record>; PARTITIONS],
    stored: BTreeSet<(Bytes, Bytes)>,
    dead_records: BTreeSet<(String, Partition, Offset)>,
    newest_seq: BTreeMap<Session, u64>,
    /// What each seq of a session said.
    said: BTreeMap<(Session, u64), Bytes>,
    /// What stands in the topic of replies, each with the session's topic.
    pub(crate) replies: Vec<(Bytes, Reply)>,
}

impl Log {
    /// Appends a record.
    ///
    /// # Panics
    /// If a seq appears for the first time below one of its session that has appeared (C4), or says something else than
    /// before (C1).
    pub(crate) fn append(&mut self, record: OutgoingRecord) -> (Partition, Offset) {
        if record.topic == kafka_topic::REPLIES {
            self.replies.push((record.key.clone(), Reply::decode(&record.value).expect("an agent's reply")));
            self.stored.insert((record.key, record.value));
            return (0, 0);
        }
        let value = |name| record.headers.iter().find(|(header, _)| *header == name).map(|(_, value)| value.as_str());
        let partition = crc32fast::hash(&record.key) as usize % PARTITIONS;
        if record.topic == kafka_topic::DEAD_LETTER {
            let number = |name| value(name).and_then(|text| text.parse::<i64>().ok());
            if let (Some(of), Some(offset)) = (number(header::SOURCE_PARTITION), number(header::SOURCE_OFFSET)) {
                let topic = value(header::SOURCE_TOPIC).unwrap().to_owned();
                self.dead_records.insert((topic, Partition::try_from(of).unwrap(), offset));
            }
            self.stored.insert((record.key, record.value));
            return (0, 0);
        }
        self.stored.insert((record.key.clone(), record.value.clone()));
        if let Ok(Event::State(event)) = decode(&record.key, &record.value) {
            let (session, seq) = (event.version.session, event.version.seq.get());
            if let Some(said) = self.said.insert((session, seq), record.value.clone()) {
                assert_eq!(said, record.value, "C1: seq {seq} of {session} says two things");
            } else {
                let newest = self.newest_seq.insert(session, seq).unwrap_or(0);
                assert!(seq > newest, "C4: seq {seq} of {session} first appears behind {newest}");
            }
        }
        let log = match record.topic {
            kafka_topic::COMMANDS => &mut self.commands[partition],
            kafka_topic::EVENTS => &mut self.events[partition],
            other => panic!("nobody reads {other}"),
        };
        let (partition, offset) = (Partition::try_from(partition).unwrap(), Offset::try_from(log.len()).unwrap());
        let retained = value("mqtt-retain") == Some("1");
        let (key, value) = (Some(record.key), Some(record.value));
        log.push(Record { partition, offset, timestamp: record.timestamp, key, value, retained });
        (partition, offset)
    }

    pub(crate) fn read(&self, partition: Partition, offset: Offset) -> Option<&Record> {
        self.events[usize::try_from(partition).unwrap()].get(usize::try_from(offset).unwrap())
    }

    pub(crate) fn command(&self, partition: Partition, offset: Offset) -> Option<&Record> {
        self.commands[usize::try_from(partition).unwrap()].get(usize::try_from(offset).unwrap())
    }

    /// The offsets behind the newest events.
    pub(crate) fn ends(&self) -> Committed {
        self.events.each_ref().map(|log| Offset::try_from(log.len()).unwrap())
    }

    pub(crate) fn commands_end(&self) -> Committed {
        self.commands.each_ref().map(|log| Offset::try_from(log.len()).unwrap())
    }

    pub(crate) fn holds(&self, topic: &str, payload: &Bytes) -> bool {
        self.stored.contains(&(Bytes::copy_from_slice(topic.as_bytes()), payload.clone()))
    }

    /// Sessions of which a seq below the newest is missing.
    pub(crate) fn sessions_with_gaps(&self) -> usize {
        let seqs = |session| self.said.range((session, 0)..=(session, u64::MAX)).count() as u64;
        self.newest_seq.iter().filter(|&(&session, &newest)| seqs(session) < newest).count()
    }

    pub(crate) fn lag(&self, committed: &Committed) -> Offset {
        self.ends().iter().zip(committed).map(|(end, at)| end - at).sum()
    }

    /// Sees to it that an offset may be committed.
    ///
    /// # Panics
    /// If it falls (C6), or a record below it is neither in durable rows nor quarantined (C5).
    pub(crate) fn assert_reflected(&self, partition: Partition, from: Offset, offset: Offset, store: &Store) {
        assert!(offset >= from, "C6: the committed offset of {partition} falls from {from} to {offset}");
        for passed in from..offset {
            let record = self.read(partition, passed).expect("C5: committed beyond the end");
            let reflected = store.reflects(record) || self.is_lettered(kafka_topic::EVENTS, partition, passed);
            assert!(reflected, "C5: {partition}/{passed} is committed and not durable: {record:?}");
        }
    }

    /// The same of commands: the broker has acknowledged each, its issuer was told that it expired, or it is lettered.
    pub(crate) fn assert_delivered(
        &self,
        partition: Partition,
        from: Offset,
        offset: Offset,
        acknowledged: &BTreeSet<Bytes>,
    ) {
        assert!(offset >= from, "C6: the committed offset of {partition} falls from {from} to {offset}");
        for passed in from..offset {
            let record = self.command(partition, passed).expect("C5: committed beyond the end");
            let value = record.value.as_ref().unwrap();
            let replied = |id| self.replies.iter().any(|(_, reply)| reply.id == id);
            let expired = || Command::decode(value).is_ok_and(|command| replied(command.id));
            let lettered = self.is_lettered(kafka_topic::COMMANDS, partition, passed);
            let delivered = acknowledged.contains(value) || lettered || expired();
            assert!(delivered, "C5: {partition}/{passed} is committed and was not delivered: {record:?}");
        }
    }

    fn is_lettered(&self, topic: &str, partition: Partition, offset: Offset) -> bool {
        self.dead_records.contains(&(topic.to_owned(), partition, offset))
    }
}

/// The rows of one database.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) devices: BTreeMap<Device, DeviceState>,
    pub(crate) sessions: BTreeMap<(Device, Session), SessionRow>,
    raes: BTreeMap<Rae, event::Presence>,
}

impl Store {
    pub(crate) fn write(&mut self, rows: &Rows) {
        for (device, state) in &rows.devices {
            self.devices.entry(*device).or_default().join(state);
        }
        for (key, session) in &rows.sessions {
            self.sessions.entry(*key).or_insert_with(|| session.clone());
        }
        for (rae, presence) in &rows.raes {
            let stored = self.raes.entry(rae.clone()).or_insert(*presence);
            *stored = (*stored).max(*presence);
        }
    }

    /// The sessions with a snapshot in `rows`, received after the newest of their device had opened, that are not it.
    pub(crate) fn beaten(&self, rows: &Rows) -> Vec<Beaten> {
        let newest = |device| {
            let sessions = self.sessions.range((device, Session(Uuid::nil()))..=(device, Session(Uuid::max())));
            sessions.map(|(&(_, session), row)| (row.epoch, session, row.opened)).max()
        };
        let mut beaten = Vec::new();
        for (&(device, session), row) in &rows.sessions {
            let (Some(snapshot), Some((by, newest, opened))) = (row.snapshot, newest(device)) else { continue };
            if (by, newest) > (row.epoch, session) && opened < snapshot {
                beaten.push(Beaten { device, session, by });
            }
        }
        beaten
    }

    pub(crate) fn presence(&self, rae: &Rae) -> Option<&event::Presence> {
        self.raes.get(rae)
    }

    fn reflects(&self, record: &Record) -> bool {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { return false };
        match decode(key, value) {
            Ok(Event::State(_)) if record.retained => true,
            Ok(Event::State(event)) => {
                let entered = self.sessions.contains_key(&(event.device, event.version.session));
                let stored = self.devices.get(&event.device).cloned();
                entered && stored.is_some_and(|mut state| !state.apply(&event, record.timestamp))
            }
            Ok(Event::Status(rae, presence)) => self.raes.get(&rae).is_some_and(|stored| *stored >= presence),
            Err(_) => false,
        }
    }
}

fn decode(key: &Bytes, value: &Bytes) -> Result<Event, event::Poison> {
    event::decode(std::str::from_utf8(key).map_err(|_| event::Poison::Key)?, value)
}
