//! The registry: Kafka in, rows out.

use std::process::ExitCode;

use dmp_service::registry::{Config, Faults, open_store, run};

fn main() -> ExitCode {
    dmp_service::cli::registry_main("dmp-registry", async |config: Config, shutdown| {
        let store = open_store(&config).await?;
        run(config, store, Faults::default(), shutdown).await
    })
}
