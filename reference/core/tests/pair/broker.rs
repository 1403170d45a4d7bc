//! A tiny MQTT broker: clean sessions and wills for agents, one persistent session for the bridge, retained messages.
//!
//! It knows nothing of time: packets in, packets out. The world carries them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use dmp_core::{
    agent::Message,
    core::{ConnectionId, PacketId, Publication, Qos},
};

/// Most messages that the bridge may owe an acknowledgement for.
const IN_FLIGHT: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Client {
    Agent(usize),
    Bridge,
    /// The bridge's other connection, on which it publishes commands.
    Downlink,
}

/// One network connection: a client's life counts too, as each life numbers its connections anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Line {
    pub(crate) client: Client,
    pub(crate) life: u32,
    pub(crate) connection: ConnectionId,
}

/// From a client to the broker.
#[derive(Debug, Clone)]
pub(crate) enum Up {
    Publish { message: Publication, packet: Option<PacketId> },
    Subscribe { packet: PacketId, filters: Vec<String> },
    Acknowledge(PacketId),
    Disconnect,
}

/// From the broker to a client.
#[derive(Debug, Clone)]
pub(crate) enum Down {
    Connected { session_present: bool },
    Acknowledged(PacketId),
    Subscribed(PacketId),
    Message(Message),
}

#[derive(Default)]
pub(crate) struct Broker {
    lines: BTreeMap<Client, (Line, Option<Publication>)>,
    retained: BTreeMap<Arc<str>, Bytes>,
    /// What each agent's connection subscribed to; gone with it, as its session is clean.
    subscriptions: BTreeMap<Client, Vec<String>>,
    /// Commands that were acknowledged to their publisher.
    pub(crate) commands: BTreeSet<Bytes>,
    last_packet: u16,
    /// The bridge's session: it outlives its connections, and was there before the first agent.
    session: Session,
    /// What the bridge acknowledged and nobody has looked at yet.
    pub(crate) acknowledged: Vec<Message>,
    /// QoS 1 acknowledgements out of the order of delivery.
    pub(crate) disordered: u32,
}

#[derive(Default)]
struct Session {
    waiting: VecDeque<Message>,
    in_flight: VecDeque<Message>,
    last_packet: u16,
}

impl Broker {
    pub(crate) fn is_up(&self, line: Line) -> bool {
        self.lines.get(&line.client).is_some_and(|(current, _)| *current == line)
    }

    pub(crate) fn line(&self, client: Client) -> Option<Line> {
        self.lines.get(&client).map(|(line, _)| *line)
    }

    /// Messages that wait for the bridge or for its acknowledgement.
    pub(crate) fn backlog(&self) -> usize {
        self.session.waiting.len() + self.session.in_flight.len()
    }

    /// Takes over the client id; returns the line that lost it.
    pub(crate) fn connect(
        &mut self,
        line: Line,
        will: Option<Publication>,
        out: &mut Vec<(Line, Down)>,
    ) -> Option<Line> {
        let lost = self.line(line.client);
        self.cut(line.client, out);
        self.lines.insert(line.client, (line, will));
        let present = line.client == Client::Bridge;
        out.push((line, Down::Connected { session_present: present }));
        if line.client == Client::Bridge {
            let again = self.session.in_flight.iter().map(|message| Message { dup: true, ..message.clone() });
            out.extend(again.map(|message| (line, Down::Message(message))));
            self.pump(out);
        }
        lost
    }

    /// The connection of a client is gone without a word: its will is published.
    pub(crate) fn cut(&mut self, client: Client, out: &mut Vec<(Line, Down)>) {
        self.subscriptions.remove(&client);
        if let Some((_, Some(will))) = self.lines.remove(&client) {
            self.route(&will, out);
        }
    }

    pub(crate) fn take(&mut self, line: Line, packet: Up, out: &mut Vec<(Line, Down)>) {
        if !self.is_up(line) {
            return;
        }
        match packet {
            Up::Publish { message, packet } => {
                self.route(&message, out);
                if line.client == Client::Downlink {
                    self.commands.insert(message.payload.clone());
                }
                out.extend(packet.map(|packet| (line, Down::Acknowledged(packet))));
            }
            Up::Subscribe { packet, filters } => {
                out.push((line, Down::Subscribed(packet)));
                if line.client != Client::Bridge {
                    self.subscriptions.insert(line.client, filters.clone());
                }
                self.replay(line, &filters, out);
            }
            Up::Acknowledge(packet) if line.client == Client::Bridge => self.acknowledge(packet, out),
            Up::Acknowledge(_) => {}
            Up::Disconnect => {
                self.subscriptions.remove(&line.client);
                self.lines.remove(&line.client);
            }
        }
    }

    /// A message reaches the bridge's session; also one that no client sent.
    pub(crate) fn route(&mut self, message: &Publication, out: &mut Vec<(Line, Down)>) {
        if message.retain {
            self.retained.insert(message.topic.clone(), message.payload.clone());
        }
        if message.topic.ends_with("/cmd") {
            self.route_down(message, out);
            return;
        }
        let connected = self.line(Client::Bridge);
        let (topic, payload) = (message.topic.clone(), message.payload.clone());
        let forwarded = Message { topic, payload, packet: None, dup: false, retain: false };
        match message.qos {
            Qos::AtMostOnce => out.extend(connected.map(|line| (line, Down::Message(forwarded)))),
            Qos::AtLeastOnce => self.session.waiting.push_back(forwarded),
        }
        self.pump(out);
    }

    /// A command reaches the RAE that it is for, if that is connected and has subscribed; else nobody keeps it.
    fn route_down(&mut self, message: &Publication, out: &mut Vec<(Line, Down)>) {
        for (client, filters) in &self.subscriptions {
            let Some(&(line, _)) = self.lines.get(client) else { continue };
            if filters.iter().any(|filter| is_matched(filter, &message.topic)) {
                self.last_packet = self.last_packet % 60_000 + 1;
                let (topic, payload) = (message.topic.clone(), message.payload.clone());
                let packet = Some(PacketId(self.last_packet));
                out.push((line, Down::Message(Message { topic, payload, packet, dup: false, retain: false })));
            }
        }
    }

    fn replay(&mut self, line: Line, filters: &[String], out: &mut Vec<(Line, Down)>) {
        let is_bridge = line.client == Client::Bridge;
        for (topic, payload) in &self.retained {
            if is_bridge || filters.iter().any(|filter| **filter == **topic) {
                let (topic, payload) = (topic.clone(), payload.clone());
                let message = Message { topic, payload, packet: None, dup: false, retain: true };
                if is_bridge {
                    self.session.waiting.push_back(message);
                } else {
                    out.push((line, Down::Message(message)));
                }
            }
        }
        self.pump(out);
    }

    fn acknowledge(&mut self, packet: PacketId, out: &mut Vec<(Line, Down)>) {
        let session = &mut self.session;
        let Some(at) = session.in_flight.iter().position(|message| message.packet == Some(packet)) else { return };
        self.disordered += u32::from(at > 0);
        self.acknowledged.extend(session.in_flight.remove(at));
        self.pump(out);
    }

    fn pump(&mut self, out: &mut Vec<(Line, Down)>) {
        let Some(line) = self.line(Client::Bridge) else { return };
        let session = &mut self.session;
        while session.in_flight.len() < IN_FLIGHT {
            let Some(mut message) = session.waiting.pop_front() else { return };
            session.last_packet = session.last_packet % 1000 + 1;
            message.packet = Some(PacketId(session.last_packet));
            session.in_flight.push_back(message.clone());
            out.push((line, Down::Message(message)));
        }
    }
}

/// Whether a filter with `+` levels takes this topic.
fn is_matched(filter: &str, topic: &str) -> bool {
    let (filter, topic) = (filter.split('/'), topic.split('/'));
    filter.clone().count() == topic.clone().count()
        && filter.zip(topic).all(|(level, name)| level == "+" || level == name)
}
