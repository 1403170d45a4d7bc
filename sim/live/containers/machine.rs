//! A container in mid-run: what is done to it, and whether its server answers.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bollard::{exec::StartExecOptions, models::ExecConfig, query_parameters::StopContainerOptionsBuilder};
use dmp_service::mqtt::Endpoint;

use super::{docker::Docker, kafka, mosquitto, store::Database};
use crate::live::stack::ServerOrder;

/// How long a server may take to end in order; then it is killed, which its fault did not ask for.
const END_WITHIN_S: i32 = 60;

/// More than a small disk has.
const MORE_THAN_THE_DISK_MIB: u32 = 64;

/// Longest wait for a server to answer that has been started.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);

/// Time between two questions.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// A server in its container.
#[derive(Clone)]
pub(super) struct Machine {
    pub(super) docker: Docker,
    pub(super) container: String,
    pub(super) server: Asked,
}

/// How a server is asked whether it is there.
#[derive(Clone)]
pub(super) enum Asked {
    Mosquitto(Endpoint),
    /// By its bootstrap address.
    Kafka(String),
    Database(Database),
}

impl Machine {
    pub(super) async fn carry_out(&self, order: ServerOrder) -> anyhow::Result<()> {
        self.done(order).await.with_context(|| format!("{order:?} to the container {}", self.container))
    }

    /// Waits until the server answers by its own protocol.
    pub(super) async fn answers(&self) -> anyhow::Result<()> {
        let answering = async {
            while let Err(error) = self.ask().await {
                tracing::debug!("the container {} does not answer yet: {error:#}", self.container);
                tokio::time::sleep(ASK_EVERY).await;
            }
        };
        let within = tokio::time::timeout(ANSWERS_WITHIN, answering).await;
        within.with_context(|| format!("the server did not answer within {ANSWERS_WITHIN:?} of its start"))
    }

    async fn ask(&self) -> anyhow::Result<()> {
        match &self.server {
            Asked::Mosquitto(endpoint) => mosquitto::ask(endpoint).await,
            Asked::Kafka(bootstrap) => kafka::ask(bootstrap).await,
            Asked::Database(database) => database.ask().await,
        }
    }

    async fn done(&self, order: ServerOrder) -> anyhow::Result<()> {
        let (engine, container) = (&self.docker.engine, &*self.container);
        match order {
            ServerOrder::Kill => engine.kill_container(container, None).await?,
            ServerOrder::End => {
                let within = StopContainerOptionsBuilder::default().t(END_WITHIN_S).build();
                engine.stop_container(container, Some(within)).await?;
            }
            ServerOrder::Start => {
                engine.start_container(container, None).await?;
                self.answers().await?;
            }
            ServerOrder::Pause => engine.pause_container(container).await?,
            ServerOrder::Resume => engine.unpause_container(container).await?,
            ServerOrder::FillDisk => {
                let (file, mib) = (mosquitto::FILL, MORE_THAN_THE_DISK_MIB);
                let code = self.run(&format!("dd if=/dev/zero of={file} bs=1048576 count={mib}")).await?;
                ensure!(code != 0, "the disk took {mib} MiB, and is not full");
            }
            ServerOrder::FreeDisk => {
                let code = self.run(&format!("rm {}", mosquitto::FILL)).await?;
                ensure!(code == 0, "what filled the disk could not be removed");
            }
        }
        Ok(())
    }

    /// Runs a command in the container; its exit code.
    async fn run(&self, command: &str) -> anyhow::Result<i64> {
        let engine = &self.docker.engine;
        let words = ["sh", "-c", command].map(str::to_owned).to_vec();
        let exec = engine.create_exec(&self.container, ExecConfig { cmd: Some(words), ..Default::default() }).await?;
        engine.start_exec(&exec.id, Some(StartExecOptions { detach: true, ..Default::default() })).await?;
        let ended = async {
            loop {
                let seen = engine.inspect_exec(&exec.id).await?;
                match seen.exit_code {
                    Some(code) if seen.running == Some(false) => return anyhow::Ok(code),
                    Some(_) | None => tokio::time::sleep(ASK_EVERY).await,
                }
            }
        };
        match tokio::time::timeout(ANSWERS_WITHIN, ended).await {
            Ok(code) => code,
            Err(_elapsed) => bail!("{command:?} did not end within {ANSWERS_WITHIN:?}"),
        }
    }
}
