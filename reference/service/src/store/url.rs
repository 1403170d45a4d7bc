//! Names of stores: `sqlite:/path/file.db` and `postgres://user:password@host:port/database`.
//!
//! Where a URL leads, and whether it holds a password, is asked of what was parsed and never of the text: options say both, too.
//! Neither `Debug` nor `Display` nor any error shows a password.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where a store is.
#[derive(Debug, Clone)]
pub enum StoreUrl {
    /// A file.
    Sqlite(SqliteUrl),
    /// A PostgreSQL or CockroachDB server.
    Server(ServerUrl),
}

/// `sqlite:PATH[?synchronous=full]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteUrl {
    /// The file; it stands in an existing directory.
    pub path: PathBuf,
    /// What a commit waits for.
    pub synchronous: Synchronous,
}

/// What a commit to an embedded store waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// The operating system has the commit: it survives the death of every process, but a power cut may take the
    /// newest commits (never the file's integrity), whose offsets may be committed in Kafka already.
    #[default]
    Normal,
    /// The disk has the commit: an `fsync` each.
    Full,
}

/// `postgres://...`, parsed.
#[derive(Clone)]
pub struct ServerUrl {
    /// What tokio-postgres takes, less TLS.
    pub(super) config: Box<tokio_postgres::Config>,
    /// Whether and how the connection is encrypted.
    pub tls: Tls,
}

/// `sslmode` and `sslrootcert` of a server's URL.
///
/// Every mode that asks for TLS verifies the server's chain and name, also `require` and `verify-ca`, where libpq
/// verifies less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// `sslmode=disable`.
    Never,
    /// `sslmode=prefer`, and where none is given: TLS if the server offers it.
    Offered(Roots),
    /// `sslmode=require`, `verify-ca` or `verify-full`.
    Required(Roots),
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The roots that browsers trust.
    Public,
    /// Those in this PEM file: `sslrootcert`.
    File(PathBuf),
}

/// Why a store's URL was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Neither of the two schemes.
    #[error("store URL must start with sqlite: or postgres://")]
    Scheme,
    /// No file is named.
    #[error("store URL sqlite: names no file")]
    NoPath,
    /// An option that is not known, or not with this value.
    #[error("store URL has {0}: {1}")]
    Option(String, &'static str),
    /// Not a URL that the PostgreSQL driver takes.
    #[error("store URL is not a PostgreSQL URL: {0}")]
    Server(String),
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<StoreUrl, StoreUrlError> {
        if let Some(rest) = text.strip_prefix("sqlite:") {
            return sqlite(rest).map(StoreUrl::Sqlite);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return server(text).map(StoreUrl::Server);
        }
        Err(StoreUrlError::Scheme)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreUrl::Sqlite(url) => write!(f, "sqlite:{}", url.path.display()),
            StoreUrl::Server(url) => write!(f, "postgres://{}", url.endpoint()),
        }
    }
}

impl StoreUrl {
    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        matches!(self, StoreUrl::Server(url) if url.config.get_password().is_some())
    }

    /// The same store, let in with `password`; a file asks for none.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> StoreUrl {
        if let StoreUrl::Server(url) = &mut self {
            url.config.password(password);
        }
        self
    }
}

impl ServerUrl {
    /// Host and port of the first server, as far as given.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let host = self.hosts().into_iter().next().unwrap_or_else(|| "localhost".to_owned());
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        format!("{host}:{port}")
    }

    /// All that it may lead to, in its order: host names, addresses (also `hostaddr`), and directories of sockets.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        use tokio_postgres::config::Host;
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(host) => host.clone(),
            Host::Unix(path) => path.display().to_string(),
        });
        hosts.chain(self.config.get_hostaddrs().iter().map(ToString::to_string)).collect()
    }

    /// The user; empty where none is given.
    #[must_use]
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerUrl").field("endpoint", &self.endpoint()).field("tls", &self.tls).finish_non_exhaustive()
    }
}

fn sqlite(rest: &str) -> Result<SqliteUrl, StoreUrlError> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    // `sqlite:///path` is how other tools write `sqlite:/path`.
    let path = path.strip_prefix("//").unwrap_or(path);
    if path.is_empty() {
        return Err(StoreUrlError::NoPath);
    }
    let mut synchronous = Synchronous::default();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        synchronous = match option {
            "synchronous=normal" => Synchronous::Normal,
            "synchronous=full" => Synchronous::Full,
            other => return Err(StoreUrlError::Option(quoted(other), "only synchronous=normal|full is known")),
        };
    }
    Ok(SqliteUrl { path: PathBuf::from(path), synchronous })
}

/// Takes out the options of TLS, which tokio-postgres does not know in full, and leaves the rest to it.
fn server(text: &str) -> Result<ServerUrl, StoreUrlError> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut mode, mut roots, mut others) = ("prefer", Roots::Public, Vec::new());
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            // The driver would decode it, and take another `sslmode` than the one that is read here.
            Some((name, _)) if name.contains('%') => {
                return Err(StoreUrlError::Option(quoted(name), "names of options are written without %"));
            }
            Some(("sslmode", value)) => mode = value,
            Some(("sslrootcert", path)) => roots = Roots::File(percent_decoded(path)),
            Some(_) | None => others.push(option),
        }
    }
    let tls = match mode {
        "disable" => Tls::Never,
        "prefer" => Tls::Offered(roots),
        "require" | "verify-ca" | "verify-full" => Tls::Required(roots),
        other => {
            let known = "sslmode is disable, prefer, require, verify-ca or verify-full";
            return Err(StoreUrlError::Option(quoted(other), known));
        }
    };
    let rest = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
    let config = rest.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        // Behind an & that is not encoded, a password goes on as the name of an option.
        let held = others.iter().any(|option| option.starts_with("password="));
        StoreUrlError::Server(if held { "an option is not known, or not as it should be".to_owned() } else { cause })
    })?;
    let mut config: Box<tokio_postgres::Config> = Box::new(config);
    let (hosts, addresses) = (config.get_hosts().len(), config.get_hostaddrs().len());
    let ports = config.get_ports().len();
    if (ports > 1 && ports != hosts.max(addresses)) || (hosts > 0 && addresses > 0 && hosts != addresses) {
        let counted = format!("{hosts} hosts, {addresses} hostaddrs and {ports} ports do not fit together");
        return Err(StoreUrlError::Server(counted));
    }
    config.ssl_mode(match tls {
        Tls::Never => tokio_postgres::config::SslMode::Disable,
        Tls::Offered(_) => tokio_postgres::config::SslMode::Prefer,
        Tls::Required(_) => tokio_postgres::config::SslMode::Require,
    });
    Ok(ServerUrl { config, tls })
}

fn quoted(option: &str) -> String {
    format!("{:?}", option.chars().take(80).collect::<String>())
}

/// `%2F` and the like; a sequence that is not one stays as it is.
fn percent_decoded(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = if first == b'%' { after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()) } else { None };
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> StoreUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_file_is_named_with_or_without_slashes() {
        for text in ["sqlite:/tmp/a.db", "sqlite:///tmp/a.db", "sqlite:/tmp/a.db?synchronous=normal"] {
            let StoreUrl::Sqlite(url) = parsed(text) else { panic!("{text} is a file") };
            assert_eq!(url, SqliteUrl { path: "/tmp/a.db".into(), synchronous: Synchronous::Normal });
        }
    }

    #[test]
    fn the_password_is_never_shown() {
        let url = parsed("postgres://fleet:hunter2@db.example:6543/dmp?password=hunter2&sslmode=disable");
        assert_eq!(url.to_string(), "postgres://db.example:6543");
        assert!(!format!("{url:?}").contains("hunter2"));
        let error = "postgres://fleet:hunter2@db:1/x?sslmod=disable".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn hosts_and_password_are_found_wherever_and_however_they_are_written() {
        let hosts = |text: &str| match parsed(text) {
            StoreUrl::Server(url) => url.hosts(),
            StoreUrl::Sqlite(_) => panic!("{text} is a server"),
        };
        assert_eq!(hosts("postgres://u@[::1]:5432/d"), ["::1"]);
        assert_eq!(hosts("postgres://u@a:1,b:2/d"), ["a", "b"]);
        assert_eq!(hosts("postgres://u@a/d?hostaddr=10.0.0.7"), ["a", "10.0.0.7"]);
        assert_eq!(hosts("postgres:///d?host=b"), ["b"]);
        assert_eq!(hosts("postgres://u@%2Frun%2Fpostgresql/d"), ["/run/postgresql"]);
        assert_eq!(hosts("postgres:///d"), [""; 0]);
        for text in ["postgres://u:p@h/d", "postgres://u@h/d?password=p", "postgres://u@h/d?user=v&password=%70"] {
            assert!(parsed(text).has_password(), "{text}");
        }
        assert!(!parsed("postgres://u@h/d").has_password() && !parsed("sqlite:/a").has_password());
        assert!(parsed("postgres://u@h/d").with_password("a:b@c/%d").has_password());
    }

    #[test]
    fn tls_is_read_from_the_options() {
        let tls = |text: &str| match parsed(text) {
            StoreUrl::Server(url) => url.tls,
            StoreUrl::Sqlite(_) => panic!("{text} is a server"),
        };
        assert_eq!(tls("postgres://h/d"), Tls::Offered(Roots::Public));
        assert_eq!(tls("postgres://h/d?sslmode=disable"), Tls::Never);
        let file = Roots::File("/etc/my ca.pem".into());
        assert_eq!(tls("postgres://h/d?sslrootcert=/etc/my%20ca.pem&sslmode=verify-full"), Tls::Required(file));
    }

    #[test]
    fn what_is_not_a_store_is_refused_with_what_would_be_right() {
        let error = |text: &str| text.parse::<StoreUrl>().unwrap_err().to_string();
        assert_eq!(error("mysql://h/d"), "store URL must start with sqlite: or postgres://");
        assert_eq!(error("sqlite:"), "store URL sqlite: names no file");
        assert!(error("sqlite:/a?sync=off").contains("only synchronous=normal|full is known"));
        assert!(error("postgres://h/d?sslmode=maybe").contains("verify-full"));
        assert!(error("postgres://h/d?colour=red").contains("unknown option"));
        for text in ["postgres://h/d?%68ost=b", "postgres://h/d?ssl%6Dode=require", "postgres://h/d?%70assword=hunter2"]
        {
            assert!(error(text).contains("without %") && !error(text).contains("hunter2"), "{}", error(text));
        }
        for text in ["postgres://h/d?port=6543", "postgres://a,b/d?hostaddr=10.0.0.7"] {
            assert!(error(text).contains("do not fit together"), "{}", error(text));
        }
        assert!(!error("postgres://u@h/d?password=abc&hunter2=x").contains("hunter2"));
    }
}
