//! One accepted network connection: packets out, packets in, pings, and a good end.
//!
//! Polled, not spawned: it does its work inside the task that waits for its next event. Reading goes through one
//! buffer per thread, and what is kept per connection is only an incomplete packet or what waits to be sent, so an
//! idle connection holds no buffer. Bytes go out just before the task would wait, so many packets share a write.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use dmp_core::core::{PacketId, Publication};
use rumqttc::mqttbytes::v4::{Packet, SubAck};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{Closed, Endpoint, Incoming, oversize::Excess, packet};

/// Most bytes that wait to be sent: a full window of 20 messages of the largest payload. What exceeds it ends the
/// connection, so that QoS 0 messages to a peer that does not read cannot fill the memory.
pub const MAX_OUTGOING_BYTES: usize = 20 * (dmp_core::event::MAX_PAYLOAD_BYTES + 1024);

/// How long the end of a connection may take: the peer gets what was sent before DISCONNECT, or it is gone anyway.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Bytes taken from a socket at a time.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A TCP or TLS stream.
pub(super) type Stream = Box<dyn ByteStream>;

/// Bytes in both directions.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A connection that the broker has accepted.
pub(super) struct Connection {
    endpoint: Endpoint,
    stream: Stream,
    received: BytesMut,
    excess: Excess,
    outgoing: BytesMut,
    /// Set while the stream may hold bytes back (TLS records).
    unflushed: bool,
    subscribing: Vec<(PacketId, Vec<String>)>,
    paused: bool,
    heartbeat: Heartbeat,
    closing: bool,
    failure: Option<Closed>,
}

/// A ping every half keep-alive, whatever else is sent: a half-open connection takes publishes, too.
struct Heartbeat {
    every: Duration,
    timer: Pin<Box<Sleep>>,
    /// A ping is out, and nothing was read since.
    unanswered: bool,
}

impl Connection {
    /// Takes over a stream after CONNACK; `received` is what came behind it.
    pub(super) fn new(endpoint: Endpoint, stream: Stream, received: BytesMut, keep_alive: Duration) -> Connection {
        let every = keep_alive.max(Duration::from_secs(1)) / 2;
        Connection {
            endpoint,
            stream,
            received,
            excess: Excess::default(),
            outgoing: BytesMut::new(),
            unflushed: false,
            subscribing: Vec::new(),
            paused: false,
            heartbeat: Heartbeat { every, timer: Box::pin(tokio::time::sleep(every)), unanswered: false },
            closing: false,
            failure: None,
        }
    }

    /// Queues a PUBLISH.
    pub(super) fn publish(&mut self, packet: Option<PacketId>, dup: bool, message: &Publication) {
        self.queue(|buffer| packet::publish(buffer, packet, dup, message));
    }

    /// Queues a SUBSCRIBE.
    pub(super) fn subscribe(&mut self, packet: PacketId, filters: Vec<String>) {
        self.queue(|buffer| packet::subscribe(buffer, packet, &filters));
        self.subscribing.push((packet, filters));
    }

    /// Queues a PUBACK.
    pub(super) fn acknowledge(&mut self, packet: PacketId) {
        self.queue(|buffer| packet::acknowledge(buffer, packet));
    }

    /// Stops or resumes reading.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        // Answers that waited unread in the socket must not count as missing.
        self.heartbeat.unanswered = false;
    }

    /// Sends DISCONNECT behind all that is queued, then closes.
    pub(super) fn disconnect(&mut self) {
        if !self.closing {
            self.queue(|buffer| packet::append(buffer, Packet::Disconnect));
            self.heartbeat.timer.as_mut().reset(Instant::now() + CLOSE_WITHIN);
            self.closing = true;
        }
    }

    /// Whether [`Connection::disconnect`] was called.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Bytes that wait to be sent.
    pub(super) fn waiting(&self) -> usize {
        self.outgoing.len()
    }

    /// The next event. After `Closed` the connection is to be dropped.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        let event = match self.closing {
            true => ready!(self.poll_close(cx)).map(|()| Incoming::Closed(Closed::AsAsked)),
            false => ready!(self.poll_open(cx)),
        };
        Poll::Ready(event.unwrap_or_else(Incoming::Closed))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Closed>> {
        loop {
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(Err(failure));
            }
            if let Some(event) = self.decode()? {
                return Poll::Ready(Ok(event));
            }
            let _waits = self.poll_write(cx)?;
            // Read before a missing answer is judged: it may be there already.
            if !self.paused && self.poll_read(cx)?.is_ready() {
                continue;
            }
            ready!(self.poll_heartbeat(cx))?;
        }
    }

    /// Flushes, says that nothing more is sent, and waits for the peer's end: closing a socket with unread bytes
    /// makes the system reset it, and a reset may overtake what was sent last.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Err(failure));
        }
        if self.heartbeat.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !self.outgoing.is_empty() || self.unflushed {
            ready!(self.poll_write(cx))?;
        }
        // From here on the peer has it all; how it ends is its own affair.
        if ready!(Pin::new(&mut self.stream).poll_shutdown(cx)).is_err() {
            return Poll::Ready(Ok(()));
        }
        while ready!(self.poll_read(cx)).is_ok() {
            self.received = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn decode(&mut self) -> Result<Option<Incoming>, Closed> {
        while !self.paused {
            let Some(packet) =
                packet::decode(&mut self.received, &mut self.excess).map_err(|what| self.protocol(what))?
            else {
                break;
            };
            match packet {
                Packet::Publish(publish) => {
                    let message = packet::message(publish).map_err(|what| self.protocol(what))?;
                    return Ok(Some(Incoming::Message(message)));
                }
                Packet::PubAck(ack) => return Ok(Some(Incoming::Acknowledged(PacketId(ack.pkid)))),
                Packet::SubAck(ack) => return self.subscribed(&ack).map(Some),
                Packet::PingResp => {}
                other => return Err(self.protocol(format!("an unexpected packet: {other:?}"))),
            }
        }
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
        Ok(None)
    }

    fn subscribed(&mut self, ack: &SubAck) -> Result<Incoming, Closed> {
        let Some(index) = self.subscribing.iter().position(|(packet, _)| packet.0 == ack.pkid) else {
            return Err(self.protocol(format!("SUBACK {} without a SUBSCRIBE", ack.pkid)));
        };
        let (packet, filters) = self.subscribing.swap_remove(index);
        match packet::granted(&filters, &ack.return_codes) {
            Ok(()) => Ok(Incoming::Subscribed(packet)),
            Err(Some(filter)) => Err(Closed::SubscriptionRefused { endpoint: self.endpoint.clone(), filter }),
            Err(None) => Err(self.protocol(format!("SUBACK {} for another number of filters", ack.pkid))),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let read = READ.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            self.received.extend_from_slice(buffer.filled());
            Poll::Ready(read.map(|()| buffer.filled().len()))
        });
        match ready!(read) {
            Ok(0) => Poll::Ready(Err(Closed::ByPeer(self.endpoint.clone()))),
            Ok(_) => {
                self.heartbeat.unanswered = false;
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.broken(error))),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while !self.outgoing.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outgoing)) {
                Ok(0) => return Poll::Ready(Err(self.broken(io::ErrorKind::WriteZero.into()))),
                Ok(written) => self.outgoing.advance(written),
                Err(error) => return Poll::Ready(Err(self.broken(error))),
            }
            self.unflushed = true;
        }
        if self.unflushed {
            self.outgoing = BytesMut::new();
            ready!(Pin::new(&mut self.stream).poll_flush(cx)).map_err(|error| self.broken(error))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when a ping was queued.
    fn poll_heartbeat(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        ready!(self.heartbeat.timer.as_mut().poll(cx));
        if self.heartbeat.unanswered {
            let within = self.heartbeat.every;
            return Poll::Ready(Err(Closed::Silent { endpoint: self.endpoint.clone(), within }));
        }
        self.heartbeat.timer.as_mut().reset(Instant::now() + self.heartbeat.every);
        self.heartbeat.unanswered = !self.paused;
        self.queue(|buffer| packet::append(buffer, Packet::PingReq));
        Poll::Ready(Ok(()))
    }

    fn queue(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), String>) {
        if self.closing || self.failure.is_some() {
            return;
        }
        if let Err(what) = write(&mut self.outgoing) {
            self.failure = Some(Closed::Unsendable { endpoint: self.endpoint.clone(), what });
        } else if self.outgoing.len() > MAX_OUTGOING_BYTES {
            self.failure = Some(Closed::Overrun { endpoint: self.endpoint.clone(), waiting: self.outgoing.len() });
        }
    }

    fn protocol(&self, what: String) -> Closed {
        Closed::Protocol { endpoint: self.endpoint.clone(), what }
    }

    fn broken(&self, error: io::Error) -> Closed {
        Closed::Broken { endpoint: self.endpoint.clone(), source: Arc::new(error) }
    }
}
