//! The agent as a value: its parts, which part an event concerns, and what follows from every event alike.
//!
//! Each step ends in [`Agent::settle`]: send what may be sent, make the snapshots that are due, begin the next save.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_pcg::Pcg64;

use super::{
    Change, Config, Effect, Event, Fact, Saved, SnapshotCause,
    commands::Commands,
    connection::Connection,
    devices::Slot,
    outbox::Outbox,
    saves::{Answer, Saves},
    timers::{Timer, Timers},
};
use crate::{
    core::{Core, EffectId},
    id::{Device, Epoch},
    time::{Mono, Now, Wall},
};

/// The Local Registry of one RAE. Events in, effects out: see [`Event`] and [`Effect`].
#[derive(Debug)]
pub struct Agent {
    pub(super) config: Config,
    pub(super) rng: Pcg64,
    pub(super) devices: BTreeMap<Device, Slot>,
    /// The probes under way.
    pub(super) probes: BTreeMap<EffectId, Device>,
    /// Devices that owe a snapshot, and why.
    pub(super) due: BTreeMap<Device, SnapshotCause>,
    pub(super) commands: Commands,
    pub(super) outbox: Outbox,
    pub(super) saves: Saves,
    pub(super) timers: Timers,
    pub(super) connection: Connection,
    pub(super) life: Life,
    /// Both clocks at [`Event::Start`].
    pub(super) started: Now,
    effects_made: u64,
    outbox_told: usize,
}

/// How far the agent's life has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// Before [`Event::Start`].
    New,
    /// Until [`Event::Stop`].
    Running,
    /// Getting rid of what is in the outbox.
    Draining,
    /// "Offline" is on its way.
    SayingOffline,
    /// Nothing follows.
    Stopped,
}

impl Agent {
    /// An agent with what it finds on its disk.
    ///
    /// `seed` feeds back-off, jitter and session ids, so it must differ between RAEs and between the boots of one RAE:
    /// a session id must not come twice.
    #[must_use]
    pub fn new(config: Config, saved: Saved, seed: u64) -> Agent {
        let devices =
            saved.devices.into_iter().map(|(device, saved)| (device, Slot::from_disk(&config.rae, saved))).collect();
        Agent {
            rng: Pcg64::seed_from_u64(seed ^ saved.boot.map_or(0, Epoch::get).rotate_left(32)),
            devices,
            probes: BTreeMap::new(),
            due: BTreeMap::new(),
            commands: Commands::remembered(saved.commands),
            outbox: Outbox::new(config.outbox),
            saves: Saves::default(),
            timers: Timers::default(),
            connection: Connection::new(saved.boot),
            life: Life::New,
            started: Now { mono: Mono(0), wall: Wall(0) },
            effects_made: 0,
            outbox_told: 0,
            config,
        }
    }

    pub(super) fn next_effect(&mut self) -> EffectId {
        self.effects_made += 1;
        EffectId(self.effects_made)
    }

    fn start(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.life != Life::New {
            return;
        }
        (self.life, self.started) = (Life::Running, now);
        self.start_devices(effects);
        self.start_connection(now, effects);
    }

    fn save_ended(&mut self, now: Now, answer: Answer, effects: &mut Vec<Effect>) {
        match answer {
            Answer::Durable(batch) => {
                self.tell_recorded(effects);
                self.commands_are_durable(now, &batch.commands.into_iter().collect::<Vec<_>>(), effects);
                if let Some(boot) = batch.boot {
                    self.boot_is_durable(boot, effects);
                }
            }
            Answer::Retry(failures) => {
                effects.push(Effect::Fact(Fact::SaveRetried));
                let wait = self.config.backoff.wait(failures, &mut self.rng);
                self.timers.set(Timer::Save, now.mono + wait);
            }
            Answer::Foreign => {}
        }
    }

    fn begin_save(&mut self, effects: &mut Vec<Effect>) {
        if !self.saves.is_ready() || self.timers.is_set(Timer::Save) {
            return;
        }
        let id = self.next_effect();
        self.outbox.cover();
        let batch = self.saves.begin(id);
        let devices =
            batch.devices.iter().map(|&device| match self.devices.get(&device).and_then(|slot| slot.record.as_ref()) {
                Some(record) => Change::Device(device, record.saved().clone()),
                None => Change::Forget(device),
            });
        let commands = batch.commands.iter().map(|&number| match self.commands.saved(number) {
            Some(command) => Change::Command(number, command.clone()),
            None => Change::ForgetCommand(number),
        });
        effects
            .push(Effect::Save(id, batch.boot.map(Change::Boot).into_iter().chain(devices).chain(commands).collect()));
    }

    fn stop(&mut self, now: Now, within: std::time::Duration, effects: &mut Vec<Effect>) {
        if matches!(self.life, Life::New | Life::Running) {
            self.life = Life::Draining;
            self.timers.clear();
            self.timers.set(Timer::Stop, now.mono + within);
            self.interrupt_commands(effects);
        }
    }

    fn fire(&mut self, now: Now, timer: Timer, effects: &mut Vec<Effect>) {
        match timer {
            Timer::Reconnect => self.connect(effects),
            Timer::StatusWait => self.status_wait_is_over(now, effects),
            // The save itself begins when the step settles.
            Timer::Save => {}
            Timer::Stop => self.end(effects),
            Timer::Probe(device) => self.begin_probe(device, effects),
            Timer::Snapshot(device) => self.snapshot_falls_due(now, device),
        }
    }

    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if matches!(self.life, Life::New | Life::Stopped) {
            return;
        }
        // What needs no save, as a refusal, waits for none.
        if self.saves.is_idle() {
            self.outbox.cover();
            self.tell_recorded(effects);
        }
        self.send(effects);
        if self.life == Life::Running {
            self.make_due_snapshots(now, effects);
        }
        self.begin_save(effects);
        self.tell_outbox(effects);
        if self.life == Life::Draining && self.is_drained() {
            self.say_offline(effects);
        }
    }

    fn tell_recorded(&mut self, effects: &mut Vec<Effect>) {
        effects.extend(self.outbox.commit().map(|of| Effect::Fact(Fact::Recorded(of))));
    }

    fn is_drained(&self) -> bool {
        self.saves.is_idle() && (self.outbox.is_empty() || !self.connection.serves()) && self.connection.is_quiet()
    }

    fn tell_outbox(&mut self, effects: &mut Vec<Effect>) {
        let len = self.outbox.len();
        if len.abs_diff(self.outbox_told) * 10 > self.config.outbox {
            self.outbox_told = len;
            effects.push(Effect::Fact(Fact::Outbox(len)));
        }
    }
}

impl Core for Agent {
    type Event = Event;
    type Effect = Effect;

    fn handle(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        let running = self.life == Life::Running;
        match event {
            _ if self.life == Life::Stopped => {}
            Event::Start => self.start(now, effects),
            Event::Stop { within } => self.stop(now, within, effects),
            Event::Detected { hardware } if running => self.detected(hardware, effects),
            Event::Detached { hardware } if running => self.detached(now, &hardware, effects),
            Event::Reported { hardware, set, unset } if running => self.reported(now, &hardware, set, unset, effects),
            Event::Probed(id, probe) if running => self.probed(now, id, probe, effects),
            Event::SetDone(id, outcome) if running => self.set_done(now, id, outcome, effects),
            // What comes while the agent stops is found by the probes of its next life.
            Event::Detected { .. } | Event::Detached { .. } | Event::Reported { .. } => {}
            Event::Probed(..) | Event::SetDone(..) => {}
            Event::Saved(id, outcome) => {
                let answer = self.saves.answered(id, outcome);
                self.save_ended(now, answer, effects);
            }
            Event::Connected(connection) => self.connected(now, connection, effects),
            Event::Disconnected(connection) => self.disconnected(now, connection, effects),
            Event::Acknowledged(connection, packet) => {
                if let Some(of) = self.acknowledged(connection, packet, effects) {
                    effects.push(Effect::Fact(Fact::Acknowledged(of)));
                }
            }
            Event::Subscribed(connection, packet) => self.connection.subscribed(connection, packet),
            Event::Message(connection, message) => self.message(now, connection, &message, effects),
        }
        self.settle(now, effects);
    }

    fn wake(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some(timer) = self.timers.pop_due(now.mono) {
            self.fire(now, timer, effects);
        }
        self.settle(now, effects);
    }

    fn deadline(&self) -> Option<Mono> {
        self.timers.first()
    }
}
