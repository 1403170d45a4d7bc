//! All runs of all steps, and the report on them in Markdown.

use std::{cell::RefCell, collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    cpu::{Cpu, Run},
    machine,
    step::{RATIOS, Step},
};

#[derive(Default)]
pub(crate) struct Report {
    runs: RefCell<BTreeMap<Step, Vec<Run>>>,
}

/// The runs of one step, the first left out: it warms up.
struct Figure {
    runs: Vec<Run>,
}

impl Report {
    /// Notes a run and tells of it. Returns the time that all of the step's items would have taken.
    pub(crate) fn add(&self, step: Step, run: Run) -> Duration {
        let mut runs = self.runs.borrow_mut();
        let runs = runs.entry(step).or_default();
        runs.push(run);
        if step != Step::Change {
            tell(&format!("  run {}: {} per second", runs.len() - 1, thousands(run.per_s())));
        }
        run.took.mul_f64(step.items() as f64 / run.items as f64)
    }

    /// The whole of it.
    pub(crate) fn markdown(&self, versions: &[String]) -> String {
        let mut text = String::from("# Benches of bridge and registry\n\n");
        let _infallible = writeln!(text, "{}; {}.\n", machine::description(), versions.join(", "));
        self.rates(&mut text);
        self.ratios(&mut text);
        self.times(&mut text);
        self.cpu(&mut text);
        text
    }

    fn rates(&self, text: &mut String) {
        text.push_str("| per second | median | lowest | highest | runs |\n|---|---:|---:|---:|---:|\n");
        for (step, figure) in self.figures(|step| step != Step::Change) {
            let rates = figure.sorted(Run::per_s);
            let [lowest, median, highest] = [0.0, 0.5, 1.0].map(|quantile| thousands(at(&rates, quantile)));
            let _infallible = writeln!(text, "| {} | {median} | {lowest} | {highest} | {} |", title(step), rates.len());
        }
    }

    fn ratios(&self, text: &mut String) {
        text.push_str("\n| ratio of medians | | at least | |\n|---|---:|---:|---|\n");
        for (step, against, least) in RATIOS {
            let Some(ratio) = self.ratio(step, against) else { continue };
            let held = if ratio >= least { "held" } else { "**not held**" };
            let (_, against) = against.name();
            let _infallible = writeln!(text, "| {}, to {against} | {ratio:.2} | {least} | {held} |", title(step));
        }
    }

    fn times(&self, text: &mut String) {
        for (step, figure) in self.figures(|step| matches!(step, Step::Change | Step::Drain)) {
            let seconds = figure.sorted(|run| run.took.as_secs_f64());
            let [least, median, p99, most] = [0.0, 0.5, 0.99, 1.0].map(|quantile| at(&seconds, quantile));
            let _infallible = match step {
                Step::Change => writeln!(
                    text,
                    "\nFreshness, {}: seen by a reader of the database after {:.0} ms (median), {:.0} ms (p99), {:.0} ms \
                     (longest of {}).",
                    step.name().1,
                    median * 1e3,
                    p99 * 1e3,
                    most * 1e3,
                    seconds.len()
                ),
                _ => writeln!(
                    text,
                    "\nBacklog, {}: in {median:.1} s (median; {least:.1} to {most:.1} s).",
                    step.name().1
                ),
            };
        }
    }

    fn cpu(&self, text: &mut String) {
        text.push_str(
            "\n| CPU time, us per message or record | bench | Mosquitto | Kafka | PostgreSQL | proxies | others | \
             cores busy |\n|---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (step, figure) in self.figures(|step| step != Step::Change) {
            let spent = figure.spent();
            let _infallible = write!(text, "| {} |", title(step));
            let Cpu { own, mosquitto, kafka, postgres, proxies, all: _ } = spent.cpu;
            for part in [own, mosquitto, kafka, postgres, proxies, spent.cpu.others()] {
                let _infallible = write!(text, " {:.1} |", part.as_secs_f64() * 1e6 / spent.items as f64);
            }
            let busy = spent.cpu.all.as_secs_f64() / spent.took.as_secs_f64();
            let _infallible = writeln!(text, " {busy:.2} of {} |", machine::cores());
        }
        text.push_str(
            "\n*bench* is the process with bridge or registry in it, or with what they are held against; *proxies* are \
             Docker's, through which a container's port is reached on loopback; *others* is all else on the machine, other \
             work among it.\n",
        );
    }

    fn ratio(&self, step: Step, against: Step) -> Option<f64> {
        let median = |wanted: Step| {
            let (_, figure) = self.figures(|step| step == wanted).pop()?;
            Some(at(&figure.sorted(Run::per_s), 0.5))
        };
        Some(median(step)? / median(against)?)
    }

    /// What was measured of some steps.
    fn figures(&self, wanted: impl Fn(Step) -> bool) -> Vec<(Step, Figure)> {
        let runs = self.runs.borrow();
        let measured = runs.iter().filter(|(step, runs)| wanted(**step) && runs.len() > 1);
        measured.map(|(step, runs)| (*step, Figure { runs: runs[1..].to_vec() })).collect()
    }
}

impl Figure {
    fn sorted(&self, of: impl Fn(&Run) -> f64) -> Vec<f64> {
        let mut sorted: Vec<f64> = self.runs.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// All runs as one.
    fn spent(&self) -> Run {
        let mut all = Run { items: 0, took: Duration::ZERO, cpu: Cpu::default() };
        for run in &self.runs {
            all.items += run.items;
            all.took += run.took;
            all.cpu += run.cpu;
        }
        all
    }
}

fn title(step: Step) -> String {
    let (group, name) = step.name();
    format!("{group}: {name}")
}

/// The value at a quantile of sorted values, by the nearest rank.
fn at(sorted: &[f64], quantile: f64) -> f64 {
    sorted[(quantile * (sorted.len() - 1) as f64).round() as usize]
}

/// 1234567.8 as `1,234,568`.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

/// A line of its own, whatever criterion has written in the present one.
fn tell(words: &str) {
    let terminal = console::Term::stderr();
    if terminal.is_term() {
        let _closed = terminal.clear_line();
    }
    let _closed = terminal.write_line(words);
}
