//! The agent: one real RAE.

fn main() -> std::process::ExitCode {
    dmp_service::cli::agent()
}
