//! Carries effects out and packets across: late, in order per connection, and not at all once it is cut.

use std::collections::VecDeque;

use dmp_core::{
    agent,
    bridge::{self, downlink},
    core::{ConnectionId, Publication},
    registry::{self, GapEnd},
    time::Mono,
};
use rand::RngExt;

use crate::{
    broker::{Client, Down, Line, Up},
    faults::Fault,
    world::{Item, World},
};

impl World {
    pub(crate) fn carry_out_agent(&mut self, index: usize, effects: Vec<agent::Effect>) {
        let life = self.raes[index].life;
        let line = |connection| Line { client: Client::Agent(index), life, connection };
        for effect in effects {
            match effect {
                agent::Effect::Connect { connection, will } => self.open(line(connection), will),
                agent::Effect::Disconnect(connection) => {
                    self.up(line(connection), Up::Disconnect);
                    self.after_ms(0, 100, Item::Gone(line(connection)));
                }
                agent::Effect::Subscribe { connection, packet, filters } => {
                    self.up(line(connection), Up::Subscribe { packet, filters });
                }
                agent::Effect::Publish { connection, packet, dup, message, .. } => {
                    if dup {
                        self.count("resend");
                    }
                    if packet.is_none() && self.chance(Fault::Loss, 30) {
                        self.count("lost message");
                    } else {
                        self.up(line(connection), Up::Publish { message, packet });
                    }
                }
                agent::Effect::Acknowledge(connection, packet) => self.up(line(connection), Up::Acknowledge(packet)),
                agent::Effect::Save(id, changes) => self.save(index, id, changes),
                agent::Effect::Probe(id, hardware) => {
                    let early = self.rng.random_bool(0.5).then(|| self.probe(index, &hardware));
                    let seen = if self.chance(Fault::Answers, 10) { Some(agent::Probe::Unknown) } else { early };
                    self.after_ms(1, 200, Item::Probed(index, life, id, hardware, seen));
                }
                agent::Effect::Set { id, hardware, set, unset } => {
                    let outcome = self.set(index, &hardware, set, unset);
                    self.after_ms(1, 200, Item::SetDone(index, life, id, outcome));
                }
                agent::Effect::Stopped => {
                    self.count("agent stop");
                    self.raes[index].core = None;
                    self.raes[index].life += 1;
                    self.after_ms(100, 2000, Item::StartAgent(index));
                }
                agent::Effect::Fact(agent::Fact::Shed(..)) => self.count("shed"),
                agent::Effect::Fact(agent::Fact::SaveRetried) => self.count("save retried"),
                agent::Effect::Fact(fact) => self.commands.tell(&fact),
            }
        }
    }

    pub(crate) fn carry_out_bridge(&mut self, effects: Vec<bridge::Effect>) {
        let life = self.bridge.life;
        let line = |connection| Line { client: Client::Bridge, life, connection };
        for effect in effects {
            match effect {
                bridge::Effect::Connect(connection) => {
                    (self.bridge.paused, self.bridge.held) = (false, VecDeque::new());
                    self.open(line(connection), None);
                }
                bridge::Effect::Disconnect(connection) => {
                    self.up(line(connection), Up::Disconnect);
                    self.after_ms(0, 100, Item::Gone(line(connection)));
                }
                bridge::Effect::Subscribe { connection, packet, filters } => {
                    self.up(line(connection), Up::Subscribe { packet, filters });
                }
                bridge::Effect::PauseReading(_) => {
                    self.count("bridge paused");
                    self.bridge.paused = true;
                }
                bridge::Effect::ResumeReading(_) => {
                    self.bridge.paused = false;
                    self.read_held();
                }
                bridge::Effect::Produce(id, record) => {
                    let at = self.soon(1, 40).max(self.last_append);
                    self.last_append = at;
                    self.at(at, Item::Produce(life, id, record));
                }
                bridge::Effect::Acknowledge(connection, packet) => self.up(line(connection), Up::Acknowledge(packet)),
                bridge::Effect::Stopped => {
                    self.count("bridge stop");
                    self.bridge.core = None;
                    self.bridge.life += 1;
                    // One process: what of it still runs ends with it.
                    self.downlink.core = None;
                    self.cut(Client::Downlink);
                    self.after_ms(100, 2000, Item::StartBridge);
                }
                bridge::Effect::Fact(_) => {}
            }
        }
    }

    pub(crate) fn carry_out_downlink(&mut self, effects: Vec<downlink::Effect>) {
        let life = self.bridge.life;
        let current = self.downlink.group.current();
        let line = |connection| Line { client: Client::Downlink, life, connection };
        for effect in effects {
            match effect {
                downlink::Effect::Connect(connection) => self.open(line(connection), None),
                downlink::Effect::Disconnect(connection) => {
                    self.up(line(connection), Up::Disconnect);
                    self.after_ms(0, 100, Item::Gone(line(connection)));
                }
                downlink::Effect::Publish { connection, packet, dup, message } => {
                    if dup {
                        self.count("command sent again");
                    }
                    self.up(line(connection), Up::Publish { message, packet: Some(packet) });
                }
                downlink::Effect::Produce(id, record) => self.after_ms(1, 40, Item::Answer(life, id, record)),
                downlink::Effect::Commit(id, generation, offsets) => {
                    self.after_ms(1, 40, Item::Deliver(life, id, generation, offsets));
                }
                downlink::Effect::Pause(generation, partition) if generation == current => {
                    self.count("commands paused");
                    self.downlink.group.paused[usize::try_from(partition).unwrap()] = true;
                }
                downlink::Effect::Resume(generation, partition) if generation == current => {
                    self.downlink.group.paused[usize::try_from(partition).unwrap()] = false;
                }
                downlink::Effect::Drained(generation) if generation == current => self.assign_downlink(),
                downlink::Effect::Pause(..) | downlink::Effect::Resume(..) | downlink::Effect::Drained(_) => {}
                downlink::Effect::Stopped => unreachable!("nobody stops the downlink"),
                downlink::Effect::Fact(downlink::Fact::Ended(_, _, end)) => self.count(match end {
                    downlink::End::Delivered => "command delivered",
                    downlink::End::Expired => "command expired",
                    downlink::End::ExpiredInDoubt => "command expired in doubt",
                    downlink::End::DeadLettered(_) => "command quarantined",
                }),
                downlink::Effect::Fact(_) => {}
            }
        }
    }

    pub(crate) fn carry_out_registry(&mut self, which: usize, effects: Vec<registry::Effect>) {
        let life = self.registries[which].life;
        let current = self.registries[which].group.current();
        for effect in effects {
            match effect {
                registry::Effect::Write(id, _, rows) => self.after_ms(1, 60, Item::Write(which, life, id, rows)),
                registry::Effect::Quarantine(id, record) => {
                    self.after_ms(1, 40, Item::Quarantine(which, life, id, record));
                }
                registry::Effect::Command(id, record) => {
                    self.registries[which].commanded += 1;
                    self.after_ms(1, 40, Item::Command(which, life, id, record));
                }
                registry::Effect::Commit(id, generation, offsets) => {
                    self.after_ms(1, 40, Item::Commit(which, life, id, generation, offsets));
                }
                registry::Effect::Pause(generation, partition) if generation == current => {
                    self.count("partition paused");
                    self.registries[which].group.paused[usize::try_from(partition).unwrap()] = true;
                }
                registry::Effect::Resume(generation, partition) if generation == current => {
                    self.registries[which].group.paused[usize::try_from(partition).unwrap()] = false;
                }
                registry::Effect::Drained(generation) if generation == current => self.assign(which),
                registry::Effect::Pause(..) | registry::Effect::Resume(..) | registry::Effect::Drained(_) => {}
                registry::Effect::Stopped => unreachable!("nobody stops the registry"),
                registry::Effect::Fact(registry::Fact::GapOpened { .. }) => self.count("gap"),
                registry::Effect::Fact(registry::Fact::GapClosed { by, after, .. }) => {
                    self.registries[which].healed.push(after);
                    self.count(match by {
                        GapEnd::Update => "gap closed by an update",
                        GapEnd::Snapshot => "gap closed by a snapshot",
                        GapEnd::RequestedSnapshot => "gap closed by a requested snapshot",
                        GapEnd::Forgotten => "gap forgotten",
                    });
                }
                registry::Effect::Fact(registry::Fact::RepairRequested(..)) => self.count("repair requested"),
                registry::Effect::Fact(registry::Fact::NoticeSent { .. }) => self.count("notice sent"),
                registry::Effect::Fact(registry::Fact::Quarantined { .. }) => self.count("quarantined"),
                registry::Effect::Fact(_) => {}
            }
        }
    }

    pub(crate) fn open(&mut self, line: Line, will: Option<Publication>) {
        let isolated = matches!(line.client, Client::Agent(index) if self.is_isolated(index));
        let refused = self.chance(Fault::Links, 20) || isolated;
        self.after_ms(1, 50, if refused { Item::Gone(line) } else { Item::Open(line, will) });
    }

    pub(crate) fn up(&mut self, line: Line, packet: Up) {
        let at = self.arrival(line, true);
        self.at(at, Item::ToBroker(line, packet));
    }

    pub(crate) fn carry(&mut self, packets: Vec<(Line, Down)>) {
        for (line, packet) in packets {
            let at = self.arrival(line, false);
            self.at(at, Item::ToClient(line, packet));
        }
    }

    pub(crate) fn arrival(&mut self, line: Line, up: bool) -> Mono {
        let slow = self.chance(Fault::Links, 3);
        let at = self.soon(1, if slow { 800 } else { 20 });
        let last = self.last_arrival.entry((line, up)).or_default();
        *last = at.max(*last);
        *last
    }

    pub(crate) fn deliver(&mut self, line: Line, packet: Down) {
        let connection = line.connection;
        match (line.client, packet) {
            (Client::Agent(index), Down::Connected { .. }) => {
                self.agent_event(index, agent::Event::Connected(connection));
            }
            (Client::Agent(index), Down::Acknowledged(packet)) => {
                self.agent_event(index, agent::Event::Acknowledged(connection, packet));
            }
            (Client::Agent(index), Down::Subscribed(packet)) => {
                self.agent_event(index, agent::Event::Subscribed(connection, packet));
            }
            (Client::Agent(index), Down::Message(message)) => {
                self.agent_event(index, agent::Event::Message(connection, message));
            }
            (Client::Bridge, Down::Connected { session_present }) => {
                self.bridge_event(bridge::Event::Connected { connection, session_present });
            }
            (Client::Bridge, Down::Subscribed(packet)) => {
                self.bridge_event(bridge::Event::Subscribed(connection, packet));
            }
            (Client::Bridge, Down::Message(message)) => {
                self.bridge.held.push_back((line, message));
                self.read_held();
            }
            (Client::Downlink, Down::Connected { .. }) => {
                self.downlink_event(downlink::Event::Connected(connection));
            }
            (Client::Downlink, Down::Acknowledged(packet)) => {
                self.downlink_event(downlink::Event::Acknowledged(connection, packet));
            }
            (Client::Downlink, Down::Subscribed(_) | Down::Message(_)) => unreachable!("it subscribes to nothing"),
            (Client::Bridge, Down::Acknowledged(_)) => unreachable!("the bridge publishes nothing"),
        }
    }

    pub(crate) fn read_held(&mut self) {
        while !self.bridge.paused
            && let Some((line, message)) = self.bridge.held.pop_front()
        {
            self.bridge_event(bridge::Event::Message(line.connection, message));
        }
    }

    pub(crate) fn gone(&mut self, line: Line) {
        if self.life_of(line.client) != line.life {
            return;
        }
        let connection: ConnectionId = line.connection;
        match line.client {
            Client::Agent(index) => self.agent_event(index, agent::Event::Disconnected(connection)),
            Client::Bridge => {
                self.bridge.held.retain(|(held, _)| *held != line);
                self.bridge_event(bridge::Event::Disconnected(connection));
            }
            Client::Downlink => self.downlink_event(downlink::Event::Disconnected(connection)),
        }
    }
}
