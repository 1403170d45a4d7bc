//! A backlog of messages: through the bridge, and to a subscriber that does nothing with them.
//!
//! The first tenth is not timed: there connections are made, and windows fill.

use dmp_core::{core::Publication, event::subscriptions};
use dmp_service::{bridge, mqtt::Incoming};

use crate::{
    cpu::{Run, Stopwatch},
    program::{counter, reaches, stop},
    servers::Servers,
    session::Session,
};

const RECEIVED: &str = "dmp_bridge_messages_total";
const FORWARDED: &str = "dmp_bridge_forwarded_total";

/// Runs a bridge until each message is stored in Kafka and acknowledged.
pub(crate) async fn forward(servers: &Servers, messages: &[Publication]) -> Run {
    let config = bridge::Config::between(servers.mqtt.clone(), servers.kafka.clone());
    let client_id = config.shards.client_id(0);
    pile_up(servers, &client_id, messages).await;
    let all = messages.len() as u64;
    let bridge = bridge::start(config).await.expect("the bridge starts");
    reaches(&bridge, RECEIVED, all / 10).await;
    let stopwatch = Stopwatch::start();
    let before = counter(&bridge, RECEIVED).await;
    reaches(&bridge, FORWARDED, all).await;
    let run = stopwatch.stop(all - before);
    stop(bridge).await;
    Session::forget(servers, &client_id).await;
    run
}

/// Takes and acknowledges each message.
pub(crate) async fn subscribe(servers: &Servers, messages: &[Publication]) -> Run {
    let client_id = servers.name("bare");
    pile_up(servers, &client_id, messages).await;
    // Its session has the subscription.
    let mut session = Session::open(servers, &client_id, Vec::new()).await;
    let first_tenth = messages.len() / 10;
    take(&mut session, first_tenth).await;
    let stopwatch = Stopwatch::start();
    let rest = messages.len() - first_tenth;
    take(&mut session, rest).await;
    let run = stopwatch.stop(rest as u64);
    session.close().await;
    Session::forget(servers, &client_id).await;
    run
}

/// Lets the broker keep all messages for a session that is away.
async fn pile_up(servers: &Servers, client_id: &str, messages: &[Publication]) {
    Session::open(servers, client_id, filters()).await.close().await;
    let publisher = servers.name("publisher");
    let mut session = Session::open(servers, &publisher, Vec::new()).await;
    session.publish_all(messages).await;
    session.close().await;
    Session::forget(servers, &publisher).await;
}

async fn take(session: &mut Session, messages: usize) {
    let mut taken = 0;
    while taken < messages {
        if let Incoming::Message(message) = session.next().await {
            session.acknowledge(message.packet.expect("it was published at QoS 1"));
            taken += 1;
        }
    }
}

fn filters() -> Vec<String> {
    subscriptions(0, 1)
}
