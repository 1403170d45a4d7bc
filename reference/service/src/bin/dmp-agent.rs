//! The agent: one real RAE.

use std::process::ExitCode;

fn main() -> ExitCode {
    dmp_service::cli::main("dmp-agent", dmp_service::agent::run)
}
