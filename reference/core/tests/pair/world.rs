//! The small world in which the three cores meet: one queue ordered by (time, insertion), one seed.
//!
//! The world carries packets and answers, late and sometimes not at all; it never retries, reorders or deduplicates
//! for a core. A crash drops the core and keeps its store.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use dmp_core::{
    agent::{self, Agent, Saved},
    bridge::{self, Bridge, OutgoingRecord},
    core::{ConnectionId, Core, EffectId, Publication, Qos},
    event::subscriptions,
    merge::Rows,
    registry::{self, Generation, Offset, Partition, Registry},
    time::{Mono, Now, Wall},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::{
    broker::{Broker, Client, Down, Line, Up},
    cloud::{Log, PARTITIONS, Store},
    device::Hardware,
    faults::{Fault, Faults},
};

const EPOCH_MS: i64 = 1_700_000_000_000;
pub(crate) const SNAPSHOT_EVERY: Duration = Duration::from_secs(3);
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(2);
const BACKOFF: agent::Backoff = agent::Backoff { first: Duration::from_millis(100), most: Duration::from_secs(2) };

pub(crate) struct World {
    pub(crate) rng: Pcg64,
    pub(crate) now: Mono,
    queue: BTreeMap<(Mono, u64), Item>,
    inserted: u64,
    /// When the last packet of a direction arrives: a connection keeps its order.
    last_arrival: BTreeMap<(Line, bool), Mono>,
    last_append: Mono,
    pub(crate) broker: Broker,
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) raes: Vec<RaeSide>,
    pub(crate) bridge: BridgeSide,
    pub(crate) registry: RegistrySide,
    pub(crate) devices: Vec<Hardware>,
    pub(crate) faults: Faults,
    /// Whether nothing happens on the devices any more.
    pub(crate) calm: bool,
    pub(crate) reached: BTreeMap<&'static str, u64>,
}

pub(crate) struct RaeSide {
    pub(crate) core: Option<Agent>,
    pub(crate) life: u32,
    pub(crate) disk: Saved,
    pub(crate) config: agent::Config,
    /// How wrong its clock is.
    pub(crate) skew_ms: i64,
}

#[derive(Default)]
pub(crate) struct BridgeSide {
    pub(crate) core: Option<Bridge>,
    pub(crate) life: u32,
    paused: bool,
    held: VecDeque<(Line, agent::Message)>,
}

#[derive(Default)]
pub(crate) struct RegistrySide {
    pub(crate) core: Option<Registry>,
    pub(crate) life: u32,
    pub(crate) generation: u64,
    positions: [Offset; PARTITIONS],
    paused: [bool; PARTITIONS],
    /// Between "revoked" and "drained" nothing is read.
    pub(crate) draining: bool,
}

/// What is to happen.
enum Item {
    Open(Line, Option<Publication>),
    ToBroker(Line, Up),
    ToClient(Line, Down),
    /// The client notices that its connection is gone, or could not be made.
    Gone(Line),
    /// A message that reaches the broker a second time, long after the first.
    Repeat(Publication),
    Saved(usize, u32, EffectId, agent::SaveOutcome),
    Probed(usize, u32, EffectId, Arc<str>, Option<agent::Probe>),
    Produce(u32, EffectId, OutgoingRecord),
    /// A record whose producer has long given up on it.
    Straggler(OutgoingRecord),
    Write(u32, EffectId, Arc<Rows>),
    /// A transaction whose writer has long given up on it.
    LateWrite(Arc<Rows>),
    Quarantine(u32, EffectId, OutgoingRecord),
    Commit(u32, EffectId, Generation, Vec<(Partition, Offset)>),
    Fetch,
    Plan,
    Fault,
    StartAgent(usize),
    StartBridge,
    StartRegistry,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults, qos: Qos) -> World {
        let mut rng = Pcg64::seed_from_u64(seed);
        let raes = (0..3).map(|index| RaeSide::new(index, qos, &mut rng)).collect();
        let devices = (0..9).map(|index| Hardware::new(format!("SN-{seed}-{index}"), index % 3)).collect();
        let mut world = World {
            rng,
            now: Mono(0),
            queue: BTreeMap::new(),
            inserted: 0,
            last_arrival: BTreeMap::new(),
            last_append: Mono(0),
            broker: Broker::default(),
            log: Log::default(),
            store: Store::default(),
            raes,
            bridge: BridgeSide::default(),
            registry: RegistrySide::default(),
            devices,
            faults,
            calm: false,
            reached: BTreeMap::new(),
        };
        for index in 0..3 {
            world.after_ms(0, 500, Item::StartAgent(index));
        }
        for item in [Item::StartBridge, Item::StartRegistry, Item::Plan, Item::Fault, Item::Fetch] {
            world.after_ms(0, 500, item);
        }
        world
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let item = self.queue.keys().next().map(|&(at, _)| at);
            let Some(next) = item.into_iter().chain(self.deadlines()).min().filter(|&at| at <= end) else { break };
            self.now = self.now.max(next);
            self.wake_cores();
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let item = entry.remove();
                self.happen(item);
            }
        }
        self.now = end;
    }

    pub(crate) fn chance(&mut self, fault: Fault, percent: u32) -> bool {
        self.faults.is_on(fault) && self.rng.random_range(0..100) < percent
    }

    pub(crate) fn count(&mut self, situation: &'static str) {
        *self.reached.entry(situation).or_default() += 1;
    }

    /// The connection of a client breaks; both sides find out, the client later.
    pub(crate) fn cut(&mut self, client: Client) {
        let mut out = Vec::new();
        if let Some(line) = self.broker.line(client) {
            self.broker.cut(client, &mut out);
            self.after_ms(0, 500, Item::Gone(line));
            self.count("connection cut");
        }
        self.carry(out);
    }

    pub(crate) fn crash_agent(&mut self, index: usize) {
        if self.raes[index].core.take().is_some() {
            self.count("agent crash");
            self.raes[index].life += 1;
            self.cut(Client::Agent(index));
            self.after_ms(100, 3000, Item::StartAgent(index));
        }
    }

    pub(crate) fn crash_bridge(&mut self) {
        if self.bridge.core.take().is_some() {
            self.count("bridge crash");
            self.bridge.life += 1;
            self.bridge.held.clear();
            self.cut(Client::Bridge);
            self.after_ms(100, 2000, Item::StartBridge);
        }
    }

    pub(crate) fn crash_registry(&mut self) {
        if self.registry.core.take().is_some() {
            self.count("registry crash");
            self.registry.life += 1;
            self.after_ms(100, 2000, Item::StartRegistry);
        }
    }

    /// The group gives the partitions anew, with or without a drain.
    pub(crate) fn rebalance(&mut self, drain: bool) {
        if self.registry.core.is_none() || self.registry.draining {
            return;
        }
        self.count("rebalance");
        let generation = Generation(self.registry.generation);
        if drain {
            self.registry.draining = true;
            self.registry_event(registry::Event::Revoked(generation));
        } else {
            self.registry.generation += 1;
            self.registry_event(registry::Event::Lost(generation));
            self.assign();
        }
    }

    pub(crate) fn agent_event(&mut self, index: usize, event: agent::Event) {
        let now = self.now_of(index);
        let mut effects = Vec::new();
        if let Some(core) = &mut self.raes[index].core {
            core.handle(now, event, &mut effects);
        }
        self.carry_out_agent(index, effects);
    }

    pub(crate) fn bridge_event(&mut self, event: bridge::Event) {
        let now = self.now_of_cloud();
        let mut effects = Vec::new();
        if let Some(core) = &mut self.bridge.core {
            core.handle(now, event, &mut effects);
        }
        self.carry_out_bridge(effects);
    }

    fn registry_event(&mut self, event: registry::Event) {
        let now = self.now_of_cloud();
        let mut effects = Vec::new();
        if let Some(core) = &mut self.registry.core {
            core.handle(now, event, &mut effects);
        }
        self.carry_out_registry(effects);
    }

    /// A message without a client, as from a foreign one: nothing acknowledges it.
    pub(crate) fn inject(&mut self, message: Publication) {
        let mut out = Vec::new();
        self.broker.route(&message, &mut out);
        self.carry(out);
    }

    fn deadlines(&self) -> impl Iterator<Item = Mono> {
        let agents = self.raes.iter().filter_map(|rae| rae.core.as_ref()?.deadline());
        let bridge = self.bridge.core.as_ref().and_then(Core::deadline);
        let registry = self.registry.core.as_ref().and_then(Core::deadline);
        agents.chain(bridge).chain(registry)
    }

    fn wake_cores(&mut self) {
        for index in 0..self.raes.len() {
            let now = self.now_of(index);
            let mut effects = Vec::new();
            if let Some(core) = self.raes[index].core.as_mut().filter(|core| is_due(*core, now)) {
                core.wake(now, &mut effects);
            }
            self.carry_out_agent(index, effects);
        }
        let now = self.now_of_cloud();
        let mut effects = Vec::new();
        if let Some(core) = self.bridge.core.as_mut().filter(|core| is_due(*core, now)) {
            core.wake(now, &mut effects);
        }
        self.carry_out_bridge(effects);
        let mut effects = Vec::new();
        if let Some(core) = self.registry.core.as_mut().filter(|core| is_due(*core, now)) {
            core.wake(now, &mut effects);
        }
        self.carry_out_registry(effects);
    }

    fn happen(&mut self, item: Item) {
        let mut out = Vec::new();
        match item {
            Item::Open(line, will) => {
                if self.life_of(line.client) == line.life {
                    let lost = self.broker.connect(line, will, &mut out);
                    if let Some(lost) = lost {
                        self.after_ms(0, 100, Item::Gone(lost));
                    }
                }
            }
            Item::ToBroker(line, packet) => {
                // Only of what surely came the first time: else the repetition would be news, and late.
                if let Up::Publish { message, packet: Some(_) } = &packet
                    && self.broker.is_up(line)
                    && !message.retain
                    && self.chance(Fault::Repeats, 10)
                {
                    self.count("repeated message");
                    self.after_ms(10, 3000, Item::Repeat(message.clone()));
                }
                self.broker.take(line, packet, &mut out);
                self.check_acknowledged();
            }
            Item::Repeat(message) => self.broker.route(&message, &mut out),
            Item::ToClient(line, packet) => {
                if self.broker.is_up(line) {
                    self.deliver(line, packet);
                }
            }
            Item::Gone(line) => self.gone(line),
            Item::Saved(index, life, id, outcome) => {
                if self.raes[index].life == life {
                    self.agent_event(index, agent::Event::Saved(id, outcome));
                }
            }
            Item::Probed(index, life, id, serial, seen) => {
                let found = seen.unwrap_or_else(|| self.probe(index, &serial));
                if self.raes[index].life == life {
                    self.agent_event(index, agent::Event::Probed(id, found));
                }
            }
            Item::Produce(life, id, record) => {
                let outcome = self.produce(record);
                if self.bridge.life == life {
                    self.bridge_event(bridge::Event::Produced(id, outcome));
                }
            }
            Item::Straggler(record) => {
                self.log.append(record);
            }
            Item::Write(life, id, rows) => {
                let outcome = self.write(&rows);
                if self.registry.life == life {
                    self.registry_event(registry::Event::Written(id, outcome));
                }
            }
            Item::LateWrite(rows) => self.store_rows(&rows),
            Item::Quarantine(life, id, record) => {
                let outcome = self.produce(record);
                if self.registry.life == life {
                    self.registry_event(registry::Event::Quarantined(id, outcome));
                }
            }
            Item::Commit(life, id, generation, offsets) => {
                let outcome = self.commit(generation, &offsets);
                if self.registry.life == life {
                    self.registry_event(registry::Event::Committed(id, outcome));
                }
            }
            Item::Fetch => {
                self.fetch();
                self.after_ms(5, 10, Item::Fetch);
            }
            Item::Plan => {
                self.change_something();
                self.after_ms(20, 120, Item::Plan);
            }
            Item::Fault => {
                self.strike();
                self.after_ms(100, 1200, Item::Fault);
            }
            Item::StartAgent(index) => self.start_agent(index),
            Item::StartBridge => self.start_bridge(),
            Item::StartRegistry => self.start_registry(),
        }
        self.carry(out);
    }

    fn start_agent(&mut self, index: usize) {
        let seed = self.rng.random();
        let rae = &mut self.raes[index];
        rae.core = Some(Agent::new(rae.config.clone(), rae.disk.clone(), seed));
        self.agent_event(index, agent::Event::Start);
        // A RAE that boots sees which ports have a link.
        let plugged: Vec<Arc<str>> = self
            .devices
            .iter()
            .filter(|device| device.plugged && device.agent == index)
            .map(|device| device.serial.as_str().into())
            .collect();
        for hardware in plugged {
            self.agent_event(index, agent::Event::Detected { hardware });
        }
    }

    fn start_bridge(&mut self) {
        let config =
            bridge::Config { id: "bridge-0".into(), filters: subscriptions(0, 1), window: 8, backoff: BACKOFF };
        self.bridge.core = Some(Bridge::new(config, self.rng.random()));
        self.bridge.paused = false;
        self.bridge_event(bridge::Event::Start);
    }

    fn start_registry(&mut self) {
        let config = registry::Config {
            batch_rows: 12,
            batch_wait: Duration::from_millis(20),
            commit_records: 20,
            commit_every: Duration::from_millis(200),
            partition_credit: 16,
            backoff: BACKOFF,
            tracked_sessions: 100,
            drain_within: Duration::from_millis(500),
        };
        self.registry.core = Some(Registry::new(config, self.rng.random()));
        self.registry.generation += 1;
        self.assign();
    }

    fn assign(&mut self) {
        self.registry.draining = false;
        self.registry.positions = self.log.committed;
        self.registry.paused = [false; PARTITIONS];
        let starts = (0..).zip(self.log.committed).collect();
        self.registry_event(registry::Event::Assigned(Generation(self.registry.generation), starts));
    }

    fn carry_out_agent(&mut self, index: usize, effects: Vec<agent::Effect>) {
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
                agent::Effect::Stopped => {
                    self.count("agent stop");
                    self.raes[index].core = None;
                    self.raes[index].life += 1;
                    self.after_ms(100, 2000, Item::StartAgent(index));
                }
                agent::Effect::Fact(agent::Fact::Shed(..)) => self.count("shed"),
                agent::Effect::Fact(agent::Fact::SaveRetried) => self.count("save retried"),
                agent::Effect::Fact(_) => {}
            }
        }
    }

    fn carry_out_bridge(&mut self, effects: Vec<bridge::Effect>) {
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
                    self.after_ms(100, 2000, Item::StartBridge);
                }
                bridge::Effect::Fact(_) => {}
            }
        }
    }

    fn carry_out_registry(&mut self, effects: Vec<registry::Effect>) {
        let life = self.registry.life;
        let current = Generation(self.registry.generation);
        for effect in effects {
            match effect {
                registry::Effect::Write(id, _, rows) => self.after_ms(1, 60, Item::Write(life, id, rows)),
                registry::Effect::Quarantine(id, record) => self.after_ms(1, 40, Item::Quarantine(life, id, record)),
                registry::Effect::Commit(id, generation, offsets) => {
                    self.after_ms(1, 40, Item::Commit(life, id, generation, offsets));
                }
                registry::Effect::Pause(generation, partition) if generation == current => {
                    self.count("partition paused");
                    self.registry.paused[usize::try_from(partition).unwrap()] = true;
                }
                registry::Effect::Resume(generation, partition) if generation == current => {
                    self.registry.paused[usize::try_from(partition).unwrap()] = false;
                }
                registry::Effect::Drained(generation) if generation == current => {
                    self.registry.generation += 1;
                    self.assign();
                }
                registry::Effect::Pause(..) | registry::Effect::Resume(..) | registry::Effect::Drained(_) => {}
                registry::Effect::Stopped => unreachable!("nobody stops the registry"),
                registry::Effect::Fact(registry::Fact::Gap { .. }) => self.count("gap"),
                registry::Effect::Fact(registry::Fact::Quarantined { .. }) => self.count("quarantined"),
                registry::Effect::Fact(_) => {}
            }
        }
    }

    fn open(&mut self, line: Line, will: Option<Publication>) {
        let refused = self.chance(Fault::Links, 20);
        self.after_ms(1, 50, if refused { Item::Gone(line) } else { Item::Open(line, will) });
    }

    fn up(&mut self, line: Line, packet: Up) {
        let at = self.arrival(line, true);
        self.at(at, Item::ToBroker(line, packet));
    }

    fn carry(&mut self, packets: Vec<(Line, Down)>) {
        for (line, packet) in packets {
            let at = self.arrival(line, false);
            self.at(at, Item::ToClient(line, packet));
        }
    }

    fn arrival(&mut self, line: Line, up: bool) -> Mono {
        let slow = self.chance(Fault::Links, 3);
        let at = self.soon(1, if slow { 800 } else { 20 });
        let last = self.last_arrival.entry((line, up)).or_default();
        *last = at.max(*last);
        *last
    }

    fn deliver(&mut self, line: Line, packet: Down) {
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
            (Client::Bridge, Down::Acknowledged(_)) => unreachable!("the bridge publishes nothing"),
        }
    }

    fn read_held(&mut self) {
        while !self.bridge.paused
            && let Some((line, message)) = self.bridge.held.pop_front()
        {
            self.bridge_event(bridge::Event::Message(line.connection, message));
        }
    }

    fn gone(&mut self, line: Line) {
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
        }
    }

    fn life_of(&self, client: Client) -> u32 {
        match client {
            Client::Agent(index) => self.raes[index].life,
            Client::Bridge => self.bridge.life,
        }
    }

    fn save(&mut self, index: usize, id: EffectId, changes: Vec<agent::Change>) {
        let (outcome, kept) = match (self.chance(Fault::Answers, 10), self.rng.random_range(0..3)) {
            (false, _) => (agent::SaveOutcome::Durable, true),
            (true, 0) => (agent::SaveOutcome::Failed, false),
            (true, kept) => (agent::SaveOutcome::Unknown, kept == 1),
        };
        for change in changes.into_iter().filter(|_| kept) {
            self.raes[index].disk.apply(change);
        }
        let life = self.raes[index].life;
        self.after_ms(0, 30, Item::Saved(index, life, id, outcome));
    }

    fn probe(&self, index: usize, serial: &str) -> agent::Probe {
        let device = self.devices.iter().find(|device| device.serial == serial);
        device.map_or(agent::Probe::Absent, |device| device.probe(index))
    }

    fn produce(&mut self, record: OutgoingRecord) -> bridge::ProduceOutcome {
        let reason = "as the seed has it".to_owned();
        if !self.chance(Fault::Answers, 10) {
            let (partition, offset) = self.log.append(record);
            return bridge::ProduceOutcome::Stored { partition, offset };
        }
        match self.rng.random_range(0..4) {
            0 => return bridge::ProduceOutcome::Failed { reason },
            1 => {
                self.log.append(record);
            }
            2 => {}
            _ => {
                self.count("straggling record");
                // A producer that answers "unknown" has not yet given up on the record that it sent.
                self.log.append(record.clone());
                self.after_ms(100, 3000, Item::Straggler(record));
            }
        }
        self.count("unknown produce");
        bridge::ProduceOutcome::Unknown { reason }
    }

    fn write(&mut self, rows: &Arc<Rows>) -> registry::WriteOutcome {
        let reason = "as the seed has it".to_owned();
        if !self.chance(Fault::Answers, 10) {
            self.store_rows(rows);
            return registry::WriteOutcome::Committed;
        }
        match self.rng.random_range(0..4) {
            0 => return registry::WriteOutcome::Aborted { reason },
            1 => self.store_rows(rows),
            2 => {}
            _ => {
                self.count("late write");
                self.after_ms(100, 3000, Item::LateWrite(rows.clone()));
            }
        }
        self.count("ambiguous write");
        registry::WriteOutcome::Ambiguous { reason }
    }

    fn store_rows(&mut self, rows: &Rows) {
        for (device, state) in &rows.devices {
            let hardware =
                self.devices.iter().find(|hardware| hardware.device() == *device).expect("C1: no such device");
            for (name, offer) in &state.attributes {
                let Some(value) = &offer.value else { continue };
                assert!(
                    hardware.had.contains(&(name.clone(), value.to_string())),
                    "C1: {device} never had {name}={value}"
                );
            }
        }
        self.store.write(rows);
    }

    fn commit(&mut self, generation: Generation, offsets: &[(Partition, Offset)]) -> registry::CommitOutcome {
        if generation.0 != self.registry.generation {
            self.count("stale commit");
            return registry::CommitOutcome::Stale;
        }
        let fails = self.chance(Fault::Answers, 10);
        if !fails || self.rng.random_bool(0.5) {
            for &(partition, offset) in offsets {
                self.log.commit(partition, offset, &self.store);
            }
        }
        if fails {
            return registry::CommitOutcome::Failed { reason: "as the seed has it".to_owned() };
        }
        registry::CommitOutcome::Committed
    }

    fn fetch(&mut self) {
        for partition in 0..PARTITIONS {
            for _ in 0..10 {
                if self.registry.core.is_none() || self.registry.draining || self.registry.paused[partition] {
                    break;
                }
                let offset = self.registry.positions[partition];
                let Some(record) = self.log.read(Partition::try_from(partition).unwrap(), offset) else { break };
                let event = registry::Event::Record(Generation(self.registry.generation), record.clone());
                self.registry.positions[partition] += 1;
                self.registry_event(event);
            }
        }
    }

    /// What the bridge acknowledged is in the log at that moment (C8), and in the order of arrival.
    fn check_acknowledged(&mut self) {
        for message in std::mem::take(&mut self.broker.acknowledged) {
            let ignored = message.retain && !message.topic.ends_with("/status");
            let stored = self.log.holds(&message.topic, &message.payload);
            assert!(ignored || stored, "C8: acknowledged and not stored: {message:?}");
        }
        assert_eq!(self.broker.disordered, 0, "acknowledged out of order");
    }

    fn now_of(&self, index: usize) -> Now {
        let now = self.now_of_cloud();
        Now { wall: Wall(now.wall.0 + self.raes[index].skew_ms), ..now }
    }

    fn now_of_cloud(&self) -> Now {
        Now { mono: self.now, wall: Wall(EPOCH_MS + i64::try_from(self.now.0 / 1_000_000).unwrap()) }
    }

    fn soon(&mut self, from_ms: u64, to_ms: u64) -> Mono {
        self.now + Duration::from_micros(self.rng.random_range(from_ms * 1000..=to_ms * 1000))
    }

    fn after_ms(&mut self, from_ms: u64, to_ms: u64, item: Item) {
        let at = self.soon(from_ms, to_ms);
        self.at(at, item);
    }

    fn at(&mut self, at: Mono, item: Item) {
        self.inserted += 1;
        self.queue.insert((at, self.inserted), item);
    }
}

fn is_due(core: &impl Core, now: Now) -> bool {
    core.deadline().is_some_and(|at| at <= now.mono)
}

impl RaeSide {
    fn new(index: usize, qos: Qos, rng: &mut Pcg64) -> RaeSide {
        let config = agent::Config {
            rae: format!("RAE-{index}").as_str().try_into().unwrap(),
            qos,
            snapshot_every: SNAPSHOT_EVERY,
            snapshot_jitter_permille: 100,
            probe_every: PROBE_EVERY,
            forget_after: Duration::from_secs(3600),
            window: 4,
            outbox: 12,
            status_wait: Duration::from_millis(200),
            backoff: BACKOFF,
        };
        RaeSide { core: None, life: 0, disk: Saved::default(), config, skew_ms: rng.random_range(-60_000..60_000) }
    }
}
