//! All runs of all steps, and the report on them in Markdown.

use std::{cell::RefCell, collections::BTreeMap, fmt::Write as _, time::Duration};

use crate::{
    cpu::{Cpu, Run},
    machine,
    step::{RATIOS, Step},
};

/// Options of Kafka's Java machine: by default it is set for a run of minutes, and a bench takes longer.
const HEAP: &str = "FLEETPROOF_KAFKA_HEAP_OPTS";

/// Threads that are named where a ratio is missed.
const BUSIEST: usize = 10;

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
        let took = run.took.mul_f64(step.items() as f64 / run.items as f64);
        let mut runs = self.runs.borrow_mut();
        let runs = runs.entry(step).or_default();
        if step != Step::Change {
            tell(&format!("  run {}: {} per second", runs.len(), thousands(run.per_s())));
        }
        runs.push(run);
        took
    }

    /// The whole of it.
    pub(crate) fn markdown(&self, versions: &[String]) -> String {
        let mut text = String::from("# Benches of bridge and registry\n\n");
        let _infallible = writeln!(text, "{}; {}.\n", machine::description(), versions.join(", "));
        made_by(&mut text);
        self.rates(&mut text);
        self.ratios(&mut text);
        self.times(&mut text);
        self.cpu(&mut text);
        self.missed(&mut text);
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
            "\n| CPU time, us per message or record | bench | Mosquitto | Kafka | PostgreSQL | proxies | others | cores busy | \
             stolen |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (step, figure) in self.figures(|step| step != Step::Change) {
            let spent = figure.spent();
            let _infallible = write!(text, "| {} |", title(step));
            for (_, part) in parts(&spent) {
                let _infallible = write!(text, " {part:.1} |");
            }
            let [busy, stolen] =
                [spent.cpu.all, spent.cpu.stolen].map(|time| time.as_secs_f64() / spent.took.as_secs_f64());
            let _infallible = writeln!(text, " {busy:.2} of {} | {stolen:.2} |", machine::cores());
        }
        text.push_str(
            "\n*bench* is the process with bridge or registry in it, or with what they are held against; *proxies* are \
             Docker's, where a container's port is reached through them; *others* is all else on the machine, other work among \
             it; *stolen* is what the host gave to other machines.\n",
        );
    }

    /// For each ratio that was missed, where the time went.
    fn missed(&self, text: &mut String) {
        for (step, against, least) in RATIOS {
            let Some(ratio) = self.ratio(step, against).filter(|ratio| *ratio < least) else { continue };
            let [Some(spent), Some(bare)] = [step, against].map(|step| Some(self.figure(step)?.spent())) else {
                continue;
            };
            // Other work is not the step's.
            let its_own = |run: &Run| parts(run).into_iter().filter(|(name, part)| *name != "others" && *part >= 0.5);
            let costs = [&spent, &bare]
                .map(|run| its_own(run).map(|(name, part)| format!("{name} {part:.1}")).collect::<Vec<_>>().join(", "));
            let [all, least_possible] = [&spent, &bare].map(|run| its_own(run).map(|(_, part)| part).sum::<f64>());
            let _infallible = writeln!(
                text,
                "\n**{}: {ratio:.2}, below {least}.** One takes {all:.1} us of CPU time ({}), one of {} {least_possible:.1} us \
                 ({}). All share {} cores: with these busy all the time in both, the ratio would be {:.2}. By thread: {}.",
                title(step),
                costs[0],
                against.name().1,
                costs[1],
                machine::cores(),
                least_possible / all,
                threads(&spent)
            );
        }
    }

    fn ratio(&self, step: Step, against: Step) -> Option<f64> {
        let median = |step| Some(at(&self.figure(step)?.sorted(Run::per_s), 0.5));
        Some(median(step)? / median(against)?)
    }

    /// What was measured of one step.
    fn figure(&self, wanted: Step) -> Option<Figure> {
        self.figures(|step| step == wanted).pop().map(|(_, figure)| figure)
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
            all.cpu += run.cpu.clone();
        }
        all
    }
}

/// The commands that make such a report.
fn made_by(text: &mut String) {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let chosen = if chosen.is_empty() { String::new() } else { format!(" -- {}", chosen.join(" ")) };
    let images = match std::env::var_os("FLEETPROOF_IMAGE_KAFKA") {
        Some(_) => "eval \"$(tests/images/build)\"\n",
        None => "",
    };
    let heap = std::env::var(HEAP).map_or_else(|_| String::new(), |heap| format!("{HEAP}='{heap}' "));
    let _infallible = writeln!(
        text,
        "```sh\n{images}{heap}FLEETPROOF_BENCH_REPORT=FILE cargo bench --features containers --bench pipeline{chosen}\n```\n"
    );
}

/// CPU time of the busiest threads, in microseconds for one message or record.
fn threads(run: &Run) -> String {
    let mut threads: Vec<(&String, &Duration)> = run.cpu.threads.iter().collect();
    threads.sort_by_key(|(_, took)| std::cmp::Reverse(**took));
    let told =
        |(name, took): &(&String, &Duration)| format!("{name} {:.1}", took.as_secs_f64() * 1e6 / run.items as f64);
    threads[..threads.len().min(BUSIEST)].iter().map(told).collect::<Vec<_>>().join(", ")
}

/// CPU time of each program, in microseconds for one message or record.
fn parts(run: &Run) -> [(&'static str, f64); 6] {
    let Cpu { own, mosquitto, kafka, postgres, proxies, all: _, stolen: _, threads: _ } = run.cpu;
    [
        ("bench", own),
        ("Mosquitto", mosquitto),
        ("Kafka", kafka),
        ("PostgreSQL", postgres),
        ("proxies", proxies),
        ("others", run.cpu.others()),
    ]
    .map(|(name, time)| (name, time.as_secs_f64() * 1e6 / run.items as f64))
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
pub(crate) fn tell(words: &str) {
    let terminal = console::Term::stderr();
    if terminal.is_term() {
        let _closed = terminal.clear_line();
    }
    let _closed = terminal.write_line(words);
}
