//! The hidden commands by which a run starts its own children.

use std::path::Path;

use super::{Exit, runtime};
use crate::{live, sabotage};

/// The names that `--sabotage` takes.
#[cfg(feature = "sabotage")]
pub(super) fn bug_names() -> Vec<&'static str> {
    dmp_core::sabotage::Bug::ALL.map(dmp_core::sabotage::Bug::name).to_vec()
}

/// A bridge or registry; its log goes to standard error, which the parent has turned into a file.
pub(super) fn child_process(config: &Path, bug: Option<&str>) -> Exit {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "info".into());
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr);
    // Else a log that cannot be written is told on standard error, which is the same file, and that panics.
    logging.log_internal_errors(false).init();
    let ended = sabotage::plant(bug).and_then(|()| runtime()?.block_on(live::child_process(config)));
    match ended {
        Ok(()) => Exit::Pass,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Invalid
        }
    }
}

/// Waits for the parent to go, then cleans up behind it.
pub(super) fn janitor(directory: &Path, containers: bool) -> Exit {
    live::janitor(directory, containers);
    Exit::Pass
}
