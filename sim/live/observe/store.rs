//! Reads the whole store again and again, and enters what differs from the read before.
//!
//! Committed offsets come first, then rows: every record below them must be in the rows by then. The end of a read is
//! entered only when the log is in the history up to the end offsets, which are read last.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context;
use dmp_core::{
    event::{AttributeName, Presence, Value},
    id::{Device, Rae, Version},
};
use dmp_service::store::Record;
use tokio::sync::{mpsc, oneshot};

use super::log::Entered;
use crate::{
    history::{Digest, Entry, Read, What},
    live::{clock::RunClock, journal::Journal, primary::Primary},
};

/// Shortest time between the begins of two reads.
const EVERY: Duration = Duration::from_secs(1);

/// Reads take at most this part of the time, so that observing does not slow down what is observed.
const IDLE_FACTOR: u32 = 5;

/// Longest wait for the log to be in the history.
const LOG_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait for a read that was asked for.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Asks for a read out of turn.
#[derive(Debug, Clone)]
pub(in crate::live) struct ReadNow(mpsc::Sender<oneshot::Sender<()>>);

impl ReadNow {
    /// Reads now, and returns when the read is in the history.
    ///
    /// # Errors
    /// If the store cannot be read in time.
    pub(in crate::live) async fn read(&self) -> anyhow::Result<()> {
        let (done, finished) = oneshot::channel();
        anyhow::ensure!(self.0.send(done).await.is_ok(), "the reader of the store has ended");
        tokio::time::timeout(READ_WITHIN, finished).await??;
        Ok(())
    }
}

/// Reads the store, and lets others read it out of turn.
pub(in crate::live) struct StoreReader {
    /// The events topic.
    pub(in crate::live) topic: String,
    pub(in crate::live) primary: Primary,
    pub(in crate::live) entered: Entered,
    pub(in crate::live) clock: Arc<RunClock>,
    pub(in crate::live) journal: Journal,
}

impl StoreReader {
    /// The reading, to be run until it is dropped, and how to ask for a read.
    pub(in crate::live) fn start(self) -> (ReadNow, impl Future<Output = ()>) {
        let (asked, requests) = mpsc::channel(8);
        (ReadNow(asked), self.run(requests))
    }

    async fn run(mut self, mut requests: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut last = Shown::default();
        let mut pause = EVERY;
        loop {
            let done = tokio::select! {
                request = requests.recv() => match request {
                    Some(done) => Some(done),
                    None => return,
                },
                () = tokio::time::sleep(pause) => None,
            };
            let began = self.clock.at();
            while let Err(error) = self.read(&mut last).await {
                // One read that fails says nothing; a caller that waits for it gives up by its own bound.
                tracing::warn!(error = format!("{error:#}"), "reading the store");
                tokio::time::sleep(EVERY).await;
            }
            pause = EVERY.max((self.clock.at() - began) * IDLE_FACTOR);
            if let Some(done) = done {
                let _caller_gone = done.send(());
            }
        }
    }

    async fn read(&mut self, last: &mut Shown) -> anyhow::Result<()> {
        let held = self.primary.held().await;
        let now = held.as_ref().context("there is no store now")?;
        if last.incarnation != now.number {
            *last = Shown { incarnation: now.number, ..Shown::default() };
        }
        let committed: Vec<_> = now.inspector.committed(&self.topic).await?.into_iter().collect();
        let began = self.clock.at();
        let rows = now.store.records().await?;
        let presence = now.store.presence().await?;
        let at = self.clock.at();
        let ends: Vec<_> = now.inspector.end_offsets(&self.topic).await?.into_iter().collect();
        // The rows may reflect what is not committed yet, so that is to be in the history too before they are.
        if !self.entered.wait(&ends, LOG_WITHIN).await {
            anyhow::bail!("the harness's own reader of the log is behind the ends of its partitions");
        }
        let devices = rows.len();
        let mut entries = Vec::new();
        last.rows = differences(&mut entries, at, &last.rows, rows);
        let other = presence.iter().filter(|(rae, presence)| last.presence.get(*rae) != Some(*presence));
        entries.extend(other.map(|(rae, &presence)| Entry { at, what: What::Presence { rae: rae.clone(), presence } }));
        entries.push(Entry { at, what: What::Read(Read { began, committed, ends, devices }) });
        self.journal.enter_all(&mut entries).await;
        last.presence = presence;
        Ok(())
    }
}

/// What a read of the store showed.
#[derive(Default)]
struct Shown {
    incarnation: u32,
    rows: BTreeMap<Device, Glimpse>,
    presence: BTreeMap<Rae, Presence>,
}

/// What is remembered of a device's record until the next read: of values, as much as tells whether they changed.
#[derive(PartialEq)]
struct Glimpse {
    floor: Version,
    rae: Rae,
    stale: bool,
    /// In order of their names.
    attributes: Box<[(AttributeName, Version, Digest)]>,
}

impl Glimpse {
    fn of(record: &Record) -> Glimpse {
        let attribute =
            |(name, (value, version)): (&AttributeName, &(Value, Version))| (name.clone(), *version, Digest::of(value));
        Glimpse {
            floor: record.floor,
            rae: record.rae.clone(),
            stale: record.stale,
            attributes: record.attributes.iter().map(attribute).collect(),
        }
    }

    fn attribute(&self, name: &AttributeName) -> Option<&(AttributeName, Version, Digest)> {
        self.attributes.binary_search_by(|(at, ..)| at.cmp(name)).ok().map(|place| &self.attributes[place])
    }
}

/// Enters what is other in `now` than in `last`, and returns what to remember of `now`.
fn differences(
    entries: &mut Vec<Entry>,
    at: Duration,
    last: &BTreeMap<Device, Glimpse>,
    now: BTreeMap<Device, Record>,
) -> BTreeMap<Device, Glimpse> {
    let mut enter = |what| entries.push(Entry { at, what });
    for device in last.keys().filter(|device| !now.contains_key(device)) {
        enter(What::DeviceGone(*device));
    }
    let seen = |(device, record): (Device, Record)| {
        let glimpse = Glimpse::of(&record);
        let before = last.get(&device);
        if before != Some(&glimpse) {
            changes(&mut enter, device, before, &glimpse, record);
        }
        (device, glimpse)
    };
    now.into_iter().map(seen).collect()
}

/// Enters how a device that is shown differs from what was shown `before`.
fn changes(enter: &mut impl FnMut(What), device: Device, before: Option<&Glimpse>, now: &Glimpse, record: Record) {
    if before.is_none_or(|before| (before.floor, &before.rae) != (now.floor, &now.rae)) {
        enter(What::Floor { device, version: record.floor, rae: record.rae });
    }
    if before.is_some_and(|before| before.stale) != record.stale {
        enter(What::Stale { device, stale: record.stale });
    }
    for (name, ..) in before.iter().flat_map(|before| &before.attributes) {
        if !record.attributes.contains_key(name) {
            enter(What::RowGone { device, name: name.clone() });
        }
    }
    for (name, (value, version)) in record.attributes {
        if before.and_then(|before| before.attribute(&name)) != now.attribute(&name) {
            enter(What::Row { device, name, value, version });
        }
    }
}
