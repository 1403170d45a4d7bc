//! Who may publish and read what. A message that must not arrive is always followed by one that must: nothing is waited for.

use dmp_core::core::{Publication, Qos};
use dmp_service::mqtt::ConnectOptions;

use crate::{
    broker::{Broker, Door},
    lab::LAB,
    wire::{Wire, options},
};

const UP: [&str; 3] = ["dmp/v1/+/+/+/state", "dmp/v1/+/+/+/reply", "dmp/v1/+/+/status"];
const BRIDGE: &str = "dmp-bridge-0of1";

fn message(topic: &str, payload: &str) -> (String, String) {
    (topic.to_owned(), payload.to_owned())
}

#[tokio::test]
async fn a_rae_publishes_its_own_state_replies_and_status_and_nothing_else() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    bridge.subscribe(&UP).await;
    let mut other = Wire::rae(&broker, &LAB, "RAE-2").await;
    other.subscribe(&["dmp/v1/+/RAE-2/+/cmd"]).await;
    let mut operator = Wire::operator(&broker, &LAB, "lab").await;
    operator.subscribe(&["dmp/v1/+/RAE-1/+/cmd"]).await;
    let forbidden = [
        "dmp/v1/s00/RAE-2/x/state",
        "dmp/v1/s00/RAE-2/x/reply",
        "dmp/v1/s00/RAE-2/x/cmd",
        "dmp/v1/s00/RAE-1/x/cmd",
        "dmp/v1/s00/RAE-2/status",
        "dmp/v1/RAE-1/RAE-2/x/state",
        "other/RAE-1/x/state",
    ];
    for topic in forbidden {
        for retain in [false, true] {
            Wire::rae(&broker, &LAB, "RAE-1").await.publish_in_vain(topic, "forged", retain).await;
        }
    }
    let mut rae = Wire::rae(&broker, &LAB, "RAE-1").await;
    for topic in ["dmp/v1/s00/RAE-1/x/state", "dmp/v1/s00/RAE-1/x/reply", "dmp/v1/s00/RAE-1/status"] {
        rae.publish(topic, "true").await;
        assert_eq!(bridge.message().await, message(topic, "true"));
    }
    for (to, reader) in [("RAE-2", &mut other), ("RAE-1", &mut operator)] {
        let topic = format!("dmp/v1/s00/{to}/x/cmd");
        bridge.publish(&topic, "true").await;
        assert_eq!(reader.message().await, message(&topic, "true"));
    }
    // Nor is anything kept for who comes later.
    let mut later = Wire::bridge(&broker, &LAB, "dmp-bridge-0of2").await;
    later.subscribe(&UP).await;
    rae.publish("dmp/v1/s00/RAE-1/x/state", "last").await;
    assert_eq!(later.message().await, message("dmp/v1/s00/RAE-1/x/state", "last"));
}

#[tokio::test]
async fn a_rae_reads_its_own_commands_and_nothing_else_whatever_it_subscribes_to() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    let mut one = Wire::rae(&broker, &LAB, "RAE-1").await;
    one.subscribe(&["dmp/v1/s00/RAE-1/+/cmd"]).await;
    for filter in ["dmp/v1/+/RAE-1/+/cmd", "dmp/v1/+/+/+/cmd", "#", "$SYS/#"] {
        let mut two = Wire::rae(&broker, &LAB, "RAE-2").await;
        // The broker grants it, and holds each message against the rights.
        two.subscribe(&[filter]).await;
        two.subscribe(&["dmp/v1/+/RAE-2/+/cmd"]).await;
        bridge.publish("dmp/v1/s00/RAE-1/x/cmd", filter).await;
        one.publish("dmp/v1/s00/RAE-1/x/state", filter).await;
        one.publish("dmp/v1/s00/RAE-1/status", filter).await;
        bridge.publish("dmp/v1/s00/RAE-2/x/cmd", filter).await;
        assert_eq!(one.message().await, message("dmp/v1/s00/RAE-1/x/cmd", filter));
        assert_eq!(two.message().await, message("dmp/v1/s00/RAE-2/x/cmd", filter));
    }
}

#[tokio::test]
async fn a_last_will_speaks_for_its_own_rae_alone() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    bridge.subscribe(&UP).await;
    for (topic, heard) in [("dmp/v1/s00/RAE-2/status", false), ("dmp/v1/s00/RAE-1/status", true)] {
        let will = Publication { topic: topic.into(), payload: "will".into(), qos: Qos::AtLeastOnce, retain: false };
        let with_will = ConnectOptions { will: Some(will), ..options("RAE-1", Some(LAB.rae("RAE-1"))) };
        // Refused at once, or when it fires: either is right.
        let connected = Wire::connect(broker.dialer(Door::RaePassword, &LAB.trusting()), with_will).await;
        drop(connected);
        // Of the same client: the broker has ended the connection before, and its will with it.
        Wire::rae(&broker, &LAB, "RAE-1").await.publish("dmp/v1/s00/RAE-1/x/state", "after").await;
        if heard {
            assert_eq!(bridge.message().await, message(topic, "will"));
        }
        assert_eq!(bridge.message().await, message("dmp/v1/s00/RAE-1/x/state", "after"));
    }
}

#[tokio::test]
async fn a_client_id_is_no_way_into_the_connection_of_another() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut other = Wire::rae(&broker, &LAB, "RAE-2").await;
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    bridge.subscribe(&UP).await;
    drop(bridge);
    let impostors = [
        ("RAE-2", Door::RaePassword, LAB.rae("RAE-1")),
        (BRIDGE, Door::RaePassword, LAB.rae("RAE-1")),
        ("RAE-2", Door::Operator, LAB.operator("lab")),
        (BRIDGE, Door::Operator, LAB.operator("lab")),
    ];
    for (client_id, door, credentials) in &impostors {
        let _impostor = Wire::to(&broker, &LAB, *door, options(client_id, Some(credentials.clone()))).await;
        // It was not thrown out; and what waits for the bridge goes on waiting.
        other.publish("dmp/v1/s00/RAE-2/x/state", client_id).await;
    }
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    assert!(bridge.session_present());
    for (client_id, ..) in impostors {
        assert_eq!(bridge.message().await, message("dmp/v1/s00/RAE-2/x/state", client_id));
    }
}

#[tokio::test]
async fn an_operator_sees_and_commands_the_raes_that_were_given_to_it() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    bridge.subscribe(&UP).await;
    let mut operator = Wire::operator(&broker, &LAB, "lab").await;
    operator.subscribe(&["#"]).await;
    let (mut one, mut two) = (Wire::rae(&broker, &LAB, "RAE-1").await, Wire::rae(&broker, &LAB, "RAE-2").await);
    one.subscribe(&["dmp/v1/s00/RAE-1/+/cmd"]).await;
    two.subscribe(&["dmp/v1/s00/RAE-2/+/cmd"]).await;
    for kind in ["x/state", "x/reply", "status"] {
        two.publish(&format!("dmp/v1/s00/RAE-2/{kind}"), "of two").await;
        one.publish(&format!("dmp/v1/s00/RAE-1/{kind}"), "of one").await;
        assert_eq!(operator.message().await, message(&format!("dmp/v1/s00/RAE-1/{kind}"), "of one"));
        for rae in ["RAE-2", "RAE-1"] {
            assert_eq!(bridge.message().await.0, format!("dmp/v1/s00/{rae}/{kind}"));
        }
    }
    drop(operator);
    for topic in ["dmp/v1/s00/RAE-2/x/cmd", "dmp/v1/s00/RAE-1/x/state", "dmp/v1/s00/RAE-1/status"] {
        Wire::operator(&broker, &LAB, "lab").await.publish_in_vain(topic, "forged", false).await;
    }
    Wire::operator(&broker, &LAB, "lab").await.publish("dmp/v1/s00/RAE-1/x/cmd", "given").await;
    assert_eq!(one.message().await, message("dmp/v1/s00/RAE-1/x/cmd", "given"));
    bridge.publish("dmp/v1/s00/RAE-2/x/cmd", "by the bridge").await;
    assert_eq!(two.message().await, message("dmp/v1/s00/RAE-2/x/cmd", "by the bridge"));
    one.publish("dmp/v1/s00/RAE-1/x/state", "last").await;
    assert_eq!(bridge.message().await, message("dmp/v1/s00/RAE-1/x/state", "last"));
}

#[tokio::test]
async fn a_bridge_reads_what_goes_up_writes_what_goes_down_and_no_more() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let mut operator = Wire::operator(&broker, &LAB, "lab").await;
    operator.subscribe(&["dmp/v1/+/RAE-1/#"]).await;
    for topic in ["dmp/v1/s00/RAE-1/x/state", "dmp/v1/s00/RAE-1/x/reply", "dmp/v1/s00/RAE-1/status", "$SYS/broker"] {
        Wire::bridge(&broker, &LAB, BRIDGE).await.publish_in_vain(topic, "forged", false).await;
    }
    let mut bridge = Wire::bridge(&broker, &LAB, BRIDGE).await;
    bridge.subscribe(&["#", "$SYS/#"]).await;
    bridge.publish("dmp/v1/s00/RAE-1/x/cmd", "true").await;
    assert_eq!(operator.message().await, message("dmp/v1/s00/RAE-1/x/cmd", "true"));
    let mut rae = Wire::rae(&broker, &LAB, "RAE-1").await;
    rae.publish("dmp/v1/s00/RAE-1/x/state", "true").await;
    assert_eq!(bridge.message().await, message("dmp/v1/s00/RAE-1/x/state", "true"));
}
