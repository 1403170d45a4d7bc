//! Histories made by hand: a small fleet whose events pass through a pipeline that does what each test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use dmp_core::{
    event::{AttributeName, Body, Event, Presence, PresenceState, StateEvent, Topic, Value},
    id::{Device, Epoch, Seq, Session, Version},
    merge::DeviceState,
    record::Record,
    time::Wall,
};

use crate::{
    check::{
        Checks, Observable,
        verdict::{CheckId, CheckResult, Outcome},
    },
    fleet::plan::{ATTRIBUTES, ChangeKind, ChangeNumber, DeviceIndex, Plan, RaeIndex, attribute},
    history::{Appended, Copy, DeadSource, Entry, Gauge, PayloadHash, Process, Publish, Read, Stage, What},
    observe::{Figures, FiguresFold},
    scenario::{Part, Scenario},
};

/// A quiet scenario: two RAEs of two devices, and room for anything within its load.
pub(super) const QUIET: &str = r#"
# Does a fleet made by hand pass?
seed = 7
[fleet]
raes = 2
devices_per_rae = 2
update_every = "2s"
snapshot_every = "2s"
probe_every = "1s"
[pipeline]
partitions = 2
[[phase]]
name = "steady"
lasts = "10s"
[checks]
staleness_p99 = { at_most = "500ms" }
lag_peak = { at_most = 20 }
lag_reflected_p99 = { at_most = 10 }
lag_committed_p99 = { at_most = 20 }
stalled_at_most = "3s"
converged_within = "10s"
quiet_lag = 2
"#;

pub(super) const REGISTRY: Process = Process { part: Part::Registry, index: 0 };
pub(super) const BRIDGE: Process = Process { part: Part::Bridge, index: 0 };

/// An event with what a test needs to send it on.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) event: StateEvent,
    pub(super) publish: Publish,
    pub(super) topic: Arc<str>,
    pub(super) payload: PayloadHash,
}

/// A history that grows as a test tells it.
pub(super) struct Story {
    pub(super) scenario: Arc<Scenario>,
    pub(super) plan: Arc<Plan>,
    pub(super) observable: Observable,
    pub(super) entries: Vec<Entry>,
    pub(super) at: Duration,
    pub(super) store: BTreeMap<Device, DeviceState>,
    /// Whether records have receive times; without, all are received at once.
    pub(super) stamped: bool,
    load: Duration,
    shown: BTreeMap<Device, Shown>,
    seqs: BTreeMap<DeviceIndex, (Seq, BTreeMap<AttributeName, Seq>)>,
    pub(super) ends: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    feeds: BTreeMap<i32, i64>,
}

type Shown = (Version, BTreeMap<AttributeName, (Value, Version)>);

impl Story {
    pub(super) fn of(text: &str) -> Story {
        let scenario = Arc::new(Scenario::from_text("story", text.trim_start(), &[], None).expect("a valid scenario"));
        let plan = Arc::new(Plan::new(&scenario));
        Story {
            scenario,
            plan,
            observable: Observable::EVERYTHING,
            entries: Vec::new(),
            at: Duration::ZERO,
            store: BTreeMap::new(),
            stamped: false,
            load: Duration::ZERO,
            shown: BTreeMap::new(),
            seqs: BTreeMap::new(),
            ends: BTreeMap::from([(0, 0), (1, 0)]),
            committed: BTreeMap::from([(0, 0), (1, 0)]),
            feeds: BTreeMap::from([(0, 0), (1, 0)]),
        }
    }

    /// A fleet that is onboarded and shown; load has just begun.
    pub(super) fn begun() -> Story {
        Story::begun_of(QUIET)
    }

    pub(super) fn begun_of(text: &str) -> Story {
        let mut story = Story::of(text);
        story.begin();
        story
    }

    /// The fleet comes online and is onboarded; load begins.
    pub(super) fn begin(&mut self) {
        self.phase("warm-up", Stage::WarmUp);
        self.enter(What::ProcessStarted(BRIDGE));
        self.enter(What::ProcessStarted(REGISTRY));
        for rae in (0..self.plan.raes.len() as u32).map(RaeIndex) {
            self.enter(What::Online(rae));
            let rae = self.plan.raes[rae.0 as usize].serial.clone();
            let presence = Presence { boot: Epoch::FIRST, connection: Seq::FIRST, state: PresenceState::Online };
            self.enter(What::Presence { rae, presence });
        }
        for device in self.devices() {
            let opening = self.snapshot(device, 0);
            self.passes(&opening);
        }
        self.second();
        self.load = self.at;
        self.phase("steady", Stage::Load);
    }

    /// A whole run in which everything goes well.
    pub(super) fn healthy() -> Story {
        let mut story = Story::begun();
        story.lives_until(Duration::from_secs(10));
        story.lives_on_to_the_end();
        story
    }

    /// Every change up to `planned` is published, stored and committed within the second.
    pub(super) fn lives_until(&mut self, planned: Duration) {
        while self.at < self.load + planned {
            let (from, to) = (self.at - self.load, self.at - self.load + Duration::from_secs(1));
            let mut changes: Vec<(Duration, DeviceIndex, u32)> = Vec::new();
            for device in self.devices() {
                let all = self.plan.devices[device.0 as usize].changes.clone();
                let due = (1..).zip(all).filter(|(_, change)| from < change.at && change.at <= to);
                changes.extend(due.map(|(number, change)| (change.at, device, number)));
            }
            changes.sort_unstable_by_key(|&(at, device, number)| (at, device, number));
            let end = self.at + Duration::from_secs(1);
            for (at, device, number) in changes {
                self.at = self.load + at + Duration::from_millis(1);
                let delta = self.delta(device, number);
                self.passes(&delta);
                self.at += Duration::from_millis(20);
                self.enter(What::Reflected { device, rev: i64::from(number) });
            }
            self.at = end.max(self.at);
            self.read_all();
        }
    }

    /// The rest of the load, and the end of a run.
    pub(super) fn lives_on_to_the_end(&mut self) {
        self.phase("heal", Stage::Heal);
        self.lives_until(Duration::from_secs(15));
        self.ends_calmly();
    }

    /// Settle, verify and verify again, with snapshots and nothing new.
    pub(super) fn ends_calmly(&mut self) {
        for (name, stage) in
            [("settle", Stage::Settle), ("verify", Stage::Verify), ("verify again", Stage::VerifyAgain)]
        {
            self.phase(name, stage);
            self.at += Duration::from_millis(10);
            self.read_all();
            self.second();
        }
        self.at += Duration::from_secs(10);
        self.read_all();
    }

    pub(super) fn devices(&self) -> Vec<DeviceIndex> {
        (0..self.plan.devices.len() as u32).map(DeviceIndex).collect()
    }

    pub(super) fn phase(&mut self, name: &str, stage: Stage) {
        self.enter(What::Phase { name: name.into(), stage });
    }

    pub(super) fn enter(&mut self, what: What) {
        self.entries.push(Entry { at: self.at, what });
    }

    /// A second passes; offsets are committed and everything is read at its end.
    pub(super) fn second(&mut self) {
        self.at += Duration::from_secs(1);
        self.read_all();
    }

    pub(super) fn read_all(&mut self) {
        self.commit_all();
        self.feeds = self.ends.clone();
        self.offsets();
        self.read();
        self.gauge("queue", 3, Some(10));
        self.enter(What::Lateness(Duration::from_millis(2)));
    }

    /// The next event of a device: its whole record after `change`.
    pub(super) fn snapshot(&mut self, device: DeviceIndex, change: u32) -> Sent {
        let record = self.plan.shown(device, ChangeNumber(change));
        let (seq, changed) = self.next(device);
        let attributes = record
            .into_iter()
            .map(|(name, value)| {
                let of = *changed.entry(name.clone()).or_insert(seq);
                (name, (value, of))
            })
            .collect();
        self.sent(device, seq, Body::Snapshot { attributes })
    }

    /// The next event of a device: what `change` changes.
    pub(super) fn delta(&mut self, device: DeviceIndex, change: u32) -> Sent {
        let ChangeKind::Update { set, unset } = self.plan.devices[device.0 as usize].changes[change as usize - 1].kind
        else {
            panic!("stories have updates only");
        };
        let plan = self.plan.clone();
        let (seq, changed) = self.next(device);
        let value = |index| (attribute(index), plan.value(device, ChangeNumber(change), index));
        let set: BTreeMap<_, _> = (0..ATTRIBUTES.len()).filter(|&i| set.contains(i)).map(value).collect();
        let unset: BTreeSet<_> = (0..ATTRIBUTES.len()).filter(|&i| unset.contains(i)).map(attribute).collect();
        changed.extend(set.keys().map(|name| (name.clone(), seq)));
        unset.iter().for_each(|name| {
            changed.remove(name);
        });
        self.sent(device, seq, Body::Delta { set, unset })
    }

    fn next(&mut self, device: DeviceIndex) -> (Seq, &mut BTreeMap<AttributeName, Seq>) {
        let fresh = !self.seqs.contains_key(&device);
        let (seq, changed) = self.seqs.entry(device).or_insert((Seq::FIRST, BTreeMap::new()));
        if !fresh {
            *seq = seq.next().expect("a short story");
        }
        (*seq, changed)
    }

    fn sent(&self, device: DeviceIndex, seq: Seq, body: Body) -> Sent {
        let planned = &self.plan.devices[device.0 as usize];
        let rae = self.plan.raes[planned.rae.0 as usize].serial.clone();
        let session = Session(uuid::Uuid::from_u128(0x1000 + u128::from(device.0)));
        let version = Version { epoch: Epoch::try_from(5).expect("in range"), session, seq };
        let snapshot = matches!(body, Body::Snapshot { .. });
        Sent {
            topic: Topic::State(rae.clone(), session).to_string().into(),
            payload: PayloadHash::of(format!("{version} {snapshot}").as_bytes()),
            publish: Publish { device, rae: planned.rae, version, snapshot },
            event: StateEvent { rae, device: planned.id, version, at: Wall::default(), body },
        }
    }

    /// The whole way: saved, sent, acknowledged, delivered, in the log, acknowledged, in the rows.
    pub(super) fn passes(&mut self, sent: &Sent) -> (i32, i64) {
        self.leaves(sent);
        self.crosses(sent);
        let place = self.logged(sent);
        self.reflect(sent);
        place
    }

    /// Saved, sent, and acknowledged by the broker.
    pub(super) fn leaves(&mut self, sent: &Sent) {
        self.enter(What::Recorded(sent.publish));
        self.enter(What::Sent(sent.publish, Copy::First, sent.payload));
        self.enter(What::Acknowledged(sent.publish));
    }

    /// Delivered to the bridge and acknowledged by it.
    pub(super) fn crosses(&mut self, sent: &Sent) {
        let (topic, payload) = (sent.topic.clone(), sent.payload);
        self.enter(What::Delivered { topic: topic.clone(), payload, dup: false, retain: false });
        self.enter(What::BridgeAcknowledged { topic, payload, retain: false });
    }

    /// In the log of the partition of its device's parity.
    pub(super) fn logged(&mut self, sent: &Sent) -> (i32, i64) {
        self.logged_in((sent.publish.device.0 % 2) as i32, sent)
    }

    pub(super) fn logged_in(&mut self, partition: i32, sent: &Sent) -> (i32, i64) {
        let event = Some(Arc::new(Event::State(sent.event.clone())));
        self.appended(partition, &sent.topic, sent.payload, event)
    }

    pub(super) fn appended(
        &mut self,
        partition: i32,
        key: &Arc<str>,
        payload: PayloadHash,
        event: Option<Arc<Event>>,
    ) -> (i32, i64) {
        let offset = self.ends[&partition];
        self.ends.insert(partition, offset + 1);
        let poison = event.is_none().then_some("json");
        self.enter(What::Appended(Box::new(Appended {
            partition,
            offset,
            key: key.clone(),
            payload,
            timestamp_ms: if self.stamped { self.at.as_millis() as i64 } else { 0 },
            retained: false,
            event,
            poison,
        })));
        (partition, offset)
    }

    /// Merged into the rows.
    pub(super) fn reflect(&mut self, sent: &Sent) {
        self.store.entry(sent.event.device).or_default().apply(&sent.event, Wall::default());
    }

    pub(super) fn quarantine(&mut self, (partition, offset): (i32, i64), payload: PayloadHash) {
        let source = DeadSource::Log(partition, offset);
        self.enter(What::DeadLettered { source, reason: "json".into(), payload });
    }

    pub(super) fn commit_all(&mut self) {
        self.committed = self.ends.clone();
    }

    /// Store and group are as on the first day.
    pub(super) fn forgets(&mut self) {
        self.store.clear();
        self.shown.clear();
        for offsets in [&mut self.committed, &mut self.feeds] {
            offsets.values_mut().for_each(|offset| *offset = 0);
        }
    }

    pub(super) fn commit(&mut self, partition: i32, offset: i64) {
        self.committed.insert(partition, offset);
    }

    /// A round of offsets, as they are.
    pub(super) fn offsets(&mut self) {
        self.enter(What::Partitions(2));
        for (partition, offset) in self.committed.clone() {
            self.enter(What::Committed { partition, offset });
        }
        for (partition, next_offset) in self.feeds.clone() {
            self.enter(What::Feed { partition, next_offset });
        }
        for (partition, offset) in self.ends.clone() {
            self.enter(What::End { partition, offset });
        }
    }

    /// A whole read of the rows, with its differences.
    pub(super) fn read(&mut self) {
        let now: BTreeMap<Device, Shown> =
            self.store.iter().filter_map(|(&device, state)| Some((device, shown(state)?))).collect();
        let before = std::mem::take(&mut self.shown);
        for device in before.keys().filter(|device| !now.contains_key(device)) {
            self.enter(What::DeviceGone(*device));
        }
        for (&device, (floor, rows)) in &now {
            let (old_floor, old) = before.get(&device).cloned().map_or((None, BTreeMap::new()), |(f, r)| (Some(f), r));
            if old_floor != Some(*floor) {
                let index = self.plan.device(device).unwrap_or(DeviceIndex(0));
                let rae = self.plan.raes[self.plan.devices[index.0 as usize].rae.0 as usize].serial.clone();
                self.enter(What::Floor { device, version: *floor, rae });
            }
            for name in old.keys().filter(|name| !rows.contains_key(*name)) {
                self.enter(What::RowGone { device, name: name.clone() });
            }
            for (name, row) in rows.iter().filter(|(name, row)| old.get(*name) != Some(*row)) {
                let (value, version) = row.clone();
                self.enter(What::Row { device, name: name.clone(), value, version });
            }
        }
        self.enter(What::Read(Read {
            began: self.at,
            committed: self.committed.clone().into_iter().collect(),
            ends: self.ends.clone().into_iter().collect(),
            devices: now.len(),
        }));
        self.shown = now;
    }

    /// What a reader of such a store gets.
    pub(super) fn records(&self, store: &BTreeMap<Device, DeviceState>) -> BTreeMap<Device, Record> {
        let record = |(device, state): (&Device, &DeviceState)| {
            let index = self.plan.device(*device)?;
            let rae = self.plan.raes[self.plan.devices[index.0 as usize].rae.0 as usize].serial.clone();
            let (floor, attributes) = shown(state)?;
            Some((*device, Record { floor, rae, seen_at: Wall::default(), stale: false, attributes }))
        };
        store.iter().filter_map(record).collect()
    }

    pub(super) fn gauge(&mut self, name: &str, value: u64, cap: Option<u64>) {
        self.enter(What::Gauges(REGISTRY, vec![Gauge { name: name.into(), value, cap }]));
    }

    pub(super) fn figures(&self) -> Figures {
        let mut fold = FiguresFold::new(self.scenario.clone(), self.plan.clone());
        self.entries.iter().for_each(|entry| fold.observe(entry));
        fold.finish()
    }

    pub(super) fn results(&self) -> Vec<CheckResult> {
        let mut checks = Checks::new(self.scenario.clone(), self.plan.clone(), self.observable);
        self.entries.iter().for_each(|entry| checks.observe(entry));
        checks.finish(&mut self.figures())
    }

    pub(super) fn result(&self, id: CheckId) -> CheckResult {
        self.results().into_iter().find(|result| result.id == id).expect("every check has a result")
    }

    /// The check passes.
    pub(super) fn passes_check(&self, id: CheckId) {
        let result = self.result(id);
        assert_eq!(result.outcome, Outcome::Pass, "{id:?}: {}", result.figure);
        assert!(result.observed > 0, "{id:?}");
    }

    /// The check fails, and a witness says `word`.
    pub(super) fn fails_check(&self, id: CheckId, word: &str) {
        let result = self.result(id);
        let Outcome::Fail { witnesses, count } = &result.outcome else { panic!("{id:?}: {:?}", result.outcome) };
        assert!(*count > 0 && witnesses.iter().any(|w| w.what.contains(word)), "{id:?}: {witnesses:#?}");
    }

    /// These checks, and no others, fail.
    pub(super) fn fails_only(&self, ids: &[CheckId]) {
        let failed = |result: &CheckResult| matches!(result.outcome, Outcome::Fail { .. });
        let all = self.results();
        let failed: Vec<&CheckResult> = all.iter().filter(|result| failed(result)).collect();
        let names: Vec<CheckId> = failed.iter().map(|result| result.id).collect();
        assert_eq!(names, ids, "{failed:#?}");
    }
}

fn shown(state: &DeviceState) -> Option<Shown> {
    let floor = state.floor.as_ref()?.version;
    let rows = state.visible()?.into_iter().map(|(name, (value, version))| (name.clone(), (value.clone(), version)));
    Some((floor, rows.collect()))
}
