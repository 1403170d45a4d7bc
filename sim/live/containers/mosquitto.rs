//! Mosquitto.

use anyhow::Context;
use dmp_service::mqtt::Endpoint;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, core::WaitFor};

use super::{
    docker::{Docker, Port},
    images::MOSQUITTO,
};

/// Queues without a bound: by default a broker drops what a slow subscriber has not taken, at QoS 1 too
/// (mosquitto.conf(5), `max_queued_messages`).
const CONFIG: &str = "\
listener 1883
allow_anonymous true
persistence true
persistence_location /mosquitto/data/
log_dest stderr
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 1000
max_packet_size 2097152
set_tcp_nodelay true
";

/// Where access lists go, in the container.
const ACCESS_FILE: &str = "/mosquitto/config/access";

pub(super) struct Mosquitto {
    pub(super) endpoint: Endpoint,
    pub(super) container: ContainerAsync<GenericImage>,
}

pub(super) async fn start(docker: &Docker) -> anyhow::Result<Mosquitto> {
    let (port, container) = serve(docker, None).await?;
    Ok(Mosquitto { endpoint: Endpoint { host: "127.0.0.1".to_owned(), port, tls: false }, container })
}

/// A broker and its port; with access lists, if any are given.
pub(super) async fn serve(
    docker: &Docker,
    access: Option<String>,
) -> anyhow::Result<(u16, ContainerAsync<GenericImage>)> {
    let port = Port::free(1883).context("looking for a free port for Mosquitto")?;
    let container = docker
        .start(&MOSQUITTO, port, |image| {
            let request = image.with_wait_for(WaitFor::message_on_either_std(" running"));
            let config = "/mosquitto/config/mosquitto.conf";
            match access {
                None => request.with_copy_to(config, CONFIG.as_bytes().to_vec()),
                Some(access) => request
                    .with_copy_to(config, format!("{CONFIG}acl_file {ACCESS_FILE}\n").into_bytes())
                    .with_copy_to(ACCESS_FILE, access.into_bytes()),
            }
        })
        .await?;
    Ok((port.outside, container))
}
