//! The bridge: MQTT in, Kafka out.

use std::process::ExitCode;

fn main() -> ExitCode {
    dmp_service::cli::main("dmp-bridge", dmp_service::bridge::run)
}
