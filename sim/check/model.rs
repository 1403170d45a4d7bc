//! What all checks share: the log, the rows and the life of each event, folded from the history once.
//!
//! [`Models::observe`] takes an entry first and says what it meant ([`Step`]); each check then looks at the entry, the
//! step and the models. Nothing here judges.

mod compare;
mod down;
mod fate;
mod ledger;
mod log;
mod rows;
mod timeline;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use dmp_core::{
    dead_letter::MAX_BYTES,
    event::{AttributeName, Body, Event, Value},
    id::{Device, Version},
    record::Record,
};
use uuid::Uuid;

pub(super) use compare::{Gap, GapKind};
pub(super) use down::{CommandEnd, CommandLife, Commands};
pub(super) use fate::{Fate, Fates, ON_ITS_WAY};
pub(super) use ledger::{Ledger, Life, Mark, SessionLife};
pub(super) use log::{Log, Offered};
pub(super) use rows::{Fell, RowChange, Rows};
pub(super) use timeline::brief;
pub(super) use truth::{Difference, Truth, difference, right_within};

use crate::{
    check::Observable,
    fleet::plan::{COMMANDED, ChangeNumber, DeviceIndex, Plan},
    history::{Appended, DeadSource, Digest, Down, Entry, PayloadHash, Read, Stage, What},
    scenario::{FaultKind, Scenario},
};

/// Times that differ by less are not told apart: a device acts, and its clock is read, a moment later than planned.
const CLOCK_SLACK: Duration = Duration::from_millis(250);

/// Everything that the checks look at.
#[derive(Debug)]
pub(super) struct Models {
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan: Arc<Plan>,
    pub(super) observable: Observable,
    pub(super) clock: Clock,
    pub(super) ledger: Ledger,
    pub(super) log: Log,
    pub(super) rows: Rows,
    pub(super) truth: Truth,
    pub(super) letters: Letters,
    pub(super) faults: Faults,
    /// When each RAE was first online.
    pub(super) online: Vec<Option<Duration>>,
    /// The way down.
    pub(super) commands: Commands,
}

/// What an entry meant to the models.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing beyond what the entry says.
    Plain,
    /// A state event of the plan's fleet is in the log.
    Logged {
        /// Whether this (session, seq) is in the log for the first time.
        first: bool,
        /// The newest seq of the session that was in the log before.
        newest_before: u64,
    },
    /// A state event is in the log that no agent of the fleet recorded.
    Stranger,
    /// A row of a known device changed.
    Row {
        /// The device.
        device: DeviceIndex,
        /// What became of the stored version.
        change: RowChange,
        /// The change that gave the value, if the device ever had it by now.
        source: Source,
        /// What the log offers at the row's version.
        offered: Offered,
    },
    /// A row of a known device is gone; whether the log says that it should be.
    RowGone {
        /// The device.
        device: DeviceIndex,
        /// Version that it was last shown at, if nothing in the log hides that.
        unexplained: Option<Version>,
    },
    /// A floor of a known device changed.
    Floor {
        /// The device.
        device: DeviceIndex,
        /// Set where it fell.
        fell: Option<Fell>,
        /// Whether a snapshot of that version is in the log.
        offered: bool,
    },
    /// A row, or a floor, of a device that is not the plan's.
    Foreign(Device),
    /// A whole read: how it differs from what the committed part of the log demands.
    Read {
        /// Records that were newly below the committed offsets.
        records: u64,
        /// What is missing or too much; each is told once.
        gaps: Vec<Gap>,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The agent's own attribute, with one of its two values.
    Connection,
    /// A command that its device carried out.
    Command,
    /// A change that was made.
    Change(ChangeNumber),
    /// The device never had it by now.
    Nowhere,
}

/// Phases on the run's clock.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The newest time of any entry.
    pub(super) now: Duration,
    /// When load began.
    pub(super) load: Option<Duration>,
    /// When settle began.
    pub(super) settle: Option<Duration>,
    /// The phase that is on.
    pub(super) stage: Option<Stage>,
}

impl Clock {
    /// A run time on the plan's clock, which starts with the load; `None` before.
    pub(super) fn in_plan(&self, at: Duration) -> Option<Duration> {
        at.checked_sub(self.load?)
    }

    /// A time of the plan on the run's clock.
    pub(super) fn in_run(&self, planned: Duration) -> Duration {
        self.load.unwrap_or_default() + planned
    }
}

/// Dead letters and poison.
#[derive(Debug, Default)]
pub(super) struct Letters {
    /// Records of the log that were quarantined, with the reason.
    pub(super) records: BTreeMap<(i32, i64), Arc<str>>,
    /// Messages that a bridge dead-lettered.
    pub(super) messages: BTreeMap<Arc<str>, Vec<PayloadHash>>,
    /// Poison that was sent, and whether it was seen in the log, where.
    pub(super) poison: Vec<(Arc<str>, PayloadHash)>,
    /// What is in the log and is no event of the fleet, by key and payload: where.
    pub(super) strangers: BTreeMap<(Arc<str>, PayloadHash), (i32, i64, Duration)>,
}

impl Letters {
    /// Whether a bridge dead-lettered this message.
    pub(super) fn has_message(&self, topic: &str, payload: PayloadHash) -> bool {
        self.messages.get(topic).is_some_and(|letters| letters.iter().any(|&letter| same_payload(letter, payload)))
    }

    /// Whether this message was sent as poison.
    pub(super) fn is_poison(&self, topic: &str, payload: PayloadHash) -> bool {
        self.poison.iter().any(|(of, sent)| **of == *topic && *sent == payload)
    }
}

/// A letter holds at most so many bytes of a payload: what was cut is known by that alone.
fn same_payload(letter: PayloadHash, payload: PayloadHash) -> bool {
    letter == payload || (payload.bytes as usize > MAX_BYTES && letter.bytes as usize >= MAX_BYTES)
}

/// Faults that have begun.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Fault number, begin, and end where it has ended.
    pub(super) windows: Vec<(usize, Duration, Option<Duration>)>,
}

impl Models {
    pub(super) fn new(scenario: Arc<Scenario>, plan: Arc<Plan>, observable: Observable) -> Models {
        let devices = plan.devices.len();
        let rebuilds = scenario.faults.iter().any(|fault| matches!(fault.kind, FaultKind::WipeStore { .. }));
        Models {
            truth: Truth::new(&plan),
            ledger: Ledger::new(devices),
            log: Log::new(devices, rebuilds),
            rows: Rows::new(devices, observable.records),
            clock: Clock::default(),
            letters: Letters::default(),
            faults: Faults::default(),
            online: vec![None; plan.raes.len()],
            commands: Commands::default(),
            scenario,
            plan,
            observable,
        }
    }

    /// Takes one entry.
    pub(super) fn observe(&mut self, entry: &Entry) -> Step {
        self.clock.now = self.clock.now.max(entry.at);
        let at = entry.at;
        match &entry.what {
            What::Phase { stage, .. } => self.phase(at, *stage),
            What::FaultBegan(fault) => self.faults.windows.push((*fault, at, None)),
            What::FaultEnded(fault) => {
                let open = self.faults.windows.iter_mut().find(|(f, _, ended)| f == fault && ended.is_none());
                if let Some((_, _, ended)) = open {
                    *ended = Some(at);
                }
            }
            What::Recorded(publish) => self.ledger.recorded(publish, at),
            What::Sent(publish, copy, payload) => self.ledger.sent(publish, *copy, *payload, at),
            What::Withheld(publish) => self.ledger.mark(publish, Mark::Withheld, at),
            What::LostAtQos0(publish) => self.ledger.mark(publish, Mark::LostAtQos0, at),
            What::Shed(publish) => self.ledger.mark(publish, Mark::Shed, at),
            What::Acknowledged(publish) => self.ledger.mark(publish, Mark::Acknowledged, at),
            What::Online(rae) => {
                self.online[rae.0 as usize].get_or_insert(at);
                self.commands.came(*rae, at);
            }
            What::Offline(rae) => self.commands.went(*rae, at),
            What::Down(down) => self.down(down, at),
            What::PoisonSent { topic, payload, .. } => self.letters.poison.push((topic.clone(), *payload)),
            What::Appended(record) => return self.appended(record, at),
            What::DeadLettered { source, reason, payload } => self.dead_letter(source, reason, *payload),
            What::Row { device, name, value, version } => return self.row(*device, name, value, *version, at),
            What::RowGone { device, name } => return self.row_gone(*device, name, at),
            What::Floor { device, version, rae } => {
                let Some(index) = self.plan.device(*device) else { return Step::Foreign(*device) };
                let fell = self.rows.floor(index, *version, self.plan.rae(rae), at);
                return Step::Floor { device: index, fell, offered: self.log.offers_floor(index, *version) };
            }
            What::DeviceGone(device) => {
                if let Some(index) = self.plan.device(*device) {
                    self.rows.device_gone(index, at);
                }
            }
            What::Read(read) => return self.read(read, at),
            What::StoreWiped { .. } => {
                self.log.wiped();
                self.rows.wiped();
            }
            What::Delivered { topic, payload, .. } => self.ledger.on_wire(topic, *payload, Mark::Delivered, at),
            What::BridgeAcknowledged { topic, payload, retain: false } => {
                self.ledger.on_wire(topic, *payload, Mark::BridgeAcknowledged, at);
            }
            What::BridgeAcknowledged { .. }
            | What::FaultActed { .. }
            | What::Lateness(_)
            | What::Cause(..)
            | What::Stale { .. }
            | What::Presence { .. }
            | What::Partitions(_)
            | What::Committed { .. }
            | What::Reflected { .. }
            | What::Feed { .. }
            | What::End { .. }
            | What::ConsumerStarted { .. }
            | What::Consumer(_)
            | What::Baseline(_)
            | What::ProcessStarted(_)
            | What::ProcessEnded { .. }
            | What::StoreSlowed(..)
            | What::StageRestarts(..)
            | What::Commits(..)
            | What::Gauges(..)
            | What::OwnMemory(_)
            | What::Broken(_) => {}
        }
        Step::Plain
    }

    /// The id of a device of the plan.
    pub(super) fn id(&self, device: DeviceIndex) -> Device {
        self.plan.devices[device.0 as usize].id
    }

    /// Number of the last change of a device that can have been made by `at`.
    pub(super) fn change_by(&self, device: DeviceIndex, at: Duration) -> ChangeNumber {
        let planned = self.clock.in_plan(at + CLOCK_SLACK);
        planned.map_or(ChangeNumber(0), |at| self.plan.change_at(device, at))
    }

    /// What another store shows, read at `at`.
    pub(super) fn rows_of(&self, records: &BTreeMap<Device, Record>, at: Duration) -> Rows {
        let mut rows = Rows::new(self.plan.devices.len(), self.observable.records);
        for (device, record) in records {
            let Some(index) = self.plan.device(*device) else { continue };
            rows.floor(index, record.floor, self.plan.rae(&record.rae), at);
            for (name, (value, version)) in &record.attributes {
                let source = self.source(index, name, value, at);
                rows.row(index, name, *version, Digest::of(value), source, at);
            }
        }
        rows
    }

    /// Whether a record was quarantined whose versions include this one, so that the rows need not reflect it.
    pub(super) fn quarantined(&self, device: DeviceIndex, version: Version) -> bool {
        self.log.excused(device, version)
    }

    fn phase(&mut self, at: Duration, stage: Stage) {
        self.clock.stage = Some(stage);
        match stage {
            Stage::Load => {
                self.clock.load.get_or_insert(at);
            }
            Stage::Settle => {
                self.clock.settle.get_or_insert(at);
            }
            Stage::WarmUp | Stage::Heal | Stage::Verify | Stage::VerifyAgain => {}
        }
    }

    fn appended(&mut self, record: &Appended, at: Duration) -> Step {
        let stranger = |models: &mut Models| {
            let place = (record.partition, record.offset, at);
            models.letters.strangers.insert((record.key.clone(), record.payload), place);
        };
        let state = match record.event.as_deref() {
            Some(Event::State(state)) if !record.retained => state,
            Some(Event::State(_)) => return Step::Plain,
            Some(Event::Status(..)) => {
                self.ledger.stored(&record.key, record.payload);
                return Step::Plain;
            }
            None => {
                self.ledger.stored(&record.key, record.payload);
                stranger(self);
                return Step::Plain;
            }
        };
        let known = self.plan.device(state.device).filter(|&device| self.ledger.is_recorded(device, state.version));
        let Some(device) = known else {
            self.ledger.stored(&record.key, record.payload);
            stranger(self);
            return Step::Stranger;
        };
        let (first, newest_before) = self.ledger.appended(device, state.version, record, rev(&state.body), at);
        self.log.appended(device, record.partition, record.offset, state);
        Step::Logged { first, newest_before }
    }

    fn down(&mut self, down: &Down, at: Duration) {
        if let Some(device) = self.commands.observe(down, at) {
            self.rows.expect(device);
        }
        if let Down::Replied { topic, payload, .. } = down {
            self.ledger.stored(topic, *payload);
        }
    }

    fn dead_letter(&mut self, source: &DeadSource, reason: &Arc<str>, payload: PayloadHash) {
        match source {
            DeadSource::Mqtt(topic) => {
                self.ledger.dead_lettered(topic, payload);
                self.letters.messages.entry(topic.clone()).or_default().push(payload);
            }
            DeadSource::Log(partition, offset) => {
                self.letters.records.insert((*partition, *offset), reason.clone());
                if let Some((device, version)) = self.log.quarantined(*partition, *offset) {
                    self.ledger.quarantined(device, version);
                }
            }
        }
    }

    fn row(&mut self, device: Device, name: &AttributeName, value: &Value, version: Version, at: Duration) -> Step {
        let Some(index) = self.plan.device(device) else { return Step::Foreign(device) };
        let source = self.source(index, name, value, at);
        let offered = self.log.offers(index, name, value, version);
        let change = self.rows.row(index, name, version, Digest::of(value), source, at);
        Step::Row { device: index, change, source, offered }
    }

    fn source(&self, device: DeviceIndex, name: &AttributeName, value: &Value, at: Duration) -> Source {
        if name.as_str() == dmp_core::event::CONNECTION {
            let known = matches!(value, Value::Text(text) if matches!(&**text, "attached" | "detached"));
            return if known { Source::Connection } else { Source::Nowhere };
        }
        if name.as_str() == COMMANDED {
            let id = if let Value::Text(text) = value { Uuid::try_parse(text).ok() } else { None };
            let known = id.is_some_and(|id| self.commands.has_changed(device, id));
            return if known { Source::Command } else { Source::Nowhere };
        }
        let until = self.change_by(device, at);
        self.plan.source(device, name.as_str(), value, until).map_or(Source::Nowhere, Source::Change)
    }

    fn row_gone(&mut self, device: Device, name: &AttributeName, at: Duration) -> Step {
        let Some(index) = self.plan.device(device) else { return Step::Foreign(device) };
        let last = self.rows.row_gone(index, name, at);
        let unexplained = last.filter(|&version| !self.log.hides(index, name, version));
        Step::RowGone { device: index, unexplained }
    }

    fn read(&mut self, read: &Read, at: Duration) -> Step {
        let mut touched: BTreeSet<DeviceIndex> = self.rows.take_touched();
        let mut records = 0;
        for &(partition, offset) in &read.committed {
            records += self.log.committed(partition, offset, &mut touched);
        }
        let gaps: Vec<Gap> =
            touched.iter().flat_map(|&device| compare::gaps(device, self.log.device(device), &self.rows)).collect();
        let gaps = self.log.untold(gaps);
        let planned = self.clock.in_plan(at);
        self.truth.read(&self.plan, &self.rows, &self.ledger, &self.commands, &mut touched, planned, at);
        Step::Read { records, gaps }
    }
}

/// The change that an event's `rev` names.
fn rev(body: &Body) -> Option<u32> {
    let value = match body {
        Body::Delta { set, .. } => set.get("rev"),
        Body::Snapshot { attributes } => attributes.get("rev").map(|(value, _)| value),
    };
    match value {
        Some(&Value::Integer(rev)) => u32::try_from(rev).ok(),
        Some(Value::Text(_) | Value::Bool(_) | Value::Float(_)) | None => None,
    }
}
