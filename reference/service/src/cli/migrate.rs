//! `dmp-registry migrate`: makes the schema and gives roles their rights on it, as its owner, so that the registry that
//! serves need not be able to change it.

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;

use super::complain;
use crate::{
    config,
    program::chain,
    registry::{Config, open_store},
    store::{Database, Role, Store},
};

/// Make the store's schema, and give roles their rights on it.
///
/// To be run as the owner of the schema, for example with DMP_REGISTRY_STORE__URL and DMP_REGISTRY_STORE_PASSWORD set. Safe
/// to be run again. Exit codes: 0 done, 1 not done, 2 wrong configuration.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Configuration of the registry; its section `store` and its `snapshot_period` are used.
    config: PathBuf,
    /// Role that gets exactly what the registry needs: to read, write and clean up rows.
    #[arg(long, value_name = "ROLE")]
    writer: Option<String>,
    /// Role that gets exactly what a reader needs: to read the view `device_record`.
    #[arg(long, value_name = "ROLE")]
    reader: Option<String>,
}

/// Runs the subcommand.
pub(super) fn main(name: &str, arguments: &Arguments) -> ExitCode {
    let config: Config = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(&format!("{name} migrate"), &chain(&error));
            return ExitCode::from(2);
        }
    };
    match super::on_runtime(migrate(&config, arguments)) {
        Ok(done) => {
            let _unheard = writeln!(std::io::stdout(), "{name} migrate: {done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{name} migrate"), &chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn migrate(config: &Config, arguments: &Arguments) -> anyhow::Result<String> {
    let store = open_store(config).await?;
    store.migrate(config.snapshot_period).await.context("making the schema")?;
    let mut done = "the schema is there".to_owned();
    for (role, named) in [(Role::Writer, &arguments.writer), (Role::Reader, &arguments.reader)] {
        let Some(named) = named else { continue };
        let Database::Server(server) = &store else {
            bail!("a store in a file has no roles: whoever may open it may all")
        };
        server.grant(role, named).await.with_context(|| format!("giving rights to the role {named}"))?;
        done.push_str(match role {
            Role::Writer => ", its rows can be written by ",
            Role::Reader => ", its view can be read by ",
        });
        done.push_str(named);
    }
    Ok(done)
}
