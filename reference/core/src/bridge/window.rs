//! The window: messages on their way to Kafka, in arrival order.
//!
//! At most one record per key is handed to Kafka at a time; the next of the key follows when it is stored. A produce
//! that failed or is unknown can then be repeated without a later record of its key having been stored before it,
//! which no repetition afterwards could put right. A session sends far less than one message per produce, so this
//! costs nothing until a long tail of one session arrives at once.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use rand_pcg::Pcg64;

use super::{Effect, Fact, OutgoingRecord, ProduceOutcome};
use crate::{
    agent::{Backoff, Message},
    core::{ConnectionId, EffectId},
    dead_letter::{Letter, Source, dead_letter},
    event::{MAX_PAYLOAD_BYTES, Poison, Topic, kafka_topic},
    time::{Mono, Now, Wall},
};

/// Names a slot; counts arrivals.
type Serial = u64;

#[derive(Debug)]
pub(super) struct Window {
    bridge: Arc<str>,
    backoff: Backoff,
    rng: Pcg64,
    last_id: u64,
    slots: VecDeque<Slot>,
    /// Serial of the first slot.
    first: Serial,
    /// Per key the slots that are not yet stored, in arrival order; only the foremost is handed to Kafka.
    lanes: BTreeMap<Arc<str>, VecDeque<Serial>>,
    in_flight: BTreeMap<EffectId, Serial>,
    retries: BTreeSet<(Mono, Serial)>,
}

#[derive(Debug)]
struct Slot {
    connection: ConnectionId,
    message: Message,
    received: Wall,
    way: Way,
    failures: u32,
    done: bool,
}

/// Where a message goes.
#[derive(Debug)]
enum Way {
    To(&'static str),
    DeadLetter { reason: &'static str, detail: String },
    Ignored,
}

impl Window {
    pub(super) fn new(bridge: Arc<str>, backoff: Backoff, rng: Pcg64) -> Window {
        Window {
            bridge,
            backoff,
            rng,
            last_id: 0,
            slots: VecDeque::new(),
            first: 0,
            lanes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            retries: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn retrying(&self) -> usize {
        self.retries.len()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.retries.first().map(|&(at, _)| at)
    }

    /// Takes a message that arrived.
    pub(super) fn take(&mut self, now: Now, connection: ConnectionId, message: Message, effects: &mut Vec<Effect>) {
        let serial = self.first + self.slots.len() as Serial;
        let way = way_of(&message);
        let done = matches!(way, Way::Ignored);
        if !done {
            let lane = self.lanes.entry(message.topic.clone()).or_default();
            lane.push_back(serial);
        }
        let foremost = !done && self.lanes[&message.topic].len() == 1;
        self.slots.push_back(Slot { connection, message, received: now.wall, way, failures: 0, done });
        if foremost {
            self.produce(serial, effects);
        }
    }

    /// Takes Kafka's answer; one that nothing waits for is ignored.
    pub(super) fn produced(&mut self, now: Now, id: EffectId, outcome: ProduceOutcome, effects: &mut Vec<Effect>) {
        let Some(serial) = self.in_flight.remove(&id) else { return };
        let slot = slot_of(&mut self.slots, self.first, serial);
        match outcome {
            ProduceOutcome::Stored { .. } => {
                slot.done = true;
                let topic = slot.message.topic.clone();
                self.advance(&topic, effects);
            }
            ProduceOutcome::Refused { reason } if matches!(slot.way, Way::To(_)) => {
                slot.way = Way::DeadLetter { reason: "kafka", detail: reason };
                slot.failures = 0;
                self.produce(serial, effects);
            }
            // A refused dead letter has no other place to go, and is not to be lost: it waits until Kafka takes it.
            ProduceOutcome::Refused { .. } | ProduceOutcome::Failed { .. } | ProduceOutcome::Unknown { .. } => {
                let wait = self.backoff.wait(slot.failures, &mut self.rng);
                slot.failures = slot.failures.saturating_add(1);
                self.retries.insert((now.mono + wait, serial));
            }
        }
    }

    /// Produces again what has waited long enough.
    pub(super) fn retry(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(&(at, serial)) = self.retries.first()
            && at <= now.mono
        {
            self.retries.pop_first();
            effects.push(Effect::Fact(Fact::Retried));
            self.produce(serial, effects);
        }
    }

    /// Acknowledges on `connection`, in arrival order, what is done; what came on an older one is let go.
    pub(super) fn acknowledge(&mut self, connection: Option<ConnectionId>, effects: &mut Vec<Effect>) {
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.done) {
            self.first += 1;
            let orphan = slot.message.packet.is_some() && connection != Some(slot.connection);
            if let Some(packet) = slot.message.packet
                && !orphan
            {
                effects.push(Effect::Acknowledge(slot.connection, packet));
            }
            effects.push(Effect::Fact(match slot.way {
                Way::Ignored => Fact::IgnoredRetained,
                Way::To(_) if orphan => Fact::Orphaned,
                Way::To(_) => Fact::Forwarded,
                Way::DeadLetter { .. } => Fact::DeadLettered,
            }));
        }
    }

    /// The foremost record of a lane is stored: the next one is handed to Kafka.
    fn advance(&mut self, topic: &Arc<str>, effects: &mut Vec<Effect>) {
        let lane = self.lanes.get_mut(topic).expect("what is in flight is in a lane");
        lane.pop_front();
        match lane.front().copied() {
            Some(next) => self.produce(next, effects),
            None => {
                self.lanes.remove(topic);
            }
        }
    }

    fn produce(&mut self, serial: Serial, effects: &mut Vec<Effect>) {
        self.last_id += 1;
        let id = EffectId(self.last_id);
        self.in_flight.insert(id, serial);
        let record = slot_of(&mut self.slots, self.first, serial).record(&self.bridge);
        effects.push(Effect::Produce(id, record));
    }
}

impl Slot {
    fn record(&self, bridge: &str) -> OutgoingRecord {
        let key = Bytes::copy_from_slice(self.message.topic.as_bytes());
        let digit = |flag: bool| if flag { "1" } else { "0" }.to_owned();
        match &self.way {
            Way::DeadLetter { reason, detail } => {
                let source = Source::Message { topic: &self.message.topic, bridge };
                let (value, received) = (&self.message.payload, self.received);
                dead_letter(source, &Letter { reason, detail, key: &key, value, received })
            }
            Way::To(topic) => OutgoingRecord {
                topic,
                key,
                value: self.message.payload.clone(),
                timestamp: self.received,
                headers: vec![
                    ("mqtt-qos", digit(self.message.packet.is_some())),
                    ("mqtt-dup", digit(self.message.dup)),
                    ("mqtt-retain", digit(self.message.retain)),
                    ("bridge", bridge.to_owned()),
                ],
            },
            Way::Ignored => unreachable!("an ignored message has no record and is in no lane"),
        }
    }
}

fn slot_of(slots: &mut VecDeque<Slot>, first: Serial, serial: Serial) -> &mut Slot {
    let index = usize::try_from(serial - first).expect("the window fits into memory");
    &mut slots[index]
}

fn way_of(message: &Message) -> Way {
    let topic = message.topic.parse::<Topic>();
    if message.retain && !matches!(topic, Ok(Topic::Status(_))) {
        return Way::Ignored;
    }
    // Whoever clears what is retained says nothing by it (MQTT 3.1.1, section 3.3.1.3).
    if message.payload.is_empty() && matches!(topic, Ok(Topic::Status(_))) {
        return Way::Ignored;
    }
    let destination = match topic {
        _ if message.payload.len() > MAX_PAYLOAD_BYTES => Err(Poison::Oversized(message.payload.len())),
        Ok(Topic::State(..) | Topic::Status(_)) => Ok(kafka_topic::EVENTS),
        Ok(Topic::Reply(..)) => Ok(kafka_topic::REPLIES),
        Ok(topic @ Topic::Command(..)) => Err(Poison::Direction(topic)),
        Err(error) => Err(Poison::Topic(error)),
    };
    match destination {
        Ok(topic) => Way::To(topic),
        Err(poison) => Way::DeadLetter { reason: poison.reason(), detail: poison.detail() },
    }
}
