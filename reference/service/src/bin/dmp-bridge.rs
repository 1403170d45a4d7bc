//! The bridge: MQTT in, Kafka out.

fn main() -> std::process::ExitCode {
    dmp_service::cli::bridge()
}
