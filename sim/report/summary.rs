//! The end of a run in the terminal: verdict, checks, figures, faults, witnesses, and how to see it again.

mod before_after;
mod checks;
mod figures;

use std::path::Path;

use super::layout::{Terminal, wrapped};
use crate::{
    check::verdict::{Outcome, Verdict},
    run::RunOutcome,
};

/// The whole summary of `outcome`, whose file is `result`.
#[must_use]
pub fn summary(outcome: &RunOutcome, result: &Path, terminal: Terminal) -> String {
    let sections = [
        head(outcome, terminal),
        checks::table(outcome, terminal),
        figures::phases(outcome, terminal),
        figures::lag(outcome, terminal),
        before_after::table(outcome, terminal),
        figures::facts(outcome, terminal),
        checks::witnesses(outcome, terminal),
        tail(outcome, result, terminal),
    ];
    sections.into_iter().filter(|section| !section.is_empty()).collect::<Vec<_>>().join("\n")
}

/// One line for a log: verdict, scenario, and the checks that did not pass.
#[must_use]
pub fn brief(outcome: &RunOutcome, result: &Path, terminal: Terminal) -> String {
    let amiss: Vec<_> = outcome
        .checks
        .iter()
        .filter(|check| matches!(check.outcome, Outcome::Fail { .. } | Outcome::Invalid(_)))
        .map(checks::called)
        .collect();
    let amiss = if amiss.is_empty() { String::new() } else { format!(": {}", amiss.join(", ")) };
    let (verdict, title) = (painted(outcome.verdict, terminal), title(outcome));
    format!("{verdict}  {title}{amiss}  {}\n", result.display())
}

fn head(outcome: &RunOutcome, terminal: Terminal) -> String {
    let question = wrapped(&outcome.scenario.question, 0, terminal.width());
    let mut head = format!("{}  {}\n{question}\n", painted(outcome.verdict, terminal), title(outcome));
    if let Some(bug) = &outcome.sabotage {
        let hits = match bug.hits {
            Some(0) => " was not exercised".to_owned(),
            Some(1) => " acted once".to_owned(),
            Some(hits) => format!(" acted {hits} times"),
            None => ": how often it acted is not known".to_owned(),
        };
        let text = format!("planted bug {}{hits}", bug.name);
        head.push_str(&format!("{}\n", terminal.doubtful(&text)));
    }
    for left in &outcome.left_behind {
        let text = format!("the target is not as it was, end this by hand: {left}");
        let text = wrapped(&text, 0, terminal.width());
        head.push_str(&format!("{}\n", terminal.bad(&text)));
    }
    if !outcome.environment.optimized {
        head.push_str(&format!("{}\n", terminal.doubtful("not an optimized build: figures are of little use")));
    }
    head
}

fn title(outcome: &RunOutcome) -> String {
    let RunOutcome { scenario, target, took_s, .. } = outcome;
    format!("{} · seed {} · {target} · {took_s:.1} s", scenario.name, scenario.seed)
}

fn painted(verdict: Verdict, terminal: Terminal) -> String {
    let word = verdict.to_string();
    match verdict {
        Verdict::Pass => terminal.good(&word),
        Verdict::Fail => terminal.bad(&word),
        Verdict::Invalid => terminal.doubtful(&word),
    }
}

fn tail(outcome: &RunOutcome, result: &Path, terminal: Terminal) -> String {
    let (file, again) = (terminal.dim("result   "), terminal.dim("reproduce"));
    format!("{file}  {}\n{again}  {}\n", result.display(), outcome.reproduce)
}
