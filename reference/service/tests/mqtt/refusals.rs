//! Each way in which a connection is not made has its own error, which names the endpoint.

use std::time::Duration;

use dmp_core::core::{Publication, Qos};
use dmp_service::mqtt::{Closed, ConnectError, ConnectOptions, Credentials, Dialer, Incoming, Secret};
use rumqttc::mqttbytes::v4::{ConnectReturnCode, Packet};
use tokio::io::AsyncWriteExt;

use crate::peer::{Peer, connecting, dialer, event, listen, options, words};

async fn failure(dialer: Dialer, options: ConnectOptions) -> ConnectError {
    let endpoint = dialer.endpoint().to_string();
    let mut client = connecting(dialer, options);
    match event(&mut client).await {
        Incoming::Closed(Closed::NotMade(error)) => {
            assert!(words(&error).contains(&endpoint), "{} names no endpoint", words(&error));
            *error
        }
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn with_password() -> ConnectOptions {
    let credentials = Credentials { user: "RAE-1".into(), password: Some(Secret::new("hunter2")) };
    ConnectOptions { credentials: Some(credentials), ..options() }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let (listener, endpoint) = listen().await;
    drop(listener);
    let error = failure(dialer(&endpoint), options()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn refused_credentials_name_the_user_and_never_the_password() {
    for code in [ConnectReturnCode::BadUserNamePassword, ConnectReturnCode::NotAuthorized] {
        let (listener, endpoint) = listen().await;
        let refuse = async { Peer::accept(&listener).await.answer(code).await };
        let (error, ()) = tokio::join!(failure(dialer(&endpoint), with_password()), refuse);
        assert!(matches!(&error, ConnectError::BadCredentials { user, .. } if user == "RAE-1"), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"));
    }
}

#[tokio::test]
async fn the_other_refusals_say_what_the_broker_refuses() {
    for code in [
        ConnectReturnCode::RefusedProtocolVersion,
        ConnectReturnCode::BadClientId,
        ConnectReturnCode::ServiceUnavailable,
    ] {
        let (listener, endpoint) = listen().await;
        let refuse = async { Peer::accept(&listener).await.answer(code).await };
        let (error, ()) = tokio::join!(failure(dialer(&endpoint), options()), refuse);
        assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_broker_that_closes_instead_of_answering_is_told_apart() {
    let (listener, endpoint) = listen().await;
    let close = async { drop(Peer::accept(&listener).await) };
    let (error, ()) = tokio::join!(failure(dialer(&endpoint), options()), close);
    assert!(matches!(error, ConnectError::ClosedEarly { .. }), "{error:?}");
}

#[tokio::test]
async fn a_broker_that_does_not_answer_is_given_up_within_the_bound() {
    let (_listener, endpoint) = listen().await;
    let error = failure(dialer(&endpoint).within(Duration::from_millis(50)), options()).await;
    assert!(matches!(error, ConnectError::Timeout { step: "the answer to CONNECT", .. }), "{error:?}");
}

#[tokio::test]
async fn what_does_not_speak_mqtt_is_a_protocol_error() {
    let (listener, endpoint) = listen().await;
    let http = async {
        let mut peer = Peer::accept(&listener).await;
        peer.stream
            .write_all(
                b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n<html> and much more than a packet could hold",
            )
            .await
            .expect("written");
        peer
    };
    let (error, _peer) = tokio::join!(failure(dialer(&endpoint), options()), http);
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");

    let (listener, endpoint) = listen().await;
    let other = async {
        let mut peer = Peer::accept(&listener).await;
        peer.send(Packet::PingResp).await;
        peer
    };
    let (error, _peer) = tokio::join!(failure(dialer(&endpoint), options()), other);
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn options_that_make_no_packet_are_refused_before_anything_is_sent() {
    let (_listener, endpoint) = listen().await;
    let will = Publication {
        topic: "dmp/v1/s00/RAE-1/status".into(),
        payload: vec![0; 70_000].into(),
        qos: Qos::AtLeastOnce,
        retain: true,
    };
    let nameless = Credentials { user: String::new(), password: Some(Secret::new("hunter2")) };
    for options in [
        ConnectOptions { will: Some(will), ..options() },
        ConnectOptions { client_id: "".into(), clean_session: false, ..options() },
        ConnectOptions { credentials: Some(nameless), ..options() },
    ] {
        let error = failure(dialer(&endpoint), options).await;
        assert!(matches!(error, ConnectError::Options { .. }), "{error:?}");
    }
}
