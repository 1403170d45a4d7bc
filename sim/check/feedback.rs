//! C18: what registries send down is bounded: at most one request for a snapshot and one notice per session and snapshot
//! period, requests within their budget, and none while active repair is off.
//!
//! A registry does not know what another one, or its own last life, has asked: where partitions may have changed hands in
//! between, a repetition is no failure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use dmp_core::{event::CommandName, id::Session, registry::Feedback};
use uuid::Uuid;

use super::{
    model::Models,
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::{
    history::{Down, Entry, LoggedCommand, What},
    scenario::{FaultKind, Part},
};

/// After the session timeout: time for a rebalance to end.
const REBALANCED: Duration = Duration::from_secs(5);

/// Requests of a registry that is about to be restarted without repair, and those still in its log client.
const SWITCHED_WITHIN: Duration = Duration::from_secs(10);

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
            unrest_until: Duration::ZERO,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        let unrest = match &entry.what {
            What::Down(Down::Logged(logged)) => {
                self.logged(models, entry.at, logged);
                false
            }
            // Snapshots are what both answer to: without any there is nothing to bound.
            What::Appended(_) => {
                self.tally.saw();
                false
            }
            What::ProcessStarted(process) | What::ProcessEnded { process, .. } => process.part == Part::Registry,
            What::FaultBegan(fault) | What::FaultEnded(fault) => models.scenario.faults.get(*fault).is_some_and(|fault| {
                matches!(
                    fault.kind,
                    FaultKind::Kill { part: Part::Registry, .. }
                        | FaultKind::Pause { part: Part::Registry, .. }
                        | FaultKind::Scale { part: Part::Registry, .. }
                )
            }),
            _ => false,
        };
        if unrest {
            self.unrest_until = entry.at + models.scenario.pipeline.session_timeout + REBALANCED;
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        let settings = settings(models);
        let figure = format!("{} requests, at most {} in a second; {} notices", self.requests, self.most, self.notices);
        let limit =
            format!("one of each per session in {:.1?}, {} requests a second", settings.spacing(), budget(models));
        self.tally.result(figure, limit, "record of the log")
    }

    fn logged(&mut self, models: &Models, at: Duration, logged: &LoggedCommand) {
        if models.commands.is_issued(logged.id) || !self.ids.insert(logged.id) {
            return;
        }
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
        let spacing = i64::try_from(settings(models).spacing().as_millis()).unwrap_or(i64::MAX);
        let last = self.last.insert((logged.name, logged.session), (at, logged.timestamp_ms));
        if let Some((before, timestamp)) = last.filter(|(before, _)| *before > self.unrest_until)
            && logged.timestamp_ms - timestamp < spacing
        {
            let what = format!(
                "session {} of {} got a {} {} ms after the one before, at {:.3} s; once in {spacing} ms is allowed",
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

fn settings(models: &Models) -> Feedback {
    Feedback::with_period(models.scenario.fleet.snapshot_every)
}

/// Requests that all registries together may send within a second: what each had saved, and what it gets meanwhile.
fn budget(models: &Models) -> u64 {
    2 * u64::from(models.scenario.pipeline.registries) * u64::from(settings(models).requests_per_s)
}
