//! How the clients of the fleet are let in by the broker: all alike, or each RAE with a user or a certificate of its own.

use std::sync::Arc;

use anyhow::Context;
use dmp_service::mqtt::{ClientIdentity, Credentials, Dialer, Secret, TlsSettings};

use super::deployed::endpoint;
use crate::{
    fleet::plan::{Plan, RaeIndex},
    target::{self, Deployment, SERIAL},
};

/// Connections and credentials of a plan's RAEs.
#[derive(Debug)]
pub(super) struct Access {
    /// One for each RAE, or one for all.
    of: Vec<Entrance>,
}

/// How one client is let in.
#[derive(Debug, Clone)]
pub(super) struct Entrance {
    pub(super) dialer: Arc<Dialer>,
    pub(super) credentials: Option<Credentials>,
}

impl Access {
    /// A broker that lets everybody in.
    pub(super) fn open(dialer: Dialer) -> Access {
        Access { of: vec![Entrance { dialer: Arc::new(dialer), credentials: None }] }
    }

    /// A broker that asks who it is; reads all files, so that one that is missing is found before a run.
    ///
    /// # Errors
    /// If a file cannot be used.
    pub(super) fn of_deployment(deployment: &Deployment, plan: &Plan, at_a_time: usize) -> anyhow::Result<Access> {
        let serials: Vec<_> = plan.raes.iter().map(|rae| rae.serial.as_str()).collect();
        let individual = deployment.mqtt.rae.individual();
        let serials = if individual { &serials[..] } else { &serials[..serials.len().min(1)] };
        let mut of: Vec<Entrance> = Vec::with_capacity(serials.len());
        for serial in serials {
            let Entrance { dialer, credentials } = entrance(deployment, Some(serial))?;
            let dialer = Arc::into_inner(dialer).expect("made just now");
            // They take turns together, whatever their certificates.
            let dialer = match of.first() {
                Some(first) => dialer.in_turn_with(&first.dialer),
                None => dialer.at_most(at_a_time),
            };
            of.push(Entrance { dialer: Arc::new(dialer), credentials });
        }
        Ok(Access { of })
    }

    /// Of one RAE.
    pub(super) fn of(&self, rae: RaeIndex) -> &Entrance {
        self.of.get(rae.0 as usize).unwrap_or(&self.of[0])
    }

    /// Whether a client may speak only for the RAE whose entrance it takes.
    pub(super) fn individual(&self) -> bool {
        self.of.len() > 1
    }
}

/// How a client of a deployment is let in: the RAE with this serial, or, without one, a bridge.
///
/// # Errors
/// If a file cannot be used.
pub(super) fn entrance(deployment: &Deployment, serial: Option<&str>) -> anyhow::Result<Entrance> {
    let mqtt = &deployment.mqtt;
    let (door, credentials) = match serial {
        Some(_) => (&mqtt.door, &mqtt.rae),
        None => (&mqtt.bridge_door, &mqtt.bridge),
    };
    let identity = credentials.certificate.as_ref().map(|(certificate, key)| ClientIdentity {
        certificate: target::of_rae(certificate, serial),
        key: target::of_rae(key, serial),
    });
    let settings = TlsSettings { authorities: mqtt.ca.clone(), server_name: mqtt.server_name.clone(), identity };
    let password = credentials.password.as_ref().map(|password| password.read(serial)).transpose();
    let password = password.context("reading an MQTT password")?;
    let named = |user: &String| user.replace(SERIAL, serial.unwrap_or_default());
    let credentials = credentials
        .username
        .as_ref()
        .map(|user| Credentials { user: named(user), password: password.map(Secret::new) });
    Ok(Entrance { dialer: Arc::new(Dialer::new(endpoint(door), &settings)?), credentials })
}
