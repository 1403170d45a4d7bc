//! What the three binaries share: arguments, logs, the runtime and the exit code.
//!
//! Standard output carries one line, the endpoints; logs go to standard error. Exit codes: 0 ended as told, 1 could not
//! start or go on, 2 wrong usage or configuration.

use std::{future::Future, io::Write, path::PathBuf, pin::Pin, process::ExitCode};

use clap::{Parser, ValueEnum};
use serde::de::DeserializeOwned;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{self, Checked},
    program::{chain, signals},
};

/// Arguments of a program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Configuration file (TOML); environment variables come before it, see the example.
    config: PathBuf,
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
pub type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a program: the whole of a binary's `main`.
pub fn main<C, F>(name: &str, program: impl FnOnce(C, Shutdown) -> F) -> ExitCode
where
    C: DeserializeOwned + Checked,
    F: Future<Output = anyhow::Result<()>>,
{
    let arguments = Arguments::parse();
    if let Err(reason) = log_to_stderr(&arguments) {
        complain(name, &reason);
        return ExitCode::from(2);
    }
    let config: C = match config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => {
            complain(name, &chain(&error));
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("{name}: {} is right", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    match serve(config, program) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(name, &chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn serve<C, F>(config: C, program: impl FnOnce(C, Shutdown) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async { program(config, Box::pin(signals()?)).await });
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
