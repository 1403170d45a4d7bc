//! What the operating system lets this process have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{run::RunError, scenario::Scenario};

/// Open files besides those of the fleet: logs of the brokers, store, children, observers.
const BESIDES: u64 = 500;

/// Raises the limit of open files as far as this process may, and sees whether the fleet fits: fleet and broker are in
/// one process, so each connection takes two.
///
/// # Errors
/// [`RunError::OpenFiles`] if it does not fit.
pub(super) fn allow_open_files(scenario: &Scenario) -> Result<(), RunError> {
    let canaries = scenario.phases.iter().filter_map(|phase| phase.canary.as_ref());
    let clients = u64::from(scenario.fleet.raes) + canaries.map(|canary| u64::from(canary.clients)).sum::<u64>();
    let needed = 2 * clients + BESIDES;
    let limit = |error: nix::Error| RunError::Harness(anyhow::Error::new(error).context("the limit of open files"));
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(limit)?;
    if hard < needed {
        return Err(RunError::OpenFiles { needed, limit: hard });
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(limit)?;
    }
    Ok(())
}
