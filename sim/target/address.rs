//! `host:port`, and whether that is this machine alone.

use std::{fmt, net::IpAddr, str::FromStr};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name, IPv4 address, or IPv6 address without its brackets.
    pub host: String,
    /// TCP port, 1 to 65,535.
    pub port: u16,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No host.
    #[error("names no host")]
    Host,
    /// No port, or none from 1 to 65,535.
    #[error("needs a port from 1 to 65535 behind the host")]
    Port,
    /// A user, a path, or blanks.
    #[error("is more than a host and a port")]
    TooMuch,
}

impl Address {
    /// Whether connections to it stay on this machine. A name is believed only where it is `localhost`.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }
}

/// Whether connections to `host` stay on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        if text.contains(['@', '/', '?', '#', ',']) || text.contains(char::is_whitespace) {
            return Err(AddressError::TooMuch);
        }
        let (host, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(AddressError::Host),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(AddressError::Host);
        }
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        Ok(Address { host: host.to_owned(), port: port.ok_or(AddressError::Port)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
