//! Health and metrics over HTTP: `/healthz` (the process answers), `/readyz` (all its parts work), `/metrics`.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::metrics::Metrics;

/// Which parts of a program work.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, bool>>>);

/// One part of it.
#[derive(Debug, Clone)]
pub struct Part {
    health: Health,
    name: String,
}

impl Health {
    /// A part that does not work yet.
    pub fn part(&self, name: impl Into<String>) -> Part {
        let part = Part { health: self.clone(), name: name.into() };
        part.set(false);
        part
    }

    /// The parts that do not work.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, works)| !**works).map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// Whether it works now.
    pub fn set(&self, works: bool) {
        self.health.lock().insert(self.name.clone(), works);
    }
}

/// The endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves health and metrics.
///
/// # Errors
/// If it cannot listen there.
pub async fn serve(listen: SocketAddr, health: Health, metrics: Metrics) -> anyhow::Result<Endpoint> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(async |State((_, metrics)): State<(Health, Metrics)>| rendered(&metrics)))
        .with_state((health, metrics));
    serve_router(listen, router).await.with_context(|| format!("listening for health and metrics on {listen}"))
}

/// Serves any router.
pub(crate) async fn serve_router(listen: SocketAddr, router: Router) -> std::io::Result<Endpoint> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, %address, "http endpoint ended");
        }
    });
    Ok(Endpoint { address, task })
}

/// All series; where a bug can be planted, also how often it has acted, which the core counts by itself.
fn rendered(metrics: &Metrics) -> String {
    #[cfg(feature = "sabotage")]
    metrics
        .gauge("dmp_sabotage_hits", "How often the planted bug has acted in this process.", &[])
        .set(i64::try_from(dmp_core::sabotage::hits()).unwrap_or(i64::MAX));
    metrics.render()
}

async fn ready(State((health, _)): State<(Health, Metrics)>) -> impl IntoResponse {
    let missing = health.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", ")))
    }
}
