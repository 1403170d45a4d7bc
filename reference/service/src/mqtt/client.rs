//! What a core's driver holds: at most one connection at a time, attempts included, and its events.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use dmp_core::core::{ConnectionId, PacketId, Publication};

use super::{Closed, ConnectError, ConnectOptions, Dialer, Incoming, connection::Connection};

/// An MQTT client: one connection, or an attempt at one, or none.
///
/// Nothing moves unless [`Client::next`] is polled: it connects, sends what was queued, reads, and pings. It may be
/// dropped and called again at any time (cancel safe). Requests for a connection that is not the current one do
/// nothing: its end was or will be told. Dropping the client breaks the connection as a crash does: the will fires.
pub struct Client {
    dialer: Arc<Dialer>,
    state: State,
    /// Ended without the network's doing; at most one for each call of `connect` or `disconnect`.
    ended: VecDeque<(ConnectionId, Closed)>,
}

type Attempt = Pin<Box<dyn Future<Output = Result<(Connection, bool), ConnectError>> + Send>>;

enum State {
    Idle,
    Connecting(ConnectionId, Attempt),
    Open(ConnectionId, Box<Connection>),
}

impl Client {
    /// A client without a connection.
    #[must_use]
    pub fn new(dialer: Arc<Dialer>) -> Client {
        Client { dialer, state: State::Idle, ended: VecDeque::new() }
    }

    /// Begins to connect, and gives up whatever connection there was: in good order if that was asked for before, else
    /// at once. Ends with exactly one [`Incoming::Closed`].
    pub fn connect(&mut self, connection: ConnectionId, options: ConnectOptions) {
        let attempt = self.dialer.clone().dial(options);
        let attempt: Attempt = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => Box::pin(attempt),
            State::Connecting(old, _) => {
                self.ended.push_back((old, Closed::Replaced));
                Box::pin(attempt)
            }
            State::Open(old, mut closing) if closing.is_closing() => {
                self.ended.push_back((old, Closed::AsAsked));
                Box::pin(async move {
                    // Closing is bounded, and how it ends has been told.
                    let _end = poll_fn(|cx| closing.poll_next(cx)).await;
                    attempt.await
                })
            }
            State::Open(old, _) => {
                self.ended.push_back((old, Closed::Replaced));
                Box::pin(attempt)
            }
        };
        self.state = State::Connecting(connection, attempt);
    }

    /// Queues a message: QoS 1 with a packet id, QoS 0 without.
    pub fn publish(&mut self, connection: ConnectionId, packet: Option<PacketId>, dup: bool, message: &Publication) {
        if let Some(open) = self.open(connection) {
            open.publish(packet, dup, message);
        }
    }

    /// Queues a subscription at QoS 1. A filter that is refused, or granted only QoS 0, ends the connection.
    pub fn subscribe(&mut self, connection: ConnectionId, packet: PacketId, filters: Vec<String>) {
        if let Some(open) = self.open(connection) {
            open.subscribe(packet, filters);
        }
    }

    /// Queues the acknowledgement of a message.
    pub fn acknowledge(&mut self, connection: ConnectionId, packet: PacketId) {
        if let Some(open) = self.open(connection) {
            open.acknowledge(packet);
        }
    }

    /// Stops reading from the connection: the broker's own flow control holds the rest. Sending and pings go on.
    pub fn pause_reading(&mut self, connection: ConnectionId) {
        if let Some(open) = self.open(connection) {
            open.pause(true);
        }
    }

    /// Reads again.
    pub fn resume_reading(&mut self, connection: ConnectionId) {
        if let Some(open) = self.open(connection) {
            open.pause(false);
        }
    }

    /// Sends what is queued and DISCONNECT, so that the will does not fire, and closes; within 5 s. What arrives
    /// meanwhile is dropped unacknowledged.
    pub fn disconnect(&mut self, connection: ConnectionId) {
        if let State::Connecting(current, _) = &self.state
            && *current == connection
        {
            self.state = State::Idle;
            self.ended.push_back((connection, Closed::AsAsked));
        } else if let Some(open) = self.open(connection) {
            open.disconnect();
        }
    }

    /// Bytes that wait to be sent; 0 without a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        match &self.state {
            State::Open(_, open) => open.waiting(),
            State::Idle | State::Connecting(..) => 0,
        }
    }

    /// The next event and the connection that it is of. Waits for ever where there is no connection.
    pub async fn next(&mut self) -> (ConnectionId, Incoming) {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Client::next`], for a caller that polls.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(ConnectionId, Incoming)> {
        if let Some((connection, closed)) = self.ended.pop_front() {
            return Poll::Ready((connection, Incoming::Closed(closed)));
        }
        let (connection, event) = match &mut self.state {
            State::Idle => return Poll::Pending,
            State::Connecting(connection, attempt) => {
                let connection = *connection;
                let event = match std::task::ready!(attempt.as_mut().poll(cx)) {
                    Ok((open, session_present)) => {
                        self.state = State::Open(connection, Box::new(open));
                        Incoming::Connected { session_present }
                    }
                    Err(error) => Incoming::Closed(Closed::NotMade(Box::new(error))),
                };
                (connection, event)
            }
            State::Open(connection, open) => (*connection, std::task::ready!(open.poll_next(cx))),
        };
        if matches!(event, Incoming::Closed(_)) {
            self.state = State::Idle;
        }
        Poll::Ready((connection, event))
    }

    fn open(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        match &mut self.state {
            State::Open(current, open) if *current == connection => Some(open),
            State::Open(..) | State::Idle | State::Connecting(..) => None,
        }
    }
}
