//! Removes from somebody's servers what a run has left there: the rows and the retained messages of its prefix, and the
//! sessions of bridges that were brought. Nothing that another serial made is ever touched.
//!
//! What is in Kafka's log stays there until its retention takes it: nobody removes single records from a log.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use dmp_core::{event::Topic, id::Rae};
use dmp_service::store::{Access, Database, Known, Traces};

use super::{
    access::entrance,
    deployed::{Deployed, bridge_prefix},
    peer::{Peer, nothing_retained},
};
use crate::{fleet::RunPrefix, run::RunError, target::Deployment};

/// Retained messages come at once behind a subscription: when none has come for so long, all have.
const QUIET: Duration = Duration::from_secs(1);

/// Longest wait for all of them, however many there are.
const ALL_WITHIN: Duration = Duration::from_secs(60);

/// Presence of every RAE.
pub(super) const EVERY_STATUS: &str = "dmp/v1/+/+/status";

/// What a run has left.
#[derive(Debug)]
pub struct Leavings {
    deployed: Deployed,
    prefix: RunPrefix,
    /// RAEs and devices of which something is stored; `None` where the tables are not the reference's.
    stored: Option<(Known, Traces)>,
    /// RAEs with a retained status, or, where the broker does not show them all, those that may have one.
    retained: BTreeSet<Rae>,
    /// Whether the broker has shown them.
    seen: bool,
}

impl Leavings {
    /// Looks for what the run with this prefix has left, and changes nothing.
    ///
    /// # Errors
    /// [`RunError::Target`] where a server does not let this client look.
    pub async fn of(deployment: Deployment, prefix: RunPrefix) -> Result<Leavings, RunError> {
        Leavings::found(deployment, prefix).await.map_err(RunError::Target)
    }

    /// What there is to remove, a line each.
    #[must_use]
    pub fn shown(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.stored {
            Some((known, traces)) => lines.push(format!(
                "store: {} RAEs, {} devices with {} attributes and {} sessions{}",
                traces.raes,
                traces.devices,
                traces.attributes,
                traces.sessions,
                known.raes.first().map_or_else(String::new, |first| format!(", from {first} on")),
            )),
            None => {
                lines.push("store: its tables are not the reference's, so that its rows are for its owner".to_owned())
            }
        }
        let most = if self.seen { "" } else { "at most " };
        lines.push(format!("mqtt: {most}{} retained messages", self.retained.len()));
        if self.deployed.deployment.bring.bridge {
            lines.push(format!(
                "mqtt: sessions of bridges called {}-*, where there are any",
                bridge_prefix(Some(&self.prefix))
            ));
        }
        lines
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.retained.is_empty() && self.stored.as_ref().is_none_or(|(_, traces)| traces.is_empty())
    }

    /// Removes it. Returns what was removed, a line each.
    ///
    /// # Errors
    /// [`RunError::Target`]; what was removed until then stays removed, and the rest is found by the next look.
    pub async fn remove(self) -> Result<Vec<String>, RunError> {
        self.removed().await.map_err(RunError::Target)
    }

    async fn found(mut deployment: Deployment, prefix: RunPrefix) -> anyhow::Result<Leavings> {
        deployment.prefix = Some(prefix.clone());
        let deployed = Deployed::new(deployment)?;
        let stored = match deployed.deployment.store.view {
            Some(_) => None,
            None => {
                let database = open(&deployed, Access::Read).await?;
                let known = database.known(&prefix.serial(""), |serial| prefix.made(serial)).await?;
                let traces = database.traces(&known).await?;
                Some((known, traces))
            }
        };
        let shown = retained(&deployed, &prefix).await.context("looking for retained messages")?;
        let seen = !shown.is_empty();
        let mut retained = shown;
        if let Some((known, _)) = stored.as_ref().filter(|_| !seen) {
            // A broker may hide from a client what it may not read, without a word.
            retained.extend(known.raes.iter().cloned());
        }
        Ok(Leavings { deployed, prefix, stored, retained, seen })
    }

    async fn removed(self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        // Messages first: a registry would store a status that is replayed to it again.
        forget_retained(&self.deployed, &self.retained).await.context("removing retained messages")?;
        lines.push(format!("mqtt: {} retained messages removed", self.retained.len()));
        if self.deployed.deployment.bring.bridge {
            drop_sessions(&self.deployed).await.context("removing the sessions of bridges")?;
            lines.push("mqtt: no session of a bridge of this run is left".to_owned());
        }
        if let Some((known, _)) = &self.stored {
            let Traces { raes, devices, attributes, sessions } =
                open(&self.deployed, Access::Write).await?.forget(known).await.context("removing rows")?;
            lines.push(format!(
                "store: {raes} RAEs, {devices} devices with {attributes} attributes and {sessions} sessions removed"
            ));
        }
        Ok(lines)
    }
}

async fn open(deployed: &Deployed, access: Access) -> anyhow::Result<Database> {
    Database::open(&deployed.store().full_url()?, access).await.context("opening the store")
}

/// The RAEs of the run with a retained status, as far as the broker shows them.
async fn retained(deployed: &Deployed, prefix: &RunPrefix) -> anyhow::Result<BTreeSet<Rae>> {
    let client_id = format!("{}-clean", bridge_prefix(Some(prefix)));
    let mut peer = Peer::connect(&entrance(&deployed.deployment, None)?, &client_id).await?;
    peer.subscribe(vec![EVERY_STATUS.to_owned()]).await?;
    let mut raes = BTreeSet::new();
    let deadline = tokio::time::Instant::now() + ALL_WITHIN;
    while let Some(message) = peer.message(QUIET).await? {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "messages did not end within {ALL_WITHIN:?}");
        if message.retain
            && let Ok(Topic::Status(rae)) = message.topic.parse()
            && prefix.made(rae.as_str())
        {
            raes.insert(rae);
        }
    }
    peer.leave().await?;
    Ok(raes)
}

async fn forget_retained(deployed: &Deployed, raes: &BTreeSet<Rae>) -> anyhow::Result<()> {
    let credentials = &deployed.deployment.mqtt.rae;
    let mut all: Option<Peer> = None;
    for rae in raes {
        let nothing = nothing_retained(&Topic::Status(rae.clone()).to_string());
        let peer = match &mut all {
            Some(peer) if !credentials.individual() => peer,
            peer => {
                if let Some(done) = peer.take() {
                    done.leave().await?;
                }
                let entrance = entrance(&deployed.deployment, Some(rae.as_str()))?;
                peer.insert(Peer::connect(&entrance, rae.as_str()).await?)
            }
        };
        peer.publish(&nothing).await.with_context(|| format!("of {rae}"))?;
    }
    match all {
        Some(peer) => peer.leave().await,
        None => Ok(()),
    }
}

/// Ends the sessions that bridges of the run may have left: a broker keeps messages for them without an end.
pub(super) async fn drop_sessions(deployed: &Deployed) -> anyhow::Result<()> {
    let prefix = deployed.bridge_prefix();
    let groups = [1, 2, 4, 8, 16].into_iter().flat_map(|groups| (0..groups).map(move |group| (group, groups)));
    let entrance = entrance(&deployed.deployment, None)?;
    for (group, groups) in groups {
        let client_id = format!("{prefix}-{group}of{groups}");
        Peer::connect(&entrance, &client_id).await?.leave().await?;
    }
    Ok(())
}
