//! What every program is to its caller: started, with an address; told to stop; waited for.

use std::{future::Future, net::SocketAddr};

use tokio::{sync::watch, task::JoinHandle};

use crate::mqtt::ConnectError;

/// A program that runs in this process.
///
/// Dropping it tells the program to stop and does not wait.
#[derive(Debug)]
pub struct Running {
    http: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Runs `program` as a task; it is handed the signal on which it has to drain and end.
    pub fn spawn<F>(http: SocketAddr, program: impl FnOnce(Stop) -> F) -> Running
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        Running { http, stop, task: tokio::spawn(program(Stop(stopped))) }
    }

    /// Where `/healthz`, `/readyz` and `/metrics` are.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Tells the program to drain and end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    /// Why it ended, where it was not told to; a panic among them.
    pub async fn wait(&mut self) -> anyhow::Result<()> {
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(panic) => Err(anyhow::Error::new(panic).context("program panicked")),
        }
    }

    /// Runs until `shutdown` ends, then drains; or until the program ends by itself.
    ///
    /// # Errors
    /// Why it ended, where it was not told to.
    pub async fn until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            ended = self.wait() => return ended,
            () = shutdown => self.stop(),
        }
        self.wait().await
    }
}

/// The signal on which a program has to drain and end.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits for it; an owner that is gone says it too.
    pub async fn wait(&mut self) {
        let _owner_gone = self.0.wait_for(|stop| *stop).await;
    }
}

/// The two events of a core's life that its driver makes: that it starts, and that it has to stop; each once.
#[derive(Debug)]
pub(crate) struct Life {
    stop: Stop,
    started: bool,
    stopping: bool,
}

impl Life {
    pub(crate) fn new(stop: Stop) -> Life {
        Life { stop, started: false, stopping: false }
    }

    /// Whether it starts now: the first time that this is asked.
    pub(crate) fn starts(&mut self) -> bool {
        !std::mem::replace(&mut self.started, true)
    }

    /// Waits until it has to stop; for ever once that was said. Cancel safe.
    pub(crate) async fn stops(&mut self) {
        if self.stopping {
            std::future::pending::<()>().await;
        }
        self.stop.wait().await;
        self.stopping = true;
    }
}

/// Ends at SIGTERM or SIGINT.
///
/// # Errors
/// If the process cannot listen to signals.
pub fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => tracing::info!("told to stop by SIGTERM"),
            _ = int.recv() => tracing::info!("told to stop by SIGINT"),
        }
    })
}

/// An error and its causes in one line, each cause once: several libraries repeat theirs in their own text.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}

/// Whether trying again cannot help unless a human changes something.
pub(crate) fn never_heals(error: &ConnectError) -> bool {
    match error {
        ConnectError::TlsSettings { .. } | ConnectError::BadCredentials { .. } | ConnectError::Options { .. } => true,
        ConnectError::Unreachable { .. }
        | ConnectError::Refused { .. }
        | ConnectError::Tls { .. }
        | ConnectError::ClosedEarly { .. }
        | ConnectError::Broken { .. }
        | ConnectError::Protocol { .. }
        | ConnectError::Timeout { .. } => false,
    }
}
