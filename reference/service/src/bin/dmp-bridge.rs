//! The bridge: MQTT in, Kafka out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dmp_service::cli::main(
        "dmp-bridge",
        "Stores every message of a fleet from MQTT in Kafka, and publishes commands from Kafka to MQTT.",
        dmp_service::bridge::run,
    )
}
