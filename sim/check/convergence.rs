//! C9: after heal, within a bound, every row equals its device, and stays so.
//!
//! Judged at every whole read that begins after the bound, or after the verdict is due; from settle on nothing changes
//! on the devices, so that nothing may differ again.

use std::{collections::BTreeSet, time::Duration};

use dmp_core::event::AttributeName;

use super::{
    bound::bound,
    model::{Difference, Life, Models, SessionLife, Step, difference},
    tally::Tally,
    verdict::{CheckId, CheckResult, Outcome},
};
use crate::{
    fleet::plan::{ChangeNumber, DeviceIndex, RaeIndex},
    history::{Entry, Read, Stage, What},
};

/// C9.
#[derive(Debug)]
pub(super) struct Convergence {
    tally: Tally,
    /// Begin of verify, and of verify again.
    due: [Option<Duration>; 2],
    /// Whole reads that began after each.
    judged: [u64; 2],
    told: BTreeSet<DeviceIndex>,
    converged: Option<Duration>,
}

impl Convergence {
    pub(super) fn new() -> Convergence {
        Convergence {
            tally: Tally::new(CheckId::C9),
            due: [None; 2],
            judged: [0; 2],
            told: BTreeSet::new(),
            converged: None,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match (&entry.what, step) {
            (What::Phase { stage: Stage::Verify, .. }, _) => self.due[0] = Some(entry.at),
            (What::Phase { stage: Stage::VerifyAgain, .. }, _) => self.due[1] = Some(entry.at),
            (What::Read(read), Step::Read { .. }) => self.read(models, entry.at, read),
            _ => {}
        }
    }

    /// From the begin of settle until every row equalled its device, for good.
    pub(super) fn after(&self, models: &Models) -> Option<Duration> {
        Some(self.converged?.saturating_sub(models.clock.settle?))
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        let (devices, behind) = (models.truth.expected(), models.truth.behind().len());
        let after = self.after(models).map_or(String::new(), |after| format!(", {after:.1?} after heal"));
        let figure = format!("{} of {devices} devices{after}", devices - behind.min(devices));
        let limit = format!("all within {:?}", bound(&models.scenario));
        let missing = match self.judged {
            _ if self.tally.failures() > 0 => None,
            [0, _] => Some("no whole read of the store in verify"),
            [_, 0] => Some("no whole read of the store in verify again"),
            _ => None,
        };
        match missing {
            Some(missing) => self.tally.with(Outcome::Invalid(missing.to_owned()), figure, limit),
            None => self.tally.result(figure, limit, "device"),
        }
    }

    fn read(&mut self, models: &Models, at: Duration, read: &Read) {
        let Some(settle) = models.clock.settle else { return };
        let behind = models.truth.behind();
        if behind.is_empty() {
            self.converged.get_or_insert(at);
        } else {
            self.converged = None;
        }
        let [verify, again] = self.due;
        let since = |due: Option<Duration>| due.is_some_and(|due| read.began >= due);
        // Once verify again has begun, its reads are no longer those of verify.
        self.judged[0] += u64::from(since(verify) && !since(again));
        self.judged[1] += u64::from(since(again));
        let late = read.began > settle + bound(&models.scenario);
        if !late && !since(verify) {
            return;
        }
        self.tally.observed += models.truth.expected() as u64;
        for &device in behind {
            if self.told.insert(device) {
                self.tally.fail(at, || (witness(models, device, at), models.timeline(device, at)));
            }
        }
    }
}

/// What is wrong with a device, and who should act.
fn witness(models: &Models, device: DeviceIndex, at: Duration) -> String {
    let planned = models.clock.in_plan(at);
    let change = planned.map_or(ChangeNumber(0), |planned| models.plan.change_at(device, planned));
    let wrong = match difference(&models.plan, &models.rows, &models.ledger, &models.commands, device, planned) {
        None => "is right again".to_owned(),
        Some(Difference::NotShown) => "is not shown".to_owned(),
        Some(Difference::TooEarly) => "is shown before it exists".to_owned(),
        Some(Difference::Rae) => under_another_rae(models, device, change),
        Some(Difference::Missing(name)) => format!("lacks {name}"),
        Some(Difference::TooMuch(name)) => format!("shows {name}, which it does not have"),
        Some(Difference::Other(name)) => format!("shows another {name}{}", shown(models, device, &name)),
    };
    format!("device {} after change {} {wrong}: {}", models.id(device), change.0, blame(models, device, change))
}

fn under_another_rae(models: &Models, device: DeviceIndex, change: ChangeNumber) -> String {
    let serial = |rae: RaeIndex| models.plan.raes[rae.0 as usize].serial.to_string();
    let shown = models.rows.device(device).rae.map_or("a RAE that nobody has".to_owned(), serial);
    format!("is on {} and shown under {shown}", serial(models.plan.home(device, change)))
}

fn shown(models: &Models, device: DeviceIndex, name: &AttributeName) -> String {
    models.rows.get(device, name.as_str()).map_or(String::new(), |row| match row.source {
        super::model::Source::Change(ChangeNumber(change)) => format!(" (of change {change})"),
        super::model::Source::Connection | super::model::Source::Command | super::model::Source::Nowhere => {
            String::new()
        }
    })
}

/// Whether what would heal the device still exists somewhere: then it is stuck there, else it is lost.
fn blame(models: &Models, device: DeviceIndex, change: ChangeNumber) -> String {
    let log = models.log.device(device);
    if let Some(pending) = log.pending.iter().find(|pending| pending.tells("rev")) {
        let (partition, offset) = (pending.partition, pending.offset);
        let committed = models.log.committed_offset(partition);
        return format!(
            "stuck: record {partition}/{offset} lies beyond the committed offset {committed}; the registry should act"
        );
    }
    if let Some(dead) = outvoted(models, device, change) {
        return dead;
    }
    let intended = models.clock.in_run(models.plan.intended(device, change));
    let sessions = models.ledger.sessions(device);
    let lives = sessions.iter().flat_map(|session| &session.events);
    let after = |life: &&Life| life.recorded.get().is_some_and(|recorded| recorded >= intended);
    let newest = lives.filter(after).max_by_key(|life| (life.in_log(), life.recorded));
    match newest {
        None => "stuck: nothing was saved since that change; the agent should act".to_owned(),
        Some(life) if life.in_log() => format!(
            "data lost: record {}/{} was committed and is not in the rows; the registry or the store lost it",
            life.partition, life.offset
        ),
        Some(life) if life.bridge_acknowledged.is() => {
            "data lost: the newest event was acknowledged by a bridge and is in no log; the next snapshot should come \
             from the agent"
                .to_owned()
        }
        Some(life) if life.delivered.is() => "stuck: the newest event is in a bridge; the bridge should act".to_owned(),
        Some(life) if life.acknowledged.is() => {
            "stuck: the newest event is in the MQTT broker, or lost there; the broker should act".to_owned()
        }
        Some(life) if life.withheld() || life.lost_at_qos0() || life.shed() => {
            "data lost: the newest event never left the agent; the next snapshot should come from the agent".to_owned()
        }
        Some(_) => "stuck: the newest event is in the agent's outbox; the agent should act".to_owned(),
    }
}

/// A session that is over has a higher version than the living one, so that nothing the living one says is shown.
fn outvoted(models: &Models, device: DeviceIndex, change: ChangeNumber) -> Option<String> {
    let floor = models.rows.device(device).floor?;
    let sessions = models.ledger.sessions(device);
    let home = models.plan.home(device, change);
    let living = sessions.iter().rfind(|session| session.rae == home)?;
    let dead = sessions.iter().find(|session| session.session == floor.session)?;
    let serial = |session: &SessionLife| &models.plan.raes[session.rae.0 as usize].serial;
    ((living.epoch, living.session) < (dead.epoch, dead.session)).then(|| {
        format!(
            "stuck: its session on {} (epoch {}) loses to one of {} that is over (epoch {}); the registry should ask for a \
             new session, and the agent should open it",
            serial(living),
            living.epoch,
            serial(dead),
            dead.epoch
        )
    })
}
