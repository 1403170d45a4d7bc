//! What is wrong with a scenario, or a target: every problem at its file, line, column and key, with what would be right.

use std::{fmt, path::PathBuf};

use super::source::Place;

/// Why a scenario could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file itself could not be read.
    #[error("reading scenario {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It holds mistakes; at least one.
    #[error("{0}")]
    Invalid(Problems),
}

/// The mistakes in a scenario, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// These, in the order of the text, then of the command line.
    pub(crate) fn sorted(mut problems: Vec<Problem>) -> Problems {
        problems.sort_by_key(|problem| (problem.file == "--set", problem.line, problem.column));
        Problems(problems)
    }
}

/// One mistake in a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file; `--set` for a value of the command line.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The dotted key: `fleet.raes`, `fault[1].kill.part`.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// What would be right.
    pub help: Option<String>,
    line_text: String,
    width: usize,
}

impl Problem {
    pub(super) fn new(place: Place, key: String, what: String, help: Option<String>) -> Problem {
        let Place { file, line, column, text, width } = place;
        Problem { file, line, column, key, what, help, line_text: text, width }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, key, what, help, line_text, width } = self;
        let gutter = line.to_string().len();
        let before: String = line_text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "error: `{key}`: {what}")?;
        writeln!(f, "{:gutter$}--> {file}:{line}:{column}", "")?;
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{line} | {line_text}")?;
        write!(f, "{:gutter$} | {before}{}", "", "^".repeat(*width))?;
        match help {
            Some(help) => write!(f, "\n{:gutter$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
