//! The MQTT broker: whether RAEs and bridge are let in and may say and hear what they must; and the whole way from there.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::{
    core::{Publication, Qos},
    event::{Topic, commands_filter, subscriptions},
    id::Rae,
};
use dmp_service::kafka::inspect::{Inspector, Tail};
use tokio::sync::mpsc;

use super::{Finding, presence, rae, right, unknown, words, wrong};
use crate::{
    live::{access::entrance, clean::EVERY_STATUS, deployed::Deployed, peer::Peer},
    target::Credentials,
};

const SERVER: &str = "mqtt";

/// From a RAE to the store.
const WAY: &str = "way";

/// A broker that refuses a message at QoS 1 may acknowledge it and close the connection then: so long it is watched.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// Longest way of a message to the log, and on to the store.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// Time between two looks whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a fleet cannot do without.
pub(super) async fn essentials(deployed: &Deployed) -> Vec<Finding> {
    let rae = rae(deployed);
    let mut found = Vec::new();
    if let Some(peer) = let_in(deployed, Some(&rae), &mut found).await {
        let _said_enough = peer.leave().await;
    }
    if deployed.deployment.bring.bridge
        && let Some(mut peer) = let_in(deployed, None, &mut found).await
    {
        // All shards, as one group.
        let filters = subscriptions(0, 1);
        found.push(match peer.subscribe(filters.clone()).await {
            Ok(()) => right(SERVER, "a bridge may subscribe to what travels up"),
            Err(error) => {
                wrong(SERVER, format!("a bridge may not subscribe to {}: {}", filters.join(" "), words(&error)))
            }
        });
        let _said_enough = peer.leave().await;
    }
    found
}

/// Everything; `own` tells that the prefix of the serials is the doctor's and not the target's.
pub(super) async fn look(deployed: &Deployed, own: bool) -> Vec<Finding> {
    let deployment = &deployed.deployment;
    let by_file = |credentials: &Credentials| {
        credentials.certificate.is_some()
            || credentials.password.as_ref().is_some_and(crate::target::Password::individual)
    };
    if own && deployment.mqtt.rae.individual() && by_file(&deployment.mqtt.rae) {
        let text = "each RAE has files of its own, and a run without run.prefix has serials that nobody knows before: \
                    set run.prefix, and make files for its serials";
        return vec![wrong(SERVER, text)];
    }
    let mut found = essentials(deployed).await;
    if !deployment.bring.bridge {
        found.push(may_clean(deployed).await);
    }
    let rae = rae(deployed);
    let Some(mut peer) = let_in(deployed, Some(&rae), &mut Vec::new()).await else { return found };
    let filter = commands_filter(&rae);
    found.push(match peer.subscribe(vec![filter.clone()]).await {
        Ok(()) => right(SERVER, format!("{rae} may subscribe to its commands, {filter}")),
        Err(error) => wrong(SERVER, format!("{rae} may not subscribe to its commands, {filter}: {}", words(&error))),
    });
    found.push(match say(&mut peer, &rae).await {
        Ok(()) => right(SERVER, format!("{rae} may publish to {}", status_topic(&rae))),
        Err(error) => wrong(SERVER, format!("{rae} may not publish to its status topic: {}", words(&error))),
    });
    found
}

/// Whether whoever looks for what a run has left is let in, and may look for retained messages. No run needs it.
async fn may_clean(deployed: &Deployed) -> Finding {
    let looking = async {
        let mut peer = connect(deployed, None).await?;
        peer.subscribe(vec![EVERY_STATUS.to_owned()]).await?;
        peer.leave().await
    };
    let door = deployed.bridges_mqtt();
    match looking.await {
        Ok(()) => right(
            SERVER,
            format!("{door} lets `fleetproof clean` in, and look for retained messages as far as it shows them"),
        ),
        Err(error) => {
            let why = words(&error);
            unknown(SERVER, format!("`fleetproof clean` cannot look for retained messages, see mqtt.bridge: {why}"))
        }
    }
}

/// Whether what a RAE says comes through: to the log, and on to the store, by the bridge and the registry that are there,
/// or as far as to a bridge that is to be brought. A broker may drop without a word what it does not allow.
pub(super) async fn the_way(deployed: &Deployed) -> Vec<Finding> {
    let rae = rae(deployed);
    let to = match deployed.deployment.bring.bridge {
        true => "a bridge",
        false => deployed.deployment.kafka.topics.events.as_str(),
    };
    let tried = match deployed.deployment.bring.bridge {
        true => heard(deployed, &rae).await,
        false => logged(deployed, &rae).await,
    };
    match tried {
        Err(error) => {
            vec![wrong(WAY, format!("a status of {rae} could not be published and followed: {}", words(&error)))]
        }
        Ok(None) => {
            let why = match deployed.deployment.bring.bridge {
                true => "may the RAE publish it, and a bridge read it?",
                false => "does a bridge run there, and may the RAE publish it?",
            };
            vec![wrong(WAY, format!("a status of {rae} did not come to {to} within {ARRIVES_WITHIN:?}: {why}"))]
        }
        Ok(Some(took)) => {
            let arrived = right(WAY, format!("a status of {rae} came to {to} after {} ms", took.as_millis()));
            [Some(arrived), shown(deployed, &rae).await].into_iter().flatten().collect()
        }
    }
}

/// How long a message takes to a bridge; `None` where it does not come.
async fn heard(deployed: &Deployed, rae: &Rae) -> anyhow::Result<Option<Duration>> {
    let mut bridge = connect(deployed, None).await?;
    bridge.subscribe(subscriptions(0, 1)).await?;
    let mut peer = connect(deployed, Some(rae)).await?;
    let topic = status_topic(rae);
    let arrives = async {
        loop {
            let message = bridge.message(ARRIVES_WITHIN).await?;
            if message.is_some_and(|message| *message.topic == *topic && !message.retain) {
                return Ok(());
            }
        }
    };
    timed(&mut peer, rae, arrives).await
}

/// How long a message takes to the log; `None` where it does not come.
async fn logged(deployed: &Deployed, rae: &Rae) -> anyhow::Result<Option<Duration>> {
    let deployment = &deployed.deployment;
    let events = &deployment.kafka.topics.events;
    let inspector = Inspector::new(&deployed.kafka(), &deployment.kafka.group)?;
    let ends: BTreeMap<_, _> = inspector.end_offsets(events).await?;
    let (records_in, mut records) = mpsc::channel(256);
    let _tail = Tail::start(&deployed.kafka(), events, ends, records_in).await?;
    let mut peer = connect(deployed, Some(rae)).await?;
    let topic = status_topic(rae);
    let arrives = async {
        while let Some(record) = records.recv().await {
            if record.key.as_deref() == Some(topic.as_bytes()) {
                return Ok(());
            }
        }
        anyhow::bail!("the reader of the log has ended")
    };
    timed(&mut peer, rae, arrives).await
}

/// How long after a RAE began to say something it `arrives`; `None` where it does not.
async fn timed(
    peer: &mut Peer,
    rae: &Rae,
    arrives: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Option<Duration>> {
    let began = tokio::time::Instant::now();
    let arrival = async {
        match tokio::time::timeout(ARRIVES_WITHIN, arrives).await {
            Ok(arrived) => arrived.map(|()| Some(began.elapsed())),
            Err(_elapsed) => Ok(None),
        }
    };
    let ((), took) = tokio::try_join!(say(peer, rae), arrival)?;
    Ok(took)
}

/// Whether the store comes to show a RAE; `None` where it cannot or is not to.
async fn shown(deployed: &Deployed, rae: &Rae) -> Option<Finding> {
    let deployment = &deployed.deployment;
    if deployment.bring.bridge || deployment.bring.registry || deployment.store.view.is_some() {
        return None;
    }
    let looking = async {
        while !super::store::shows(deployed, rae).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    Some(match tokio::time::timeout(ARRIVES_WITHIN, looking).await {
        Ok(Ok(())) => right(WAY, format!("and is shown in the store; `fleetproof clean` removes it: {rae}")),
        Ok(Err(error)) => wrong(WAY, format!("looking for {rae} in the store: {}", words(&error))),
        Err(_elapsed) => {
            let group = &deployment.kafka.group;
            let text = format!(
                "{rae} is not shown in the store within {ARRIVES_WITHIN:?}: does a registry of group {group} run?"
            );
            wrong(WAY, text)
        }
    })
}

/// Comes in as a RAE, or, without one, as a bridge: with a session of the doctor's own.
async fn connect(deployed: &Deployed, rae: Option<&Rae>) -> anyhow::Result<Peer> {
    let client_id = rae.map_or_else(|| format!("{}-doctor", deployed.bridge_prefix()), Rae::to_string);
    Peer::connect(&entrance(&deployed.deployment, rae.map(Rae::as_str))?, &client_id).await
}

/// Whether a RAE is let in, or, without one, a bridge.
async fn let_in(deployed: &Deployed, rae: Option<&Rae>, found: &mut Vec<Finding>) -> Option<Peer> {
    let who = rae.map_or_else(|| "the bridge".to_owned(), Rae::to_string);
    let door = if rae.is_some() { deployed.mqtt() } else { deployed.bridges_mqtt() };
    match connect(deployed, rae).await {
        Ok(peer) => {
            found.push(right(SERVER, format!("{door} lets {who} in")));
            Some(peer)
        }
        Err(error) => {
            found.push(wrong(SERVER, format!("{who} is not let in: {}", words(&error))));
            None
        }
    }
}

/// Says that a RAE is offline, which nobody takes for more than it is, and nothing keeps.
async fn say(peer: &mut Peer, rae: &Rae) -> anyhow::Result<()> {
    let message = Publication {
        topic: status_topic(rae).into(),
        payload: presence().encode().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
    };
    peer.publish(&message).await?;
    peer.message(REFUSED_WITHIN).await?;
    Ok(())
}

fn status_topic(rae: &Rae) -> String {
    Topic::Status(rae.clone()).to_string()
}
