//! `result.json`: everything about a run, for programs; documented in `reports/README.md`.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::run::RunOutcome;

/// Version of the file's form. It rises when a field changes its meaning or goes; new fields leave it.
pub const FORMAT: u32 = 2;

/// Runs of one scenario and seed that may begin within the same second.
const MOST_IN_A_SECOND: u32 = 100;

#[derive(Serialize)]
struct ResultFile<'o> {
    format: u32,
    #[serde(flatten)]
    outcome: &'o RunOutcome,
}

/// A new directory for the files of a run: `<root>/<scenario>/<time>-<seed>`, made here.
///
/// # Errors
/// If it cannot be made.
pub fn directory(root: &Path, scenario: &str, seed: u64, began: Timestamp) -> io::Result<PathBuf> {
    let parent = root.join(scenario);
    std::fs::create_dir_all(&parent)?;
    let name = format!("{}-{seed}", began.strftime("%Y%m%dT%H%M%SZ"));
    for number in 1..=MOST_IN_A_SECOND {
        let directory = parent.join(if number == 1 { name.clone() } else { format!("{name}-{number}") });
        match std::fs::create_dir(&directory) {
            Ok(()) => return Ok(directory),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name} and its successors are all taken")))
}

/// Removes what [`directory`] has made for a run, where it can be; the scenario's own directory stays.
pub fn discard(directory: &Path) {
    let _gone_already = std::fs::remove_dir_all(directory);
}

/// Writes `result.json` into `directory`: whole or not at all. Returns its path.
///
/// # Errors
/// If it cannot be written; a full disk, for one.
pub fn write(directory: &Path, outcome: &RunOutcome) -> io::Result<PathBuf> {
    let (path, unfinished) = (directory.join("result.json"), directory.join("result.json.unfinished"));
    let mut text = serde_json::to_vec_pretty(&ResultFile { format: FORMAT, outcome })?;
    text.push(b'\n');
    let written = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, &path));
    if let Err(error) = written {
        // What is left of it would only keep a full disk full.
        let _not_even_begun = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    Ok(path)
}
