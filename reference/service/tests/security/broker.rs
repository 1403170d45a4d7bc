//! The deployed broker, and the ways in.

use std::sync::Once;

use dmp_service::mqtt::{Dialer, Endpoint, TlsSettings};

use crate::{
    lab::{Lab, deploy},
    mosquitto::Mosquitto,
    not_run,
};

/// The listeners of the configuration, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    RaePassword,
    RaeCertificate,
    Bridge,
    Operator,
}

/// A broker that runs; ends when dropped.
pub(crate) struct Broker(Mosquitto);

impl Broker {
    /// `None` where there is no Mosquitto on this machine, which is said.
    pub(crate) fn start(lab: &Lab) -> Option<Broker> {
        let started = Mosquitto::start(&deploy(), &lab.path("mosquitto"));
        if started.is_none() {
            static SAID: Once = Once::new();
            SAID.call_once(|| not_run("the rights of MQTT users, for want of Mosquitto: apt-get install mosquitto"));
        }
        started.map(Broker)
    }

    pub(crate) fn port(&self, door: Door) -> u16 {
        self.0.ports[door as usize]
    }

    /// Connections to one of its doors, by the name `localhost`.
    pub(crate) fn dialer(&self, door: Door, tls: &TlsSettings) -> Dialer {
        Dialer::new(self.endpoint(door), tls).expect("good settings")
    }

    pub(crate) fn endpoint(&self, door: Door) -> Endpoint {
        Endpoint { host: "localhost".to_owned(), port: self.port(door), tls: true }
    }
}
