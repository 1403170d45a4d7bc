//! Who does not come in, and what is said on our side: each refusal names the broker and the reason.

use dmp_service::mqtt::{ConnectError, Credentials, Dialer, Endpoint, Secret, TlsSettings};

use crate::{
    broker::{Broker, Door},
    lab::{LAB, Lab},
    wire::{Wire, options},
};

async fn refused(dialer: Dialer, credentials: Option<Credentials>) -> (ConnectError, String) {
    let endpoint = dialer.endpoint().to_string();
    match Wire::connect(dialer, options("RAE-1", credentials)).await {
        Ok(_) => panic!("{endpoint} let it in"),
        Err(error) => {
            let words = words(&error);
            assert!(words.contains(&endpoint), "{words}");
            (error, words)
        }
    }
}

#[tokio::test]
async fn who_has_no_name_or_no_right_password_is_refused_by_name_at_every_door() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let with =
        |user: &str, password: &str| Some(Credentials { user: user.to_owned(), password: Some(Secret::new(password)) });
    for door in [Door::RaePassword, Door::Bridge, Door::Operator] {
        let dialer = || broker.dialer(door, &LAB.trusting());
        let (error, words) = refused(dialer(), None).await;
        assert!(matches!(&error, ConnectError::BadCredentials { user, .. } if user.is_empty()), "{words}");
        assert!(words.contains("a client without a user name"), "{words}");
        let nameless = Some(Credentials { user: "RAE-1".to_owned(), password: None });
        for credentials in [with("RAE-1", "hunter2"), with("bridge", "hunter2"), with("lab", ""), nameless] {
            let name = credentials.clone().expect("given").user;
            let (error, words) = refused(dialer(), credentials).await;
            assert!(matches!(&error, ConnectError::BadCredentials { user, .. } if *user == name), "{words}");
            assert!(words.contains(&format!("{name:?}")) && !words.contains("hunter2"), "{words}");
        }
    }
}

#[tokio::test]
async fn nobody_comes_in_by_the_door_of_others_and_the_registry_by_none() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let registry =
        Credentials { user: "registry".to_owned(), password: Some(Secret::new(LAB.read("registry/kafka-password"))) };
    let people = [
        (LAB.rae("RAE-1"), Some(Door::RaePassword)),
        (LAB.bridge(), Some(Door::Bridge)),
        (LAB.operator("lab"), Some(Door::Operator)),
        (registry, None),
    ];
    for (credentials, own) in people {
        for door in [Door::RaePassword, Door::Bridge, Door::Operator] {
            let dialer = broker.dialer(door, &LAB.trusting());
            if Some(door) == own {
                Wire::connect(dialer, options("RAE-1", Some(credentials.clone()))).await.expect("its own door");
            } else {
                let (error, words) = refused(dialer, Some(credentials.clone())).await;
                assert!(matches!(error, ConnectError::BadCredentials { .. }), "{words}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_is_said_without_tls() {
    let Some(broker) = Broker::start(&LAB) else { return };
    for door in [Door::RaePassword, Door::RaeCertificate, Door::Bridge, Door::Operator] {
        let plain = Endpoint { tls: false, ..broker.endpoint(door) };
        let dialer = Dialer::new(plain, &TlsSettings::default()).expect("no TLS, no error");
        let (error, words) = refused(dialer, Some(LAB.rae("RAE-1"))).await;
        let right = matches!(
            error,
            ConnectError::ClosedEarly { .. } | ConnectError::Broken { .. } | ConnectError::Protocol { .. }
        );
        assert!(right, "{words}");
    }
}

#[tokio::test]
async fn a_broker_of_another_authority_or_of_another_name_is_not_spoken_to() {
    let Some(broker) = Broker::start(&LAB) else { return };
    let stranger = Lab::new(&[]);
    let renamed = TlsSettings { server_name: Some("broker.example".to_owned()), ..LAB.trusting() };
    let cases = [
        (stranger.trusting(), "UnknownIssuer"),
        (TlsSettings::default(), "UnknownIssuer"),
        (renamed, "not valid for name \"broker.example\""),
    ];
    for (tls, reason) in cases {
        let (error, words) = refused(broker.dialer(Door::RaePassword, &tls), Some(LAB.rae("RAE-1"))).await;
        assert!(matches!(error, ConnectError::Tls { .. }) && words.contains(reason), "{words}");
    }
}

#[tokio::test]
async fn a_broker_whose_certificate_has_expired_is_not_spoken_to() {
    let lab = Lab::empty();
    lab.expired("RAE-1");
    let Some(broker) = Broker::start(&lab) else { return };
    let (error, words) = refused(broker.dialer(Door::RaePassword, &lab.trusting()), Some(lab.rae("RAE-1"))).await;
    assert!(matches!(error, ConnectError::Tls { .. }) && words.contains("certificate expired"), "{words}");
}

#[tokio::test]
async fn a_certificate_is_a_name_unless_it_is_missing_expired_or_of_another_authority() {
    let lab = Lab::new(&["RAE-1"]);
    lab.expired("RAE-EXPIRED");
    let stranger = Lab::new(&["RAE-1"]);
    let Some(broker) = Broker::start(&lab) else { return };
    let foreign = TlsSettings { authorities: lab.trusting().authorities, ..stranger.showing("RAE-1") };
    let cases = [
        (lab.trusting(), "CertificateRequired"),
        (lab.showing("RAE-EXPIRED"), "CertificateExpired"),
        (foreign, "UnknownCA"),
    ];
    for (tls, reason) in cases {
        // A password opens nothing here.
        let (error, words) = refused(broker.dialer(Door::RaeCertificate, &tls), Some(lab.rae("RAE-1"))).await;
        assert!(matches!(error, ConnectError::Tls { .. }) && words.contains(reason), "{words}");
    }
    let mut bridge = Wire::bridge(&broker, &lab, "dmp-bridge-0of1").await;
    bridge.subscribe(&["dmp/v1/+/+/+/state"]).await;
    let certified = async || {
        let dialer = broker.dialer(Door::RaeCertificate, &lab.showing("RAE-1"));
        Wire::connect(dialer, options("RAE-2", None)).await.expect("a good certificate")
    };
    certified().await.publish_in_vain("dmp/v1/s00/RAE-2/x/state", "forged", false).await;
    certified().await.publish("dmp/v1/s00/RAE-1/x/state", "true").await;
    assert_eq!(bridge.message().await, ("dmp/v1/s00/RAE-1/x/state".to_owned(), "true".to_owned()));
}

/// The error and its causes, as logs have them.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
