//! `fleetproof run`: a scenario and options in, a verdict, a summary and a file out.

use std::{fs::File, io, path::Path, sync::Mutex};

use super::{Exit, On, Product, RunArgs, chain, runtime, scenario};
use crate::{
    check::verdict::Verdict,
    fleet::RunPrefix,
    report::{self, ProgressLine, Terminal},
    run::{RunError, RunOptions, RunOutcome, Target},
    scenario::Scenario,
};

/// What the harness itself logs, unless `RUST_LOG` says otherwise: the embedded broker tells every disconnect as an error.
const LOG_FILTER: &str = "info,rumqttd=off";

pub(super) fn run(args: &RunArgs) -> Exit {
    let mut target = match args.target() {
        Ok(target) => target,
        Err(exit) => return exit,
    };
    let scenario = match scenario(&args.file, &args.overrides.set, args.seed) {
        Ok(scenario) => scenario,
        Err(exit) => return exit,
    };
    named(&mut target, args.quiet);
    let options = match options(args, target, &scenario) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            return of_error(&error);
        }
    };
    let out = options.out.clone();
    let mut progress = ProgressLine::stderr(args.quiet);
    let ended = match runtime() {
        Ok(runtime) => runtime.block_on(crate::live::run(scenario, options, |at| progress.show(at))),
        Err(error) => Err(RunError::Harness(error.into())),
    };
    progress.clear();
    match ended {
        Ok(outcome) => told(&outcome, &out, args.quiet),
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            let exit = of_error(&error);
            if exit == Exit::Usage {
                // A run that was refused has no log worth keeping.
                report::discard(&out);
            }
            exit
        }
    }
}

/// Gives a run on servers that are not its own its prefix, and says it before anything is left there by it.
fn named(target: &mut Target, quiet: bool) {
    let Target::Deployed(deployment) = target else { return };
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let prefix = deployment.prefix.get_or_insert_with(|| RunPrefix::of_time(now));
    if !quiet {
        let name = &deployment.name;
        eprintln!("run {prefix} on {name}; `fleetproof clean --on {name} --run {prefix}` shows what it leaves there");
    }
}

/// Writes the result, prints the summary, and gives the verdict's exit code.
fn told(outcome: &RunOutcome, out: &Path, quiet: bool) -> Exit {
    let terminal = Terminal::stdout();
    let (path, written) = match report::write(out, outcome) {
        Ok(path) => (path, Ok(())),
        Err(error) => (out.join("result.json"), Err(error)),
    };
    let text = match quiet && outcome.verdict == Verdict::Pass {
        true => report::brief(outcome, &path, terminal),
        false => report::summary(outcome, &path, terminal),
    };
    print(&text);
    match (written, outcome.verdict) {
        (Err(error), _) => {
            eprintln!("error: writing {}: {error}", path.display());
            Exit::Invalid
        }
        (Ok(()), Verdict::Pass) => Exit::Pass,
        (Ok(()), Verdict::Fail) => Exit::Fail,
        (Ok(()), Verdict::Invalid) => Exit::Invalid,
    }
}

fn of_error(error: &RunError) -> Exit {
    match error {
        RunError::Feature { .. }
        | RunError::Unsupported { .. }
        | RunError::Refused(_)
        | RunError::OpenFiles { .. }
        | RunError::Output { .. } => Exit::Usage,
        RunError::NoRoom { .. }
        | RunError::Target(_)
        | RunError::Interrupted
        | RunError::Harness(_)
        | RunError::LeftBehind { .. } => Exit::Invalid,
    }
}

fn options(args: &RunArgs, target: Target, scenario: &Scenario) -> Result<RunOptions, RunError> {
    // Before the directory of the run is made: a refused run leaves none.
    crate::live::room_for(&args.out)?;
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        |source| RunError::Output { path, source }
    };
    let out = report::directory(&args.out, &scenario.name, scenario.seed, jiff::Timestamp::now())
        .map_err(unwritable(&args.out))?;
    log_to(&out.join("harness.log")).map_err(unwritable(&out))?;
    let binary = std::env::current_exe().map_err(|error| RunError::Harness(error.into()))?;
    let sabotage = args.sabotage().map(str::to_owned);
    Ok(RunOptions { target, out, binary: Some(binary), sabotage, reproduce: reproduce(args, scenario.seed) })
}

/// The command line that asks the same again, the seed named: as it was typed, so that it works from the same directory.
pub(super) fn reproduce(args: &RunArgs, seed: u64) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "fleetproof".to_owned());
    let mut words =
        vec![program, "run".to_owned(), args.file.display().to_string(), "--seed".to_owned(), seed.to_string()];
    for set in &args.overrides.set {
        words.extend(["--set".to_owned(), set.to_string().replacen(" = ", "=", 1)]);
    }
    match &args.on {
        On::Embedded => {}
        On::Containers => words.extend(["--on".to_owned(), "containers".to_owned()]),
        On::File(file) => words.extend(["--on".to_owned(), file.display().to_string()]),
    }
    let store = args.store.map(|store| match store {
        Product::Postgres => "postgres",
        Product::Cockroach => "cockroach",
    });
    words.extend(store.into_iter().flat_map(|store| ["--store".to_owned(), store.to_owned()]));
    words.extend(args.sabotage().into_iter().flat_map(|bug| ["--sabotage".to_owned(), bug.to_owned()]));
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The log of the harness goes to a file beside the result: standard error belongs to the progress line.
fn log_to(path: &Path) -> io::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| LOG_FILTER.into());
    let file = Mutex::new(File::create(path)?);
    // A line that does not fit on a full disk is not worth a line on standard error each.
    let logging =
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).log_internal_errors(false).with_writer(file);
    // Only a second logger in one process is refused, which happens in tests.
    let _set_already = logging.try_init();
    Ok(())
}

/// Prints to standard output; a reader that has gone away, such as `head`, is no error.
pub(super) fn print(text: &str) {
    use io::Write;
    let _closed_pipe = io::stdout().lock().write_all(text.as_bytes());
}
