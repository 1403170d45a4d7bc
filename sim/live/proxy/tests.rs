//! The proxy between a real client and a real broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dmp_core::core::{ConnectionId, PacketId, Publication, Qos};
use dmp_service::mqtt::{Client, ConnectOptions, Dialer, Endpoint, Incoming, TlsSettings};
use tokio::sync::mpsc;

use super::{LinkId, Observed, Pace, Proxy, Wire};
use crate::live::embedded::mqtt::Broker;

const TOPIC: &str = "dmp/v1/s00/RAE-1/a/state";

struct Bench {
    _broker: Broker,
    proxy: Proxy,
    observed: mpsc::Receiver<Observed>,
    writer: Client,
    bridge: Client,
    connection: ConnectionId,
}

impl Bench {
    /// A writer at the broker, and a bridge behind the proxy that is subscribed to [`TOPIC`].
    async fn new() -> Bench {
        let broker = Broker::start().await.expect("the broker starts");
        let (tell, observed) = mpsc::channel(100_000);
        let proxy = Proxy::start(broker.endpoint(), tell).await.expect("a free port");
        let mut bench = Bench {
            writer: client(broker.endpoint()),
            bridge: client(proxy.endpoint()),
            _broker: broker,
            proxy,
            observed,
            connection: ConnectionId(0),
        };
        bench.writer.connect(ConnectionId(0), options("writer"));
        assert!(matches!(event(&mut bench.writer).await, Incoming::Connected { .. }));
        bench.reconnect().await;
        bench.bridge.subscribe(bench.connection, PacketId(1), vec![TOPIC.to_owned()]);
        assert!(matches!(event(&mut bench.bridge).await, Incoming::Subscribed(_)));
        bench
    }

    /// Connects until it succeeds.
    async fn reconnect(&mut self) {
        loop {
            self.connection.0 += 1;
            self.bridge.connect(self.connection, ConnectOptions { clean_session: false, ..options("bridge-0") });
            if let Incoming::Connected { .. } = event(&mut self.bridge).await {
                return;
            }
        }
    }

    async fn publish(&mut self, payload: &[u8]) {
        let message =
            Publication { topic: TOPIC.into(), payload: payload.to_vec().into(), qos: Qos::AtLeastOnce, retain: false };
        self.writer.publish(ConnectionId(0), Some(PacketId(1)), false, &message);
        assert!(matches!(event(&mut self.writer).await, Incoming::Acknowledged(_)));
    }

    async fn receive(&mut self) -> dmp_core::agent::Message {
        match event(&mut self.bridge).await {
            Incoming::Message(message) => message,
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The next observation other than of a subscription's handshake.
    async fn seen(&mut self) -> (LinkId, String) {
        let observed = tokio::time::timeout(Duration::from_secs(20), self.observed.recv()).await;
        let observed = observed.expect("an observation within 20 s").expect("the proxy lives");
        let text = match observed.what {
            Wire::Opened { client_id } => format!("opened {client_id}"),
            Wire::BridgeReceived(delivery) => format!("received {}", String::from_utf8_lossy(&delivery.payload)),
            Wire::BridgeAcknowledged(delivery) => {
                format!("acknowledged {}", String::from_utf8_lossy(&delivery.payload))
            }
            other @ (Wire::StrayAcknowledgement(_) | Wire::Unreadable { .. }) => format!("{other:?}"),
            Wire::Closed => "closed".into(),
        };
        (observed.link, text)
    }

    async fn sees(&mut self, link: u64, texts: &[&str]) {
        for text in texts {
            assert_eq!(self.seen().await, (LinkId(link), (*text).to_owned()));
        }
    }
}

fn client(endpoint: &Endpoint) -> Client {
    Client::new(Arc::new(Dialer::new(endpoint.clone(), &TlsSettings::default()).expect("no TLS, no error")))
}

fn options(client_id: &str) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.into(),
        clean_session: true,
        keep_alive: Duration::from_secs(30),
        will: None,
        credentials: None,
    }
}

async fn event(client: &mut Client) -> Incoming {
    tokio::time::timeout(Duration::from_secs(20), client.next()).await.expect("an event within 20 s").1
}

/// Lets `client` send what is queued.
async fn send(client: &mut Client) {
    let nothing_to_come = tokio::time::timeout(Duration::from_millis(1), client.next()).await;
    assert!(nothing_to_come.is_err(), "{nothing_to_come:?}");
}

#[tokio::test]
async fn acknowledgements_name_their_messages_also_after_a_cut_and_a_redelivery() {
    let mut bench = Bench::new().await;
    bench.publish(b"one").await;
    bench.publish(b"two").await;
    let (one, _two) = (bench.receive().await, bench.receive().await);
    bench.bridge.acknowledge(bench.connection, one.packet.expect("QoS 1"));
    send(&mut bench.bridge).await;
    bench.sees(1, &["opened bridge-0", "received one", "received two", "acknowledged one"]).await;

    bench.proxy.cut();
    assert!(matches!(event(&mut bench.bridge).await, Incoming::Closed(_)));
    bench.sees(1, &["closed"]).await;
    bench.bridge.connect(ConnectionId(99), options("bridge-0"));
    assert!(matches!(event(&mut bench.bridge).await, Incoming::Closed(_)), "a cut link takes no one");

    bench.connection = ConnectionId(100);
    bench.proxy.restore();
    bench.reconnect().await;
    // Whether "one" comes again is the wire's affair: its acknowledgement may have come through before the cut.
    loop {
        match event(&mut bench.bridge).await {
            Incoming::Message(message) => {
                bench.bridge.acknowledge(bench.connection, message.packet.expect("QoS 1"));
                if message.payload == "two" {
                    break;
                }
            }
            // rumqttd may take the end of the old connection for one of the new.
            Incoming::Closed(_) => bench.reconnect().await,
            other => panic!("expected a message, got {other:?}"),
        }
    }
    bench.bridge.disconnect(bench.connection);
    assert!(matches!(event(&mut bench.bridge).await, Incoming::Closed(_)));
    let mut received = std::collections::BTreeSet::new();
    loop {
        let (link, text) = bench.seen().await;
        assert!(link > LinkId(1));
        if let Some(payload) = text.strip_prefix("received ") {
            received.insert((link, payload.to_owned()));
        } else if let Some(payload) = text.strip_prefix("acknowledged ") {
            assert!(received.contains(&(link, payload.to_owned())), "{payload} on {link:?}: {received:?}");
            if payload == "two" {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_cut_that_is_mended_at_once_has_ended_the_connections_nevertheless() {
    let mut bench = Bench::new().await;
    bench.proxy.cut();
    bench.proxy.restore();
    assert!(matches!(event(&mut bench.bridge).await, Incoming::Closed(_)));
    bench.reconnect().await;
}

#[tokio::test]
async fn a_slow_link_takes_the_time_that_was_asked_for_and_changes_nothing() {
    let mut bench = Bench::new().await;
    bench.proxy.slow(Pace { latency: Duration::from_millis(50), bytes_per_second: Some(400_000) });
    let began = Instant::now();
    let payload: Vec<u8> = (0..40_000u32).map(|i| (i * i / 7) as u8).collect();
    bench.publish(&payload).await;
    assert_eq!(bench.receive().await.payload, payload);
    // A lower bound, which no machine is too slow for: 40 kB less the first piece of 8 kB, and the latency.
    assert!(began.elapsed() >= Duration::from_millis(50 + 80), "{:?}", began.elapsed());
    bench.proxy.restore();
    bench.publish(b"fast again").await;
    assert_eq!(bench.receive().await.payload, "fast again");
    assert_eq!(bench.proxy.traffic().messages, 2);
}

#[tokio::test]
async fn a_half_open_link_carries_nothing_on_connections_that_stay_and_takes_them_with_it_when_it_ends() {
    let mut bench = Bench::new().await;
    bench.proxy.half_open();
    bench.publish(b"one").await;
    let silent = tokio::time::timeout(Duration::from_millis(300), bench.bridge.next()).await;
    assert!(silent.is_err(), "neither a message nor an end: {silent:?}");
    bench.proxy.restore();
    assert!(matches!(event(&mut bench.bridge).await, Incoming::Closed(_)));
    bench.reconnect().await;
    assert_eq!(bench.receive().await.payload, "one");
    assert_eq!(bench.proxy.traffic().cut, 1);
}

#[tokio::test]
async fn a_proxy_that_reads_nothing_passes_any_protocol() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = server.local_addr().expect("bound").port();
    let proxy = Proxy::unread(&Endpoint { host: "127.0.0.1".to_owned(), port, tls: false }).await.expect("a free port");
    let mut client = tokio::net::TcpStream::connect(("127.0.0.1", proxy.endpoint().port)).await.expect("it accepts");
    let (mut served, _) = server.accept().await.expect("it is passed on");
    // No packet of MQTT begins like this.
    client.write_all(&[0; 100_000]).await.expect("it takes them");
    let mut received = vec![1; 100_000];
    served.read_exact(&mut received).await.expect("all of them");
    assert!(received.iter().all(|&byte| byte == 0));
    drop(served);
    assert_eq!(client.read(&mut [0]).await.expect("an end, no error"), 0);
}

#[tokio::test]
async fn an_observer_that_does_not_take_holds_the_link_and_loses_nothing() {
    let broker = Broker::start().await.expect("the broker starts");
    let (tell, mut observed) = mpsc::channel(1);
    let proxy = Proxy::start(broker.endpoint(), tell).await.expect("a free port");
    let mut bridge = client(proxy.endpoint());
    bridge.connect(ConnectionId(1), options("bridge-0"));
    // CONNECT passes: the channel has room for one.
    assert!(matches!(event(&mut bridge).await, Incoming::Connected { .. }));
    bridge.subscribe(ConnectionId(1), PacketId(1), vec![TOPIC.to_owned()]);
    assert!(matches!(event(&mut bridge).await, Incoming::Subscribed(_)));
    let mut writer = client(broker.endpoint());
    writer.connect(ConnectionId(1), options("writer"));
    assert!(matches!(event(&mut writer).await, Incoming::Connected { .. }));
    for number in 1..=50 {
        let payload = number.to_string().into();
        let message = Publication { topic: TOPIC.into(), payload, qos: Qos::AtLeastOnce, retain: false };
        writer.publish(ConnectionId(1), Some(PacketId(number)), false, &message);
    }
    for _ in 1..=50 {
        assert!(matches!(event(&mut writer).await, Incoming::Acknowledged(_)));
    }
    let mut told = Vec::new();
    let take = async {
        while told.len() < 50 {
            if let Wire::BridgeReceived(delivery) = observed.recv().await.expect("the proxy lives").what {
                told.push(delivery.payload.clone());
            }
        }
    };
    let receive = async {
        for number in 1..=50 {
            let Incoming::Message(message) = event(&mut bridge).await else { panic!("expected a message") };
            assert_eq!(message.payload, number.to_string());
        }
    };
    tokio::join!(take, receive);
    assert_eq!(told, (1..=50).map(|number| number.to_string()).collect::<Vec<_>>());
}
