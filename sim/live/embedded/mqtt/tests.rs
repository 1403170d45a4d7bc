//! What is the embedded broker's own. What it has in common with Mosquitto is stated once for both, in `tests/conformance`.

use std::{sync::Arc, time::Duration};

use dmp_core::core::ConnectionId;
use dmp_service::mqtt::{Client, Closed, ConnectOptions, Dialer, Incoming, TlsSettings};

use super::Broker;

#[tokio::test]
async fn a_broker_that_was_dropped_is_gone() {
    let broker = Broker::start().await.expect("the broker starts");
    let dialer = Dialer::new(broker.endpoint().clone(), &TlsSettings::default()).expect("no TLS, no error");
    let mut client = Client::new(Arc::new(dialer));
    let options = ConnectOptions {
        client_id: "RAE-1".into(),
        clean_session: true,
        keep_alive: Duration::from_secs(30),
        will: None,
        credentials: None,
    };
    client.connect(ConnectionId(1), options.clone());
    let event = next(&mut client).await;
    assert!(matches!(event, Incoming::Connected { .. }), "{event:?}");
    drop(broker);
    let event = next(&mut client).await;
    assert!(matches!(event, Incoming::Closed(Closed::ByPeer(_) | Closed::Broken { .. })), "{event:?}");
    client.connect(ConnectionId(2), options);
    let event = next(&mut client).await;
    assert!(matches!(event, Incoming::Closed(Closed::NotMade(_))), "{event:?}");
}

async fn next(client: &mut Client) -> Incoming {
    tokio::time::timeout(Duration::from_secs(20), client.next()).await.expect("an event within 20 s").1
}
