//! The agent: one real RAE.

use std::process::ExitCode;

fn main() -> ExitCode {
    dmp_service::cli::main(
        "dmp-agent",
        "Keeps the records of the devices on one RAE, and publishes their changes and snapshots to MQTT.",
        dmp_service::agent::run,
    )
}
