//! Where a piece of a scenario was written: the file, or one `--set` of the command line.
//!
//! All pieces share one range of byte positions: the file begins at 0, each override after the one before it. So a span of
//! the TOML parser alone tells which piece it is of, also after the overrides are merged into the file's table.

use std::{fmt, ops::Range, str::FromStr};

/// A value given on the command line in place of the file's: `fleet.raes=500`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override(String);

/// An override that is not `key=value`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not key=value, such as fleet.raes=500")]
pub struct NotAnOverride(String);

impl FromStr for Override {
    type Err = NotAnOverride;

    /// Takes `key=value`; a value that is no TOML is a string, so that durations need no quotes.
    fn from_str(text: &str) -> Result<Override, NotAnOverride> {
        let wrong = || NotAnOverride(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            return Err(wrong());
        }
        let as_it_is = format!("{key} = {value}");
        let quoted = format!("{key} = {}", toml::Value::String(value.to_owned()));
        let reads = |text: &String| toml::de::DeTable::parse(text).is_ok();
        [as_it_is, quoted].into_iter().find(reads).map(Override).ok_or_else(wrong)
    }
}

impl Override {
    /// Whether its key is in this table.
    #[must_use]
    pub fn is_below(&self, table: &str) -> bool {
        self.0.strip_prefix(table).is_some_and(|rest| rest.trim_start().starts_with('.'))
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A scenario's text and overrides.
#[derive(Debug)]
pub(crate) struct Source {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    begins: usize,
    name: String,
    text: String,
}

/// Where in a [`Source`] something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// The whole line.
    pub(super) text: String,
    /// How many characters of the line it covers, at least one.
    pub(super) width: usize,
}

impl Source {
    pub(crate) fn new(file: &str, text: &str, overrides: &[Override]) -> Source {
        let mut pieces = vec![Piece { begins: 0, name: file.to_owned(), text: text.to_owned() }];
        let mut begins = text.len() + 1;
        for Override(text) in overrides {
            pieces.push(Piece { begins, name: "--set".to_owned(), text: text.clone() });
            begins += text.len() + 1;
        }
        Source { pieces }
    }

    /// The file's text.
    pub(super) fn file(&self) -> &str {
        &self.pieces[0].text
    }

    /// The overrides, each behind as many blanks as make the spans of its parsed form positions of this source.
    pub(super) fn overrides(&self) -> impl Iterator<Item = String> + '_ {
        self.pieces[1..].iter().map(|piece| format!("{}{}", " ".repeat(piece.begins), piece.text))
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let piece = self.pieces.iter().rev().find(|piece| piece.begins <= span.start).unwrap_or(&self.pieces[0]);
        let text = piece.text.as_str();
        let start = floor_char(text, span.start - piece.begins);
        let line_begins = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_ends = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor_char(text, (span.end - piece.begins).clamp(start, line_ends));
        Place {
            file: piece.name.clone(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_begins..start].chars().count() + 1,
            text: text[line_begins..line_ends].trim_end().to_owned(),
            width: text[start..end].chars().count().max(1),
        }
    }

    /// The dotted key on the line of a span, read from the text alone: for a file that is no TOML.
    pub(super) fn key_by_text(&self, span: &Range<usize>) -> String {
        let place = self.place(span);
        let own = place.text.split_once('=').map(|(key, _)| key.trim());
        let headers = self.file().lines().take(place.line).filter_map(|line| {
            let header = line.trim().strip_prefix('[')?.split(']').next()?;
            Some(header.trim_matches('[').trim())
        });
        match (headers.last(), own) {
            (Some(table), Some(own)) => format!("{table}.{own}"),
            (Some(table), None) => table.to_owned(),
            (None, own) => own.unwrap_or(place.text.trim()).to_owned(),
        }
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
