//! The thread on which the history becomes checks and figures, entry by entry.

use std::{sync::Arc, thread::JoinHandle};

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use crate::{
    check::{Checks, Observable, Progress as ChecksProgress, verdict::CheckResult},
    fleet::plan::Plan,
    history::Entry,
    observe::{Figures, FiguresFold, Snapshot},
    scenario::Scenario,
};

/// Entries taken before progress is told again.
const TELL_EVERY: usize = 2_000;

/// How far checks and figures are.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    pub(super) checks: ChecksProgress,
    pub(super) figures: Snapshot,
}

/// The judge of one run.
pub(super) struct Judge {
    thread: JoinHandle<(Vec<CheckResult>, Figures)>,
    standing: watch::Receiver<Standing>,
}

impl Judge {
    /// Takes `entries` until all journals are gone.
    pub(super) fn start(
        scenario: Arc<Scenario>,
        plan: Arc<Plan>,
        observable: Observable,
        entries: mpsc::Receiver<Entry>,
    ) -> anyhow::Result<Judge> {
        let (tell, standing) = watch::channel(Standing::default());
        let checks = Checks::new(scenario.clone(), plan.clone(), observable);
        let figures = FiguresFold::new(scenario, plan);
        let thread = std::thread::Builder::new()
            .name("judge".into())
            .spawn(move || judge(checks, figures, entries, &tell))
            .context("starting the thread of the judge")?;
        Ok(Judge { thread, standing })
    }

    /// Follows the standing as it changes.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits for the last entry, and takes the results. All journals must be gone, else this waits for ever.
    pub(super) async fn finish(self) -> anyhow::Result<(Vec<CheckResult>, Figures)> {
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        joined.map_err(|_panic| anyhow::anyhow!("a check panicked: its message is above"))
    }
}

fn judge(
    mut checks: Checks,
    mut figures: FiguresFold,
    mut entries: mpsc::Receiver<Entry>,
    tell: &watch::Sender<Standing>,
) -> (Vec<CheckResult>, Figures) {
    let mut buffer = Vec::with_capacity(TELL_EVERY);
    while entries.blocking_recv_many(&mut buffer, TELL_EVERY) > 0 {
        for entry in buffer.drain(..) {
            checks.observe(&entry);
            figures.observe(&entry);
        }
        tell.send_replace(Standing { checks: checks.progress(), figures: figures.snapshot() });
    }
    let mut figures = figures.finish();
    (checks.finish(&mut figures), figures)
}
