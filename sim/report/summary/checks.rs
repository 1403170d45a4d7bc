//! The checks as a table, and for each that failed its witnesses with their timelines.

use super::super::layout::{Align, Terminal, broken, columns, wrapped};
use crate::{
    check::verdict::{CheckId, CheckResult, Moment, Outcome, Witness},
    run::RunOutcome,
    scenario::quantity::show_whole,
};

/// What stands before the figure: indent, number, name, outcome, and the blanks between them.
const BEFORE_FIGURE: usize = 2 + 4 + 2 + 22 + 2 + 8 + 2;

/// Every check with its outcome, figure and limit.
pub(super) fn table(outcome: &RunOutcome, terminal: Terminal) -> String {
    let widest = |text: fn(&CheckResult) -> &String| {
        outcome.checks.iter().map(|check| text(check).chars().count()).max().unwrap_or(0)
    };
    let room = terminal.width().saturating_sub(BEFORE_FIGURE + 2);
    let limits = widest(|check| &check.limit).min(room * 4 / 10);
    let figures = widest(|check| &check.figure).min(room - limits);
    let rows: Vec<_> = outcome.checks.iter().flat_map(|check| rows(check, figures, limits, terminal)).collect();
    let align = [Align::Left; 5];
    format!("{}\n{}", terminal.heading("checks"), columns(&rows, &align, "  ", terminal.width()))
}

/// The lines of one check: more than one where figure or limit are too long for their column.
fn rows(check: &CheckResult, figures: usize, limits: usize, terminal: Terminal) -> Vec<Vec<String>> {
    let CheckResult { id, name, figure, limit, .. } = check;
    // The check of the harness itself has a name and no number.
    let id = if *id == CheckId::Generator { "-".to_owned() } else { format!("{id:?}") };
    let (word, figure, limit) = match &check.outcome {
        Outcome::Pass => (terminal.good("pass"), broken(figure, figures), broken(limit, limits)),
        Outcome::Fail { .. } => (terminal.bad("FAIL"), broken(figure, figures), broken(limit, limits)),
        Outcome::Invalid(why) => return vec![vec![id, (*name).to_owned(), terminal.doubtful("INVALID"), why.clone()]],
        Outcome::NotObservable(why) => {
            return vec![vec![id, (*name).to_owned(), terminal.dim("not seen"), why.clone()]];
        }
    };
    let mut head = [id, (*name).to_owned(), word].to_vec();
    let part = |lines: &[String], index: usize| lines.get(index).cloned().unwrap_or_default();
    let line = |index| {
        let head = if index == 0 { std::mem::take(&mut head) } else { vec![String::new(); 3] };
        [head, vec![part(&figure, index), part(&limit, index)]].concat()
    };
    (0..figure.len().max(limit.len()).max(1)).map(line).collect()
}

/// The witnesses of every check that failed, the first of each with its timeline; empty if none did.
pub(super) fn witnesses(outcome: &RunOutcome, terminal: Terminal) -> String {
    let mut text = String::new();
    for check in &outcome.checks {
        let Outcome::Fail { witnesses, count } = &check.outcome else { continue };
        let shown = witnesses.len() as u64;
        let of = match *count {
            count if count > shown => format!(", {} in all, the first {shown}", show_whole(count)),
            _ => String::new(),
        };
        let title = format!("{} failed{of}", called(check));
        text.push_str(&format!("{}\n", terminal.bad(&title)));
        // One timeline is read, five are scrolled past: the others are in the file.
        for (index, witness) in witnesses.iter().enumerate() {
            text.push_str(&shown_witness(witness, index == 0, terminal));
        }
    }
    text
}

/// Number and name of a check: `C5 commit safety`.
pub(super) fn called(check: &CheckResult) -> String {
    match check.id {
        CheckId::Generator => check.name.to_owned(),
        id => format!("{id:?} {}", check.name),
    }
}

fn shown_witness(witness: &Witness, whole: bool, terminal: Terminal) -> String {
    let at = time(witness.at);
    let begins = 2 + at.len() + 2;
    let mut text = format!("  {at}  {}\n", wrapped(&witness.what, begins, terminal.width()));
    if !whole {
        return text;
    }
    let moments: Vec<_> = witness.timeline.iter().map(|Moment { at, what }| vec![time(*at), what.clone()]).collect();
    text.push_str(&columns(&moments, &[Align::Right, Align::Left], "      ", terminal.width()));
    text
}

fn time(at: std::time::Duration) -> String {
    format!("{:.3} s", at.as_secs_f64())
}
