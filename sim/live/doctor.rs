//! Looks at somebody's servers before a run: endpoint, credential, right, clock and setting, one finding each.
//!
//! What a run cannot do without is looked at before each run, too ([`essentials`]): a wrong target is an error with a
//! reason within seconds, and no run that waits for a fleet which never comes online.

mod kafka;
mod mqtt;
mod store;

use std::{fmt, time::Duration};

use dmp_core::{
    event::{Presence, PresenceState},
    id::{Epoch, Rae, Seq},
    time::Wall,
};

use super::deployed::Deployed;
use crate::{fleet::RunPrefix, run::RunError, target::Deployment};

/// Longest that the look at one server may take; each of its steps has a shorter bound of its own.
const SERVER_WITHIN: Duration = Duration::from_secs(60);

/// Serials of the doctor's own messages begin with this where the target names no prefix.
const PREFIX: &str = "DOCTOR";

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub mark: Mark,
    /// The server.
    pub server: &'static str,
    /// What was looked at, what was found, and what would be right.
    pub text: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// As it must be.
    Right,
    /// It could not be looked at, which need not hinder a run.
    Unknown,
    /// A run would fail by it, or mean nothing.
    Wrong,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.mark {
            Mark::Right => "ok",
            Mark::Unknown => "?",
            Mark::Wrong => "WRONG",
        };
        // One line, whatever a server says.
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        write!(f, "{mark:<6}{:<7}{text}", self.server)
    }
}

/// Looks at everything, and tells each finding as it comes. Returns the worst mark.
///
/// # Errors
/// [`RunError::Target`] where the target's secrets cannot be read; [`RunError::Interrupted`].
pub async fn doctor(mut deployment: Deployment, mut tell: impl FnMut(&Finding)) -> Result<Mark, RunError> {
    let interrupted = dmp_service::program::signals().map_err(|error| RunError::Harness(error.into()))?;
    let own = deployment.prefix.is_none();
    deployment.prefix.get_or_insert_with(|| PREFIX.parse::<RunPrefix>().expect("valid by hand"));
    let deployed = Deployed::new(deployment).map_err(RunError::Target)?;
    let look = async {
        let mut worst = Mark::Right;
        take(bounded("mqtt", mqtt::look(&deployed, own)).await, &mut worst, &mut tell);
        take(bounded("kafka", kafka::look(&deployed)).await, &mut worst, &mut tell);
        take(bounded("store", store::look(&deployed)).await, &mut worst, &mut tell);
        if worst < Mark::Wrong {
            take(bounded("way", mqtt::the_way(&deployed)).await, &mut worst, &mut tell);
        }
        worst
    };
    tokio::select! {
        worst = look => Ok(worst),
        () = interrupted => Err(RunError::Interrupted),
    }
}

fn take(findings: Vec<Finding>, worst: &mut Mark, tell: &mut impl FnMut(&Finding)) {
    for finding in findings {
        *worst = (*worst).max(finding.mark);
        tell(&finding);
    }
}

/// Whether a run finds what it cannot do without.
///
/// # Errors
/// The first thing that is wrong.
pub(super) async fn essentials(deployed: &Deployed) -> anyhow::Result<()> {
    let (mqtt, kafka, store) = tokio::join!(
        bounded("mqtt", mqtt::essentials(deployed)),
        bounded("kafka", kafka::essentials(deployed)),
        bounded("store", store::essentials(deployed)),
    );
    let mut found: Vec<_> = mqtt.into_iter().chain(kafka).chain(store).collect();
    if found.iter().all(|finding| finding.mark != Mark::Wrong) {
        found = bounded("way", mqtt::the_way(deployed)).await;
    }
    match found.into_iter().find(|finding| finding.mark == Mark::Wrong) {
        Some(finding) => Err(anyhow::anyhow!("{}: {}", finding.server, finding.text)),
        None => Ok(()),
    }
}

async fn bounded(server: &'static str, look: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    tokio::time::timeout(SERVER_WITHIN, look).await.unwrap_or_else(|_elapsed| {
        vec![wrong(server, format!("did not answer all that was asked within {SERVER_WITHIN:?}"))]
    })
}

/// The RAE that the doctor speaks as: the first of a run.
fn rae(deployed: &Deployed) -> Rae {
    let prefix = deployed.deployment.prefix.as_ref().expect("set before anything is looked at");
    Rae::try_from(prefix.serial("RAE-0000000").as_str()).expect("made of letters, digits and hyphens")
}

/// What it says: it is offline, of a boot so old that whatever it says in a run is newer, however wrong its clock.
fn presence() -> Presence {
    Presence { boot: Epoch::after(None, Wall(0)), connection: Seq::FIRST, state: PresenceState::Offline }
}

fn right(server: &'static str, text: impl Into<String>) -> Finding {
    Finding { mark: Mark::Right, server, text: text.into() }
}

fn unknown(server: &'static str, text: impl Into<String>) -> Finding {
    Finding { mark: Mark::Unknown, server, text: text.into() }
}

fn wrong(server: &'static str, text: impl Into<String>) -> Finding {
    Finding { mark: Mark::Wrong, server, text: text.into() }
}

/// An error with its causes, where the first does not repeat them.
fn words(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
