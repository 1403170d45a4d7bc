//! Where in a TOML text a key stands, and which key stands at a place: for errors.

use std::path::Path;

use super::ConfigError;

/// Turns an error of the TOML parser into one that names file, line and key.
pub(super) fn parse_error(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text[..floor_char(text, at)].matches('\n').count();
    let mut key = key_at(text, line);
    // A missing key has no place of its own: the parser names it and points at its table.
    if let Some(name) = error.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        let whole = error.span().is_none_or(|span| span.is_empty());
        let table = if whole { String::new() } else { table_at(text, line) };
        key = if table.is_empty() { name.to_owned() } else { format!("{table}.{name}") };
    }
    if key.is_empty() {
        // A line that is not TOML is shown itself.
        let shown = text.lines().nth(line).unwrap_or_default().trim_matches(['[', ']', ' ']);
        key = shown.chars().take(60).collect();
    }
    ConfigError::Key { path: path.to_owned(), line: line + 1, key, reason: error.message().replace('\n', ", ") }
}

/// The line, from 1, of a dotted key; of its nearest table where it is absent; else 1.
pub(super) fn line_of(text: &str, key: &str) -> usize {
    let mut wanted = key;
    loop {
        let found = (0..text.lines().count()).find(|&line| key_at(text, line) == wanted);
        match (found, wanted.rsplit_once('.')) {
            (Some(line), _) => return line + 1,
            (None, Some((table, _))) => wanted = table,
            (None, None) => return 1,
        }
    }
}

fn floor_char(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The dotted key on a line (from 0): its table's name and its own.
fn key_at(text: &str, line: usize) -> String {
    let table = table_at(text, line);
    let own = text.lines().nth(line).and_then(|line| line.split_once('=')).map(|(key, _)| key.trim().replace('"', ""));
    match own {
        Some(own) if table.is_empty() => own,
        Some(own) => format!("{table}.{own}"),
        None => table,
    }
}

/// The table that a line (from 0) belongs to; empty at the top.
fn table_at(text: &str, line: usize) -> String {
    let headers = text.lines().take(line + 1).filter_map(|line| {
        let line = line.split('#').next().unwrap_or("").trim();
        line.strip_prefix('[')?.strip_suffix(']').map(|name| name.trim_matches(['[', ']']).trim().to_owned())
    });
    headers.last().unwrap_or_default()
}
