//! The database: whether it is reached, shows what a run is judged by, may be written where a registry is brought, and
//! what its clock says.

use std::time::Duration;

use dmp_core::{id::Rae, time::Wall};
use dmp_service::store::{Access, Database, Rights, Store as _, VIEW_COLUMNS, View};

use super::{Finding, right, unknown, words, wrong};
use crate::live::{clock, deployed::Deployed};

const SERVER: &str = "store";

/// A clock that is further off makes times of rows mean little beside those of the fleet; NTP keeps within some ms.
const CLOCK_OFF_AT_MOST: Duration = Duration::from_millis(500);

/// What a registry shows.
const VIEW: &str = "device_record";

/// What the reader of a run cannot do without.
pub(super) async fn essentials(deployed: &Deployed) -> Vec<Finding> {
    let deployment = &deployed.deployment;
    let url = match deployed.store().full_url() {
        Ok(url) => url,
        Err(error) => return vec![wrong(SERVER, words(&error.into()))],
    };
    if let Some(view) = &deployment.store.view {
        return vec![match View::open(&url, view).await {
            Ok(_) => right(SERVER, format!("{url} shows view {view} with {}", VIEW_COLUMNS.join(", "))),
            Err(error) => wrong(SERVER, words(&error.into())),
        }];
    }
    let access = if deployment.bring.registry { Access::Write } else { Access::Read };
    let database = match Database::open(&url, access).await {
        Ok(database) => database,
        Err(error) => return vec![wrong(SERVER, words(&error.into()))],
    };
    let mut found = vec![right(SERVER, format!("{url} answers"))];
    if deployment.bring.registry {
        found.push(may_write(&database).await);
    } else {
        found.push(match shown(&database).await {
            Ok(()) => right(SERVER, format!("view {VIEW}, and what a registry has read, may be read")),
            Err(error) => wrong(SERVER, format!("view {VIEW} cannot be read: {}", words(&error))),
        });
    }
    found
}

/// Everything.
pub(super) async fn look(deployed: &Deployed) -> Vec<Finding> {
    let mut found = essentials(deployed).await;
    let Ok(url) = deployed.store().full_url() else { return found };
    let Ok(database) = Database::open(&url, Access::Read).await else { return found };
    if !deployed.deployment.bring.registry && deployed.deployment.store.view.is_none() {
        found.extend(may_clean(&database).await);
    }
    let before = clock::wall();
    found.push(match database.now().await {
        Ok(None) => right(SERVER, "its clock is this machine's"),
        Ok(Some(now)) => offset(now, before, clock::wall()),
        Err(error) => unknown(SERVER, format!("its clock cannot be read: {}", words(&error.into()))),
    });
    found
}

/// Whether the store shows a RAE.
pub(super) async fn shows(deployed: &Deployed, rae: &Rae) -> anyhow::Result<bool> {
    let database = Database::open(&deployed.store().full_url()?, Access::Read).await?;
    Ok(database.presence().await?.contains_key(rae))
}

/// Reads as a run does, of nobody.
async fn shown(database: &Database) -> anyhow::Result<()> {
    database.records_of(&[]).await?;
    database.feeds().await?;
    database.presence().await?;
    Ok(())
}

/// A registry makes its tables where they are missing, and changes rows in all of them.
async fn may_write(database: &Database) -> Finding {
    let rights = match database.rights().await {
        Ok(Some(rights)) => rights,
        Ok(None) => return right(SERVER, "it may be written"),
        Err(error) => return unknown(SERVER, format!("rights cannot be asked for: {}", words(&error.into()))),
    };
    let lacks = |rights: &&Rights| match rights.there {
        true => !rights.let_write() || (rights.table == VIEW && !rights.read),
        false => !rights.make,
    };
    let lacking: Vec<_> = rights.iter().filter(lacks).collect();
    match lacking.first() {
        None => right(SERVER, "a registry may make, read and change its tables"),
        Some(first) => {
            let tables: Vec<_> = lacking.iter().map(|rights| rights.table.as_str()).collect();
            let right = match first.there {
                true => "more rights (those of `dmp-registry migrate --writer`, and to read the view)",
                false => "CREATE in its schema",
            };
            wrong(SERVER, format!("a registry needs {right} for {}", tables.join(", ")))
        }
    }
}

/// Whether rows of a run may be removed, which no run needs; `None` where that is not known before it is tried.
async fn may_clean(database: &Database) -> Option<Finding> {
    let may_not = |why: String| unknown(SERVER, format!("`fleetproof clean` cannot remove rows here: {why}"));
    let rights = match database.rights().await {
        Ok(rights) => rights?,
        Err(error) => return Some(may_not(words(&error.into()))),
    };
    let lacking = rights.iter().filter(|rights| rights.there && !rights.let_forget());
    let tables: Vec<_> = lacking.map(|rights| rights.table.as_str()).collect();
    Some(match tables.is_empty() {
        true => right(SERVER, "`fleetproof clean` may remove rows"),
        false => may_not(format!("it needs SELECT and DELETE for {}", tables.join(", "))),
    })
}

fn offset(now: Wall, before: Wall, after: Wall) -> Finding {
    // The middle of asking and answer: half a round trip is the error.
    let here = before.0 + (after.0 - before.0) / 2;
    let (off, unsure) = (now.0 - here, (after.0 - before.0) / 2);
    let text = format!("its clock is {off} ms from this machine's (within {unsure} ms)");
    let most = i64::try_from(CLOCK_OFF_AT_MOST.as_millis()).unwrap_or(i64::MAX);
    match off.abs() - unsure > most {
        true => wrong(SERVER, format!("{text}: let both follow the same time")),
        false => right(SERVER, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::doctor::Mark;

    #[test]
    fn a_clock_is_wrong_only_beyond_what_asking_leaves_unsure() {
        let mark = |now, before, after| offset(Wall(now), Wall(before), Wall(after)).mark;
        assert_eq!(mark(1_400, 1_000, 1_010), Mark::Right);
        assert_eq!(mark(1_600, 1_000, 1_010), Mark::Wrong);
        assert_eq!(mark(400, 1_000, 1_010), Mark::Wrong);
        assert_eq!(mark(1_600, 1_000, 1_400), Mark::Right, "the round trip took 400 ms");
    }
}
