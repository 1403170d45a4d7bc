//! TLS for MQTT: rustls with ring; authorities from a file or the built-in web roots, and a client certificate.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// TLS settings of a client; the default trusts the built-in web roots and shows no certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the authorities to trust instead of the built-in web roots.
    pub authorities: Option<PathBuf>,
    /// Certificate to show to the broker.
    pub identity: Option<ClientIdentity>,
    /// Name that the broker's certificate must hold instead of the endpoint's host.
    pub server_name: Option<String>,
}

/// A client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentity {
    /// PEM file of the certificate chain, own certificate first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// Why TLS settings are of no use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        source: Arc<pem::Error>,
    },
    /// A PEM file without what it should hold.
    #[error("{} holds no {what}", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// Its path.
        path: PathBuf,
    },
    /// rustls refuses a certificate or key, or they do not belong together.
    #[error("{what} of {} cannot be used", path.display())]
    Unusable {
        /// What it holds.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What went wrong.
        source: rustls::Error,
    },
    /// The host, or the name given instead, is neither a DNS name nor an IP address.
    #[error("{name:?} is neither a host name nor an IP address, so no certificate can be for it")]
    ServerName {
        /// The name.
        name: String,
    },
    /// rustls could not be set up.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

impl TlsSettings {
    /// Reads the files once, for all connections.
    pub(super) fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(self.roots()?);
        let config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates("client certificate", &identity.certificate)?;
                let key = PrivateKeyDer::from_pem_file(&identity.key)
                    .map_err(|error| unreadable("private key", &identity.key, error))?;
                builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Unusable {
                    what: "client certificate and key",
                    path: identity.certificate.clone(),
                    source,
                })?
            }
        };
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let Some(path) = &self.authorities else {
            return Ok(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authority", path)? {
            let unusable = |source| TlsError::Unusable { what: "authority", path: path.clone(), source };
            roots.add(certificate).map_err(unusable)?;
        }
        Ok(roots)
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>());
    let certificates = read.map_err(|error| unreadable(what, path, error))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { what, path: path.to_owned() });
    }
    Ok(certificates)
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    match error {
        pem::Error::NoItemsFound => TlsError::Empty { what, path: path.to_owned() },
        source => TlsError::File { what, path: path.to_owned(), source: Arc::new(source) },
    }
}
