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
    bridge::{
        self, Bridge, OutgoingRecord,
        downlink::{self, Downlink},
    },
    core::{Core, EffectId, Publication, Qos},
    event::subscriptions,
    merge::Rows,
    registry::{self, Feedback, Generation, Offset, Partition, Registry},
    time::{Mono, Now, Wall},
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

use crate::{
    broker::{Broker, Client, Down, Line, Up},
    cloud::{Committed, Log, PARTITIONS, Store},
    commands::CommandBook,
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
    pub(crate) last_arrival: BTreeMap<(Line, bool), Mono>,
    pub(crate) last_append: Mono,
    pub(crate) broker: Broker,
    pub(crate) log: Log,
    pub(crate) raes: Vec<RaeSide>,
    pub(crate) bridge: BridgeSide,
    pub(crate) downlink: DownlinkSide,
    /// The first is the primary; others have a group and a store of their own.
    pub(crate) registries: Vec<RegistrySide>,
    pub(crate) devices: Vec<Hardware>,
    pub(crate) faults: Faults,
    /// Whether nothing happens on the devices any more.
    pub(crate) calm: bool,
    pub(crate) reached: BTreeMap<&'static str, u64>,
    /// What became of commands at the agents.
    pub(crate) commands: CommandBook,
}

pub(crate) struct RaeSide {
    pub(crate) core: Option<Agent>,
    pub(crate) life: u32,
    pub(crate) disk: Saved,
    pub(crate) config: agent::Config,
    /// How wrong its clock is.
    pub(crate) skew_ms: i64,
    /// Until then it has no network.
    pub(crate) isolated_until: Mono,
}

#[derive(Default)]
pub(crate) struct BridgeSide {
    pub(crate) core: Option<Bridge>,
    pub(crate) life: u32,
    pub(crate) paused: bool,
    pub(crate) held: VecDeque<(Line, agent::Message)>,
}

/// The bridge's consumer of commands; it lives and dies with the bridge.
#[derive(Default)]
pub(crate) struct DownlinkSide {
    pub(crate) core: Option<Downlink>,
    pub(crate) group: Group,
}

#[derive(Default)]
pub(crate) struct RegistrySide {
    pub(crate) core: Option<Registry>,
    pub(crate) life: u32,
    pub(crate) group: Group,
    pub(crate) store: Store,
    pub(crate) feedback: Option<Feedback>,
    /// How long the gaps that were healed had been open.
    pub(crate) healed: Vec<Duration>,
    /// Commands that it ever sent, repetitions included.
    pub(crate) commanded: u64,
}

/// A consumer group of one member.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) generation: u64,
    pub(crate) committed: Committed,
    pub(crate) positions: Committed,
    pub(crate) paused: [bool; PARTITIONS],
    /// Between "revoked" and "drained" nothing is read.
    pub(crate) draining: bool,
}

impl Group {
    /// The next generation, and where it starts.
    pub(crate) fn assign(&mut self) -> (Generation, Vec<(Partition, Offset)>) {
        self.generation += 1;
        (self.draining, self.positions, self.paused) = (false, self.committed, [false; PARTITIONS]);
        (self.current(), (0..).zip(self.committed).collect())
    }

    pub(crate) fn current(&self) -> Generation {
        Generation(self.generation)
    }
}

/// What is to happen.
pub(crate) enum Item {
    Open(Line, Option<Publication>),
    ToBroker(Line, Up),
    ToClient(Line, Down),
    /// The client notices that its connection is gone, or could not be made.
    Gone(Line),
    /// A message that reaches the broker a second time, long after the first.
    Repeat(Publication),
    Saved(usize, u32, EffectId, agent::SaveOutcome),
    Probed(usize, u32, EffectId, Arc<str>, Option<agent::Probe>),
    SetDone(usize, u32, EffectId, agent::SetOutcome),
    Produce(u32, EffectId, OutgoingRecord),
    /// A record whose producer has long given up on it.
    Straggler(OutgoingRecord),
    Write(usize, u32, EffectId, Arc<Rows>),
    /// A transaction whose writer has long given up on it.
    LateWrite(usize, Arc<Rows>),
    Quarantine(usize, u32, EffectId, OutgoingRecord),
    Command(usize, u32, EffectId, OutgoingRecord),
    Commit(usize, u32, EffectId, Generation, Vec<(Partition, Offset)>),
    /// A reply or a dead letter of the downlink.
    Answer(u32, EffectId, OutgoingRecord),
    Deliver(u32, EffectId, Generation, Vec<(Partition, Offset)>),
    Fetch,
    Plan,
    Fault,
    StartAgent(usize),
    StartBridge,
    StartRegistry(usize),
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
            raes,
            bridge: BridgeSide::default(),
            downlink: DownlinkSide::default(),
            registries: vec![RegistrySide::default()],
            devices,
            faults,
            calm: false,
            reached: BTreeMap::new(),
            commands: CommandBook::default(),
        };
        for index in 0..3 {
            world.after_ms(0, 500, Item::StartAgent(index));
        }
        for item in [Item::StartBridge, Item::StartRegistry(0), Item::Plan, Item::Fault, Item::Fetch] {
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
            self.downlink.core = None;
            self.cut(Client::Bridge);
            self.cut(Client::Downlink);
            self.after_ms(100, 2000, Item::StartBridge);
        }
    }

    pub(crate) fn crash_registry(&mut self) {
        let registry = &mut self.registries[0];
        if registry.core.take().is_some() {
            registry.life += 1;
            self.count("registry crash");
            self.after_ms(100, 2000, Item::StartRegistry(0));
        }
    }

    /// The RAE has no network for a while, and keeps its power: what it records waits in its outbox.
    pub(crate) fn isolate_agent(&mut self, index: usize, lasts: Duration) {
        self.raes[index].isolated_until = self.now + lasts;
        self.cut(Client::Agent(index));
    }

    pub(crate) fn is_isolated(&self, index: usize) -> bool {
        self.now < self.raes[index].isolated_until
    }

    /// The RAE's disk is lost: it comes back knowing nothing.
    pub(crate) fn wipe_agent(&mut self, index: usize) {
        self.crash_agent(index);
        self.raes[index].disk = Saved::default();
        self.count("agent wiped");
    }

    /// The clock of a RAE steps while it runs.
    pub(crate) fn step_clock(&mut self, index: usize, by_ms: i64) {
        self.raes[index].skew_ms += by_ms;
        self.count("clock step");
    }

    /// The device is unplugged here and plugged in there.
    pub(crate) fn move_device(&mut self, device: usize, to: usize) {
        let hardware: Arc<str> = self.devices[device].serial.as_str().into();
        let from = std::mem::replace(&mut self.devices[device].agent, to);
        if self.is_isolated(from) {
            self.count("device moved from an isolated RAE");
        }
        self.devices[device].plugged = true;
        self.agent_event(from, agent::Event::Detached { hardware: hardware.clone() });
        self.agent_event(to, agent::Event::Detected { hardware });
        self.count("device moved");
    }

    /// A further registry with an empty store, which reads from the first offsets or from those behind the newest records.
    pub(crate) fn start_consumer(&mut self, from_latest: bool, feedback: Option<Feedback>) -> usize {
        let committed = if from_latest { self.log.ends() } else { Committed::default() };
        let group = Group { committed, ..Group::default() };
        self.registries.push(RegistrySide { group, feedback, ..RegistrySide::default() });
        let which = self.registries.len() - 1;
        self.start_registry(which);
        which
    }

    /// The groups give the partitions anew, with or without a drain.
    pub(crate) fn rebalance(&mut self, drain: bool) {
        self.count("rebalance");
        if self.registries[0].core.is_some() && !self.registries[0].group.draining {
            let generation = self.registries[0].group.current();
            self.registries[0].group.draining = drain;
            if drain {
                self.registry_event(0, registry::Event::Revoked(generation));
            } else {
                self.registry_event(0, registry::Event::Lost(generation));
                self.assign(0);
            }
        }
        if self.downlink.core.is_some() && !self.downlink.group.draining {
            let generation = self.downlink.group.current();
            self.downlink.group.draining = drain;
            if drain {
                self.downlink_event(downlink::Event::Revoked(generation));
            } else {
                self.downlink_event(downlink::Event::Lost(generation));
                self.assign_downlink();
            }
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

    pub(crate) fn registry_event(&mut self, which: usize, event: registry::Event) {
        let now = self.now_of_cloud();
        let mut effects = Vec::new();
        if let Some(core) = &mut self.registries[which].core {
            core.handle(now, event, &mut effects);
        }
        self.carry_out_registry(which, effects);
    }

    pub(crate) fn downlink_event(&mut self, event: downlink::Event) {
        let now = self.now_of_cloud();
        let mut effects = Vec::new();
        if let Some(core) = &mut self.downlink.core {
            core.handle(now, event, &mut effects);
        }
        self.carry_out_downlink(effects);
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
        let downlink = self.downlink.core.as_ref().and_then(Core::deadline);
        let registries = self.registries.iter().filter_map(|registry| registry.core.as_ref()?.deadline());
        agents.chain(bridge).chain(downlink).chain(registries)
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
        if let Some(core) = self.downlink.core.as_mut().filter(|core| is_due(*core, now)) {
            core.wake(now, &mut effects);
        }
        self.carry_out_downlink(effects);
        for which in 0..self.registries.len() {
            let mut effects = Vec::new();
            if let Some(core) = self.registries[which].core.as_mut().filter(|core| is_due(*core, now)) {
                core.wake(now, &mut effects);
            }
            self.carry_out_registry(which, effects);
        }
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
            Item::SetDone(index, life, id, outcome) => {
                if self.raes[index].life == life {
                    self.agent_event(index, agent::Event::SetDone(id, outcome));
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
            Item::Write(which, life, id, rows) => {
                let outcome = self.write(which, &rows);
                self.answer_registry(which, life, registry::Event::Written(id, outcome));
            }
            Item::LateWrite(which, rows) => self.store_rows(which, &rows),
            Item::Quarantine(which, life, id, record) => {
                let outcome = self.produce(record);
                self.answer_registry(which, life, registry::Event::Quarantined(id, outcome));
            }
            Item::Command(which, life, id, record) => {
                let outcome = self.produce(record);
                self.answer_registry(which, life, registry::Event::Commanded(id, outcome));
            }
            Item::Commit(which, life, id, generation, offsets) => {
                let outcome = self.commit(which, generation, &offsets);
                self.answer_registry(which, life, registry::Event::Committed(id, outcome));
            }
            Item::Answer(life, id, record) => {
                let outcome = self.produce(record);
                if self.bridge.life == life {
                    self.downlink_event(downlink::Event::Produced(id, outcome));
                }
            }
            Item::Deliver(life, id, generation, offsets) => {
                let outcome = self.commit_commands(generation, &offsets);
                if self.bridge.life == life {
                    self.downlink_event(downlink::Event::Committed(id, outcome));
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
            Item::StartRegistry(which) => self.start_registry(which),
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
        let config = downlink::Config {
            window: 4,
            partition_credit: 10,
            acknowledged_within: Duration::from_secs(2),
            commit_records: 20,
            commit_every: Duration::from_millis(200),
            drain_within: Duration::from_millis(500),
            backoff: BACKOFF,
        };
        self.downlink.core = Some(Downlink::new(config, self.rng.random()));
        self.downlink_event(downlink::Event::Start);
        self.assign_downlink();
    }

    fn start_registry(&mut self, which: usize) {
        let config = registry::Config {
            batch_rows: 12,
            batch_wait: Duration::from_millis(20),
            commit_records: 20,
            commit_every: Duration::from_millis(200),
            partition_credit: 16,
            backoff: BACKOFF,
            tracked_sessions: 100,
            drain_within: Duration::from_millis(500),
            feedback: self.registries[which].feedback.clone(),
        };
        self.registries[which].core = Some(Registry::new(config, self.rng.random()));
        self.assign(which);
    }

    pub(crate) fn assign(&mut self, which: usize) {
        let (generation, starts) = self.registries[which].group.assign();
        self.registry_event(which, registry::Event::Assigned(generation, starts));
    }

    pub(crate) fn assign_downlink(&mut self) {
        let (generation, starts) = self.downlink.group.assign();
        self.downlink_event(downlink::Event::Assigned(generation, starts));
    }

    fn answer_registry(&mut self, which: usize, life: u32, event: registry::Event) {
        if self.registries[which].life == life {
            self.registry_event(which, event);
        }
    }

    pub(crate) fn life_of(&self, client: Client) -> u32 {
        match client {
            Client::Agent(index) => self.raes[index].life,
            Client::Bridge | Client::Downlink => self.bridge.life,
        }
    }

    fn now_of(&self, index: usize) -> Now {
        let now = self.now_of_cloud();
        Now { wall: Wall(now.wall.0 + self.raes[index].skew_ms), ..now }
    }

    pub(crate) fn now_of_cloud(&self) -> Now {
        Now { mono: self.now, wall: Wall(EPOCH_MS + i64::try_from(self.now.0 / 1_000_000).unwrap()) }
    }

    pub(crate) fn soon(&mut self, from_ms: u64, to_ms: u64) -> Mono {
        self.now + Duration::from_micros(self.rng.random_range(from_ms * 1000..=to_ms * 1000))
    }

    pub(crate) fn after_ms(&mut self, from_ms: u64, to_ms: u64, item: Item) {
        let at = self.soon(from_ms, to_ms);
        self.at(at, item);
    }

    pub(crate) fn at(&mut self, at: Mono, item: Item) {
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
        RaeSide {
            core: None,
            life: 0,
            disk: Saved::default(),
            config,
            skew_ms: rng.random_range(-60_000..60_000),
            isolated_until: Mono(0),
        }
    }
}
