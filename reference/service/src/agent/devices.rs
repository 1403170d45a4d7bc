//! The local API for devices, on loopback.
//!
//! ```text
//! POST /devices/{hardware}/attached  {"record": {"firmware": "1.2", ...}}   the whole record, less `connection`
//! POST /devices/{hardware}/report    {"set": {"ip": "10.0.0.7"}, "unset": ["error"]}
//! POST /devices/{hardware}/detached
//! GET  /devices/{hardware}/change    what a command wants changed on the device: {"id": "7", "set": {..}, "unset": [..]}
//! POST /devices/{hardware}/change/7  {"taken": true} or {"refused": "why"}
//! GET  /devices                      who was heard, and how long ago in ms
//! ```
//!
//! 202: handed to the agent. 204: nothing to be changed; the device asks again. 404: no such change waits any more. 409:
//! attach first, with the whole record (also after a restart of the agent). 422: not a name or value of the wire
//! contract. 429: more devices than an agent keeps.
//!
//! `change` waits up to 30 s for a change ([`super::changes`]), less with `?wait_ms=`. What the device has taken counts
//! as reported; a report of the same is harmless.
//!
//! Who probes whom: a device posts, the agent keeps the last full record with the reports since ([`Shelf`]), and a probe
//! is answered from that. So a device needs no server. In return a device must be heard, by any post or question, within
//! `heard_within`; one that was silent for longer is absent, which also covers a device that died without a word. After
//! a restart of the agent nothing is known of a device until it speaks, or until that time is over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::StatusCode,
    routing::{get, post},
};
use dmp_core::{
    agent::{Event, MAX_DEVICES, Probe, SetOutcome},
    event::{AttributeName, CONNECTION, MAX_PAYLOAD_BYTES, Value},
};
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};

use super::changes::{Board, Change};

/// Longest hardware serial, in bytes.
const MAX_HARDWARE_BYTES: usize = 128;

/// Longest wait of a question for changes: below the patience of common HTTP clients.
const MAX_WAIT: Duration = Duration::from_secs(30);

type Attributes = BTreeMap<AttributeName, Value>;

/// What devices last said of themselves: at most [`MAX_DEVICES`].
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    heard_within: Duration,
    started: Instant,
    devices: Arc<Mutex<BTreeMap<Arc<str>, Heard>>>,
}

#[derive(Debug)]
struct Heard {
    at: Instant,
    /// `None` once it said that it is detached.
    record: Option<Attributes>,
}

impl Shelf {
    pub(super) fn new(heard_within: Duration) -> Shelf {
        Shelf { heard_within, started: Instant::now(), devices: Arc::default() }
    }

    /// What a probe of this device finds.
    pub(super) fn probe(&self, hardware: &str) -> Probe {
        match self.lock().get(hardware) {
            Some(Heard { at, record: Some(record) }) if at.elapsed() <= self.heard_within => {
                Probe::Found(record.clone())
            }
            Some(_) => Probe::Absent,
            None if self.started.elapsed() <= self.heard_within => Probe::Unknown,
            None => Probe::Absent,
        }
    }

    /// Devices that are attached and not silent.
    pub(super) fn present(&self) -> usize {
        let here = |heard: &&Heard| heard.record.is_some() && heard.at.elapsed() <= self.heard_within;
        self.lock().values().filter(here).count()
    }

    /// Takes a whole record. Makes room by dropping a device that is gone; refuses where all are there.
    fn attach(&self, hardware: &Arc<str>, record: Attributes) -> Result<(), Refusal> {
        let mut devices = self.lock();
        if devices.len() >= MAX_DEVICES && !devices.contains_key(hardware) {
            let gone = |heard: &Heard| heard.record.is_none() || heard.at.elapsed() > self.heard_within;
            let room = devices.iter().find(|(_, heard)| gone(heard)).map(|(hardware, _)| Arc::clone(hardware));
            match room {
                Some(room) => {
                    devices.remove(&room);
                }
                None => return Err((StatusCode::TOO_MANY_REQUESTS, format!("{MAX_DEVICES} devices are attached\n"))),
            }
        }
        devices.insert(Arc::clone(hardware), Heard { at: Instant::now(), record: Some(record) });
        Ok(())
    }

    fn report(&self, hardware: &str, set: &Attributes, unset: &BTreeSet<AttributeName>) -> Result<(), Refusal> {
        match self.lock().get_mut(hardware) {
            Some(Heard { at, record: Some(record) }) => {
                *at = Instant::now();
                record.retain(|name, _| !unset.contains(name));
                record.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
                Ok(())
            }
            Some(Heard { record: None, .. }) | None => {
                Err((StatusCode::CONFLICT, "not attached: post the whole record to /attached first\n".to_owned()))
            }
        }
    }

    /// A device that asks is there; one that is not attached has to say first what it is.
    fn heard(&self, hardware: &str) -> Result<(), Refusal> {
        self.report(hardware, &Attributes::new(), &BTreeSet::new())
    }

    fn detach(&self, hardware: &str) {
        if let Some(heard) = self.lock().get_mut(hardware) {
            *heard = Heard { at: Instant::now(), record: None };
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Heard>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Refusal = (StatusCode, String);
type Api = State<(Shelf, mpsc::Sender<Event>)>;
type ChangeApi = State<(Shelf, Board, Arc<Semaphore>)>;

/// The API; what devices say goes into `events`, and what they are asked to change is on `board`.
pub(super) fn router(shelf: Shelf, board: Board, events: mpsc::Sender<Event>) -> Router {
    let changes = Router::new()
        .route("/devices/{hardware}/change", get(change))
        .route("/devices/{hardware}/change/{id}", post(changed))
        .with_state((shelf.clone(), board, Arc::new(Semaphore::new(MAX_DEVICES))));
    let sayings = Router::new()
        .route("/devices", get(list))
        .route("/devices/{hardware}/attached", post(attached))
        .route("/devices/{hardware}/report", post(report))
        .route("/devices/{hardware}/detached", post(detached))
        .with_state((shelf, events));
    sayings.merge(changes).layer(DefaultBodyLimit::max(MAX_PAYLOAD_BYTES))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attached {
    record: Attributes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    #[serde(default)]
    set: Attributes,
    #[serde(default)]
    unset: BTreeSet<AttributeName>,
}

async fn attached(
    State((shelf, events)): Api,
    Path(hardware): Path<String>,
    Json(Attached { record }): Json<Attached>,
) -> Result<StatusCode, Refusal> {
    let hardware = checked(hardware)?;
    not_ours(record.keys())?;
    shelf.attach(&hardware, record)?;
    hand_over(&events, Event::Detected { hardware }).await
}

async fn report(
    State((shelf, events)): Api,
    Path(hardware): Path<String>,
    Json(Report { set, unset }): Json<Report>,
) -> Result<StatusCode, Refusal> {
    let hardware = checked(hardware)?;
    not_ours(set.keys().chain(&unset))?;
    if let Some(name) = unset.iter().find(|name| set.contains_key(*name)) {
        return Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is both set and unset\n")));
    }
    shelf.report(&hardware, &set, &unset)?;
    hand_over(&events, Event::Reported { hardware, set, unset }).await
}

async fn detached(State((shelf, events)): Api, Path(hardware): Path<String>) -> Result<StatusCode, Refusal> {
    let hardware = checked(hardware)?;
    shelf.detach(&hardware);
    hand_over(&events, Event::Detached { hardware }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    wait_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    #[serde(default)]
    taken: bool,
    refused: Option<String>,
}

async fn change(
    State((shelf, board, askers)): ChangeApi,
    Path(hardware): Path<String>,
    Query(Wait { wait_ms }): Query<Wait>,
) -> Result<Json<Change>, Refusal> {
    let hardware = checked(hardware)?;
    shelf.heard(&hardware)?;
    let Ok(_asking) = askers.try_acquire() else {
        return Err((StatusCode::TOO_MANY_REQUESTS, format!("{MAX_DEVICES} devices are waiting\n")));
    };
    let wait = wait_ms.map_or(MAX_WAIT, Duration::from_millis).min(MAX_WAIT);
    board.fetch(&hardware, wait).await.map(Json).ok_or((StatusCode::NO_CONTENT, String::new()))
}

async fn changed(
    State((shelf, board, _)): ChangeApi,
    Path((hardware, id)): Path<(String, String)>,
    Json(Changed { taken, refused }): Json<Changed>,
) -> Result<StatusCode, Refusal> {
    let hardware = checked(hardware)?;
    let outcome = match (taken, refused) {
        (true, None) => SetOutcome::Done,
        (false, Some(why)) => SetOutcome::Refused(why),
        (true, Some(_)) | (false, None) => {
            return Err((StatusCode::UNPROCESSABLE_ENTITY, "say \"taken\": true or \"refused\": why\n".to_owned()));
        }
    };
    // On the shelf before the agent hears of it: a probe at that moment must not find the old values.
    let put_on_shelf = |change: &Change| {
        if taken {
            let _detached_meanwhile = shelf.report(&hardware, &change.set, &change.unset);
        }
    };
    match board.answer(&hardware, &id, outcome, put_on_shelf) {
        Some(()) => Ok(StatusCode::ACCEPTED),
        None => Err((StatusCode::NOT_FOUND, "no such change waits\n".to_owned())),
    }
}

async fn list(State((shelf, _)): Api) -> Json<BTreeMap<String, u64>> {
    let since = |heard: &Heard| u64::try_from(heard.at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let devices = shelf.lock();
    let attached = devices.iter().filter(|(_, heard)| heard.record.is_some());
    Json(attached.map(|(hardware, heard)| (hardware.to_string(), since(heard))).collect())
}

/// Waits while the agent is busy: the device's own patience is the bound.
async fn hand_over(events: &mpsc::Sender<Event>, event: Event) -> Result<StatusCode, Refusal> {
    match events.send(event).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(_gone) => Err((StatusCode::SERVICE_UNAVAILABLE, "the agent stops\n".to_owned())),
    }
}

fn checked(hardware: String) -> Result<Arc<str>, Refusal> {
    if (1..=MAX_HARDWARE_BYTES).contains(&hardware.len()) && hardware.chars().all(|c| c.is_ascii_graphic()) {
        Ok(hardware.into())
    } else {
        let reason = format!("a hardware serial is 1 to {MAX_HARDWARE_BYTES} printable ASCII characters\n");
        Err((StatusCode::UNPROCESSABLE_ENTITY, reason))
    }
}

fn not_ours<'a>(mut names: impl Iterator<Item = &'a AttributeName>) -> Result<(), Refusal> {
    match names.find(|name| name.as_str() == CONNECTION) {
        Some(name) => Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{name} is the agent's own attribute\n"))),
        None => Ok(()),
    }
}
