//! Where the URL of somebody's store leads, and what is wrong with it: asked of what the adapter that will use it has read, so
//! that no other reading of the same text can differ.

use dmp_service::store::{StoreUrl, StoreUrlError};

use crate::target::is_loopback_host;

/// Whether all that it may lead to is on this machine: a file, a socket, loopback.
pub(crate) fn is_loopback(url: &str) -> bool {
    match url.parse() {
        Ok(StoreUrl::Sqlite(_)) => true,
        Ok(StoreUrl::Server(server)) => {
            server.hosts().iter().all(|host| host.starts_with('/') || is_loopback_host(host))
        }
        Err(_) => false,
    }
}

/// Sees that it is the URL of one store, without a password but with a user where `with_password` tells of one; else what is
/// wrong, and what would be right: `help` where it is no URL of a store at all.
pub(crate) fn check<'a>(url: &str, with_password: bool, help: &'a str) -> Result<(), (String, &'a str)> {
    let url: StoreUrl = url.parse().map_err(|error: StoreUrlError| (error.to_string(), help))?;
    let wrong = |what: &str, help| Err((what.to_owned(), help));
    match &url {
        StoreUrl::Sqlite(_) if with_password => wrong("a file has no password", "leave the password out"),
        StoreUrl::Sqlite(_) => Ok(()),
        StoreUrl::Server(_) if url.has_password() => {
            wrong("must not hold a password", "name it by store.password_file or store.password_env")
        }
        StoreUrl::Server(server) if with_password && server.user().is_empty() => {
            wrong("names no user", "a password is somebody's: postgres://USER@HOST:PORT/DATABASE")
        }
        StoreUrl::Server(server) => match server.hosts().len() {
            0 => wrong("names no server", help),
            1 => Ok(()),
            _ => wrong("names several servers", "name the one that is to be read: a replica may lag behind"),
        },
    }
}
