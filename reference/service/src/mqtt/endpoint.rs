//! Where a broker is: `mqtt://host:port` or `mqtts://host:port`.

use std::{fmt, str::FromStr};

/// Address of an MQTT broker.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name, IPv4 address, or IPv6 address without its brackets.
    pub host: String,
    /// TCP port, 1 to 65,535.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `mqtt://` nor `mqtts://` in front.
    #[error("MQTT endpoint {0:?} does not begin with mqtt:// or mqtts://")]
    Scheme(String),
    /// A user or a path, which have no place here.
    #[error("MQTT endpoint {0:?} is more than scheme, host and port; user and password are settings of their own")]
    TooMuch(String),
    /// No host.
    #[error("MQTT endpoint {0:?} names no host")]
    Host(String),
    /// No port, or not a number from 1 to 65,535.
    #[error("MQTT endpoint {0:?} needs a port from 1 to 65535 after the host, for example :1883 (TLS :8883)")]
    Port(String),
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        // A user and password given by mistake must not come back in the error.
        let shown = || text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, end)| format!("...@{end}"));
        let (tls, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            Some(_) | None => return Err(EndpointError::Scheme(shown())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['@', '/', '?', '#']) || rest.contains(char::is_whitespace) {
            return Err(EndpointError::TooMuch(shown()));
        }
        let (host, port) = match rest.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match rest.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err(EndpointError::Host(shown())),
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        if host.is_empty() {
            return Err(EndpointError::Host(shown()));
        }
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port != 0);
        let port = port.ok_or_else(|| EndpointError::Port(shown()))?;
        Ok(Endpoint { host: host.to_owned(), port, tls })
    }
}

impl Endpoint {
    /// Host and port without the scheme, as configurations name a server: `broker:1883`, `[::1]:1883`.
    #[must_use]
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        write!(f, "{scheme}://{}", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_back_as_it_was_written() {
        for text in ["mqtt://localhost:1883", "mqtts://broker.lab.example:8883", "mqtt://[::1]:1883"] {
            assert_eq!(text.parse::<Endpoint>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_for_the_right_reason() {
        let reason = |text: &str| text.parse::<Endpoint>().expect_err(text);
        assert!(matches!(reason("localhost:1883"), EndpointError::Scheme(_)));
        assert!(matches!(reason("tcp://localhost:1883"), EndpointError::Scheme(_)));
        assert!(matches!(reason("mqtt://:1883"), EndpointError::Host(_)));
        assert!(matches!(reason("mqtt://::1:1883"), EndpointError::Host(_)));
        assert!(matches!(reason("mqtt://localhost"), EndpointError::Port(_)));
        assert!(matches!(reason("mqtt://localhost:0"), EndpointError::Port(_)));
        assert!(matches!(reason("mqtt://localhost:70000"), EndpointError::Port(_)));
        assert!(matches!(reason("mqtt://localhost:1883/a"), EndpointError::TooMuch(_)));
    }

    #[test]
    fn a_password_in_an_endpoint_does_not_come_back_in_the_error() {
        let error = "mqtt://user:hunter2@host:1883".parse::<Endpoint>().expect_err("a user is refused").to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
