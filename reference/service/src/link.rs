//! A core's MQTT connection, as bridge, agent and downlink have it alike: the client, what it tells to logs, health and
//! metrics, and its good end. What an event means to a core is said by its own adapter.

use std::{sync::Arc, time::Duration};

use dmp_core::core::ConnectionId;
use tokio::sync::mpsc;

use crate::{
    http::Part,
    metrics::Counter,
    mqtt::{Client, Closed, ConnectOptions, Dialer, Incoming},
    program::{chain, never_heals},
};

/// Bound of the good end of a connection; the client gives itself 5 s.
const FINISH_WITHIN: Duration = Duration::from_secs(6);

/// One connection after the other, of one core.
pub(crate) struct Link {
    /// The client: what the core wants sent goes to it directly.
    pub(crate) client: Client,
    options: ConnectOptions,
    settings: Settings,
    /// The connection whose end was not yet told.
    open: Option<ConnectionId>,
    was_accepted: bool,
}

/// What a link tells, and to whom.
pub(crate) struct Settings {
    /// Whose link it is, for the log.
    pub(crate) name: String,
    /// Connections that the broker accepted.
    pub(crate) connects: Counter,
    /// Connections that ended or could not be made.
    pub(crate) disconnects: Counter,
    /// Whether the link works.
    pub(crate) health: Part,
    /// From when on it works.
    pub(crate) works: Works,
    /// Told what a broker says that never took the connection and never will; room for one reason is enough.
    pub(crate) fatal: mpsc::Sender<anyhow::Error>,
}

/// From when on a link works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Works {
    /// Once the broker has accepted the connection.
    Connected,
    /// Once the broker has accepted the subscription.
    Subscribed,
}

impl Link {
    pub(crate) fn new(dialer: Arc<Dialer>, options: ConnectOptions, settings: Settings) -> Link {
        Link { client: Client::new(dialer), options, settings, open: None, was_accepted: false }
    }

    /// Begins to connect, as the options say.
    pub(crate) fn connect(&mut self, connection: ConnectionId) {
        self.connect_as(connection, |_| {});
    }

    /// Begins to connect, with options that differ by `change`.
    pub(crate) fn connect_as(&mut self, connection: ConnectionId, change: impl FnOnce(&mut ConnectOptions)) {
        let mut options = self.options.clone();
        change(&mut options);
        self.open = Some(connection);
        self.client.connect(connection, options);
    }

    /// What comes next; waits for ever where there is no connection. Cancel safe.
    pub(crate) async fn next(&mut self) -> (ConnectionId, Incoming) {
        let (connection, incoming) = self.client.next().await;
        match &incoming {
            Incoming::Connected { session_present } => {
                tracing::info!(name = self.settings.name, session_present, "connected to the MQTT broker");
                self.was_accepted = true;
                self.settings.connects.increment();
                self.works_from(Works::Connected);
            }
            Incoming::Subscribed(_) => self.works_from(Works::Subscribed),
            Incoming::Closed(closed) => self.closed(connection, closed),
            Incoming::Message(_) | Incoming::Acknowledged(_) => {}
        }
        (connection, incoming)
    }

    /// Lets the connection end in good order, so that a last will does not fire.
    pub(crate) async fn finish(&mut self) {
        self.settings.health.set(false);
        let Some(open) = self.open else { return };
        self.client.disconnect(open);
        let ended = async { while !matches!(self.client.next().await.1, Incoming::Closed(_)) {} };
        if tokio::time::timeout(FINISH_WITHIN, ended).await.is_err() {
            tracing::warn!(name = self.settings.name, "the MQTT connection did not end in good order");
        }
    }

    fn works_from(&self, from: Works) {
        if self.settings.works == from {
            self.settings.health.set(true);
        }
    }

    fn closed(&mut self, connection: ConnectionId, closed: &Closed) {
        if self.open == Some(connection) {
            self.open = None;
            self.settings.health.set(false);
        }
        self.settings.disconnects.increment();
        if matches!(closed, Closed::AsAsked) {
            return;
        }
        tracing::warn!(name = self.settings.name, "MQTT connection: {}", chain(closed));
        if let Closed::NotMade(error) = closed
            && !self.was_accepted
            && never_heals(error)
        {
            let told = anyhow::Error::new((**error).clone()).context("connecting to the MQTT broker");
            // Full means that the same was told before.
            let _first_wins = self.settings.fatal.try_send(told);
        }
    }
}
