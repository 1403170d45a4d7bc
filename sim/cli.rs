//! The command line: what can be asked, and with which exit code it is answered.
//!
//! Nothing is decided here: arguments become a scenario and options, the live driver carries them out, the report shows
//! what came of it.

mod catalogue;
mod children;
mod clean;
mod doctor;
mod list;
mod run;
mod up;
mod validate;

#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    fleet::RunPrefix,
    run::{StoreProduct, Target},
    scenario::{Override, Scenario, ScenarioError, parse::Problems},
    target::{Deployment, TargetError},
};

/// How the program ended, for whoever called it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The run passed, or what was asked is done.
    Pass,
    /// The run failed: the summary names the check and its witness.
    Fail,
    /// Wrong arguments or a wrong scenario; nothing was run.
    Usage,
    /// Nothing can be said: the run is invalid, was interrupted, or could not be carried out.
    Invalid,
}

impl Exit {
    /// The exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Pass => 0,
            Exit::Fail => 1,
            Exit::Usage => 2,
            Exit::Invalid => 3,
        }
    }
}

const AFTER_HELP: &str = "\
Examples:
  fleetproof run scenarios/quick.toml                   one run, below a minute
  fleetproof run scenarios/quick.toml --seed 8          the same question, another fleet and other moments
  fleetproof run scenarios/quick.toml --set fleet.raes=500 --set phase.burst.rate=12
  fleetproof run scenarios/quick.toml --on containers   the same question to Mosquitto, Kafka and PostgreSQL
  fleetproof run scenarios/quick.toml --on staging.toml the same question to servers of your own
  fleetproof validate scenarios/*.toml                  only read them, and name every mistake
  fleetproof list                                       the shipped scenarios and what they ask
  fleetproof checks                                     what a run is held against
  fleetproof doctor --on staging.toml                   whether servers of your own are as a run needs them
  fleetproof clean --on staging.toml --run LAB1 --yes   removes what a run has left there
  fleetproof up                                         brokers, store, bridge and registry for your own clients

Exit codes:
  0  PASS: every check that the target can observe held
  1  FAIL: a check did not hold; the summary names a witness and the command line that shows it again
  2  wrong arguments or a wrong scenario; nothing was run
  3  INVALID: nothing can be said of the pipeline, because the harness or its surroundings fell short, a check saw
     nothing, or the run was interrupted";

/// Proves that the cloud state of a device fleet converges: drives a simulated fleet through MQTT, Kafka and SQL, breaks
/// things on the way, and judges what it saw.
#[derive(Debug, Parser)]
#[command(name = "fleetproof", version, after_help = AFTER_HELP, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario and judge it.
    ///
    /// Brokers, store, bridge and registry are started on loopback with ports chosen by the system, and are gone when the
    /// run is. Progress goes to standard error, the summary to standard output, everything to result.json.
    #[command(after_help = AFTER_HELP)]
    Run(RunArgs),
    /// Read scenarios, and name every mistake with file, line and key.
    Validate {
        /// Scenario files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Start the pipeline alone and print its endpoints; it stays until Ctrl-C.
    ///
    /// Point any MQTT client at the broker and any Kafka client at the log.
    Up(UpArgs),
    /// Look whether servers of your own are as a run needs them.
    ///
    /// Each endpoint, credential, right, clock and topic setting is a line; exit code 1 if one is wrong.
    Doctor {
        /// The file that names them.
        #[arg(long, value_name = "TARGET.toml")]
        on: PathBuf,
    },
    /// Remove from servers of your own what a run has left there; shows it first.
    Clean(CleanArgs),
    /// Print the checks: what each promises, and how it counts.
    Checks,
    /// List scenarios with the question that each asks.
    List {
        /// The directory of the scenario files.
        #[arg(default_value = "scenarios", value_name = "DIR")]
        directory: PathBuf,
        /// Only those that this target can run: some break servers that must be in containers.
        #[arg(long, value_enum, value_name = "TARGET")]
        on: Option<On>,
    },
    /// A bridge or registry of a run.
    #[command(hide = true)]
    ChildProcess {
        config: PathBuf,
        #[arg(long)]
        sabotage: Option<String>,
    },
    /// Cleans up behind a run that was killed.
    #[command(hide = true)]
    Janitor {
        directory: PathBuf,
        #[arg(long)]
        containers: bool,
    },
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The scenario file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to run it: `embedded` starts everything that it needs by itself, `containers` wants a Docker engine, and a
    /// file such as staging.toml names servers of your own.
    #[arg(long, default_value = "embedded", value_name = "TARGET")]
    on: On,
    /// The database, on containers [default: postgres].
    #[arg(long, value_enum, value_name = "DATABASE")]
    store: Option<Product>,
    /// Take this seed in place of the file's: other devices, other values, other moments, the same question.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    overrides: Overrides,
    /// Put results below this directory: DIR/<scenario>/<time>-<seed>/result.json.
    #[arg(long, default_value = "reports", value_name = "DIR")]
    out: PathBuf,
    /// Show no progress, and one line in place of the summary if the run passes.
    #[arg(long, short)]
    quiet: bool,
    /// Plant this bug, to see whether a check finds it.
    #[cfg(feature = "sabotage")]
    #[arg(long, value_name = "NAME", value_parser = children::bug_names())]
    sabotage: Option<String>,
}

impl RunArgs {
    #[cfg(feature = "sabotage")]
    fn sabotage(&self) -> Option<&str> {
        self.sabotage.as_deref()
    }

    #[cfg(not(feature = "sabotage"))]
    fn sabotage(&self) -> Option<&str> {
        None
    }
}

#[derive(Debug, Args)]
struct CleanArgs {
    /// The file that names them.
    #[arg(long, value_name = "TARGET.toml")]
    on: PathBuf,
    /// The prefix of the run, as its summary names it.
    #[arg(long, value_name = "PREFIX")]
    run: RunPrefix,
    /// Remove it, and not only show it.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct UpArgs {
    /// Start brokers and store alone, without bridge and registry.
    #[arg(long)]
    servers_only: bool,
    #[command(flatten)]
    overrides: Overrides,
}

#[derive(Debug, Args)]
struct Overrides {
    /// Take this value in place of the file's, as often as needed; KEY is dotted, phases go by name or number.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<Override>,
}

/// Where to run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum On {
    /// MQTT broker, Kafka-protocol broker and SQLite inside this process.
    Embedded,
    /// Mosquitto, Kafka and a database in containers of their own, removed at the end.
    Containers,
    /// Servers that this file names.
    File(PathBuf),
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<On, String> {
        match text {
            "embedded" => Ok(On::Embedded),
            "containers" => Ok(On::Containers),
            file if file.ends_with(".toml") => Ok(On::File(file.into())),
            _ => Err("a target is `embedded`, `containers`, or a file that ends in .toml".to_owned()),
        }
    }
}

/// A database in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Product {
    Postgres,
    Cockroach,
}

impl RunArgs {
    /// Where to run, or what is wrong with it, said on standard error.
    fn target(&self) -> Result<Target, Exit> {
        match (&self.on, self.store) {
            (On::Containers, None | Some(Product::Postgres)) => Ok(Target::Containers(StoreProduct::Postgres)),
            (On::Containers, Some(Product::Cockroach)) => Ok(Target::Containers(StoreProduct::Cockroach)),
            (On::Embedded | On::File(_), Some(_)) => {
                eprintln!("error: --store goes with --on containers: another target has its own store");
                Err(Exit::Usage)
            }
            (On::Embedded, None) => Ok(Target::Embedded),
            (On::File(file), None) => Ok(Target::Deployed(Box::new(deployment(file)?))),
        }
    }
}

/// The whole program: reads the command line, does it, and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let exit = match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => {
            // Help and version come as errors too, with exit code 0; clap's own code for a wrong usage is 2.
            let _closed_pipe = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage.code()));
        }
    };
    ExitCode::from(exit.code())
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Validate { files } => validate::validate(&files),
        Command::Up(args) => up::up(&args),
        Command::Doctor { on } => doctor::doctor(&on),
        Command::Clean(args) => clean::clean(&args),
        Command::Checks => catalogue::print(),
        Command::List { directory, on } => list::list(&directory, on),
        Command::ChildProcess { config, sabotage } => children::child_process(&config, sabotage.as_deref()),
        Command::Janitor { directory, containers } => children::janitor(&directory, containers),
    }
}

/// Reads a scenario, or says on standard error what is wrong with it.
fn scenario(path: &Path, overrides: &[Override], seed: Option<u64>) -> Result<Scenario, Exit> {
    Scenario::from_file(path, overrides, seed).map_err(|error| refused(&error))
}

fn refused(error: &ScenarioError) -> Exit {
    match error {
        ScenarioError::Invalid(problems) => mistakes("scenario", problems),
        ScenarioError::Read { .. } => eprintln!("error: {}", chain(error)),
    }
    Exit::Usage
}

/// Reads a target's file, or says on standard error what is wrong with it.
fn deployment(path: &Path) -> Result<Deployment, Exit> {
    Deployment::from_file(path).map_err(|error| {
        match &error {
            TargetError::Invalid(problems) => mistakes("target", problems),
            TargetError::Read { .. } => eprintln!("error: {}", chain(&error)),
        }
        Exit::Usage
    })
}

fn mistakes(of: &str, problems: &Problems) {
    let (count, s) = (problems.0.len(), if problems.0.len() == 1 { "" } else { "s" });
    eprintln!("{problems}\n\nerror: the {of} has {count} mistake{s}");
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The runtime of a command: the fleet, the proxy and the readers share its threads.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
