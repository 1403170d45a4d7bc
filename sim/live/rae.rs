//! One RAE of the fleet, live: the real agent core on a real MQTT connection, over devices that follow the plan.
//!
//! Open loop: changes happen on the devices at their planned times, whatever the pipeline does; how late this task is
//! with them is recorded. Faults that lie between agent and broker act here, where the agent cannot see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{self, Agent, Effect, Event, Fact, Probe, Published, SaveOutcome, Saved},
    core::{ConnectionId, Core, PacketId, Publication, Qos},
    event::AttributeName,
    id::{Device, Epoch, Version},
};
use dmp_service::mqtt::{Client, ConnectOptions, Dialer, Incoming};
use tokio::sync::{mpsc, watch};

use super::{clock::RunClock, copies::Copies, journal::Journal};
use crate::{
    faults::{Handling, HeldTail, Tampering},
    fleet::plan::{ATTRIBUTES, ChangeKind, ChangeNumber, DeviceIndex, Plan, RaeIndex, attribute},
    history::{Copy, Entry, PayloadHash, Publish, What},
    scenario::Scenario,
};

/// What all RAEs of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan: Arc<Plan>,
    pub(super) clock: Arc<RunClock>,
    pub(super) journal: Journal,
    pub(super) tampering: Tampering,
    pub(super) dialer: Arc<Dialer>,
    /// Largest lateness since it was last read, in microseconds.
    pub(super) lateness_us: AtomicU64,
    pub(super) load: watch::Receiver<bool>,
}

/// What a fault, or the end of the run, does to a RAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Power off, and on again after this time, disk intact.
    Reboot(Duration),
    /// The connection breaks and cannot be made for this time.
    Disconnect(Duration),
    /// Finish, and say "offline".
    Stop,
}

/// Longest drain of a RAE that stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Wait of a RAE for its own retained status.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// How much longer a canary stays that is not connected yet when it was to leave.
const CANARY_WAITS: Duration = Duration::from_secs(1);

/// Keep-alive of the fleet's connections: a half-open one is found within it, and thousands of pings cost little.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A live RAE.
pub(super) struct LiveRae {
    shared: Arc<Shared>,
    index: RaeIndex,
    disk: Saved,
    agent: Option<Agent>,
    /// How often it was powered on; part of the seed of its agent.
    boots: u64,
    power_on_at: Option<Instant>,
    client: Client,
    connection: Option<ConnectionId>,
    /// Whether the broker has accepted the connection.
    online: bool,
    link_down_until: Option<Instant>,
    /// What is still to happen on its devices, latest first.
    upcoming: Vec<(Duration, DeviceIndex, ChangeNumber)>,
    /// The last change that happened, per device of the RAE.
    happened: Vec<ChangeNumber>,
    copies: Copies,
    /// Sessions whose tail is held back.
    held: BTreeMap<DeviceIndex, HeldTail>,
    /// Events that the agent is told were acknowledged, and were not.
    spoofed: BTreeSet<(Device, Version)>,
    entries: Vec<Entry>,
    stopped: bool,
}

impl LiveRae {
    pub(super) fn new(shared: Arc<Shared>, index: RaeIndex) -> LiveRae {
        let devices = shared.plan.raes[index.0 as usize].devices.clone();
        let changes = devices.clone().flat_map(|device| {
            let changes = shared.plan.devices[device as usize].changes.iter();
            (1..).zip(changes).map(move |(number, change)| (change.at, DeviceIndex(device), ChangeNumber(number)))
        });
        let mut upcoming: Vec<_> = changes.collect();
        upcoming.sort_unstable_by(|a, b| b.cmp(a));
        // A canary knows its last boot: it makes one connection, as short-lived clients do, and asks nothing first.
        let boot = shared.plan.raes[index.0 as usize].stay.map(|_| Epoch::FIRST);
        let disk = Saved { boot, ..Saved::default() };
        LiveRae {
            client: Client::new(shared.dialer.clone()),
            happened: vec![ChangeNumber(0); devices.len()],
            shared,
            index,
            disk,
            agent: None,
            boots: 0,
            power_on_at: None,
            connection: None,
            online: false,
            link_down_until: None,
            upcoming,
            copies: Copies::default(),
            held: BTreeMap::new(),
            spoofed: BTreeSet::new(),
            entries: Vec::new(),
            stopped: false,
        }
    }

    /// Runs until it is told to stop, or, for a canary, until its stay is over.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut load = self.shared.load.clone();
        let mut load_begun = *load.borrow_and_update();
        let mut leaves_at = self.shared.plan.raes[self.index.0 as usize].stay.map(|(_, until)| until);
        self.power_on();
        while !self.stopped {
            let journal = self.shared.journal.clone();
            journal.enter_all(&mut self.entries).await;
            let leave = leaves_at.and_then(|at| self.shared.clock.instant_of_load(at));
            let wake = [self.wake_at(load_begun), leave].into_iter().flatten().min();
            tokio::select! {
                biased;
                order = orders.recv() => self.obey(order.unwrap_or(Order::Stop)),
                (connection, incoming) = self.client.next() => self.incoming(connection, incoming),
                () = sleep_until(wake) => self.tick(load_begun),
                changed = load.changed(), if !load_begun => load_begun = changed.is_ok(),
            }
            if leave.is_some_and(|at| Instant::now() >= at) {
                // One that is still waiting to be let in has said nothing yet.
                leaves_at = leaves_at.filter(|_| !self.online).map(|at| at + CANARY_WAITS);
                if leaves_at.is_none() {
                    self.obey(Order::Stop);
                }
            }
        }
        self.shared.journal.clone().enter_all(&mut self.entries).await;
    }

    fn wake_at(&self, load_begun: bool) -> Option<Instant> {
        let clock = &self.shared.clock;
        let change = self.upcoming.last().filter(|_| load_begun).and_then(|&(at, _, _)| clock.instant_of_load(at));
        let agent = self.agent.as_ref().and_then(Core::deadline).map(|mono| clock.instant(mono));
        let copies = self.copies.due().filter(|_| self.online);
        let copies = copies.and_then(|at| clock.instant_of_load(at));
        [change, agent, copies, self.power_on_at].into_iter().flatten().min()
    }

    fn tick(&mut self, load_begun: bool) {
        if self.power_on_at.is_some_and(|at| Instant::now() >= at) {
            self.power_on_at = None;
            self.power_on();
        }
        if load_begun {
            self.changes();
        }
        self.send_copies();
        let now = self.shared.clock.now();
        if self.agent.as_ref().and_then(Core::deadline).is_some_and(|deadline| deadline <= now.mono) {
            self.step(None);
        }
    }

    /// Lets everything happen that is due.
    fn changes(&mut self) {
        let Some(now) = self.shared.clock.in_load() else { return };
        while let Some(&(at, device, number)) = self.upcoming.last()
            && at <= now
        {
            self.upcoming.pop();
            let lateness = u64::try_from((now - at).as_micros()).unwrap_or(u64::MAX);
            self.shared.lateness_us.fetch_max(lateness, Ordering::Relaxed);
            let local = self.local(device);
            self.happened[local] = number;
            let event = self.event_of(device, number);
            if self.agent.is_some() {
                self.step(Some(event));
            }
        }
    }

    /// What the RAE notices of a change.
    fn event_of(&self, device: DeviceIndex, number: ChangeNumber) -> Event {
        let plan = &self.shared.plan;
        let planned = &plan.devices[device.0 as usize];
        let hardware = planned.hardware.clone();
        match planned.changes[number.0 as usize - 1].kind {
            ChangeKind::Attach => Event::Detected { hardware },
            ChangeKind::Detach => Event::Detached { hardware },
            ChangeKind::Update { set, unset } => {
                let of = |names: crate::fleet::plan::Names| {
                    (0..ATTRIBUTES.len()).filter(move |&index| names.contains(index))
                };
                Event::Reported {
                    hardware,
                    set: of(set).map(|index| (attribute(index), plan.value(device, number, index))).collect(),
                    unset: of(unset).map(attribute).collect::<BTreeSet<AttributeName>>(),
                }
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Reboot(down) => {
                self.agent = None;
                self.drop_link();
                self.power_on_at = Some(Instant::now() + down);
            }
            Order::Disconnect(lasts) => {
                self.link_down_until = Some(Instant::now() + lasts);
                if let Some(connection) = self.drop_link() {
                    self.step(Some(Event::Disconnected(connection)));
                }
            }
            Order::Stop if self.agent.is_some() => self.step(Some(Event::Stop { within: STOP_WITHIN })),
            Order::Stop => self.stopped = true,
        }
    }

    fn power_on(&mut self) {
        self.boots += 1;
        let shared = self.shared.clone();
        let seed = crate::random::stream(shared.scenario.seed, "agent", u64::from(self.index.0) << 16 | self.boots);
        let seed = rand::RngExt::random::<u64>(&mut { seed });
        self.agent = Some(Agent::new(self.config(), self.disk.clone(), seed));
        self.step(Some(Event::Start));
        for device in shared.plan.raes[self.index.0 as usize].devices.clone().map(DeviceIndex) {
            let planned = &shared.plan.devices[device.0 as usize];
            if !self.disk.devices.contains_key(&planned.id) && self.attached(device) {
                self.step(Some(Event::Detected { hardware: planned.hardware.clone() }));
            }
        }
    }

    fn config(&self) -> agent::Config {
        let (fleet, rae) = (&self.shared.scenario.fleet, &self.shared.plan.raes[self.index.0 as usize]);
        // A canary is gone before its first periodic snapshot.
        let forever = Duration::from_secs(24 * 3600);
        let (snapshot_every, probe_every) = match rae.stay {
            None => (fleet.snapshot_every, fleet.probe_every),
            Some(_) => (forever, forever),
        };
        agent::Config {
            rae: rae.serial.clone(),
            qos: fleet.qos,
            snapshot_every,
            snapshot_jitter_permille: crate::fleet::SNAPSHOT_JITTER_PERMILLE,
            probe_every,
            forget_after: Duration::from_secs(7 * 24 * 3600),
            window: 20,
            outbox: crate::fleet::OUTBOX_EVENTS,
            status_wait: STATUS_WAIT,
            backoff: crate::fleet::BACKOFF,
        }
    }

    /// The serial; for the short connection that only reads, a name of its own: the embedded broker may take a client
    /// that comes back at once for the one that is just leaving, and then serve neither.
    fn client_id(&self, stays: bool) -> Arc<str> {
        let serial = &self.shared.plan.raes[self.index.0 as usize].serial;
        if stays { serial.clone().into() } else { format!("{serial}-status").into() }
    }

    /// Breaks the connection as a cut cable does: the broker sends the will.
    fn drop_link(&mut self) -> Option<ConnectionId> {
        self.client = Client::new(self.shared.dialer.clone());
        let connection = self.connection.take();
        self.went_offline();
        connection
    }

    fn went_offline(&mut self) {
        self.online = false;
        self.copies.connection_lost();
        self.entries.push(self.shared.journal.entry(What::Offline(self.index)));
    }

    fn incoming(&mut self, connection: ConnectionId, incoming: Incoming) {
        match incoming {
            Incoming::Connected { .. } => {
                self.online = true;
                self.entries.push(self.shared.journal.entry(What::Online(self.index)));
                self.step(Some(Event::Connected(connection)));
                self.send_copies();
            }
            Incoming::Acknowledged(packet) => match self.copies.acknowledged(packet) {
                Some((publish, Copy::Delayed)) => self.enter(What::Acknowledged(publish)),
                Some((_, Copy::First | Copy::Resent | Copy::Duplicate)) => {}
                None => self.step(Some(Event::Acknowledged(connection, packet))),
            },
            Incoming::Subscribed(packet) => self.step(Some(Event::Subscribed(connection, packet))),
            Incoming::Message(message) => self.step(Some(Event::Message(connection, message))),
            Incoming::Closed(reason) => {
                tracing::debug!(rae = %self.shared.plan.raes[self.index.0 as usize].serial, %reason, "connection closed");
                if self.connection == Some(connection) {
                    self.connection = None;
                    self.went_offline();
                }
                self.step(Some(Event::Disconnected(connection)));
            }
        }
    }

    /// Hands the agent an event, or the passing of time, and carries out all that follows.
    fn step(&mut self, event: Option<Event>) {
        let mut events = std::collections::VecDeque::from_iter([event]);
        while let Some(event) = events.pop_front() {
            let Some(agent) = &mut self.agent else { return };
            let (now, mut effects) = (self.shared.clock.now(), Vec::new());
            match event {
                Some(event) => agent.handle(now, event, &mut effects),
                None => agent.wake(now, &mut effects),
            }
            for effect in effects {
                events.extend(self.carry_out(effect).map(Some));
            }
        }
    }

    /// Carries out one effect; returns its answer where it is at hand.
    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Connect { connection, will } => {
                if self.link_down_until.is_some_and(|until| Instant::now() < until) {
                    return Some(Event::Disconnected(connection));
                }
                self.connection = Some(connection);
                let client_id = self.client_id(will.is_some());
                let options =
                    ConnectOptions { client_id, clean_session: true, keep_alive: KEEP_ALIVE, will, credentials: None };
                self.client.connect(connection, options);
            }
            Effect::Disconnect(connection) => self.client.disconnect(connection),
            Effect::Subscribe { connection, packet, filters } => self.client.subscribe(connection, packet, filters),
            Effect::Publish { connection, packet, dup, message, of } => {
                return self.publish(connection, packet, dup, &message, of);
            }
            Effect::Acknowledge(connection, packet) => self.client.acknowledge(connection, packet),
            Effect::Save(id, changes) => {
                changes.into_iter().for_each(|change| self.disk.apply(change));
                return Some(Event::Saved(id, SaveOutcome::Durable));
            }
            Effect::Probe(id, hardware) => return Some(Event::Probed(id, self.probe(&hardware))),
            Effect::Stopped => self.stopped = true,
            Effect::Fact(fact) => self.fact(fact),
        }
        None
    }

    fn publish(
        &mut self,
        connection: ConnectionId,
        packet: Option<PacketId>,
        dup: bool,
        message: &Publication,
        of: Published,
    ) -> Option<Event> {
        let publish = match of {
            Published::Status => {
                self.client.publish(connection, packet, dup, message);
                return None;
            }
            Published::Delta(device, version) => self.publish_of(device, version, false)?,
            Published::Snapshot(device, version) => self.publish_of(device, version, true)?,
        };
        let acknowledged = packet.map(|packet| Event::Acknowledged(connection, packet));
        match self.handling(publish, dup) {
            Handling::Send => {
                self.client.publish(connection, packet, dup, message);
                self.enter(What::Sent(
                    publish,
                    if dup { Copy::Resent } else { Copy::First },
                    PayloadHash::of(&message.payload),
                ));
                None
            }
            Handling::SendTwice(later) => {
                self.client.publish(connection, packet, dup, message);
                self.enter(What::Sent(publish, Copy::First, PayloadHash::of(&message.payload)));
                let at = self.shared.clock.in_load().unwrap_or_default() + later;
                self.copies.add(at, publish, Copy::Duplicate, message.clone());
                None
            }
            Handling::Withhold => {
                self.spoof(publish, message.qos);
                self.enter(What::Withheld(publish));
                acknowledged
            }
            Handling::Lose => {
                self.enter(What::LostAtQos0(publish));
                None
            }
            Handling::HoldUntil(at) => {
                self.spoof(publish, message.qos);
                self.copies.add(at, publish, Copy::Delayed, message.clone());
                acknowledged
            }
        }
    }

    fn handling(&mut self, publish: Publish, dup: bool) -> Handling {
        let canary = self.shared.plan.raes[self.index.0 as usize].stay.is_some();
        let Some(at) = self.shared.clock.in_load().filter(|_| !canary) else { return Handling::Send };
        let mut held = self.held.get(&publish.device).copied();
        let handling = self.shared.tampering.handle(at, publish, dup, &mut held);
        if let Some(tail) = held {
            self.held.insert(publish.device, tail);
        }
        handling
    }

    fn spoof(&mut self, publish: Publish, qos: Qos) {
        if qos == Qos::AtLeastOnce {
            let device = self.shared.plan.devices[publish.device.0 as usize].id;
            self.spoofed.insert((device, publish.version));
        }
    }

    fn send_copies(&mut self) {
        let (Some(connection), Some(now)) = (self.connection.filter(|_| self.online), self.shared.clock.in_load())
        else {
            return;
        };
        while let Some((packet, copy)) = self.copies.next(now) {
            self.client.publish(connection, packet, false, &copy.message);
            let payload = PayloadHash::of(&copy.message.payload);
            self.entries.push(self.shared.journal.entry(What::Sent(copy.publish, copy.kind, payload)));
        }
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Recorded(Published::Delta(device, version)) => self.enter_of(device, version, false, What::Recorded),
            Fact::Recorded(Published::Snapshot(device, version)) => {
                self.enter_of(device, version, true, What::Recorded);
            }
            Fact::Acknowledged(Published::Delta(device, version)) => self.acknowledged(device, version, false),
            Fact::Acknowledged(Published::Snapshot(device, version)) => self.acknowledged(device, version, true),
            Fact::Shed(device, version) => self.enter_of(device, version, false, What::Shed),
            Fact::Recorded(Published::Status)
            | Fact::Acknowledged(Published::Status)
            | Fact::RefusedReport(_)
            | Fact::RefusedDevice(_)
            | Fact::SaveRetried
            | Fact::Forgotten(_)
            | Fact::Outbox(_) => {}
        }
    }

    fn acknowledged(&mut self, device: Device, version: Version, snapshot: bool) {
        if !self.spoofed.remove(&(device, version)) {
            self.enter_of(device, version, snapshot, What::Acknowledged);
        }
    }

    fn enter_of(&mut self, device: Device, version: Version, snapshot: bool, what: impl FnOnce(Publish) -> What) {
        if let Some(publish) = self.publish_of(device, version, snapshot) {
            self.enter(what(publish));
        }
    }

    fn enter(&mut self, what: What) {
        self.entries.push(self.shared.journal.entry(what));
    }

    fn publish_of(&self, device: Device, version: Version, snapshot: bool) -> Option<Publish> {
        let device = self.shared.plan.device(device)?;
        Some(Publish { device, version, snapshot })
    }

    fn probe(&self, hardware: &str) -> Probe {
        let devices = self.shared.plan.raes[self.index.0 as usize].devices.clone().map(DeviceIndex);
        let mut here = devices.filter(|&device| self.attached(device));
        let found = here.find(|device| &*self.shared.plan.devices[device.0 as usize].hardware == hardware);
        found.map_or(Probe::Absent, |device| {
            Probe::Found(self.shared.plan.record(device, self.happened[self.local(device)]))
        })
    }

    fn attached(&self, device: DeviceIndex) -> bool {
        self.shared.plan.attached(device, self.happened[self.local(device)])
    }

    fn local(&self, device: DeviceIndex) -> usize {
        (device.0 - self.shared.plan.raes[self.index.0 as usize].devices.start) as usize
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
