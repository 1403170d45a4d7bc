//! The live driver: real sockets, real brokers, a real database.

pub mod embedded;
pub mod proxy;
