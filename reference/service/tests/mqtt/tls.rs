//! TLS: who trusts whom, and what is said where they do not.

use std::{path::PathBuf, sync::Arc};

use bytes::BytesMut;
use dmp_service::mqtt::{ClientIdentity, Closed, ConnectError, Dialer, Endpoint, Incoming, TlsError, TlsSettings};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, PingResp};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::peer::{connecting, event, listen, options, words};

/// An authority with a server's and a client's certificate, as files.
struct Lab {
    directory: tempfile::TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Lab {
    fn new() -> Lab {
        let mut params = CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let lab = Lab { directory: tempfile::tempdir().expect("a directory"), authority };
        std::fs::write(lab.path("ca.pem"), lab.authority.pem()).expect("written");
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes `<name>.pem` and `<name>.key`, for this host name.
    fn issue(&self, name: &str, host: &str) -> ClientIdentity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![host.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let identity =
            ClientIdentity { certificate: self.path(&format!("{name}.pem")), key: self.path(&format!("{name}.key")) };
        std::fs::write(&identity.certificate, certificate.pem()).expect("written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("written");
        identity
    }

    fn trusting(&self) -> TlsSettings {
        TlsSettings { authorities: Some(self.path("ca.pem")), ..TlsSettings::default() }
    }

    /// A server that asks for a client certificate of this authority if `strict`.
    fn acceptor(&self, host: &str, strict: bool) -> TlsAcceptor {
        let identity = self.issue("server", host);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der().to_vec())).expect("an authority");
        let builder = builder.expect("protocol versions");
        let builder = match strict {
            true => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().expect("a verifier"),
            ),
            false => builder.with_no_client_auth(),
        };
        let chain = vec![CertificateDer::from_pem_file(&identity.certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(&identity.key).expect("a key");
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).expect("they belong together")))
    }
}

/// Accepts one connection and greets it; quietly ends where the handshake fails.
async fn greet(listener: TcpListener, acceptor: TlsAcceptor) {
    let (tcp, _) = listener.accept().await.expect("a connection");
    let Ok(mut stream) = acceptor.accept(tcp).await else { return };
    let mut bytes = BytesMut::new();
    let _connect = stream.read_buf(&mut bytes).await;
    bytes.clear();
    ConnAck::new(ConnectReturnCode::Success, false).write(&mut bytes).expect("a packet");
    PingResp.write(&mut bytes).expect("a packet");
    let _sent = stream.write_all(&bytes).await;
    let _flushed = stream.flush().await;
    let _until_the_client_ends = stream.read_buf(&mut bytes).await;
}

async fn outcome(listener: TcpListener, acceptor: TlsAcceptor, endpoint: Endpoint, tls: &TlsSettings) -> Incoming {
    let serving = tokio::spawn(greet(listener, acceptor));
    let mut client = connecting(Dialer::new(endpoint, tls).expect("good settings"), options());
    let event = event(&mut client).await;
    drop(client);
    serving.await.expect("the server does not panic");
    event
}

async fn listen_tls(host: &str) -> (TcpListener, Endpoint) {
    let (listener, endpoint) = listen().await;
    (listener, Endpoint { host: host.into(), tls: true, ..endpoint })
}

#[tokio::test]
async fn a_broker_of_a_trusted_authority_is_connected_to() {
    let lab = Lab::new();
    for host in ["localhost", "127.0.0.1"] {
        let (listener, endpoint) = listen_tls("127.0.0.1").await;
        let endpoint = Endpoint { host: host.into(), ..endpoint };
        let event = outcome(listener, lab.acceptor(host, false), endpoint, &lab.trusting()).await;
        assert!(matches!(event, Incoming::Connected { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_broker_whose_certificate_is_for_another_name_is_connected_to_where_that_name_is_given() {
    let lab = Lab::new();
    let (listener, endpoint) = listen_tls("127.0.0.1").await;
    let named = TlsSettings { server_name: Some("broker.example".into()), ..lab.trusting() };
    let event = outcome(listener, lab.acceptor("broker.example", false), endpoint, &named).await;
    assert!(matches!(event, Incoming::Connected { .. }), "{event:?}");
}

#[tokio::test]
async fn a_client_shows_its_certificate_and_is_refused_without() {
    let lab = Lab::new();
    let identity = Some(lab.issue("client", "RAE-1"));
    let (listener, endpoint) = listen_tls("127.0.0.1").await;
    let shown = TlsSettings { identity, ..lab.trusting() };
    let event = outcome(listener, lab.acceptor("127.0.0.1", true), endpoint, &shown).await;
    assert!(matches!(event, Incoming::Connected { .. }), "{event:?}");

    let (listener, endpoint) = listen_tls("127.0.0.1").await;
    let event = outcome(listener, lab.acceptor("127.0.0.1", true), endpoint, &lab.trusting()).await;
    let Incoming::Closed(Closed::NotMade(error)) = event else { panic!("{event:?}") };
    assert!(matches!(*error, ConnectError::Tls { .. }), "{}", words(&error));
}

#[tokio::test]
async fn an_unknown_authority_a_wrong_name_and_a_peer_without_tls_are_refused() {
    let (lab, stranger) = (Lab::new(), Lab::new());
    for (acceptor, tls) in [
        (lab.acceptor("127.0.0.1", false), stranger.trusting()),
        (lab.acceptor("127.0.0.1", false), TlsSettings::default()),
        (lab.acceptor("broker.example", false), lab.trusting()),
    ] {
        let (listener, endpoint) = listen_tls("127.0.0.1").await;
        let event = outcome(listener, acceptor, endpoint, &tls).await;
        let Incoming::Closed(Closed::NotMade(error)) = event else { panic!("{event:?}") };
        assert!(matches!(*error, ConnectError::Tls { .. }), "{}", words(&error));
        assert!(words(&error).contains("certificate"), "{}", words(&error));
    }
    let (listener, endpoint) = listen_tls("127.0.0.1").await;
    let plain = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("a connection");
        tcp.write_all(&[0x20, 2, 0, 0, 0xd0, 0, 0xd0, 0]).await.expect("written");
        let _until_the_client_ends = tcp.read_buf(&mut BytesMut::new()).await;
    });
    let mut client = connecting(Dialer::new(endpoint, &lab.trusting()).expect("good settings"), options());
    let event = event(&mut client).await;
    plain.await.expect("no panic");
    let Incoming::Closed(Closed::NotMade(error)) = event else { panic!("{event:?}") };
    assert!(matches!(*error, ConnectError::Tls { .. }), "{}", words(&error));
}

#[test]
fn settings_of_no_use_are_refused_before_connecting_and_name_the_file() {
    let lab = Lab::new();
    let (first, second) = (lab.issue("first", "a"), lab.issue("second", "b"));
    std::fs::write(lab.path("empty.pem"), "nothing here").expect("written");
    let refused = |authorities: &str, identity: Option<ClientIdentity>| {
        let endpoint = Endpoint { host: "localhost".into(), port: 8883, tls: true };
        let tls = TlsSettings { authorities: Some(lab.path(authorities)), identity, server_name: None };
        let error = Dialer::new(endpoint, &tls).expect_err("settings of no use");
        let ConnectError::TlsSettings { source, .. } = &error else { panic!("{error:?}") };
        (TlsError::clone(source), words(&error))
    };
    let (error, text) = refused("missing.pem", None);
    assert!(matches!(error, TlsError::File { .. }) && text.contains("missing.pem"), "{text}");
    let (error, text) = refused("empty.pem", None);
    assert!(matches!(error, TlsError::Empty { .. }) && text.contains("empty.pem"), "{text}");
    let (error, text) = refused("ca.pem", Some(ClientIdentity { key: lab.path("empty.pem"), ..first.clone() }));
    assert!(matches!(error, TlsError::Empty { what: "private key", .. }), "{text}");
    let (error, text) = refused("ca.pem", Some(ClientIdentity { key: second.key, ..first }));
    assert!(matches!(error, TlsError::Unusable { .. }) && text.contains("first.pem"), "{text}");
    let endpoint = Endpoint { host: "not a host".into(), port: 8883, tls: true };
    let error = Dialer::new(endpoint, &lab.trusting()).expect_err("no host");
    assert!(words(&error).contains("not a host"), "{}", words(&error));
}
