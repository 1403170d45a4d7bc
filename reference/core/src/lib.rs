//! Agent, bridge and registry of a device management platform, as state machines without I/O.
//!
//! ```text
//! device -> agent -> mqtt -> bridge -> kafka -> registry -> store
//!           core     io      core      io       core        io
//! ```
//!
//! Nothing here reads a clock, draws ambient randomness, blocks or does I/O. A driver feeds events in, carries out the
//! effects that come out and answers them with further events ([`core::Core`]). The live driver is `dmp-service`; the
//! harness drives the same values. A crash is: drop the value, keep its store. A restart is: build it from the store.
//!
//! - [`time`] and [`id`]: the newtypes that everything speaks in
//! - [`event`]: the wire contract (topics, payloads, limits, poison)
//! - [`merge`]: the rule by which any order, repetition and subset of events ends in the same state
//! - [`agent`], [`bridge`], [`registry`]: the three parts
//! - [`record`]: what a reader of the store gets
//! - [`consume`]: what every consumer of a Kafka topic has in common
//! - [`dead_letter`]: what bridge and registry do with what cannot be decoded or stored
//! - [`sabotage`]: the one seam through which planted bugs enter, for checking the checks

pub mod agent;
pub mod bridge;
pub mod consume;
pub mod core;
pub mod dead_letter;
pub mod event;
pub mod id;
pub mod merge;
pub mod record;
pub mod registry;
pub mod sabotage;
pub mod time;
