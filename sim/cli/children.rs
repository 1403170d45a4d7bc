//! The hidden commands by which a run starts its own children.

use std::path::Path;

use super::{Exit, runtime};
use crate::live;

/// The names that `--sabotage` takes.
#[cfg(feature = "sabotage")]
pub(super) fn bug_names() -> Vec<&'static str> {
    dmp_core::sabotage::Bug::ALL.map(dmp_core::sabotage::Bug::name).to_vec()
}

/// A bridge or registry; its log goes to standard error, which the parent has turned into a file.
pub(super) fn child_process(config: &Path, sabotage: Option<&str>) -> Exit {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "info".into());
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    // Else a log that cannot be written is told on standard error, which is the same file, and that panics.
    logging.log_internal_errors(false).init();
    let ended = plant(sabotage).and_then(|()| runtime()?.block_on(live::child_process(config)));
    match ended {
        Ok(()) => Exit::Pass,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Invalid
        }
    }
}

/// Waits for the parent to go, then cleans up behind it.
pub(super) fn janitor(directory: &Path) -> Exit {
    live::janitor(directory);
    Exit::Pass
}

#[cfg(feature = "sabotage")]
fn plant(sabotage: Option<&str>) -> anyhow::Result<()> {
    use anyhow::Context;
    use dmp_core::sabotage::{Bug, plant};
    if let Some(name) = sabotage {
        let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        plant(bug.with_context(|| format!("there is no planted bug {name}"))?);
    }
    Ok(())
}

#[cfg(not(feature = "sabotage"))]
fn plant(sabotage: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(sabotage.is_none(), "this build has no planted bugs: build with the cargo feature `sabotage`");
    Ok(())
}
