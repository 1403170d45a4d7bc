//! Planted bugs in this process: the children's own, and, since the agents of the fleet live here, the harness's.

/// Plants the bug of that name, where one is named.
///
/// # Errors
/// If there is no such bug, or this build has none.
#[cfg(feature = "sabotage")]
pub(crate) fn plant(name: Option<&str>) -> anyhow::Result<()> {
    use anyhow::Context;
    use dmp_core::sabotage::{Bug, plant};
    if let Some(name) = name {
        let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
        plant(bug.with_context(|| format!("there is no planted bug {name}"))?);
    }
    Ok(())
}

/// Refuses to plant anything: this build has no bugs to plant.
///
/// # Errors
/// If a bug is named.
#[cfg(not(feature = "sabotage"))]
pub(crate) fn plant(name: Option<&str>) -> anyhow::Result<()> {
    anyhow::ensure!(name.is_none(), "this build has no planted bugs: build with the cargo feature `sabotage`");
    Ok(())
}

/// How often the planted bug has acted in this process.
pub(crate) fn hits() -> u64 {
    #[cfg(feature = "sabotage")]
    return dmp_core::sabotage::hits();
    #[cfg(not(feature = "sabotage"))]
    0
}
