//! One server alone, outside of a run: for tests of what a pipeline relies on in it.
//!
//! A run's janitor does not know of it. What a test process that was killed has left behind is removed by the next one
//! that starts a server: the label names the process.

use std::path::Path;

use testcontainers::{ContainerAsync, GenericImage};
use tokio::runtime::Runtime;

use super::{
    docker::{self, Docker, DockerError},
    kafka,
    mosquitto::Mosquitto,
};

/// Begins the value of the label; the process id follows.
const OF_PROCESS: &str = "process-";

/// What to start.
#[derive(Debug, Clone)]
pub enum Product {
    /// Kafka, without topics.
    Kafka {
        /// The loopback port that clients are told to connect to: of something that stands before the broker.
        advertised_port: u16,
    },
    /// Mosquitto as for a run, and access lists (mosquitto.conf(5), `acl_file`).
    Mosquitto {
        /// The content of the file.
        access: String,
    },
}

/// Why no server was started.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// Here it cannot be: there is no Docker engine, or no image.
    #[error("no container can be started here")]
    Absent(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It did not come up.
    #[error("a server in a container did not come up")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A server in a container, on a loopback port; removed when it is dropped.
pub struct Alone {
    port: u16,
    /// Taken when dropped. The container's connection to the engine lives on this runtime.
    running: Option<(Runtime, ContainerAsync<GenericImage>)>,
}

impl Alone {
    /// Starts a server, and waits until it answers. Waits on a thread of its own: may be called from
    /// anywhere.
    ///
    /// # Errors
    /// See [`NotAlone`].
    pub fn start(product: Product) -> Result<Alone, NotAlone> {
        on_a_thread(move || {
            let runtime = Runtime::new().map_err(|error| NotAlone::Failed(error.into()))?;
            let (port, container) = runtime.block_on(started(product)).map_err(classified)?;
            Ok(Alone { port, running: Some((runtime, container)) })
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The loopback port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some((runtime, container)) = self.running.take()
            && let Err(error) = on_a_thread(move || runtime.block_on(container.rm()))
        {
            tracing::warn!(%error, "removing a container");
        }
    }
}

/// Neither starting nor dropping may block a runtime that the caller may be in.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn started(product: Product) -> anyhow::Result<(u16, ContainerAsync<GenericImage>)> {
    let docker = Docker::connect(format!("{OF_PROCESS}{}", std::process::id())).await?;
    docker::remove_where(|label| label.strip_prefix(OF_PROCESS).is_some_and(is_gone)).await;
    match product {
        Product::Kafka { advertised_port } => kafka::alone(&docker, advertised_port).await,
        Product::Mosquitto { access } => {
            let broker = Mosquitto::with_access(&docker, access).await?;
            Ok((broker.endpoint.port, broker.container))
        }
    }
}

fn is_gone(process: &str) -> bool {
    !Path::new("/proc").join(process).exists()
}

fn classified(error: anyhow::Error) -> NotAlone {
    match error.downcast_ref::<DockerError>() {
        Some(DockerError::NoEngine(_) | DockerError::Forbidden(_) | DockerError::NoImage { .. }) => {
            NotAlone::Absent(error.into())
        }
        Some(DockerError::NotStarted { .. }) | None => NotAlone::Failed(error.into()),
    }
}
