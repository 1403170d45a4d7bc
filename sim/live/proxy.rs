//! The harness on the wire before a server: a TCP proxy, which before the MQTT broker reads the packets that it passes on.
//!
//! Bytes pass unchanged. What the broker delivers and what a bridge acknowledges is told before it is passed on,
//! through a bounded channel: if nobody takes it, the link waits, and no observation is lost. The link can be cut, slowed
//! and left half open, for all connections alike.

mod link;
mod tap;

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use dmp_core::core::PacketId;
use dmp_service::mqtt::Endpoint;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

/// One connection through the proxy, numbered from 1 in the order of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What was seen on the wire.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The connection.
    pub link: LinkId,
    /// When it was read by the proxy.
    pub at: Instant,
    /// What it was.
    pub what: Wire,
}

/// What a packet, or an end, meant.
#[derive(Debug, Clone)]
pub enum Wire {
    /// A client introduced itself (CONNECT).
    Opened {
        /// Its client id.
        client_id: Arc<str>,
    },
    /// The broker delivered a message (PUBLISH, broker to bridge).
    BridgeReceived(Arc<Delivery>),
    /// The bridge acknowledged a message (PUBACK): the very delivery of this connection that it names.
    BridgeAcknowledged(Arc<Delivery>),
    /// The bridge acknowledged what this connection had not delivered, or not any more.
    StrayAcknowledgement(PacketId),
    /// A packet that could not be read: nothing more is told of this direction, though its bytes still pass.
    Unreadable {
        /// Whether the broker sent it.
        from_broker: bool,
        /// What is wrong with it.
        reason: String,
    },
    /// The connection is over.
    Closed,
}

/// A message on its way from the broker to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its packet id; none at QoS 0.
    pub packet: Option<PacketId>,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its payload.
    pub payload: Bytes,
    /// Whether the broker marks it as sent before.
    pub dup: bool,
    /// Whether it is a retained replay.
    pub retain: bool,
}

/// How the link is, for bytes in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// Added to the way of each byte.
    pub latency: Duration,
    /// Most bytes a second in each direction of each connection; none for no limit. Zero counts as one.
    pub bytes_per_second: Option<u64>,
}

/// What the link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mode {
    pace: Pace,
    cut: bool,
    /// Nothing passes, and nothing says so.
    half_open: bool,
    /// Cuts so far: one that was mended before a connection could look has ended it nevertheless.
    cuts: u64,
}

/// How much has passed since the start, all connections together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Messages from the broker.
    pub messages: u64,
    /// Acknowledgements from bridges.
    pub acknowledgements: u64,
    /// Bytes, both directions.
    pub bytes: u64,
    /// Connections that cuts ended or kept out, or that were left half open.
    pub cut: u64,
}

/// A running proxy; dropping it closes all its connections and frees its port.
pub struct Proxy {
    endpoint: Endpoint,
    mode: watch::Sender<Mode>,
    meter: Arc<Meter>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Meter {
    messages: AtomicU64,
    acknowledgements: AtomicU64,
    bytes: AtomicU64,
    open: AtomicU64,
    cut: AtomicU64,
}

impl Proxy {
    /// Starts to pass connections on to `broker`, from a loopback port that the system chooses.
    ///
    /// # Errors
    /// Where the system gives no port.
    pub async fn start(broker: &Endpoint, observed: mpsc::Sender<Observed>) -> io::Result<Proxy> {
        Proxy::before(broker, Some(observed)).await
    }

    /// The same before a server of any protocol, of which nothing is read.
    ///
    /// # Errors
    /// Where the system gives no port.
    pub async fn unread(server: &Endpoint) -> io::Result<Proxy> {
        Proxy::before(server, None).await
    }

    async fn before(server: &Endpoint, observed: Option<mpsc::Sender<Observed>>) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let endpoint = Endpoint { host: address.ip().to_string(), port: address.port(), tls: false };
        let (mode, seen_mode) = watch::channel(Mode::default());
        let meter = Arc::new(Meter::default());
        let accepting = tokio::spawn(accept(listener, server.clone(), seen_mode, observed, meter.clone()));
        Ok(Proxy { endpoint, mode, meter, accepting })
    }

    /// Where the server is reached through the proxy.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Closes all connections, and every new one at once, until [`Proxy::restore`].
    pub fn cut(&self) {
        self.meter.cut.fetch_add(self.meter.open.load(Ordering::Relaxed), Ordering::Relaxed);
        self.mode.send_modify(|mode| *mode = Mode { cut: true, cuts: mode.cuts + 1, ..*mode });
    }

    /// Lets nothing pass, on connections that stay open and on new ones, until [`Proxy::restore`].
    pub fn half_open(&self) {
        self.meter.cut.fetch_add(self.meter.open.load(Ordering::Relaxed), Ordering::Relaxed);
        self.mode.send_modify(|mode| mode.half_open = true);
    }

    /// Slows the link, from the bytes on that are on their way now. Mends a cut.
    pub fn slow(&self, pace: Pace) {
        self.mode.send_modify(|mode| *mode = Mode { pace, cut: false, ..*mode });
    }

    /// Ends [`Proxy::cut`], [`Proxy::slow`] and [`Proxy::half_open`], after which the connections that hung are gone: their
    /// other end has long given them up.
    pub fn restore(&self) {
        self.mode.send_modify(|mode| {
            let cuts = mode.cuts + u64::from(mode.half_open);
            *mode = Mode { cuts, ..Mode::default() };
        });
    }

    /// What has passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            messages: self.meter.messages.load(Ordering::Relaxed),
            acknowledgements: self.meter.acknowledgements.load(Ordering::Relaxed),
            bytes: self.meter.bytes.load(Ordering::Relaxed),
            cut: self.meter.cut.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Its connections are children of this task and end with it.
        self.accepting.abort();
    }
}

/// Accepts until aborted.
async fn accept(
    listener: TcpListener,
    server: Endpoint,
    mode: watch::Receiver<Mode>,
    observed: Option<mpsc::Sender<Observed>>,
    meter: Arc<Meter>,
) {
    let mut links = JoinSet::new();
    let mut accepted = 0;
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            Some(ended) = links.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
                continue;
            }
        };
        // A cut link takes no one; what accept itself refuses (out of files) the client sees as a close, too.
        let Ok((client, _)) = client else { continue };
        if mode.borrow().cut {
            meter.cut.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        accepted += 1;
        let reporter = link::Reporter { link: LinkId(accepted), observed: observed.clone(), meter: meter.clone() };
        let (server, mode) = (server.clone(), mode.clone());
        links.spawn(async move {
            // A server that is away looks to the client like a closed connection.
            if let Ok(server) = TcpStream::connect((server.host.as_str(), server.port)).await {
                link::carry(client, server, mode, reporter).await;
            }
        });
    }
}

#[cfg(test)]
mod tests;
