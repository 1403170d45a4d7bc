//! The directions of the architecture, held against the source text: who may import whom, and where a clock may be read.
//!
//! ```text
//! core <- service; core <- sim; only sim::live imports service; check sees the history; report sees check and observe
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file: its path below the root, and its text without comments.
struct Source {
    path: String,
    code: String,
}

#[test]
fn the_core_has_no_runtime_no_clock_no_threads_and_no_hash_order() {
    let banned = [
        "tokio",
        "Instant::",
        "time::Instant",
        "SystemTime",
        "HashMap",
        "HashSet",
        "std::thread",
        "std::net",
        "std::fs",
    ];
    none_says(&sources("reference/core/src"), &banned);
}

#[test]
fn only_the_live_driver_imports_the_service() {
    let outside: Vec<Source> = sources("sim").into_iter().filter(|source| !is_live(source)).collect();
    assert!(outside.len() > 20, "the harness is where it was");
    none_says(&outside, &["dmp_service"]);
}

#[test]
fn checks_see_the_history_and_the_scenario_and_no_driver() {
    only_from_crate(
        &below("sim/check"),
        // Whom a fault hits is drawn from the scenario: part of what was asked, not of what was seen.
        &["check", "fleet::plan", "random::chosen", "fleet::{BACKOFF", "history", "observe", "scenario"],
    );
}

#[test]
fn observation_folds_the_history_alone() {
    only_from_crate(&below("sim/observe"), &["fleet::plan", "history", "observe", "scenario"]);
}

#[test]
fn a_report_sees_results_and_no_driver() {
    let run = ["check", "history", "observe", "report", "run", "scenario"];
    only_from_crate(&below("sim/report"), &run);
}

#[test]
fn what_can_be_repeated_reads_no_clock_and_no_hash_order() {
    let pure = ["sim/check", "sim/faults", "sim/fleet", "sim/observe", "sim/scenario"];
    let mut sources: Vec<Source> = pure.into_iter().flat_map(below).collect();
    sources
        .extend(self::sources("sim").into_iter().filter(|s| s.path == "sim/random.rs" || s.path == "sim/history.rs"));
    none_says(&sources, &["Instant", "SystemTime", "HashMap", "HashSet", "std::thread", "tokio", "rand::rng()"]);
}

#[test]
fn modules_are_files_named_like_them_and_say_what_they_are() {
    for root in ["reference/core/src", "reference/service/src", "sim"] {
        for path in files(&at(root)) {
            assert!(!path.ends_with("mod.rs"), "{} is a mod.rs", path.display());
            let text = fs::read_to_string(&path).expect("a source file is readable");
            assert!(text.starts_with("//!"), "{} does not begin with what it is", path.display());
        }
    }
}

/// Fails with every file that holds one of `words`.
fn none_says(sources: &[Source], words: &[&str]) {
    assert!(!sources.is_empty(), "no source was looked at");
    let says = |source: &Source| {
        let found: Vec<&str> = words.iter().copied().filter(|word| source.code.contains(word)).collect();
        (!found.is_empty()).then(|| format!("{}: {}", source.path, found.join(", ")))
    };
    let wrong: Vec<String> = sources.iter().filter_map(says).collect();
    assert!(wrong.is_empty(), "what does not belong there:\n{}", wrong.join("\n"));
}

/// Fails with every path into this crate that does not begin with one of `allowed`.
fn only_from_crate(sources: &[Source], allowed: &[&str]) {
    assert!(!sources.is_empty(), "no source was looked at");
    let mut wrong = Vec::new();
    for source in sources {
        for path in crate_paths(&source.code) {
            if !allowed.iter().any(|allowed| path.starts_with(allowed)) {
                wrong.push(format!("{}: crate::{path}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "imports against the direction:\n{}", wrong.join("\n"));
}

/// What follows each `crate::`, with one level of `crate::{a, b}` taken apart.
fn crate_paths(code: &str) -> Vec<String> {
    let code: String = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paths = Vec::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, word)| (at, &code[at + word.len()..])) {
        let Some(group) = rest.strip_prefix('{') else {
            paths.push(rest.split([' ', ';', ',', ')', '>']).next().unwrap_or_default().to_owned());
            continue;
        };
        let mut depth = 0;
        let mut path = String::new();
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    paths.push(std::mem::take(&mut path).trim().to_owned());
                    continue;
                }
                _ => {}
            }
            path.push(letter);
        }
        paths.push(path.trim().to_owned());
    }
    paths.retain(|path| !path.is_empty());
    paths.into_iter().map(|path| path.replace("{ ", "{")).collect()
}

fn is_live(source: &Source) -> bool {
    source.path == "sim/live.rs" || source.path.starts_with("sim/live/")
}

/// The module at `path`: its file and everything below it.
fn below(path: &str) -> Vec<Source> {
    let inside = |source: &Source| source.path == format!("{path}.rs") || source.path.starts_with(&format!("{path}/"));
    sources("sim").into_iter().filter(inside).collect()
}

fn sources(root: &str) -> Vec<Source> {
    let top = at("");
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let path = path.strip_prefix(&top).expect("below the top").to_string_lossy().into_owned();
        Source { path, code }
    };
    files(&at(root)).into_iter().map(source).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a source directory is readable") {
        let path = entry.expect("a source directory is readable").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
