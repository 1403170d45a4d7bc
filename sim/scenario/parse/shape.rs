//! From text to the form of a file: one table from text and overrides, unknown keys and wrong types.
//!
//! serde stops at its first error. So what an error points at is taken out of the table and the rest is tried again: a file
//! with three misspelt keys gives three errors.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{error::Problem, source::Source};

/// Errors of form that are reported at once: enough for a file full of typos, and an end if taking out never helps.
const MOST_PROBLEMS: usize = 50;

/// The form of `source`, and what had to be left out of it because it is wrong. `lists` names its lists of tables.
///
/// # Errors
/// Where there is no form at all: the text is no TOML, or an override does not fit to the file.
pub(crate) fn shape<T: DeserializeOwned>(source: &Source, lists: &[&str]) -> Result<(T, Vec<Problem>), Vec<Problem>> {
    let overrides: Vec<_> = source.overrides().collect();
    let mut table = merged(source, &overrides).map_err(|problem| vec![*problem])?;
    let mut problems = refuse_lists(source, table.get_mut(), lists);
    loop {
        let error = match T::deserialize(toml::de::Deserializer::from(table.clone())) {
            Ok(raw) => return Ok((raw, problems)),
            Err(error) => error,
        };
        let span = error.span().unwrap_or(0..0);
        let path = path_at(table.get_ref(), &span);
        problems.push(problem(source, &span, &path, error.message()));
        if problems.len() == MOST_PROBLEMS || !take_out(table.get_mut(), &path) {
            return Err(problems);
        }
    }
}

/// One step from a table to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

fn merged<'s>(source: &'s Source, overrides: &'s [String]) -> Result<Spanned<DeTable<'s>>, Box<Problem>> {
    let mut table = parsed(source, source.file())?;
    for text in overrides {
        let from = parsed(source, text)?;
        merge(table.get_mut(), from.into_inner(), "")
            .map_err(|(span, key, what)| Problem::new(source.place(&span), key, what, None))?;
    }
    Ok(table)
}

fn parsed<'s>(source: &Source, text: &'s str) -> Result<Spanned<DeTable<'s>>, Box<Problem>> {
    DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let what = format!("not TOML: {}", error.message());
        Box::new(Problem::new(source.place(&span), source.key_by_text(&span), what, None))
    })
}

type Misfit = (Range<usize>, String, String);

/// Puts `from` into `into`: tables are joined, all else is replaced. In a list of tables, a key is the place of one of
/// them, from 0, or its `name`.
fn merge<'s>(into: &mut DeTable<'s>, from: DeTable<'s>, path: &str) -> Result<(), Misfit> {
    for (key, value) in from {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        let span = value.span();
        match (into.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(into)), DeValue::Table(from)) => merge(into, from, &path)?,
            (Some(DeValue::Array(list)), DeValue::Table(from)) => merge_list(list, from, &path)?,
            (_, value) => {
                into.remove(key.get_ref().as_ref());
                into.insert(key, Spanned::new(span, value));
            }
        }
    }
    Ok(())
}

fn merge_list<'s>(list: &mut toml::de::DeArray<'s>, from: DeTable<'s>, path: &str) -> Result<(), Misfit> {
    for (key, value) in from {
        let path = format!("{path}.{}", key.get_ref());
        let wanted = key.get_ref().as_ref();
        let entry = list.iter_mut().enumerate().find_map(|(index, entry)| match entry.get_mut() {
            DeValue::Table(table) if wanted.parse() == Ok(index) || name_of(table) == Some(wanted) => Some(table),
            _ => None,
        });
        match (entry, value.into_inner()) {
            (Some(into), DeValue::Table(from)) => merge(into, from, &path)?,
            (Some(_), _) => return Err((key.span(), path, "name a key of this entry to set".to_owned())),
            (None, _) => return Err((key.span(), path, "the file has no such entry".to_owned())),
        }
    }
    Ok(())
}

fn name_of<'t>(table: &'t DeTable<'_>) -> Option<&'t str> {
    match table.get("name")?.get_ref() {
        DeValue::String(name) => Some(name),
        _ => None,
    }
}

/// The innermost key or entry whose name or value covers the begin of `span`.
fn path_at(table: &DeTable<'_>, span: &Range<usize>) -> Vec<Step> {
    let covers = |range: Range<usize>| range.start <= span.start && span.start < range.end.max(range.start + 1);
    // The value first: the span of a table begins at its header, and its keys stand behind that.
    for (key, value) in table {
        let inside = path_in(value, span);
        if covers(key.span()) || covers(value.span()) || !inside.is_empty() {
            return [vec![Step::Key(key.get_ref().to_string())], inside].concat();
        }
    }
    Vec::new()
}

fn path_in(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Vec<Step> {
    match value.get_ref() {
        DeValue::Table(table) => path_at(table, span),
        DeValue::Array(list) => {
            let mut entries = list.iter().enumerate();
            let found = entries.find_map(|(index, entry)| {
                let inside = path_in(entry, span);
                (entry.span().contains(&span.start) || !inside.is_empty())
                    .then(|| [vec![Step::Index(index)], inside].concat())
            });
            found.unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// Takes out every list but those of `known`: serde would read a list where a table is meant, field by field.
fn refuse_lists(source: &Source, table: &mut DeTable<'_>, known: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for &list in known {
        let Some(value) = table.get(list) else { continue };
        let wrong = match value.get_ref() {
            DeValue::Array(entries) => entries.iter().find(|entry| !matches!(entry.get_ref(), DeValue::Table(_))),
            _ => Some(value),
        };
        if let Some(wrong) = wrong {
            let (place, help) = (source.place(&wrong.span()), format!("write it as [[{list}]], once for each"));
            problems.push(Problem::new(place, list.to_owned(), "not a list of tables".to_owned(), Some(help)));
            table.remove(list);
        }
    }
    let mut lists = Vec::new();
    lists_in(table, known, &[], &mut lists);
    for (path, span) in lists {
        let (place, help) = (source.place(&span), only(known));
        problems.push(Problem::new(
            place,
            show(&path),
            "a list where one value or table belongs".to_owned(),
            Some(help),
        ));
        take_out(table, &path);
    }
    problems
}

fn only(known: &[&str]) -> String {
    match known.split_last() {
        None => "nothing here is a list".to_owned(),
        Some((last, [])) => format!("only [[{last}]] is a list"),
        Some((last, others)) => {
            let others: Vec<_> = others.iter().map(|list| format!("[[{list}]]")).collect();
            format!("only {} and [[{last}]] are lists", others.join(", "))
        }
    }
}

fn lists_in(table: &DeTable<'_>, known: &[&str], path: &[Step], lists: &mut Vec<(Vec<Step>, Range<usize>)>) {
    for (key, value) in table {
        let path = [path, &[Step::Key(key.get_ref().to_string())]].concat();
        match value.get_ref() {
            DeValue::Table(table) => lists_in(table, known, &path, lists),
            DeValue::Array(entries) if path.len() == 1 && known.contains(&key.get_ref().as_ref()) => {
                for (index, entry) in entries.iter().enumerate() {
                    let path = [path.as_slice(), &[Step::Index(index)]].concat();
                    if let DeValue::Table(table) = entry.get_ref() {
                        lists_in(table, known, &path, lists);
                    }
                }
            }
            DeValue::Array(_) => lists.push((path, value.span())),
            _ => {}
        }
    }
}

/// Takes out the innermost key that `path` leads to; `false` if there is none. An entry of a list stays, for without it
/// the others would have other numbers.
fn take_out(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some(innermost) = path.iter().rposition(|step| matches!(step, Step::Key(_))) else { return false };
    let mut at = table;
    let mut steps = path[..=innermost].iter();
    while let Some(Step::Key(key)) = steps.next() {
        if steps.len() == 0 {
            return at.remove(key.as_str()).is_some();
        }
        let inside = match at.get_mut(key.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Array(list)) => match steps.next() {
                Some(Step::Index(index)) => list.get_mut(*index).map(Spanned::get_mut),
                Some(Step::Key(_)) | None => None,
            },
            inside => inside,
        };
        let Some(DeValue::Table(inside)) = inside else { return false };
        at = inside;
    }
    false
}

fn problem(source: &Source, span: &Range<usize>, path: &[Step], message: &str) -> Problem {
    let key = show(path);
    let (what, help) = match Unknown::of(message) {
        Some(unknown) => (format!("unknown {}", unknown.of_what(&key)), Some(unknown.help())),
        None => (message.replace('\n', ", "), None),
    };
    Problem::new(source.place(span), key, what, help)
}

fn show(path: &[Step]) -> String {
    let mut shown = String::new();
    for step in path {
        match step {
            Step::Key(key) if shown.is_empty() => shown.push_str(key),
            Step::Key(key) => shown.extend([".", key]),
            Step::Index(index) => shown.push_str(&format!("[{index}]")),
        }
    }
    shown
}

/// serde's words for a name that it does not know, taken apart: their form is part of its interface.
struct Unknown<'m> {
    field: bool,
    name: &'m str,
    known: Vec<&'m str>,
}

impl<'m> Unknown<'m> {
    fn of(message: &'m str) -> Option<Unknown<'m>> {
        let field = message.starts_with("unknown field `");
        if !field && !message.starts_with("unknown variant `") {
            return None;
        }
        let mut quoted = message.split('`').skip(1).step_by(2);
        Some(Unknown { field, name: quoted.next()?, known: quoted.collect() })
    }

    fn of_what(&self, key: &str) -> &'static str {
        match (self.field, key.starts_with("fault[") && key.matches('.').count() == 1) {
            (true, true) => "fault kind",
            (true, false) => "key",
            (false, _) => "value",
        }
    }

    fn help(&self) -> String {
        let all = self.known.join("`, `");
        match nearest(self.name, &self.known) {
            Some(name) => format!("did you mean `{name}`? known are `{all}`"),
            None => format!("known are `{all}`"),
        }
    }
}

/// The known name that is most like `name`, if one is like it at all.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    // Below this, what is "nearest" is rather a guess than a slip of the finger.
    const ALIKE: f64 = 0.75;
    let alike = |known: &&'k str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let best = known.iter().copied().max_by(|a, b| alike(a).total_cmp(&alike(b)))?;
    (alike(&best) >= ALIKE).then_some(best)
}
