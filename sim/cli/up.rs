//! `fleetproof up`: the pipeline alone, for anybody's MQTT and Kafka clients.

use super::{Exit, UpArgs, chain, refused, run::print, runtime};
use crate::{
    live::{self, Endpoints},
    run::RunError,
    scenario::{Override, Scenario},
};

/// What `up` starts, less what `--set` says. Only the pipeline matters: nothing is driven here.
const SCENARIO: &str = "# What can be reached?
[[phase]]
name = \"up\"
lasts = \"1s\"
";

pub(super) fn up(args: &UpArgs) -> Exit {
    if let Some(unused) = unused(&args.overrides.set) {
        eprintln!(
            "error: --set {unused}: `up` starts a pipeline and drives no fleet: only keys of `pipeline` are used"
        );
        return Exit::Usage;
    }
    let scenario = match Scenario::from_text("up", SCENARIO, &args.overrides.set, None) {
        Ok(scenario) => scenario,
        Err(error) => return refused(&error),
    };
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_unset| "warn,rumqttd=off".into());
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Else a standard error that is gone, or full, is told on standard error, and that panics.
    logging.log_internal_errors(false).init();
    let ended = std::env::current_exe().map_err(|error| RunError::Harness(error.into())).and_then(|binary| {
        let runtime = runtime().map_err(|error| RunError::Harness(error.into()))?;
        runtime.block_on(live::up(scenario, binary, !args.servers_only, |endpoints| print(&shown(endpoints))))
    });
    match ended {
        Ok(()) => Exit::Pass,
        Err(error) => {
            eprintln!("error: {}", chain(&error));
            Exit::Invalid
        }
    }
}

/// The first override that would change nothing here.
pub(super) fn unused(overrides: &[Override]) -> Option<&Override> {
    overrides.iter().find(|one| !one.is_below("pipeline"))
}

fn shown(endpoints: &Endpoints) -> String {
    let Endpoints { mqtt, kafka, group, store, metrics, logs } = endpoints;
    let mut text =
        format!("MQTT broker   {mqtt}\nKafka broker  {kafka}\n  group       {group}\nstore         {store}\n");
    for (process, url) in metrics {
        text.push_str(&format!("{process:<12}  {url}\n"));
    }
    text.push_str(&format!("logs          {}\n", logs.display()));
    text.push_str("\nready; Ctrl-C ends it, and everything is gone\n");
    text
}
