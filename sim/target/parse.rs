//! Reading a target's file with the machinery of scenarios: every mistake at its file, line, column and key.

mod build;
mod raw;

use std::path::{Path, PathBuf};

use super::Deployment;
use crate::scenario::parse::{Builder, Problem, Problems, Source, shape};

/// Why a target could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The file itself could not be read.
    #[error("reading target {path}")]
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

impl Deployment {
    /// Reads the target in the file `path`. Files that it names are found beside it.
    ///
    /// # Errors
    /// If the file cannot be read, or with every mistake in it.
    pub fn from_file(path: &Path) -> Result<Deployment, TargetError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| TargetError::Read { path: path.to_owned(), source })?;
        let beside = path.parent().unwrap_or(Path::new(""));
        Deployment::from_text(&path.display().to_string(), &text, beside, &|name| std::env::var(name).ok())
    }

    /// Reads the target called `name` from a text; files that it names are in `beside`, secrets in `environment`.
    ///
    /// # Errors
    /// With every mistake in it.
    pub fn from_text(
        name: &str,
        text: &str,
        beside: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Deployment, TargetError> {
        let invalid = |problems: Vec<Problem>| TargetError::Invalid(Problems::sorted(problems));
        let source = Source::new(name, text, &[]);
        let (raw, problems) = shape(&source, &[]).map_err(invalid)?;
        let mut builder = Builder::new(&source, problems);
        let deployment = build::deployment(&mut builder, name, raw, beside, environment);
        match builder.into_problems() {
            problems if problems.is_empty() => Ok(deployment),
            problems => Err(invalid(problems)),
        }
    }
}
