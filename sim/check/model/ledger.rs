//! The life of every event of the fleet: recorded, sent, acknowledged, delivered, in the log, or where it was lost.
//!
//! One compact [`Life`] per event, by device, session and seq: it serves conservation, the tie between what is seen on
//! the wire and what was sent, and the timelines of witnesses. 48 bytes, so that ten thousand events per second for
//! minutes stay within a hundred megabytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dmp_core::id::{Epoch, Session, Version};
use uuid::Uuid;

use crate::{
    fleet::plan::{DeviceIndex, RaeIndex},
    history::{Appended, Copy, PayloadHash, Publish},
};

/// Seqs that a session may jump over: a guard of memory against a history that is not ours.
const MAX_GAP: usize = 100_000;

/// What happened to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::check) enum Mark {
    /// A fault kept it from being sent.
    Withheld,
    /// A fault lost it on its way at QoS 0.
    LostAtQos0,
    /// The full outbox dropped it.
    Shed,
    /// The broker acknowledged it to its agent.
    Acknowledged,
    /// The broker handed it to a bridge.
    Delivered,
    /// A bridge acknowledged it.
    BridgeAcknowledged,
}

/// Milliseconds from the begin of the run, plus one; zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(in crate::check) struct Moment(u32);

impl Moment {
    fn at(at: Duration) -> Moment {
        Moment(u32::try_from(at.as_millis()).unwrap_or(u32::MAX - 1).saturating_add(1))
    }

    /// When it was.
    pub(in crate::check) fn get(self) -> Option<Duration> {
        self.0.checked_sub(1).map(|ms| Duration::from_millis(ms.into()))
    }

    /// Whether it was at all.
    pub(in crate::check) fn is(self) -> bool {
        self.0 > 0
    }

    fn first(&mut self, at: Duration) {
        if self.0 == 0 {
            *self = Moment::at(at);
        }
    }
}

/// What is known of one event.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::check) struct Life {
    pub(in crate::check) recorded: Moment,
    pub(in crate::check) sent: Moment,
    pub(in crate::check) acknowledged: Moment,
    pub(in crate::check) delivered: Moment,
    pub(in crate::check) bridge_acknowledged: Moment,
    pub(in crate::check) appended: Moment,
    /// When it was withheld, lost or shed.
    pub(in crate::check) dropped: Moment,
    /// Offset of its first copy in the log.
    pub(in crate::check) offset: u32,
    pub(in crate::check) partition: u16,
    /// Copies in the log.
    pub(in crate::check) copies: u16,
    /// `rev` in it, plus one; zero is none.
    rev: u32,
    crc: u32,
    flags: u8,
}

const SNAPSHOT: u8 = 1;
const WITHHELD: u8 = 2;
const LOST: u8 = 4;
const SHED: u8 = 8;
const DELAYED: u8 = 16;
const QUARANTINED: u8 = 32;
const DEAD_LETTERED: u8 = 64;

impl Life {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
    pub(in crate::check) fn snapshot(&self) -> bool {
        self.has(SNAPSHOT)
    }
    pub(in crate::check) fn withheld(&self) -> bool {
        self.has(WITHHELD)
    }
    pub(in crate::check) fn lost_at_qos0(&self) -> bool {
        self.has(LOST)
    }
    pub(in crate::check) fn shed(&self) -> bool {
        self.has(SHED)
    }
    pub(in crate::check) fn delayed(&self) -> bool {
        self.has(DELAYED)
    }
    pub(in crate::check) fn quarantined(&self) -> bool {
        self.has(QUARANTINED)
    }
    /// Dead-lettered by a bridge.
    pub(in crate::check) fn dead_lettered(&self) -> bool {
        self.has(DEAD_LETTERED)
    }
    pub(in crate::check) fn in_log(&self) -> bool {
        self.copies > 0
    }
    /// The `rev` that its copy in the log holds.
    pub(in crate::check) fn rev(&self) -> Option<u32> {
        self.rev.checked_sub(1)
    }
}

/// One session of a device.
#[derive(Debug)]
pub(in crate::check) struct SessionLife {
    pub(in crate::check) epoch: Epoch,
    pub(in crate::check) session: Session,
    /// The RAE that opened it.
    pub(in crate::check) rae: RaeIndex,
    /// Event of seq n at index n - 1.
    pub(in crate::check) events: Vec<Life>,
    newest_in_log: u64,
}

impl SessionLife {
    /// The `rev` of its newest event in the log that has one.
    pub(in crate::check) fn newest_rev(&self) -> Option<u32> {
        self.events.iter().rev().filter(|life| life.in_log()).find_map(Life::rev)
    }

    /// Whether an event was dropped on its way and no snapshot in the log is behind it: its change may never be told.
    pub(in crate::check) fn misses_a_drop(&self) -> bool {
        let healed = self.events.iter().rposition(|life| life.in_log() && life.snapshot());
        self.events[healed.unwrap_or(0)..].iter().any(|life| life.dropped.is())
    }
}

/// A message on the wire that is no event of the fleet, or not yet known to be one.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::check) struct Loose {
    pub(in crate::check) delivered: Moment,
    pub(in crate::check) acknowledged: Moment,
    /// In the log or in the dead letters.
    pub(in crate::check) stored: bool,
}

/// The lives of all events.
#[derive(Debug)]
pub(in crate::check) struct Ledger {
    devices: Vec<Vec<SessionLife>>,
    sessions: BTreeMap<Session, (DeviceIndex, usize)>,
    /// Status, poison, and what was delivered before its sending was entered.
    pub(in crate::check) loose: BTreeMap<(Arc<str>, PayloadHash), Loose>,
    /// Messages that a bridge acknowledged.
    pub(in crate::check) bridge_acknowledged: u64,
}

impl Ledger {
    pub(super) fn new(devices: usize) -> Ledger {
        Ledger {
            devices: std::iter::repeat_with(Vec::new).take(devices).collect(),
            sessions: BTreeMap::new(),
            loose: BTreeMap::new(),
            bridge_acknowledged: 0,
        }
    }

    /// The sessions of a device, oldest first.
    pub(in crate::check) fn sessions(&self, device: DeviceIndex) -> &[SessionLife] {
        &self.devices[device.0 as usize]
    }

    /// Whose session this is.
    pub(in crate::check) fn holder(&self, session: Session) -> Option<DeviceIndex> {
        self.sessions.get(&session).map(|&(device, _)| device)
    }

    /// The session of the highest version of a device of which anything is in the log.
    pub(in crate::check) fn newest_in_log(&self, device: DeviceIndex) -> Option<&SessionLife> {
        let told = self.sessions(device).iter().filter(|session| session.newest_in_log > 0);
        told.max_by_key(|session| (session.epoch, session.session))
    }

    /// Every device with its sessions.
    pub(in crate::check) fn all(&self) -> impl Iterator<Item = (DeviceIndex, &[SessionLife])> {
        (0..).map(DeviceIndex).zip(self.devices.iter().map(Vec::as_slice))
    }

    /// What is known of an event.
    pub(in crate::check) fn life(&self, device: DeviceIndex, version: Version) -> Option<&Life> {
        let session =
            self.sessions(device).iter().find(|s| s.session == version.session && s.epoch == version.epoch)?;
        let life = session.events.get(index(version)?)?;
        life.recorded.is().then_some(life)
    }

    pub(super) fn is_recorded(&self, device: DeviceIndex, version: Version) -> bool {
        self.life(device, version).is_some()
    }

    pub(super) fn recorded(&mut self, publish: &Publish, at: Duration) {
        let life = self.life_mut(publish);
        life.recorded.first(at);
        if publish.snapshot {
            life.flags |= SNAPSHOT;
        }
    }

    pub(super) fn sent(&mut self, publish: &Publish, copy: Copy, payload: PayloadHash, at: Duration) {
        let life = self.life_mut(publish);
        life.sent.first(at);
        life.crc = payload.crc;
        if copy == Copy::Delayed {
            life.flags |= DELAYED;
        }
    }

    pub(super) fn mark(&mut self, publish: &Publish, mark: Mark, at: Duration) {
        self.life_mut(publish).mark(mark, at);
    }

    /// A message was seen between broker and bridge.
    pub(super) fn on_wire(&mut self, topic: &Arc<str>, payload: PayloadHash, mark: Mark, at: Duration) {
        self.bridge_acknowledged += u64::from(mark == Mark::BridgeAcknowledged);
        if let Some(life) = self.of_message(topic, payload) {
            life.mark(mark, at);
            return;
        }
        let loose = self.loose.entry((topic.clone(), payload)).or_default();
        match mark {
            Mark::Delivered => loose.delivered.first(at),
            Mark::BridgeAcknowledged => loose.acknowledged.first(at),
            Mark::Withheld | Mark::LostAtQos0 | Mark::Shed | Mark::Acknowledged => {}
        }
    }

    /// A message that is no event of the fleet is in the log.
    pub(super) fn stored(&mut self, topic: &Arc<str>, payload: PayloadHash) {
        self.loose.entry((topic.clone(), payload)).or_default().stored = true;
    }

    /// A bridge dead-lettered a message.
    pub(super) fn dead_lettered(&mut self, topic: &Arc<str>, payload: PayloadHash) {
        match self.of_message(topic, payload) {
            Some(life) => life.flags |= DEAD_LETTERED,
            None => self.stored(topic, payload),
        }
    }

    /// A record of the event was quarantined.
    pub(super) fn quarantined(&mut self, device: DeviceIndex, version: Version) {
        let session = self.devices[device.0 as usize].iter_mut().find(|s| s.session == version.session);
        let life = session.zip(index(version)).and_then(|(session, index)| session.events.get_mut(index));
        if let Some(life) = life {
            life.flags |= QUARANTINED;
        }
    }

    /// A recorded event is in the log. Returns whether for the first time, and the session's newest seq before it.
    pub(super) fn appended(
        &mut self,
        device: DeviceIndex,
        version: Version,
        record: &Appended,
        rev: Option<u32>,
        at: Duration,
    ) -> (bool, u64) {
        let sessions = &mut self.devices[device.0 as usize];
        let session = sessions.iter_mut().find(|s| s.session == version.session && s.epoch == version.epoch);
        let Some((session, index)) = session.zip(index(version)) else { return (false, 0) };
        let newest_before = session.newest_in_log;
        session.newest_in_log = newest_before.max(version.seq.get());
        let Some(life) = session.events.get_mut(index) else { return (false, newest_before) };
        let first = life.copies == 0;
        life.copies = life.copies.saturating_add(1);
        if first {
            life.appended.first(at);
            life.partition = u16::try_from(record.partition).unwrap_or(u16::MAX);
            life.offset = u32::try_from(record.offset).unwrap_or(u32::MAX);
            life.rev = rev.map_or(0, |rev| rev + 1);
            life.crc = record.payload.crc;
        }
        (first, newest_before)
    }

    /// Ties what was on the wire before its sending was entered to its event.
    pub(in crate::check) fn settle(&mut self) {
        for ((topic, payload), loose) in std::mem::take(&mut self.loose) {
            match self.of_message(&topic, payload) {
                Some(life) => {
                    life.delivered = life.delivered.max(loose.delivered);
                    life.bridge_acknowledged = life.bridge_acknowledged.max(loose.acknowledged);
                    if loose.stored && life.copies == 0 {
                        life.flags |= DEAD_LETTERED;
                    }
                }
                None => {
                    self.loose.insert((topic, payload), loose);
                }
            }
        }
    }

    fn of_message(&mut self, topic: &str, payload: PayloadHash) -> Option<&mut Life> {
        let session = session_in(topic)?;
        let &(device, index) = self.sessions.get(&session)?;
        let events = &mut self.devices[device.0 as usize][index].events;
        events.iter_mut().rev().find(|life| life.crc == payload.crc && life.recorded.is())
    }

    fn life_mut(&mut self, publish: &Publish) -> &mut Life {
        let Version { epoch, session, .. } = publish.version;
        let sessions = &mut self.devices[publish.device.0 as usize];
        let place = match sessions.iter().rposition(|s| s.session == session && s.epoch == epoch) {
            Some(place) => place,
            None => {
                sessions.push(SessionLife { epoch, session, rae: publish.rae, events: Vec::new(), newest_in_log: 0 });
                self.sessions.insert(session, (publish.device, sessions.len() - 1));
                sessions.len() - 1
            }
        };
        let events = &mut sessions[place].events;
        let index = index(publish.version).unwrap_or(0);
        assert!(index < events.len() + MAX_GAP, "an agent of the fleet jumped to seq {}", publish.version.seq);
        if index >= events.len() {
            events.resize(index + 1, Life::default());
        }
        &mut events[index]
    }
}

impl Life {
    fn mark(&mut self, mark: Mark, at: Duration) {
        match mark {
            Mark::Withheld => self.dropped_by(WITHHELD, at),
            Mark::LostAtQos0 => self.dropped_by(LOST, at),
            Mark::Shed => self.dropped_by(SHED, at),
            Mark::Acknowledged => self.acknowledged.first(at),
            Mark::Delivered => self.delivered.first(at),
            Mark::BridgeAcknowledged => self.bridge_acknowledged.first(at),
        }
    }

    fn dropped_by(&mut self, flag: u8, at: Duration) {
        self.flags |= flag;
        self.dropped.first(at);
    }
}

fn index(version: Version) -> Option<usize> {
    usize::try_from(version.seq.get() - 1).ok()
}

/// The session in a `state` topic; only the canonical form, as in the topic's own parser.
fn session_in(topic: &str) -> Option<Session> {
    let session = topic.strip_suffix("/state")?.rsplit('/').next()?;
    Uuid::try_parse(session).ok().map(Session)
}
