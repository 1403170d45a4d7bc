//! Servers that are somebody's: nothing is started, made or removed there. The target's file becomes the settings of our
//! clients, and of what the harness brings.

use anyhow::Context;
use dmp_service::{
    config::{self, Secret},
    mqtt::Endpoint,
    registry,
};

use crate::{
    fleet::RunPrefix,
    target::{Deployment, Door, KafkaSecurity, Mqtt, Password},
};

/// Somebody's servers, and how to reach them.
#[derive(Debug)]
pub(super) struct Deployed {
    pub(super) deployment: Deployment,
    kafka: config::Kafka,
    store: registry::StoreConfig,
    bridge: config::Mqtt,
}

impl Deployed {
    /// Reads the secrets that are not a RAE's.
    ///
    /// # Errors
    /// If a file that holds one cannot be read.
    pub(super) fn new(deployment: Deployment) -> anyhow::Result<Deployed> {
        let security = deployment.kafka.security.as_ref().map(kafka_security).transpose()?;
        let bootstrap: Vec<_> = deployment.kafka.bootstrap.iter().map(ToString::to_string).collect();
        let kafka = config::Kafka { security, ..config::Kafka::at(bootstrap.join(",")) };
        let store = registry::StoreConfig {
            url: deployment.store.url.clone(),
            password: secret(deployment.store.password.as_ref(), "the store")?,
            ..Default::default()
        };
        let bridge = bridge_mqtt(&deployment.mqtt)?;
        Ok(Deployed { deployment, kafka, store, bridge })
    }

    /// Where RAEs come in.
    pub(super) fn mqtt(&self) -> Endpoint {
        endpoint(&self.deployment.mqtt.door)
    }

    /// Where bridges come in.
    pub(super) fn bridges_mqtt(&self) -> Endpoint {
        endpoint(&self.deployment.mqtt.bridge_door)
    }

    pub(super) fn kafka(&self) -> config::Kafka {
        self.kafka.clone()
    }

    pub(super) fn store(&self) -> registry::StoreConfig {
        self.store.clone()
    }

    /// What the client ids of bridges that are brought begin with.
    pub(super) fn bridge_prefix(&self) -> String {
        bridge_prefix(self.deployment.prefix.as_ref())
    }

    /// How a bridge that is brought reaches the broker; `through` where the harness is on the wire.
    pub(super) fn bridge_mqtt(&self, through: Option<&Endpoint>) -> config::Mqtt {
        let address = through.map_or_else(|| self.bridge.address.clone(), Endpoint::address);
        config::Mqtt { address, ..self.bridge.clone() }
    }

    /// What the configuration of a child leaves out, as the environment that it looks for it in.
    pub(super) fn secrets(&self) -> Vec<(&'static str, Secret)> {
        let kafka = self.kafka.security.as_ref().map(|security| &security.password);
        let all = [
            ("DMP_BRIDGE_MQTT_PASSWORD", Some(&self.bridge.password)),
            ("DMP_BRIDGE_KAFKA_PASSWORD", kafka),
            ("DMP_REGISTRY_KAFKA_PASSWORD", kafka),
            ("DMP_REGISTRY_STORE_PASSWORD", Some(&self.store.password)),
        ];
        all.into_iter().filter_map(|(name, secret)| Some((name, secret?.clone()))).collect()
    }
}

/// What the client ids of the bridges of a run begin with.
pub(super) fn bridge_prefix(run: Option<&RunPrefix>) -> String {
    run.map_or_else(|| "fleetproof".to_owned(), |run| format!("fleetproof-{run}"))
}

pub(super) fn endpoint(door: &Door) -> Endpoint {
    Endpoint { host: door.address.host.clone(), port: door.address.port, tls: door.tls }
}

fn bridge_mqtt(mqtt: &Mqtt) -> anyhow::Result<config::Mqtt> {
    let (certificate, key) = mqtt.bridge.certificate.clone().unzip();
    let tls = mqtt.bridge_door.tls.then(|| config::MqttTls {
        ca: mqtt.ca.clone(),
        certificate,
        key,
        server_name: mqtt.server_name.clone(),
    });
    Ok(config::Mqtt {
        username: mqtt.bridge.username.clone(),
        password: secret(mqtt.bridge.password.as_ref(), "the bridge")?,
        tls,
        ..config::Mqtt::at(mqtt.bridge_door.address.to_string())
    })
}

fn kafka_security(security: &KafkaSecurity) -> anyhow::Result<config::KafkaSecurity> {
    let (certificate, key) = security.certificate.clone().unzip();
    Ok(config::KafkaSecurity {
        tls: security.tls,
        ca: security.ca.clone(),
        certificate,
        key,
        sasl_mechanism: security.sasl.clone(),
        username: security.username.clone(),
        password_file: None,
        password: secret(security.password.as_ref(), "Kafka")?,
    })
}

fn secret(password: Option<&Password>, of: &str) -> anyhow::Result<Secret> {
    let read = password.map(|password| password.read(None)).transpose();
    let read = read.with_context(|| format!("reading the password of {of}"))?;
    Ok(read.map_or_else(Secret::default, Secret::new))
}
