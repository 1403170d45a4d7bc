//! One RAE of the fleet, live: the real agent core on a real MQTT connection, over devices that follow the plan.
//!
//! Open loop: changes happen on the devices at their planned times, whatever the pipeline does; how late this task is
//! with them is recorded. Faults that lie between agent and broker act in `publish`, where the agent cannot see them.
//! The parts: `power`, `devices`, `agent` (its events and effects), `publish` and, on the way down, `commands`.

mod agent;
mod commands;
mod devices;
mod power;
mod publish;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Agent, Message, Saved},
    core::{ConnectionId, Core},
    id::{Device, Epoch, Version},
    time::Now,
};
use dmp_service::mqtt::Client;
use tokio::sync::{mpsc, watch};

use super::{access::Access, clock::RunClock, copies::Copies, directory::Directory, journal::Journal};
use crate::{
    faults::{HeldTail, Tampering},
    fleet::plan::{ChangeNumber, DeviceIndex, Plan, RaeIndex},
    history::Entry,
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
    pub(super) access: Arc<Access>,
    pub(super) directory: Arc<Directory>,
    /// Largest lateness since it was last read, in microseconds.
    pub(super) lateness_us: AtomicU64,
    /// Connections that were refused or broke.
    pub(super) errors: Arc<AtomicU64>,
    pub(super) load: watch::Receiver<bool>,
}

/// What a fault, or the end of the run, does to a RAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Power off, and on again after this time, disk intact.
    Reboot(Duration),
    /// Power off, and on again after this time, disk empty.
    Wipe(Duration),
    /// No network from now on, power off after the first time, and both back after the second.
    BreakDown(Duration, Duration),
    /// Power off for ever.
    Gone,
    /// The connection breaks and cannot be made for this time.
    Disconnect(Duration),
    /// Finish, and say "offline".
    Stop,
}

/// How much longer a canary stays that is not connected yet when it was to leave.
const CANARY_WAITS: Duration = Duration::from_secs(1);

/// A live RAE.
pub(super) struct LiveRae {
    shared: Arc<Shared>,
    index: RaeIndex,
    disk: Saved,
    agent: Option<Agent>,
    /// How often it was powered on; part of the seed of its agent.
    boots: u64,
    power_off_at: Option<Instant>,
    power_on_at: Option<Instant>,
    /// Whether it is off for ever.
    gone: bool,
    client: Client,
    connection: Option<ConnectionId>,
    /// Whether the connection is one to stay, and not only to read its status by.
    stays: bool,
    /// Whether the broker has accepted the connection.
    online: bool,
    link_down_until: Option<Instant>,
    /// What is still to happen on the devices that are ever plugged in here, wherever they are, latest first.
    upcoming: Vec<(Duration, DeviceIndex, ChangeNumber)>,
    /// The last change that happened, of each of these devices.
    happened: BTreeMap<DeviceIndex, ChangeNumber>,
    copies: Copies,
    /// Commands that reach the agent late, by time and order.
    late: BTreeMap<(Instant, u64), Message>,
    delayed: u64,
    /// Sessions whose tail is held back.
    held: BTreeMap<DeviceIndex, HeldTail>,
    /// Events that the agent is told were acknowledged, and were not.
    spoofed: BTreeSet<(Device, Version)>,
    entries: Vec<Entry>,
    stopped: bool,
}

impl LiveRae {
    pub(super) fn new(shared: Arc<Shared>, index: RaeIndex) -> LiveRae {
        let planned = &shared.plan.raes[index.0 as usize];
        let changes = planned.ever().flat_map(|device| {
            let changes = shared.plan.devices[device.0 as usize].changes.iter();
            (1..).zip(changes).map(move |(number, change)| (change.at, device, ChangeNumber(number)))
        });
        let mut upcoming: Vec<_> = changes.collect();
        upcoming.sort_unstable_by(|a, b| b.cmp(a));
        // A canary knows its last boot: it makes one connection, as short-lived clients do, and asks nothing first.
        let boot = planned.stay.map(|_| Epoch::FIRST);
        let disk = Saved { boot, ..Saved::default() };
        LiveRae {
            client: Client::new(shared.access.of(index).dialer.clone()),
            happened: planned.ever().map(|device| (device, ChangeNumber(0))).collect(),
            shared,
            index,
            disk,
            agent: None,
            boots: 0,
            power_off_at: None,
            power_on_at: None,
            gone: false,
            connection: None,
            stays: false,
            online: false,
            link_down_until: None,
            upcoming,
            copies: Copies::default(),
            late: BTreeMap::new(),
            delayed: 0,
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
        // One that left in good order is told of by nobody else.
        if self.online {
            self.went_offline();
        }
        self.shared.journal.clone().enter_all(&mut self.entries).await;
    }

    fn wake_at(&self, load_begun: bool) -> Option<Instant> {
        let clock = &self.shared.clock;
        let change = self.upcoming.last().filter(|_| load_begun).and_then(|&(at, _, _)| clock.instant_of_load(at));
        let agent = self.agent.as_ref().and_then(Core::deadline).map(|mono| clock.instant(mono));
        let copies = self.copies.due().filter(|_| self.online);
        let copies = copies.and_then(|at| clock.instant_of_load(at));
        let late = self.late.first_key_value().filter(|_| self.online && self.stays).map(|(&(at, _), _)| at);
        [change, agent, copies, late, self.power_off_at, self.power_on_at].into_iter().flatten().min()
    }

    fn tick(&mut self, load_begun: bool) {
        self.power();
        if load_begun {
            self.changes();
        }
        self.send_copies();
        self.late_commands();
        let now = self.now();
        if self.agent.as_ref().and_then(Core::deadline).is_some_and(|deadline| deadline <= now.mono) {
            self.step(None);
        }
    }

    /// Both clocks of the RAE.
    fn now(&self) -> Now {
        self.shared.clock.now(&self.shared.plan.raes[self.index.0 as usize].clock)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
