//! How far a run is, on standard error: one line that changes in a terminal, a plain line every few seconds elsewhere.

use std::time::Duration;

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{run::Progress, scenario::quantity::show_whole};

/// Time between two plain lines: a log of a minute stays a page.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The progress of one run.
#[derive(Debug)]
pub struct ProgressLine(Kind);

#[derive(Debug)]
enum Kind {
    Bar(ProgressBar),
    Plain { phase: String, next: Duration },
    Quiet,
}

impl ProgressLine {
    /// For standard error as it is; nothing at all if `quiet`.
    #[must_use]
    pub fn stderr(quiet: bool) -> ProgressLine {
        let term = Term::stderr();
        ProgressLine(match (quiet, term.features().is_attended()) {
            (true, _) => Kind::Quiet,
            (false, true) => Kind::Bar(bar(term)),
            (false, false) => Kind::Plain { phase: String::new(), next: Duration::ZERO },
        })
    }

    /// Shows `progress`.
    pub fn show(&mut self, progress: &Progress) {
        match &mut self.0 {
            Kind::Bar(bar) => {
                bar.set_length(millis(progress.expected.max(progress.elapsed)));
                bar.set_position(millis(progress.elapsed));
                bar.set_message(line(progress));
            }
            Kind::Plain { phase, next } => {
                if progress.elapsed >= *next || *phase != progress.phase {
                    *next = progress.elapsed + PLAIN_EVERY;
                    phase.clone_from(&progress.phase);
                    eprintln!("{:>5.1} s  {}", progress.elapsed.as_secs_f64(), line(progress));
                }
            }
            Kind::Quiet => {}
        }
    }

    /// Leaves the terminal as if nothing had been shown.
    pub fn clear(&self) {
        match &self.0 {
            Kind::Bar(bar) => bar.finish_and_clear(),
            Kind::Plain { .. } | Kind::Quiet => {}
        }
    }
}

fn bar(term: Term) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:20.cyan/dim} {wide_msg}").expect("a template known to be right");
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::term(term, 8));
    bar.set_style(style.progress_chars("━╸─"));
    bar
}

/// `burst  12/41 s  in 912/s  out 899/s  lag 1,204  behind 3 of 2,400  kill`
pub(super) fn line(progress: &Progress) -> String {
    let Progress { phase, elapsed, expected, published_per_s, reflected_per_s, lag, devices_behind, devices, .. } =
        progress;
    let mut line = format!(
        "{phase:<9} {}/{} s  in {}/s  out {}/s  lag {}  behind {} of {}",
        elapsed.as_secs(),
        expected.as_secs(),
        show_whole(published_per_s.round() as u64),
        show_whole(reflected_per_s.round() as u64),
        show_whole(*lag),
        show_whole(*devices_behind),
        show_whole(*devices),
    );
    if !progress.faults.is_empty() {
        line.push_str("  [");
        line.push_str(&progress.faults.join(", "));
        line.push(']');
    }
    line
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
