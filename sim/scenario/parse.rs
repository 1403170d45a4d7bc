//! Reading a scenario file, strictly: every mistake is named with file, line, column and key, and what would be right.
//!
//! In three steps: the TOML text and the overrides become one table ([`shape`]); the table takes the form of a scenario,
//! which finds unknown keys and wrong types ([`raw`]); the form is judged, which finds all else ([`build`]). Each step
//! reports everything it finds, and only a scenario without mistakes leaves the last.

mod build;
mod error;
mod moment;
mod raw;
mod shape;
mod source;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

pub use error::{Problem, Problems, ScenarioError};
pub use source::{NotAnOverride, Override};

pub(crate) use build::{Builder, Table};
pub(crate) use raw::{Field, Length, Whole};
pub(crate) use shape::shape;
pub(crate) use source::Source;

use super::Scenario;

/// The lists of a scenario.
const LISTS: [&str; 3] = ["phase", "fault", "command"];

impl Scenario {
    /// Reads the scenario in the file `path`, with `overrides` in place of the file's values, and `seed` in place of its seed.
    ///
    /// # Errors
    /// If the file cannot be read, or with every mistake in it.
    pub fn from_file(path: &Path, overrides: &[Override], seed: Option<u64>) -> Result<Scenario, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Scenario::read(&name, &path.display().to_string(), &text, overrides, seed)
    }

    /// Reads the scenario called `name` from a text; as [`Scenario::from_file`].
    ///
    /// # Errors
    /// With every mistake in it.
    pub fn from_text(
        name: &str,
        text: &str,
        overrides: &[Override],
        seed: Option<u64>,
    ) -> Result<Scenario, ScenarioError> {
        Scenario::read(name, name, text, overrides, seed)
    }

    fn read(
        name: &str,
        file: &str,
        text: &str,
        overrides: &[Override],
        seed: Option<u64>,
    ) -> Result<Scenario, ScenarioError> {
        let source = Source::new(file, text, overrides);
        let (raw, problems) = shape(&source, &LISTS).map_err(invalid)?;
        let mut builder = Builder::new(&source, problems);
        let mut scenario = build::scenario(&mut builder, name, raw);
        let problems = builder.into_problems();
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        scenario.seed = seed.unwrap_or(scenario.seed);
        Ok(scenario)
    }
}

fn invalid(problems: Vec<Problem>) -> ScenarioError {
    ScenarioError::Invalid(Problems::sorted(problems))
}
