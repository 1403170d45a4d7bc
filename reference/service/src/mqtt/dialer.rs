//! Makes connections to one broker: TCP, TLS if asked for, CONNECT and CONNACK, all within one bound.
//!
//! Shared by all clients of a process, because reading certificates and limiting how many connect at a time are
//! matters of the process and not of one connection.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use dmp_core::core::Publication;
use rumqttc::mqttbytes::v4::{ConnAck, ConnectReturnCode, Packet};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    ConnectError, Credentials, Endpoint, TlsError, TlsSettings,
    connection::{Connection, Stream},
    oversize::Excess,
    packet,
};

/// Time for the handshakes of a connection, unless set otherwise: a RAE's slow uplink needs seconds, not more.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What a CONNECT packet says (MQTT 3.1.1, section 3.1).
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Client id; a second connection with the same one ends the first.
    pub client_id: Arc<str>,
    /// Whether the broker forgets the session before and after this connection.
    pub clean_session: bool,
    /// The broker hears from this side at least this often; whole seconds, at least one. Half of it is the bound
    /// within which a dead connection is noticed after a ping.
    pub keep_alive: Duration,
    /// Published by the broker when the connection ends without DISCONNECT.
    pub will: Option<Publication>,
    /// User and password.
    pub credentials: Option<Credentials>,
}

/// Where and how to connect. To be shared in an [`Arc`].
pub struct Dialer {
    endpoint: Endpoint,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    within: Duration,
    gate: Option<Arc<Semaphore>>,
}

impl Dialer {
    /// Connections to this broker; reads the certificate files if it is spoken to in TLS.
    ///
    /// # Errors
    /// [`ConnectError::TlsSettings`] where a file or the host name is of no use.
    pub fn new(endpoint: Endpoint, tls: &TlsSettings) -> Result<Dialer, ConnectError> {
        let tls = if endpoint.tls {
            let of = |error| ConnectError::TlsSettings { endpoint: endpoint.clone(), source: Box::new(error) };
            let name = tls.server_name.as_ref().unwrap_or(&endpoint.host);
            let name =
                ServerName::try_from(name.clone()).map_err(|_| of(TlsError::ServerName { name: name.clone() }))?;
            Some((TlsConnector::from(tls.load().map_err(of)?), name))
        } else {
            None
        };
        Ok(Dialer { endpoint, tls, within: CONNECT_WITHIN, gate: None })
    }

    /// Lets at most `connects` (at least 1) be under way at a time; the others wait without a bound but that of their
    /// own turn. Small brokers refuse or starve what comes in larger crowds.
    #[must_use]
    pub fn at_most(self, connects: usize) -> Dialer {
        Dialer { gate: Some(Arc::new(Semaphore::new(connects.max(1)))), ..self }
    }

    /// Waits in one line with the connects of `other`, as it was limited: for clients that connect with certificates of
    /// their own.
    #[must_use]
    pub fn in_turn_with(self, other: &Dialer) -> Dialer {
        Dialer { gate: other.gate.clone(), ..self }
    }

    /// Bounds all handshakes of one connection together; 10 s unless set.
    #[must_use]
    pub fn within(self, within: Duration) -> Dialer {
        Dialer { within, ..self }
    }

    /// The broker's address.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes one connection; tells also whether the broker still had the session.
    pub(super) async fn dial(self: Arc<Dialer>, options: ConnectOptions) -> Result<(Connection, bool), ConnectError> {
        let request = packet::connect(&options)
            .map_err(|what| ConnectError::Options { endpoint: self.endpoint.clone(), what })?;
        let _turn = match &self.gate {
            Some(gate) => Some(gate.acquire().await.expect("the gate is never closed")),
            None => None,
        };
        let deadline = Instant::now() + self.within;
        let tcp = self.bounded(deadline, "the TCP connection", self.tcp()).await?;
        let mut stream = self.bounded(deadline, "the TLS handshake", self.secure(tcp)).await?;
        let mut received = BytesMut::new();
        let answer = self.introduce(&mut stream, &request, &mut received);
        let answer = self.bounded(deadline, "the answer to CONNECT", answer).await?;
        self.judge(answer.code, &options)?;
        let connection = Connection::new(self.endpoint.clone(), stream, received, options.keep_alive);
        Ok((connection, answer.session_present))
    }

    async fn bounded<T>(
        &self,
        deadline: Instant,
        step: &'static str,
        work: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let late = |_| ConnectError::Timeout { endpoint: self.endpoint.clone(), step, within: self.within };
        timeout_at(deadline, work).await.map_err(late)?
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectError> {
        let of = |error| ConnectError::Unreachable { endpoint: self.endpoint.clone(), source: Arc::new(error) };
        let tcp = TcpStream::connect((self.endpoint.host.as_str(), self.endpoint.port)).await.map_err(of)?;
        // Acknowledgements are 4 bytes each: Nagle's algorithm would hold them back.
        tcp.set_nodelay(true).map_err(of)?;
        Ok(tcp)
    }

    async fn secure(&self, tcp: TcpStream) -> Result<Stream, ConnectError> {
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(tcp)) };
        let of = |error| ConnectError::Tls { endpoint: self.endpoint.clone(), source: Arc::new(error) };
        Ok(Box::new(connector.connect(name.clone(), tcp).await.map_err(of)?))
    }

    async fn introduce(
        &self,
        stream: &mut Stream,
        request: &[u8],
        received: &mut BytesMut,
    ) -> Result<ConnAck, ConnectError> {
        stream.write_all(request).await.map_err(|error| self.broken(error))?;
        stream.flush().await.map_err(|error| self.broken(error))?;
        let protocol = |what| ConnectError::Protocol { endpoint: self.endpoint.clone(), what };
        loop {
            match packet::decode(received, &mut Excess::default()).map_err(protocol)? {
                Some(Packet::ConnAck(answer)) => return Ok(answer),
                Some(other) => return Err(protocol(format!("a packet other than CONNACK came first: {other:?}"))),
                None => {}
            }
            let read = stream.read_buf(received).await.map_err(|error| self.broken(error))?;
            if read == 0 {
                return Err(ConnectError::ClosedEarly { endpoint: self.endpoint.clone() });
            }
        }
    }

    fn broken(&self, error: io::Error) -> ConnectError {
        let endpoint = self.endpoint.clone();
        // In TLS 1.3 a refused client certificate shows only here, as an alert on the first read.
        let tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
        match error.kind() {
            _ if tls => ConnectError::Tls { endpoint, source: Arc::new(error) },
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => ConnectError::ClosedEarly { endpoint },
            _ => ConnectError::Broken { endpoint, source: Arc::new(error) },
        }
    }

    fn judge(&self, code: ConnectReturnCode, options: &ConnectOptions) -> Result<(), ConnectError> {
        let reason = match code {
            ConnectReturnCode::Success => return Ok(()),
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                let user = options.credentials.as_ref().map_or(String::new(), |credentials| credentials.user.clone());
                return Err(ConnectError::BadCredentials { endpoint: self.endpoint.clone(), user });
            }
            ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
            ConnectReturnCode::BadClientId => "it does not take this client id",
            ConnectReturnCode::ServiceUnavailable => "its service is not available",
        };
        let client_id = options.client_id.clone();
        Err(ConnectError::Refused { endpoint: self.endpoint.clone(), client_id, reason })
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("endpoint", &self.endpoint).field("within", &self.within).finish_non_exhaustive()
    }
}
