//! The Docker engine: is it there, is the image there, and what a run has left behind.

use std::{collections::HashMap, net::Ipv4Addr, path::Path, time::Duration};

use bollard::{
    errors::Error,
    models::PortBinding,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use dmp_service::mqtt::Endpoint;
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt, core::ContainerPort, runners::AsyncRunner,
};

use super::{LABEL, images::Image};

/// Longest wait for an image to be pulled and its server to say that it is ready.
const STARTED_WITHIN: Duration = Duration::from_secs(300);

/// How long the engine may take to begin with what it was asked for.
const LATE_ORDERS: Duration = Duration::from_secs(2);

/// Why a container could not be started, as far as somebody can do something about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum DockerError {
    /// There is no engine.
    #[error(
        "no Docker engine answers: install Docker and start its daemon so that `docker info` works, or name another one \
         by DOCKER_HOST"
    )]
    NoEngine(#[source] Error),
    /// There is one, and this user may not use it.
    #[error(
        "this user may not use the Docker engine: add it to the group `docker`, or name another engine by DOCKER_HOST"
    )]
    Forbidden(#[source] Error),
    /// The image is not here and could not be had.
    #[error(
        "the image {image} for {what} is not on this machine and could not be pulled: pull or load it by hand, or name \
         another one by {variable}; tests/images/build makes such images where no registry can be reached"
    )]
    NoImage {
        what: &'static str,
        image: String,
        variable: &'static str,
        #[source]
        source: testcontainers::TestcontainersError,
    },
    /// It was started, and did not come up.
    #[error("starting {what} from the image {image}")]
    NotStarted {
        what: &'static str,
        image: String,
        #[source]
        source: testcontainers::TestcontainersError,
    },
}

/// An engine that answers, and the label of every container that is started by it.
#[derive(Clone)]
pub(super) struct Docker {
    pub(super) engine: bollard::Docker,
    label: String,
}

/// A server's port in its container, and on this machine's loopback.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub(super) inside: u16,
    pub(super) outside: u16,
}

impl Port {
    /// A free port of this machine for the port `inside`. Reserved by nothing but chance until the container has it.
    pub(super) fn free(inside: u16) -> std::io::Result<Port> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Port { inside, outside: listener.local_addr()?.port() })
    }

    /// Where it is on this machine.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint { host: Ipv4Addr::LOCALHOST.to_string(), port: self.outside, tls: false }
    }

    /// On loopback alone: nobody else is to reach a server of a test.
    fn binding(&self) -> (String, Option<Vec<PortBinding>>) {
        let host_ip = Some(Ipv4Addr::LOCALHOST.to_string());
        let binding = PortBinding { host_ip, host_port: Some(self.outside.to_string()) };
        (format!("{}/tcp", self.inside), Some(vec![binding]))
    }
}

impl Docker {
    /// Sees that an engine answers.
    pub(super) async fn connect(label: String) -> Result<Docker, DockerError> {
        let engine = bollard::Docker::connect_with_defaults().map_err(unreachable)?;
        engine.ping().await.map_err(unreachable)?;
        Ok(Docker { engine, label })
    }

    /// Starts a server whose `ports` are on loopback; `settled` adds what it needs.
    pub(super) async fn start(
        &self,
        image: &Image,
        ports: &[Port],
        settled: impl FnOnce(GenericImage) -> ContainerRequest<GenericImage>,
    ) -> Result<ContainerAsync<GenericImage>, DockerError> {
        let (name, tag) = image.name_and_tag();
        let full = format!("{name}:{tag}");
        let was_here = self.engine.inspect_image(&full).await.is_ok();
        let exposed = |image: GenericImage, port: &Port| image.with_exposed_port(ContainerPort::Tcp(port.inside));
        let image_with_ports = ports.iter().fold(GenericImage::new(name, tag), exposed);
        let bindings: HashMap<_, _> = ports.iter().map(Port::binding).collect();
        let request = settled(image_with_ports)
            .with_label(LABEL, &self.label)
            .with_startup_timeout(STARTED_WITHIN)
            .with_host_config_modifier(move |host| {
                host.port_bindings = Some(bindings.clone());
                host.publish_all_ports = Some(false);
            });
        request.start().await.map_err(|source| match was_here {
            true => DockerError::NotStarted { what: image.what, image: full, source },
            false => DockerError::NoImage { what: image.what, image: full, variable: image.variable, source },
        })
    }
}

fn unreachable(error: Error) -> DockerError {
    let denied = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(at) = cause {
        if denied(at) {
            return DockerError::Forbidden(error);
        }
        cause = at.source();
    }
    DockerError::NoEngine(error)
}

/// The name of its directory, which is drawn, tells a run from all others.
pub(super) fn label_of(run: &Path) -> String {
    run.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Removes every container of the run in `directory`: for the janitor. What cannot be removed stays.
pub(crate) async fn remove_all(directory: &Path) {
    let of_run = label_of(directory);
    remove_where(|label| label == of_run).await;
    // What a client asked for just before it was killed, the engine does after that.
    tokio::time::sleep(LATE_ORDERS).await;
    remove_where(|label| label == of_run).await;
}

/// Removes every container of ours whose label is such a one. What cannot be removed stays.
pub(super) async fn remove_where(is_one: impl Fn(&str) -> bool) {
    let Ok(engine) = bollard::Docker::connect_with_defaults() else { return };
    let ours = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
    let all = ListContainersOptionsBuilder::default().all(true).filters(&ours).build();
    let Ok(containers) = engine.list_containers(Some(all)).await else { return };
    let labelled = containers.into_iter().filter(|one| {
        let label = one.labels.as_ref().and_then(|labels| labels.get(LABEL));
        label.is_some_and(|label| is_one(label))
    });
    for id in labelled.filter_map(|container| container.id) {
        let whole = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let _removed_already = engine.remove_container(&id, Some(whole)).await;
    }
}
