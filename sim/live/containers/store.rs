//! The database server, and the databases in it.

use std::time::Duration;

use anyhow::Context;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, core::WaitFor};
use tokio_postgres::{Client, NoTls};

use super::{
    docker::{Docker, Port},
    images::{COCKROACH, POSTGRES},
};
use crate::run::StoreProduct;

/// Longest wait for the server to answer once it says that it is ready: PostgreSQL says so twice, and stops in between.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Time between two attempts.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// Further arguments of the PostgreSQL server, split at blanks: `-c default_transaction_isolation=serializable`.
const ARGUMENTS: &str = "FLEETPROOF_POSTGRES_ARGUMENTS";

/// User and owner of every database.
const USER: &str = "fleetproof";

/// Who may make and remove databases, and where.
pub(super) struct Database {
    product: StoreProduct,
    port: u16,
    password: String,
}

pub(super) struct Server {
    pub(super) database: Database,
    pub(super) container: ContainerAsync<GenericImage>,
}

pub(super) async fn start(docker: &Docker, product: StoreProduct) -> anyhow::Result<Server> {
    let password = uuid::Uuid::new_v4().simple().to_string();
    let (container, port) = match product {
        StoreProduct::Postgres => postgres(docker, &password).await?,
        StoreProduct::Cockroach => cockroach(docker).await?,
    };
    let database = Database { product, port: port.outside, password };
    database.answers().await?;
    Ok(Server { database, container })
}

async fn postgres(docker: &Docker, password: &str) -> anyhow::Result<(ContainerAsync<GenericImage>, Port)> {
    let port = Port::free(5432).context("looking for a free port for PostgreSQL")?;
    let more = std::env::var(ARGUMENTS).unwrap_or_default();
    let arguments = ["postgres", "-c", "max_connections=200"].into_iter().chain(more.split_whitespace());
    let arguments: Vec<String> = arguments.map(str::to_owned).collect();
    let container = docker
        .start(&POSTGRES, port, |image| {
            image
                .with_wait_for(WaitFor::message_on_either_std("database system is ready to accept connections"))
                .with_env_var("POSTGRES_USER", USER)
                .with_env_var("POSTGRES_PASSWORD", password)
                .with_cmd(arguments)
        })
        .await?;
    Ok((container, port))
}

async fn cockroach(docker: &Docker) -> anyhow::Result<(ContainerAsync<GenericImage>, Port)> {
    let port = Port::free(26257).context("looking for a free port for CockroachDB")?;
    let container = docker
        .start(&COCKROACH, port, |image| {
            image.with_wait_for(WaitFor::message_on_either_std("CockroachDB node starting")).with_cmd([
                "start-single-node",
                "--insecure",
                "--store=type=mem,size=1GiB",
            ])
        })
        .await?;
    Ok((container, port))
}

impl Database {
    /// The URL of one database.
    pub(super) fn url(&self, name: &str) -> String {
        match self.product {
            StoreProduct::Postgres => {
                format!("postgres://{USER}:{}@127.0.0.1:{}/{name}?sslmode=disable", self.password, self.port)
            }
            // An insecure node has no passwords.
            StoreProduct::Cockroach => format!("postgres://root@127.0.0.1:{}/{name}?sslmode=disable", self.port),
        }
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

    async fn answers(&self) -> anyhow::Result<()> {
        let answering = async {
            while let Err(error) = self.execute("SELECT 1").await {
                tracing::debug!("the database does not answer yet: {error:#}");
                tokio::time::sleep(TRY_EVERY).await;
            }
        };
        let within = tokio::time::timeout(ANSWERS_WITHIN, answering).await;
        within.with_context(|| format!("the database did not answer within {ANSWERS_WITHIN:?}"))
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
