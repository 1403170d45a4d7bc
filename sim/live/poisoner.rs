//! Sends poison messages over a connection of its own, spread over the time that the fault lasts.

use std::{sync::Arc, time::Duration};

use dmp_core::core::{ConnectionId, PacketId, Publication, Qos};
use dmp_service::mqtt::{Client, ConnectOptions, Incoming};
use rand::RngExt;

use super::{
    access::{Access, Entrance},
    clock,
    journal::Journal,
};
use crate::{
    faults::poison,
    fleet::plan::{Plan, RaeIndex},
    history::{PayloadHash, What},
    random::stream,
    scenario::PoisonKind,
};

/// Longest wait for the connection, and for each acknowledgement.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One poison fault.
pub(super) struct Poisoner {
    pub(super) seed: u64,
    pub(super) fault: usize,
    pub(super) kind: PoisonKind,
    pub(super) messages: u32,
    pub(super) lasts: Duration,
    pub(super) plan: Arc<Plan>,
    pub(super) access: Arc<Access>,
    pub(super) journal: Journal,
}

impl Poisoner {
    /// Sends all messages, each acknowledged before the next.
    ///
    /// # Errors
    /// If the broker does not take them.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut rng = stream(self.seed, "poison speaker", self.fault as u64);
        let speaker = RaeIndex(rng.random_range(0..self.plan.raes.len()) as u32);
        let Entrance { dialer, credentials } = self.access.of(speaker).clone();
        let mut client = Client::new(dialer);
        let connection = ConnectionId(1);
        let client_id = format!("fleetproof-poison-{}", self.fault).into();
        let keep_alive = Duration::from_secs(60);
        client.connect(
            connection,
            ConnectOptions { client_id, clean_session: true, keep_alive, will: None, credentials },
        );
        expect(&mut client, |incoming| matches!(incoming, Incoming::Connected { .. })).await?;
        let mut rng = stream(self.seed, "poisoned raes", self.fault as u64);
        let began = tokio::time::Instant::now();
        let pace = self.lasts / self.messages.max(1);
        for number in 0..self.messages {
            let until = began + pace * number;
            // The connection answers pings only while it is polled.
            while let Ok((_, incoming)) = tokio::time::timeout_at(until, client.next()).await {
                anyhow::ensure!(!matches!(incoming, Incoming::Closed(_)), "the broker closed the poison connection");
            }
            // Where each RAE is let in for itself alone, all poison is one RAE's.
            let drawn = rng.random_range(0..self.plan.raes.len());
            let rae = if self.access.individual() { speaker.0 as usize } else { drawn };
            let rae = &self.plan.raes[rae].serial;
            let poison = poison(self.seed, self.fault, number, self.kind, rae, clock::wall());
            let packet = PacketId(1 + (number % 60_000) as u16);
            let (topic, payload) = (Arc::<str>::from(poison.topic), PayloadHash::of(&poison.payload));
            let message = Publication {
                topic: topic.clone(),
                payload: poison.payload.into(),
                qos: Qos::AtLeastOnce,
                retain: false,
            };
            client.publish(connection, Some(packet), false, &message);
            expect(&mut client, |incoming| matches!(incoming, Incoming::Acknowledged(acked) if *acked == packet))
                .await?;
            self.journal.enter(What::PoisonSent { fault: self.fault, topic, payload }).await;
        }
        client.disconnect(connection);
        expect(&mut client, |incoming| matches!(incoming, Incoming::Closed(_))).await
    }
}

async fn expect(client: &mut Client, wanted: impl Fn(&Incoming) -> bool) -> anyhow::Result<()> {
    loop {
        let (_, incoming) = tokio::time::timeout(ANSWER_WITHIN, client.next()).await?;
        if wanted(&incoming) {
            return Ok(());
        }
        if let Incoming::Closed(reason) = incoming {
            return Err(anyhow::Error::new(reason).context("sending poison"));
        }
    }
}
