//! The checks as a table, and for each that failed its witnesses with their timelines.

use super::super::layout::{Align, Terminal, columns, wrapped};
use crate::{
    check::verdict::{CheckResult, Moment, Outcome, Witness},
    run::RunOutcome,
    scenario::quantity::show_whole,
};

/// Every check with its outcome, figure and limit.
pub(super) fn table(outcome: &RunOutcome, terminal: Terminal) -> String {
    let rows: Vec<_> = outcome.checks.iter().map(|check| row(check, terminal)).collect();
    let align = [Align::Left; 5];
    format!("{}\n{}", terminal.heading("checks"), columns(&rows, &align, "  ", terminal.width()))
}

fn row(check: &CheckResult, terminal: Terminal) -> Vec<String> {
    let CheckResult { id, name, figure, limit, .. } = check;
    let id = match format!("{id:?}") {
        id if id.starts_with('C') => id,
        // Checks of the harness itself have a name and no number.
        _ => "-".to_owned(),
    };
    let (word, rest) = match &check.outcome {
        Outcome::Pass => (terminal.good("pass"), vec![figure.clone(), limit.clone()]),
        Outcome::Fail { .. } => (terminal.bad("FAIL"), vec![figure.clone(), limit.clone()]),
        Outcome::Invalid(why) => (terminal.doubtful("INVALID"), vec![why.clone()]),
        Outcome::NotObservable(why) => (terminal.dim("not seen"), vec![why.clone()]),
    };
    [vec![id, (*name).to_owned(), word], rest].concat()
}

/// The witnesses of every check that failed; empty if none did.
pub(super) fn witnesses(outcome: &RunOutcome, terminal: Terminal) -> String {
    let mut text = String::new();
    for check in &outcome.checks {
        let Outcome::Fail { witnesses, count } = &check.outcome else { continue };
        let shown = witnesses.len() as u64;
        let of = match *count {
            count if count > shown => format!(", {} in all, the first {shown}", show_whole(count)),
            _ => String::new(),
        };
        let title = format!("{:?} {} failed{of}", check.id, check.name);
        text.push_str(&format!("{}\n", terminal.bad(&title)));
        for witness in witnesses {
            text.push_str(&shown_witness(witness, terminal));
        }
    }
    text
}

fn shown_witness(witness: &Witness, terminal: Terminal) -> String {
    let at = time(witness.at);
    let begins = 2 + at.len() + 2;
    let mut text = format!("  {at}  {}\n", wrapped(&witness.what, begins, terminal.width()));
    let moments: Vec<_> = witness.timeline.iter().map(|Moment { at, what }| vec![time(*at), what.clone()]).collect();
    text.push_str(&columns(&moments, &[Align::Right, Align::Left], "      ", terminal.width()));
    text
}

fn time(at: std::time::Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}
