//! Adapters and programs that run the `dmp-core` state machines on MQTT, Kafka and SQL.
//!
//! - [`mqtt`]: the MQTT client of fleet, agent and bridge
//! - [`store`]: what the registry writes, in SQLite or on a PostgreSQL or CockroachDB server
//! - [`kafka`]: producer, consumer, and a reader for tools
//! - [`drive`]: the one loop around a core; [`stage`]: supervised workers
//! - [`config`]: TOML file and environment into validated types
//! - [`agent`], [`bridge`], [`registry`]: the programs, as libraries; [`program`]: what they are to their caller
//! - [`command`]: one command from outside, and its reply

pub mod agent;
pub mod bridge;
pub mod cli;
pub mod command;
pub mod config;
pub mod drive;
pub mod http;
pub mod kafka;
mod link;
pub mod metrics;
pub mod mqtt;
pub mod program;
pub mod registry;
pub mod stage;
pub mod store;
