//! The registry: Kafka in, rows out.

fn main() -> std::process::ExitCode {
    dmp_service::cli::registry()
}
