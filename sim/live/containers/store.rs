//! The database server, and the databases in it.

use anyhow::Context;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio_postgres::{Client, NoTls};

use super::{
    docker::{Docker, Port},
    images::{COCKROACH, POSTGRES},
    link,
    machine::{Asked, Machine},
};
use crate::{live::proxy::Proxy, run::StoreProduct};

/// Further arguments of the PostgreSQL server, split at blanks: `-c default_transaction_isolation=serializable`.
const ARGUMENTS: &str = "FLEETPROOF_POSTGRES_ARGUMENTS";

/// User and owner of every database.
const USER: &str = "fleetproof";

/// Who may make and remove databases, and where.
#[derive(Clone, Copy)]
pub(super) struct Database {
    product: StoreProduct,
    port: u16,
}

pub(super) struct DatabaseServer {
    pub(super) database: Database,
    /// Registries' way to it, where it is to be broken.
    pub(super) link: Option<Proxy>,
    pub(super) machine: Machine,
    /// Removed when it is dropped.
    _container: ContainerAsync<GenericImage>,
}

impl DatabaseServer {
    pub(super) async fn start(
        docker: &Docker,
        product: StoreProduct,
        to_break: bool,
    ) -> anyhow::Result<DatabaseServer> {
        let (container, port) = match product {
            StoreProduct::Postgres => postgres(docker).await?,
            StoreProduct::Cockroach => cockroach(docker).await?,
        };
        let database = Database { product, port: port.outside };
        let (docker, server) = (docker.clone(), Asked::Database(database));
        let machine = Machine { docker, container: container.id().to_owned(), server };
        machine.answers().await?;
        let link = link(to_break, &port.endpoint()).await?;
        Ok(DatabaseServer { database, link, machine, _container: container })
    }
}

async fn postgres(docker: &Docker) -> anyhow::Result<(ContainerAsync<GenericImage>, Port)> {
    let port = Port::free(5432).context("looking for a free port for PostgreSQL")?;
    let more = std::env::var(ARGUMENTS).unwrap_or_default();
    let arguments = ["postgres", "-c", "max_connections=200"].into_iter().chain(more.split_whitespace());
    let arguments: Vec<String> = arguments.map(str::to_owned).collect();
    let container = docker
        .start(&POSTGRES, &[port], |image| {
            image
                .with_env_var("POSTGRES_USER", USER)
                // Only this machine can reach it, and a run's configurations hold no passwords.
                .with_env_var("POSTGRES_HOST_AUTH_METHOD", "trust")
                .with_cmd(arguments)
        })
        .await?;
    Ok((container, port))
}

async fn cockroach(docker: &Docker) -> anyhow::Result<(ContainerAsync<GenericImage>, Port)> {
    let port = Port::free(26257).context("looking for a free port for CockroachDB")?;
    let container =
        docker.start(&COCKROACH, &[port], |image| image.with_cmd(["start-single-node", "--insecure"])).await?;
    Ok((container, port))
}

impl Database {
    /// The URL of one database.
    pub(super) fn url(&self, name: &str) -> String {
        self.url_at(self.port, name)
    }

    /// The same on a link to the server.
    pub(super) fn url_at(&self, port: u16, name: &str) -> String {
        let user = match self.product {
            StoreProduct::Postgres => USER,
            // The only user of a node without certificates.
            StoreProduct::Cockroach => "root",
        };
        format!("postgres://{user}@127.0.0.1:{port}/{name}?sslmode=disable")
    }

    pub(super) async fn make(&self, name: &str) -> anyhow::Result<()> {
        self.execute(&format!("CREATE DATABASE {name}")).await.with_context(|| format!("making the database {name}"))
    }

    pub(super) async fn remove(&self, name: &str) -> anyhow::Result<()> {
        let how = match self.product {
            StoreProduct::Postgres => "WITH (FORCE)",
            StoreProduct::Cockroach => "CASCADE",
        };
        let statement = format!("DROP DATABASE IF EXISTS {name} {how}");
        self.execute(&statement).await.with_context(|| format!("removing the database {name}"))
    }

    /// Whether it does what it is asked, from outside: PostgreSQL's image first serves itself alone.
    pub(super) async fn ask(&self) -> anyhow::Result<()> {
        self.execute("SELECT 1").await
    }

    async fn execute(&self, statement: &str) -> anyhow::Result<()> {
        let administrative = match self.product {
            // Named like the user, by the image.
            StoreProduct::Postgres => USER,
            StoreProduct::Cockroach => "defaultdb",
        };
        let (client, connection): (Client, _) =
            tokio_postgres::connect(&self.url(administrative), NoTls).await.context("connecting to the database")?;
        let connection = tokio::spawn(connection);
        let done = client.batch_execute(statement).await;
        drop(client);
        let _ended_with_its_client = connection.await;
        Ok(done?)
    }
}
