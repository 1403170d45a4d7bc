//! The steps that every part of a scenario is built with: a field, its range, its default, and the problem if it is wrong.

use std::{
    fmt::Display,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use toml::Spanned;

use super::WHOLE_FILE;
use crate::scenario::{
    parse::{
        error::Problem,
        raw::{AtMost, Field, Length, Number, Signed, Size, Whole},
        source::Source,
    },
    quantity::{Shift, show_duration, show_shift, show_whole},
};

/// Builds values and gathers problems. What it returns beside a problem is of no use but to go on with.
#[derive(Debug)]
pub(crate) struct Builder<'s> {
    source: &'s Source,
    problems: Vec<Problem>,
}

/// A table of the scenario: its dotted key, and where it stands.
#[derive(Debug)]
pub(crate) struct Table {
    path: String,
    span: Range<usize>,
}

/// What an absent field means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fallback<T> {
    /// This value.
    Value(T),
    /// A problem.
    Required,
}

impl Table {
    pub(crate) fn root() -> Table {
        Table::new(String::new(), WHOLE_FILE)
    }

    pub(crate) fn new(path: String, span: Range<usize>) -> Table {
        Table { path, span }
    }

    /// A table at the top, and its fields; all absent where it is.
    pub(crate) fn of<T: Default>(path: &str, field: Field<T>) -> (Table, T) {
        match field {
            Some(field) => (Table::new(path.to_owned(), field.span()), field.into_inner()),
            None => (Table::new(path.to_owned(), WHOLE_FILE), T::default()),
        }
    }

    /// The dotted key of a field; its own for `""`.
    pub(crate) fn key(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<'s> Builder<'s> {
    /// Goes on from the `problems` found so far.
    pub(crate) fn new(source: &'s Source, problems: Vec<Problem>) -> Builder<'s> {
        Builder { source, problems }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    pub(super) fn first_line(&self) -> &'s str {
        self.source.file().lines().next().unwrap_or_default()
    }

    /// Notes a problem, and what would be right.
    pub(crate) fn refuse(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems.push(Problem::new(self.source.place(&span), key.into(), what.into(), Some(help.into())));
    }

    /// Notes that a field is absent, unless it is because its form was wrong, which is noted already.
    pub(crate) fn missing(&mut self, table: &Table, key: &str, help: &str) {
        let misspelt = format!("did you mean `{key}`?");
        let key = table.key(key);
        let noted = |problem: &Problem| {
            let parent = problem.key.rsplit_once('.').map_or("", |(parent, _)| parent);
            let misspelt = problem.help.as_ref().is_some_and(|help| help.starts_with(&misspelt));
            under(&problem.key, &key) || (misspelt && parent == table.path)
        };
        if !self.problems.iter().any(noted) {
            self.refuse(table.span(), key, "missing", help);
        }
    }

    /// Whether no problem is noted at `key` or below it.
    pub(crate) fn is_sound(&self, key: &str) -> bool {
        !self.problems.iter().any(|problem| under(&problem.key, key))
    }

    pub(crate) fn whole(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Whole>,
        range: RangeInclusive<u64>,
        fallback: Fallback<u64>,
    ) -> u64 {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        self.integer(table, key, field, range, fallback, "")
    }

    pub(crate) fn whole_or_none(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Whole>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        field.map(|field| self.whole(table, key, Some(field), range, Fallback::Required))
    }

    pub(super) fn size(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Size>,
        range: RangeInclusive<u64>,
        fallback: Fallback<u64>,
    ) -> u64 {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        self.integer(table, key, field, range, fallback, " bytes")
    }

    pub(super) fn number(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Number>,
        range: RangeInclusive<f64>,
        fallback: Fallback<f64>,
    ) -> f64 {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        self.ranged(table, key, field, range, fallback, |value| value.to_string())
    }

    pub(crate) fn length(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Length>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        self.ranged(table, key, field, range, Fallback::Value(default), quoted)
    }

    pub(crate) fn required_length(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Length>,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        self.ranged(table, key, field, range, Fallback::Required, quoted)
    }

    pub(crate) fn length_or_none(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Length>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        field.map(|field| self.required_length(table, key, Some(field), range))
    }

    pub(super) fn required_shift(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<Signed>,
        range: RangeInclusive<Shift>,
    ) -> Shift {
        let field = field.map(|field| (field.span(), field.into_inner().0));
        let show = |shift: &Shift| format!("\"{}\"", show_shift(*shift));
        self.ranged(table, key, field, range, Fallback::Required, show)
    }

    pub(super) fn at_most_whole(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<AtMost<Whole>>,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let field = field?;
        let table = Table::new(table.key(key), field.span());
        Some(self.whole(&table, "at_most", field.into_inner().at_most, range, Fallback::Required))
    }

    pub(super) fn at_most_length(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<AtMost<Length>>,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let field = field?;
        let table = Table::new(table.key(key), field.span());
        Some(self.required_length(&table, "at_most", field.into_inner().at_most, range))
    }

    pub(super) fn at_most_number(
        &mut self,
        table: &Table,
        key: &str,
        field: Field<AtMost<Number>>,
        range: RangeInclusive<f64>,
    ) -> Option<f64> {
        let field = field?;
        let table = Table::new(table.key(key), field.span());
        Some(self.number(&table, "at_most", field.into_inner().at_most, range, Fallback::Required))
    }

    /// A value that must be there and has no range.
    pub(crate) fn required<T>(&mut self, table: &Table, key: &str, field: Field<T>, help: &str) -> Option<Spanned<T>> {
        if field.is_none() {
            self.missing(table, key, help);
        }
        field
    }

    fn integer(
        &mut self,
        table: &Table,
        key: &str,
        field: Option<(Range<usize>, i64)>,
        range: RangeInclusive<u64>,
        fallback: Fallback<u64>,
        unit: &str,
    ) -> u64 {
        // Below zero is out of every range; the range is shown as it is.
        let show = |value: &i64| match u64::try_from(*value) {
            Ok(value) => format!("{}{unit}", show_whole(value)),
            Err(_) => format!("{value}{unit}"),
        };
        let wide = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let fallback = match fallback {
            Fallback::Value(value) => Fallback::Value(wide(value)),
            Fallback::Required => Fallback::Required,
        };
        let value = self.ranged(table, key, field, wide(*range.start())..=wide(*range.end()), fallback, show);
        u64::try_from(value).expect("within a range of u64")
    }

    fn ranged<T: PartialOrd + Copy>(
        &mut self,
        table: &Table,
        key: &str,
        field: Option<(Range<usize>, T)>,
        range: RangeInclusive<T>,
        fallback: Fallback<T>,
        show: impl Fn(&T) -> String,
    ) -> T {
        let shown = format!("a value from {} to {}", show(range.start()), show(range.end()));
        match (field, fallback) {
            (Some((_, value)), _) if range.contains(&value) => value,
            (Some((span, value)), _) => {
                self.refuse(span, table.key(key), out_of_range(show(&value)), shown);
                *range.start()
            }
            (None, Fallback::Value(value)) => value,
            (None, Fallback::Required) => {
                self.missing(table, key, &format!("give it {shown}"));
                *range.start()
            }
        }
    }
}

/// Whether a dotted key is `of` or below it.
fn under(key: &str, of: &str) -> bool {
    key.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn out_of_range(value: impl Display) -> String {
    format!("{value} is out of range")
}

fn quoted(duration: &Duration) -> String {
    format!("\"{}\"", show_duration(*duration))
}
