//! Connections: bounds, session settings, TLS.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{
    ServerUrl, StoreError,
    url::{Roots, Tls},
};

/// Most connections of one process: a writer for each of 12 partitions, clean-up, and readers.
const CONNECTIONS: usize = 16;

/// Longest wait for a free connection, and for a new one.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Sent data that nobody acknowledges for this long ends a connection.
const UNACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(15);

/// A silent connection is probed after this.
const PROBE_AFTER: Duration = Duration::from_secs(10);

/// A query whose future was dropped goes on at the server: this ends it. And a process that was paused within a
/// transaction must not hold its locks for long.
const SESSION: &str = "-c statement_timeout=15000 -c idle_in_transaction_session_timeout=10000";

pub(super) fn pool(url: &ServerUrl) -> Result<Pool, StoreError> {
    let mut config = (*url.config).clone();
    // What the URL sets comes last, and wins.
    let options = [SESSION, config.get_options().unwrap_or_default()].join(" ");
    config
        .options(options.trim_end())
        .connect_timeout(CONNECT_WITHIN)
        .tcp_user_timeout(UNACKNOWLEDGED_WITHIN)
        .keepalives_idle(PROBE_AFTER);
    if config.get_application_name().is_none() {
        config.application_name("dmp");
    }
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &url.tls {
        Tls::Never => Manager::from_config(config, NoTls, recycling),
        Tls::Offered(roots) | Tls::Required(roots) => Manager::from_config(config, tls(roots)?, recycling),
    };
    let within = Some(CONNECT_WITHIN);
    Pool::builder(manager)
        .max_size(CONNECTIONS)
        .timeouts(Timeouts { wait: within, create: within, recycle: within })
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Failed(format!("cannot build a pool: {error}")))
}

fn tls(roots: &Roots) -> Result<MakeRustlsConnect, StoreError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Public => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::File(path) => {
            let refused = |cause: Box<dyn std::error::Error + Send + Sync>| StoreError::Certificates {
                path: path.display().to_string(),
                cause,
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(error.into()))? {
                let certificate = certificate.map_err(|error| refused(error.into()))?;
                store.add(certificate).map_err(|error| refused(error.into()))?;
            }
            if store.is_empty() {
                return Err(refused("it holds no certificate".into()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StoreError::Failed(format!("cannot set up TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}
