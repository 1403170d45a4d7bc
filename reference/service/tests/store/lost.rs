//! What becomes of a write whose connection is lost on its way: before the server has it, in its transaction, in its
//! commit, and before the answer. A file has none of these; what a killed writer leaves in it is in [`crate::embedded`].

use std::sync::Arc;

use dmp_core::merge::Rows;
use dmp_service::store::{Access, Database, Store, WriteOutcome};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_postgres::config::Host;

use crate::{
    histories::{device, rows, snapshot, text, version},
    stage::{Arm, Stage, server_url, write},
};

/// The answer to COMMIT, and to nothing else (PostgreSQL, protocol message `CommandComplete`).
const COMMITTED: &[u8] = b"COMMIT\0";

/// Both ways in which a server may keep transactions apart; none where there is no server.
async fn stages(test: &str) -> Vec<Stage> {
    let mut stages = Vec::new();
    for arm in [Arm::ReadCommitted, Arm::Serializable] {
        stages.extend(Stage::set(arm, test).await);
    }
    stages
}

fn opened(seq: u64) -> Rows {
    rows(&[snapshot(device(1), version(1, 1, seq), &[("a", text("x"), seq)])], 0)
}

/// The seq of the stored floor.
async fn stored(stage: &Stage) -> Option<u64> {
    let states = stage.stored().await;
    Some(states.get(&device(1))?.floor.as_ref()?.version.seq.get())
}

/// Ends every connection of the stage that waits for a lock.
async fn terminate_who_waits(stage: &Stage) {
    stage.until_somebody_waits().await;
    let terminate = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = '{}' AND wait_event_type = 'Lock'",
        stage.schema()
    );
    stage.execute(&terminate).await;
}

#[tokio::test]
async fn a_write_that_is_ended_in_its_transaction_is_told_to_be_aborted_and_has_left_nothing() {
    for stage in stages("ended_in_transaction").await {
        let store = stage.migrated().await;
        write(&store, &opened(1)).await;
        let other = stage.hold("UPDATE device SET seen_at = 1").await;
        let second = opened(2);
        let (outcome, ()) = tokio::join!(store.write(&second), terminate_who_waits(&stage));
        assert!(matches!(&outcome, WriteOutcome::Aborted { reason } if reason.contains("57P01")), "{outcome:?}");
        other.commit().await;
        assert_eq!(stored(&stage).await, Some(1));
        write(&store, &opened(2)).await;
        assert_eq!(stored(&stage).await, Some(2));
    }
}

#[tokio::test]
async fn a_write_that_is_ended_in_its_commit_has_an_unknown_end_and_its_repetition_is_stored() {
    for stage in stages("ended_in_commit").await {
        let store = stage.migrated().await;
        // A commit that waits: for a lock that it asks for at its very end.
        let slow_commit = "CREATE TABLE gate (); \
            CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS \
              'BEGIN LOCK TABLE gate IN SHARE MODE; RETURN NULL; END'; \
            CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT OR UPDATE ON device \
              DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pass()";
        stage.execute(slow_commit).await;
        let gate = stage.hold("LOCK TABLE gate IN EXCLUSIVE MODE").await;
        let first = opened(1);
        let (outcome, ()) = tokio::join!(store.write(&first), terminate_who_waits(&stage));
        assert!(
            matches!(&outcome, WriteOutcome::Ambiguous { reason } if reason.contains("terminating connection")),
            "{outcome:?}"
        );
        gate.commit().await;
        assert_eq!(stored(&stage).await, None, "this time it was not done");
        write(&store, &opened(1)).await;
        assert_eq!(stored(&stage).await, Some(1));
    }
}

#[tokio::test]
async fn a_write_that_the_server_never_had_has_an_unknown_end_and_its_repetition_is_stored() {
    for stage in stages("never_had").await {
        let (wire, store) = behind_a_wire(&stage).await;
        write(&store, &opened(1)).await;
        wire.send_replace(Wire::LosesRequests);
        let outcome = store.write(&opened(2)).await;
        assert!(matches!(outcome, WriteOutcome::Ambiguous { .. }), "{outcome:?}");
        wire.send_replace(Wire::Passes);
        assert_eq!(stored(&stage).await, Some(1));
        write(&store, &opened(2)).await;
        assert_eq!(stored(&stage).await, Some(2));
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_has_an_unknown_end_and_its_repetition_changes_nothing() {
    for stage in stages("answer_lost").await {
        let (wire, store) = behind_a_wire(&stage).await;
        write(&store, &opened(1)).await;
        wire.send_replace(Wire::LosesCommits);
        let outcome = store.write(&opened(2)).await;
        assert!(matches!(outcome, WriteOutcome::Ambiguous { .. }), "{outcome:?}");
        wire.send_replace(Wire::Passes);
        let before = stage.stored().await;
        assert_eq!(stored(&stage).await, Some(2), "this time it was done");
        write(&store, &opened(2)).await;
        assert_eq!(stage.stored().await, before);
    }
}

#[tokio::test]
async fn a_store_whose_connections_were_all_ended_reads_and_writes_again() {
    for stage in stages("all_ended").await {
        let store = stage.migrated().await;
        write(&store, &opened(1)).await;
        let others = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = '{}' AND pid <> pg_backend_pid()",
            stage.schema()
        );
        stage.execute(&others).await;
        write(&store, &opened(2)).await;
        assert_eq!(store.records().await.unwrap()[&device(1)].floor.seq.get(), 2);
    }
}

/// What is between store and server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wire {
    Passes,
    /// A connection breaks at the next thing that the store says, and the server does not hear it.
    LosesRequests,
    /// The server hears everything; when it has committed, the connection breaks, and no answer has passed.
    LosesCommits,
}

/// The store of the stage, migrated, through a wire.
async fn behind_a_wire(stage: &Stage) -> (Arc<watch::Sender<Wire>>, Database) {
    let server: tokio_postgres::Config = server_url().expect("there is a stage").parse().unwrap();
    let Some(Host::Tcp(host)) = server.get_hosts().first() else { panic!("the URL names a host") };
    let address = format!("{host}:{}", server.get_ports().first().unwrap_or(&5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let wire = Arc::new(watch::Sender::new(Wire::Passes));
    let mode = wire.subscribe();
    let url = stage.url().replacen(&address, &here, 1);
    tokio::spawn(async move {
        while let Ok((store, _)) = listener.accept().await {
            // What ends a connection is the two sides' own affair.
            tokio::spawn(carry(store, address.clone(), mode.clone()));
        }
    });
    assert_ne!(url, stage.url(), "the URL names its host and port");
    let store = Database::open(&url.parse().unwrap(), Access::Write).await.unwrap();
    store.migrate(crate::stage::PERIOD).await.unwrap();
    (wire, store)
}

/// Carries both directions of a connection until one side ends, or the wire breaks it.
async fn carry(mut store: TcpStream, address: String, mode: watch::Receiver<Wire>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(address).await?;
    let (mut requests, mut answers) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut lost = Vec::new();
    let now = || *mode.borrow();
    loop {
        tokio::select! {
            bytes = store.read(&mut requests) => match (bytes?, now()) {
                (0, _) | (_, Wire::LosesRequests) => return Ok(()),
                (bytes, Wire::Passes | Wire::LosesCommits) => server.write_all(&requests[..bytes]).await?,
            },
            bytes = server.read(&mut answers) => match (bytes?, now()) {
                (0, _) => return Ok(()),
                (bytes, Wire::LosesCommits) => {
                    lost.extend_from_slice(&answers[..bytes]);
                    if lost.windows(COMMITTED.len()).any(|part| part == COMMITTED) {
                        return Ok(());
                    }
                }
                (bytes, Wire::Passes | Wire::LosesRequests) => store.write_all(&answers[..bytes]).await?,
            },
        }
    }
}
