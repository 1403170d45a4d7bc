//! What only a server can do: be unreachable, refuse a user, break a connection in the middle of a transaction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dmp_service::store::{Access, Database, StoreError};
use rand::{SeedableRng, rngs::StdRng};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_postgres::config::Host;

use crate::{
    concurrency::{assert_true, write_in_parallel},
    histories::arrivals,
    stage::{Arm, Stage, raw_server, server_url},
};

async fn opened(url: &str) -> StoreError {
    Database::open(&url.parse().unwrap(), Access::Write).await.expect_err("nothing good is there")
}

/// `server` with its user, password, address or database replaced.
fn altered(server: &str, from: &str, to: &str) -> String {
    assert!(server.contains(from), "{from} is part of the URL");
    server.replacen(from, to, 1)
}

#[tokio::test]
async fn nobody_there_is_told_with_the_endpoint() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = opened(&format!("postgres://fleet:hunter2@127.0.0.1:{port}/dmp?sslmode=disable")).await;
    assert_eq!(error.to_string(), format!("cannot connect to 127.0.0.1:{port}"));
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_ca_file_that_is_missing_or_empty_is_told() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    for path in ["/nonexistent/ca.pem".to_owned(), empty.path().display().to_string()] {
        let error = opened(&format!("postgres://u@127.0.0.1:1/d?sslmode=verify-full&sslrootcert={path}")).await;
        assert!(matches!(error, StoreError::Certificates { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_user_and_a_missing_database_are_told_apart() {
    let Some(server) = server_url() else { return };
    let config: tokio_postgres::Config = server.parse().unwrap();
    if let Some(password) = config.get_password() {
        let password = String::from_utf8(password.to_vec()).unwrap();
        let error = opened(&altered(&server, &format!(":{password}@"), ":hunter2@")).await;
        assert!(matches!(&error, StoreError::Credentials { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    let database = config.get_dbname().expect("the URL names a database");
    let error = opened(&altered(&server, &format!("/{database}?"), "/no_such_database?")).await;
    assert!(matches!(&error, StoreError::Missing(words) if words.contains("no_such_database")), "{error:?}");
}

#[tokio::test]
async fn tls_that_is_required_of_a_server_without_it_is_told() {
    let Some(server) = server_url() else { return };
    let url = altered(&server, "sslmode=disable", "sslmode=require");
    assert!(matches!(opened(&url).await, StoreError::Unreachable { .. }));
}

#[tokio::test]
async fn tls_is_verified_by_chain_and_name_and_then_used() {
    let Some(server) = server_url() else { return };
    let config: tokio_postgres::Config = server.parse().unwrap();
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { panic!("the URL names a host") };
    let address = format!("{host}:{}", config.get_ports().first().unwrap_or(&5432));
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let pem = |name: &str, certificate: &rcgen::CertifiedKey<rcgen::KeyPair>| {
        let path = directory.path().join(name);
        std::fs::write(&path, certificate.cert.pem()).unwrap();
        path.display().to_string()
    };
    let (ours_pem, other_pem) = (pem("ours.pem", &ours), pem("other.pem", &other));
    let port = tls_in_front_of(address.clone(), &ours).await;
    let url = |host: &str, roots: &str| {
        let there = altered(&server, &address, &format!("{host}:{port}"));
        altered(&there, "sslmode=disable", &format!("sslmode=verify-full&sslrootcert={roots}"))
    };
    Database::open(&url("localhost", &ours_pem).parse().unwrap(), Access::Write).await.unwrap();
    for bad in [url("localhost", &other_pem), url("127.0.0.1", &ours_pem)] {
        let error = opened(&bad).await;
        assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    }
}

/// Speaks PostgreSQL's way into TLS on a port of its own, and passes on what is inside to `server`.
async fn tls_in_front_of(server: String, identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                // SSLRequest: its length, 8, and its code.
                let mut request = [0; 8];
                client.read_exact(&mut request).await?;
                assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
                client.write_all(b"S").await?;
                let mut inside = acceptor.accept(client).await?;
                let mut server = TcpStream::connect(server).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut server).await
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_in_the_middle_of_writes_lose_and_refuse_nothing() {
    let test = "connections_killed";
    let Some(stage) = Stage::set(Arm::ReadCommitted, test).await else { return };
    let store = stage.migrated().await;
    let (events, truth) = arrivals(&mut StdRng::seed_from_u64(3), 200);
    let done = Arc::new(AtomicBool::new(false));
    let killing = {
        let (done, killer) = (Arc::clone(&done), raw_server(&server_url().unwrap()).await);
        tokio::spawn(async move {
            // One at a time: whichever is inside a transaction or waits for its next statement.
            let kill = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'r_{test}' ORDER BY random() LIMIT 1"
            );
            let mut killed = 0;
            while !done.load(Ordering::Relaxed) {
                killed += killer.query(&kill, &[]).await.unwrap().len();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            killed
        })
    };
    let tally = write_in_parallel(&stage, &events, 3).await;
    done.store(true, Ordering::Relaxed);
    let killed = killing.await.unwrap();
    println!("{killed} killed, {} aborted, {} ambiguous", tally.aborted.len(), tally.ambiguous.len());
    assert!(tally.aborted.len() + tally.ambiguous.len() > 0, "of {killed} kills none was felt");
    drop(store);
    assert_true(&stage.open().await, &truth, 3).await;
}
