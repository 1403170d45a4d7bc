//! How somebody is let in: user, password, certificate and key, each by a file or an environment variable that is at hand.

use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::{
    scenario::parse::{Builder, Field, Table},
    target::{Credentials, Password, SERIAL},
};

/// What paths and secrets are found by.
pub(super) struct Around<'a> {
    pub(super) beside: &'a Path,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
}

/// What a table says of how somebody is let in.
pub(super) struct Given {
    pub(super) username: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) certificate: Field<String>,
    pub(super) key: Field<String>,
}

pub(super) fn credentials(
    builder: &mut Builder<'_>,
    table: &Table,
    raw: Given,
    around: &Around<'_>,
    of_raes: bool,
) -> Credentials {
    let username = raw.username.map(|username| {
        if !of_raes {
            refuse_serial(builder, table, "username", username.get_ref(), username.span());
        }
        username.into_inner()
    });
    let password_span = raw.password_file.as_ref().or(raw.password_env.as_ref()).map(Spanned::span);
    let password = password(builder, table, raw.password_file, raw.password_env, around, of_raes);
    if let Some(span) = password_span.filter(|_| username.is_none()) {
        builder.refuse(span, table.key("username"), "missing: a password is somebody's", "give the user name, too");
    }
    let certificate = certificate(builder, table, raw.certificate, raw.key, around, of_raes);
    Credentials { username, password, certificate }
}

pub(super) fn certificate(
    builder: &mut Builder<'_>,
    table: &Table,
    certificate: Field<String>,
    key: Field<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> Option<(PathBuf, PathBuf)> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let certificate = one_or_per_rae(builder, table, "certificate", certificate, around, of_raes);
            Some((certificate, one_or_per_rae(builder, table, "key", key, around, of_raes)))
        }
        (Some(certificate), None) => {
            builder.refuse(
                certificate.span(),
                table.key("key"),
                "missing: a certificate needs its key",
                "name its PEM file",
            );
            None
        }
        (None, Some(key)) => {
            let what = "missing: a key needs its certificate";
            builder.refuse(key.span(), table.key("certificate"), what, "name its PEM file");
            None
        }
        (None, None) => None,
    }
}

pub(super) fn password(
    builder: &mut Builder<'_>,
    table: &Table,
    file: Field<String>,
    variable: Field<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> Option<Password> {
    match (file, variable) {
        (Some(_), Some(variable)) => {
            let help = "name one of the two";
            builder.refuse(variable.span(), table.key("password_env"), "beside a password_file", help);
            None
        }
        (Some(file), None) => {
            Some(Password::File(one_or_per_rae(builder, table, "password_file", file, around, of_raes)))
        }
        (None, Some(variable)) => {
            let held = (around.environment)(variable.get_ref());
            if held.is_none() {
                let what = format!("the environment variable {} is not set", variable.get_ref());
                builder.refuse(variable.span(), table.key("password_env"), what, "set it to the password");
            }
            held.map(Password::Held)
        }
        (None, None) => None,
    }
}

pub(super) fn file(
    builder: &mut Builder<'_>,
    table: &Table,
    key: &str,
    field: Field<String>,
    around: &Around<'_>,
) -> Option<PathBuf> {
    field.map(|field| one_or_per_rae(builder, table, key, field, around, false))
}

/// A file that can be read, or a pattern for the files of RAEs, which are read when the serials are known.
fn one_or_per_rae(
    builder: &mut Builder<'_>,
    table: &Table,
    key: &str,
    field: Spanned<String>,
    around: &Around<'_>,
    of_raes: bool,
) -> PathBuf {
    let path = around.beside.join(field.get_ref());
    if field.get_ref().contains(SERIAL) {
        if !of_raes {
            refuse_serial(builder, table, key, field.get_ref(), field.span());
        }
        return path;
    }
    if let Err(error) = std::fs::File::open(&path) {
        let what = format!("{} cannot be read: {error}", path.display());
        builder.refuse(field.span(), table.key(key), what, "a path beside this file, or from the root");
    }
    path
}

fn refuse_serial(builder: &mut Builder<'_>, table: &Table, key: &str, text: &str, span: std::ops::Range<usize>) {
    if text.contains(SERIAL) {
        let what = format!("{SERIAL} stands for a RAE, and this is not a RAE's");
        builder.refuse(span, table.key(key), what, "write it out");
    }
}
