//! C18: what registries send down is bounded: at most one request for a snapshot and one notice per session and snapshot
//! period, requests within their budget, and none while active repair is off.
//!
//! Its limits are the specification's, not what a registry happens to be set to. A run in which nothing was sent shows
//! that only where nothing had to be: it passes if the scenario gives no reason to speak, and is INVALID if so much was
//! missed while repair was on that somebody had to be asked.
//!
//! A registry does not know what another one, or its own last life, has asked: where partitions may have changed hands in
//! between, a repetition is no failure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dmp_core::{event::CommandName, id::Session};
use uuid::Uuid;

use super::{
    model::Models,
    reconstruction::has_reasons,
    tally::{SET_BY_OTHERS, Tally},
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    history::{Down, Entry, LoggedCommand, What},
    scenario::{FaultKind, Part, Server},
};

/// After the session timeout: time for a rebalance to end.
const REBALANCED: Duration = Duration::from_secs(5);

/// Requests of a registry that is about to be restarted without repair, and those still in its log client.
const SWITCHED_WITHIN: Duration = Duration::from_secs(10);

/// Requests that one registry may send within a second, and save up.
const REQUESTS_PER_S: u64 = 100;

/// What two timestamps that are cut to milliseconds may seem to be nearer to each other than they are.
const CUT_MS: i64 = 1;

/// Updates that must have been missed under repair for a request to be sure: each may be healed before it is asked for.
const SURELY_ASKED_FOR: u64 = 100;

/// The budget's window, in milliseconds.
const WINDOW_MS: i64 = 1_000;

/// C18.
#[derive(Debug)]
pub(super) struct FeedbackBounds {
    tally: Tally,
    ids: BTreeSet<Uuid>,
    /// When each session was last asked, and told: on the run's clock, and by the command's timestamp.
    last: BTreeMap<(CommandName, Session), (Duration, i64)>,
    /// Timestamps of requests within the window.
    recent: VecDeque<i64>,
    most: usize,
    requests: u64,
    notices: u64,
    /// Records of the log.
    logged: u64,
    /// Updates that were missed while repair was on.
    missed: u64,
    /// Until when partitions may change hands.
    unrest_until: Duration,
}

impl FeedbackBounds {
    pub(super) fn new() -> FeedbackBounds {
        FeedbackBounds {
            tally: Tally::new(CheckId::C18),
            ids: BTreeSet::new(),
            last: BTreeMap::new(),
            recent: VecDeque::new(),
            most: 0,
            requests: 0,
            notices: 0,
            logged: 0,
            missed: 0,
            unrest_until: Duration::ZERO,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        let unrest = match &entry.what {
            What::Down(Down::Logged(logged)) => {
                self.logged(models, entry.at, logged);
                false
            }
            What::Appended(_) => {
                self.logged += 1;
                false
            }
            What::Withheld(_) => {
                let repaired = models.clock.in_plan(entry.at).is_some_and(|at| models.scenario.repairs_at(at));
                self.missed += u64::from(repaired);
                false
            }
            What::ProcessStarted(process) | What::ProcessEnded { process, .. } => process.part == Part::Registry,
            What::FaultBegan(fault) | What::FaultEnded(fault) => {
                models.scenario.faults.get(*fault).is_some_and(|fault| moves_partitions(&fault.kind))
            }
            _ => false,
        };
        if unrest {
            self.unrest_until = entry.at + models.scenario.pipeline.session_timeout + REBALANCED;
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if !models.observable.settings {
            return self.tally.not_observable(SET_BY_OTHERS);
        }
        let period = models.scenario.fleet.snapshot_every;
        let limit = format!("one of each per session in {period:.1?}, {} requests a second", budget(models));
        let figure = format!("{} requests, at most {} in a second; {} notices", self.requests, self.most, self.notices);
        if self.tally.observed > 0 || self.tally.failures() > 0 {
            return self.tally.result(figure, limit, "request or notice");
        }
        if self.missed >= SURELY_ASKED_FOR {
            let why = format!("no request, although {} updates were missed while repair was on", self.missed);
            return self.tally.with(Outcome::Invalid(why), figure, limit);
        }
        if has_reasons(&models.scenario) {
            return self.tally.not_observable("no session lost and none missed anything for long: nothing was sent");
        }
        // Nobody had anything to say while these were read, and nobody said anything.
        self.tally.observed = self.logged;
        self.tally.result(
            format!("none was due, and none was sent in {} records", self.logged),
            limit,
            "record of the log",
        )
    }

    fn logged(&mut self, models: &Models, at: Duration, logged: &LoggedCommand) {
        if models.commands.is_issued(logged.id) || !self.ids.insert(logged.id) {
            return;
        }
        self.tally.saw();
        match logged.name {
            CommandName::Snapshot => {
                self.requests += 1;
                self.request(models, at, logged);
            }
            CommandName::Reonboard => self.notices += 1,
            CommandName::Probe | CommandName::Set => {
                let what = format!("a registry sent a {} to {}", logged.name, logged.rae);
                self.tally.fail(at, || (what, Vec::new()));
            }
        }
        let period = i64::try_from(models.scenario.fleet.snapshot_every.as_millis()).unwrap_or(i64::MAX);
        let last = self.last.insert((logged.name, logged.session), (at, logged.timestamp_ms));
        if let Some((before, timestamp)) = last.filter(|(before, _)| *before > self.unrest_until)
            && logged.timestamp_ms - timestamp + CUT_MS < period
        {
            let what = format!(
                "session {} of {} got a {} {} ms after the one before, at {:.3} s; once in {period} ms is allowed",
                logged.session,
                logged.rae,
                logged.name,
                logged.timestamp_ms - timestamp,
                before.as_secs_f64()
            );
            self.tally.fail(at, || (what, Vec::new()));
        }
    }

    fn request(&mut self, models: &Models, at: Duration, logged: &LoggedCommand) {
        let newest = self.recent.back().copied().unwrap_or(i64::MIN).max(logged.timestamp_ms);
        self.recent.push_back(logged.timestamp_ms);
        self.recent.retain(|timestamp| newest - timestamp < WINDOW_MS);
        self.most = self.most.max(self.recent.len());
        if self.recent.len() as u64 == budget(models) + 1 {
            let what = format!("more than {} requests for snapshots within a second", budget(models));
            self.tally.fail(at, || (what, Vec::new()));
        }
        let planned = models.clock.in_plan(at).unwrap_or_default();
        let repairs = [planned, planned.saturating_sub(SWITCHED_WITHIN)].map(|at| models.scenario.repairs_at(at));
        if repairs == [false, false] {
            let what =
                format!("session {} of {} was asked for a snapshot while repair is off", logged.session, logged.rae);
            self.tally.fail(at, || (what, Vec::new()));
        }
    }
}

/// Whether partitions may change hands by it.
fn moves_partitions(kind: &FaultKind) -> bool {
    match kind {
        FaultKind::Kill { part, .. } | FaultKind::Pause { part, .. } | FaultKind::Scale { part, .. } => {
            *part == Part::Registry
        }
        FaultKind::Server(fault) => fault.server() == Server::Kafka,
        _ => false,
    }
}

/// Requests that all registries together may send within a second: what each had saved, and what it gets meanwhile.
fn budget(models: &Models) -> u64 {
    2 * u64::from(models.scenario.most_processes(Part::Registry)) * REQUESTS_PER_S
}
