//! The `fleetproof` program: see [`fleetproof::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    fleetproof::cli::main()
}
