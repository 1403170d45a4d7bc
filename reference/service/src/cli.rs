//! What the three binaries share: arguments, logs, the runtime and the exit code.
//!
//! Standard output carries one line, the endpoints; logs go to standard error. Exit codes: 0 ended as told, 1 could not
//! start or go on, 2 wrong usage or configuration. The registry can also send a command by hand ([`command`]), and prepare
//! its store for others ([`migrate`]).

use std::{future::Future, io::Write, path::PathBuf, pin::Pin, process::ExitCode};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;

use crate::{
    agent, bridge,
    config::{self, Checked},
    program::{chain, signals},
    registry,
};

mod command;
mod migrate;

// What its `--help` says of it first is each program's own ([`main`]).
#[derive(Debug, Parser)]
struct Serving {
    #[command(flatten)]
    arguments: Arguments,
}

/// Reads the feed of a fleet from Kafka, keeps the state of every device in a SQL store, and tells RAEs what they missed.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Registry {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    instead: Option<Instead>,
}

/// What the registry can do instead of serving.
#[derive(Debug, Subcommand)]
enum Instead {
    Command(command::Arguments),
    Migrate(migrate::Arguments),
}

#[derive(Debug, Args)]
struct Arguments {
    /// Configuration file (TOML); environment variables come before it, see the example.
    #[arg(required = true)]
    config: Option<PathBuf>,
    /// Only say whether the configuration is right.
    #[arg(long)]
    check: bool,
    /// Form of the logs.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "DMP_LOG_FORMAT")]
    log_format: LogFormat,
    /// What to log, for example `info` or `dmp_service=debug,warn`.
    #[arg(long, default_value = "info", env = "DMP_LOG")]
    log: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Told when the process has to end.
type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The whole of `dmp-agent`.
///
/// Like the two below it is compiled here, once, with all that a program is: a binary that polled a program itself would
/// compile it anew.
#[must_use]
pub fn agent() -> ExitCode {
    let about = "Keeps the records of the devices on one RAE, and publishes their changes and snapshots to MQTT.";
    main("dmp-agent", about, agent::run)
}

/// The whole of `dmp-bridge`.
#[must_use]
pub fn bridge() -> ExitCode {
    let about = "Stores every message of a fleet from MQTT in Kafka, and publishes commands from Kafka to MQTT.";
    main("dmp-bridge", about, bridge::run)
}

/// The whole of `dmp-registry`: the program, or what it can do instead of serving.
#[must_use]
pub fn registry() -> ExitCode {
    let name = "dmp-registry";
    let Registry { arguments, instead } = Registry::parse();
    match instead {
        Some(Instead::Command(wanted)) => command::main(name, &wanted),
        Some(Instead::Migrate(wanted)) => migrate::main(name, &wanted),
        None => run(name, &arguments, async |config: registry::Config, shutdown| {
            let store = registry::open_store(&config).await?;
            registry::run(config, store, registry::Faults::default(), shutdown).await
        }),
    }
}

/// Runs a program whose `--help` begins with `about`.
fn main<C, F>(name: &str, about: &'static str, program: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: DeserializeOwned + Checked,
    F: Future<Output = anyhow::Result<()>>,
{
    let matches = Serving::command().about(about).get_matches();
    match Serving::from_arg_matches(&matches) {
        Ok(Serving { arguments }) => run(name, &arguments, program),
        Err(error) => error.exit(),
    }
}

fn run<C, F>(name: &str, arguments: &Arguments, program: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: DeserializeOwned + Checked,
    F: Future<Output = anyhow::Result<()>>,
{
    if let Err(reason) = log_to_stderr(arguments) {
        complain(name, &reason);
        return ExitCode::from(2);
    }
    let Some(file) = &arguments.config else {
        complain(name, "no configuration is named");
        return ExitCode::from(2);
    };
    let config: C = match config::load(file) {
        Ok(config) => config,
        Err(error) => {
            complain(name, &chain(&error));
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("{name}: {} is right", file.display());
        return ExitCode::SUCCESS;
    }
    match on_runtime(async { program(config, Box::pin(signals()?)).await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(name, &chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    // What still blocks, for example a client that waits for a broker that is gone, is not waited for.
    runtime.shutdown_background();
    ended
}

/// One line on standard error; where that takes nothing, the exit code has to say it, and `eprintln!` would panic.
fn complain(name: &str, reason: &str) {
    let _unheard = writeln!(std::io::stderr(), "{name}: {reason}");
}

fn log_to_stderr(arguments: &Arguments) -> Result<(), String> {
    let filter = EnvFilter::try_new(&arguments.log).map_err(|error| format!("--log {:?}: {error}", arguments.log))?;
    // Else a log that cannot be written, on a full disk, is told on standard error, which is where it goes: that panics.
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false).with_writer(std::io::stderr);
    match arguments.log_format {
        LogFormat::Text => logs.with_ansi(false).try_init(),
        LogFormat::Json => logs.json().try_init(),
    }
    .map_err(|error| error.to_string())
}
