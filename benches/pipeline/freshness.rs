//! The whole pipeline under Netflix's rate, and one more device that changes when it is told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use dmp_service::{
    bridge,
    program::Running,
    registry::{self, Faults},
    store::{Access, Database, Store},
};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::{
    cpu::{Cpu, Run},
    events::{Keys, WATCHED, publication, state},
    program,
    registry::{REFLECTED, config, ends, group_at},
    servers::{NewDatabase, Servers},
    session::Session,
};

/// Messages a second.
const RATE: u64 = 900;

/// Messages that are sent at a time: every 10 ms.
const AT_ONCE: u64 = 9;

/// Time between two looks of the reader; what it sees is late by up to that much and a query.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Changes before the first that is timed.
const WARM_UP: u32 = 50;

/// Longest wait for a change to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// Bridge, registry, and messages on their way through both.
pub(crate) struct Flow {
    bridge: Running,
    registry: Running,
    database: NewDatabase,
    reader: Database,
    changes: mpsc::Sender<u64>,
    /// Seq of the newest change.
    changed: AtomicU64,
    sending: Arc<AtomicBool>,
    /// Ends in how many messages it has sent.
    sender: JoinHandle<u64>,
}

impl Flow {
    /// Starts both on an empty database; returns once changes come through as they will.
    pub(crate) async fn start(servers: &Servers) -> Flow {
        let database = servers.make_database().await;
        let config = config(servers, &database, group_at(servers, ends(servers).await).await);
        let store = database.open(Access::Write).await;
        let registry = registry::start(config, store, Faults::default()).await.expect("the registry starts");
        let config = bridge::Config::between(servers.mqtt.clone(), servers.kafka.clone());
        let bridge = bridge::start(config).await.expect("the bridge starts");
        for program in [&bridge, &registry] {
            program::works(program).await;
        }
        let (changes, asked) = mpsc::channel(1);
        let sending = Arc::new(AtomicBool::new(true));
        let session = Session::open(servers, &servers.name("flow"), Vec::new()).await;
        let sender = tokio::spawn(send(session, asked, sending.clone()));
        let reader = database.open(Access::Read).await;
        let changed = AtomicU64::new(0);
        let flow = Flow { bridge, registry, database, reader, changes, changed, sending, sender };
        for _ in 0..WARM_UP {
            flow.change().await;
        }
        flow
    }

    /// From a publish until a reader sees it.
    pub(crate) async fn change(&self) -> Run {
        let seq = self.changed.fetch_add(1, Ordering::Relaxed) + 1;
        let device = state(WATCHED, seq).device;
        let began = Instant::now();
        self.changes.send(seq).await.expect("the sender goes on");
        let seen = async {
            loop {
                let records = self.reader.records_of(&[device]).await.expect("PostgreSQL answers");
                let attributes = records.get(&device).into_iter().flat_map(|record| record.attributes.values());
                if attributes.map(|(_, version)| version.seq.get()).max() >= Some(seq) {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(SEEN_WITHIN, seen).await.expect("the change is seen");
        Run { items: 1, took: began.elapsed(), cpu: Cpu::default() }
    }

    /// Sends no more, and ends both once all that was sent is reflected.
    pub(crate) async fn stop(self, servers: &Servers) {
        self.sending.store(false, Ordering::Relaxed);
        let sent = self.sender.await.expect("the sender does not panic");
        program::reaches(&self.registry, REFLECTED, sent).await;
        program::stop(self.bridge).await;
        program::stop(self.registry).await;
        drop(self.reader);
        servers.remove_database(self.database).await;
    }
}

/// Publishes at the rate, and each change of the watched device when it is asked for.
async fn send(mut session: Session, mut asked: mpsc::Receiver<u64>, sending: Arc<AtomicBool>) -> u64 {
    // A tick that is missed comes late, and not never: the rate is kept.
    let mut ticks = tokio::time::interval(Duration::from_secs(AT_ONCE) / u32::try_from(RATE).expect("small"));
    let (mut number, mut changes) = (0, 0);
    while sending.load(Ordering::Relaxed) {
        tokio::select! {
            Some(seq) = asked.recv() => {
                session.publish(&publication(&state(WATCHED, seq)));
                changes += 1;
            }
            _ = ticks.tick() => {
                for _ in 0..AT_ONCE {
                    session.publish(&publication(&Keys::Mixed.event(number)));
                    number += 1;
                }
            }
            _acknowledged = session.next() => {}
        }
    }
    session.close().await;
    number + changes
}
