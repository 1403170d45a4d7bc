//! Queues and memory of the pipeline's processes: from their own metrics, and from the kernel.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use nix::unistd::Pid;

use crate::{
    history::Gauge,
    live::{baseline, http},
};

/// Longest wait for the metrics of one process.
const WITHIN: Duration = Duration::from_secs(2);

/// Ending of the metrics that are the bound of a queue; its depth has the name without it, and the same labels.
const CAP: &str = "_cap";

/// How often a planted bug has acted; only builds that can plant one have it.
const SABOTAGE_HITS: &str = "dmp_sabotage_hits";

/// How often a stage of a registry has failed and was started again.
const STAGE_RESTARTS: &str = "dmp_registry_stage_restarts_total";

/// Offset commits that Kafka took: of a registry, and of the baseline.
const COMMITS: [&str; 2] = ["dmp_registry_commits_total", baseline::COMMITS];

/// The stage that faults make fail.
const WRITER: &str = "stage=\"writer\"";

/// What one process said of itself.
#[derive(Debug)]
pub(in crate::live) struct Reading {
    pub(in crate::live) gauges: Vec<Gauge>,
    /// How often its planted bug has acted.
    pub(in crate::live) sabotage_hits: Option<u64>,
    /// How often the writer stage has failed; only registries have one.
    pub(in crate::live) stage_restarts: Option<u64>,
    /// Offset commits that Kafka took; bridges commit for another group, which is not counted.
    pub(in crate::live) commits: Option<u64>,
}

/// How often the planted bug has acted in each life of a process: the highest value seen, for a kill takes the rest.
#[derive(Debug, Default)]
pub(in crate::live) struct SabotageHits(Mutex<BTreeMap<Pid, u64>>);

impl SabotageHits {
    /// Takes what a life of a process has said.
    pub(in crate::live) fn saw(&self, life: Pid, hits: Option<u64>) {
        if let Some(hits) = hits {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let most = seen.entry(life).or_default();
            *most = hits.max(*most);
        }
    }

    /// Of all lives together; `None` where none has said it.
    pub(in crate::live) fn total(&self) -> Option<u64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!seen.is_empty()).then(|| seen.values().sum())
    }
}

/// Reads the gauges of one process.
///
/// # Errors
/// If it does not answer: it may be paused or gone.
pub(in crate::live) async fn read(pid: Pid, http: SocketAddr) -> anyhow::Result<Reading> {
    let answer = tokio::time::timeout(WITHIN, http::get(http, "/metrics"));
    let text = answer.await.context("metrics did not come in time")??.body;
    let mut gauges = queues(&text);
    // The one queue without a bound.
    let backlog = value(&text, baseline::QUEUE, "");
    gauges.extend(backlog.map(|value| Gauge { name: baseline::QUEUE.into(), value, cap: None }));
    // What is a part of the harness's own process has no memory of its own.
    if pid != Pid::this() {
        gauges.push(Gauge { name: "memory_bytes".into(), value: memory(pid)?, cap: None });
    }
    Ok(Reading {
        gauges,
        sabotage_hits: value(&text, SABOTAGE_HITS, ""),
        stage_restarts: value(&text, STAGE_RESTARTS, WRITER),
        commits: COMMITS.iter().find_map(|name| value(&text, name, "")),
    })
}

/// Memory of this process.
pub(in crate::live) fn own_memory() -> anyhow::Result<u64> {
    memory(Pid::this())
}

/// Pairs each `X_cap` with its `X`; the deepest of each name counts.
fn queues(text: &str) -> Vec<Gauge> {
    let samples: BTreeMap<(&str, &str), u64> = text.lines().filter_map(sample).collect();
    let mut deepest: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (&(name, labels), &cap) in &samples {
        let Some(queue) = name.strip_suffix(CAP) else { continue };
        let Some(&depth) = samples.get(&(queue, labels)) else { continue };
        let most = deepest.entry(queue).or_insert((depth, cap));
        *most = (*most).max((depth, cap));
    }
    let gauge = |(name, (value, cap)): (&str, (u64, u64))| Gauge { name: name.into(), value, cap: Some(cap) };
    deepest.into_iter().map(gauge).collect()
}

/// The value of the series with these labels.
fn value(text: &str, name: &str, labels: &str) -> Option<u64> {
    text.lines().filter_map(sample).find_map(|(key, value)| (key == (name, labels)).then_some(value))
}

/// A line of the Prometheus text format: name, labels and value.
fn sample(line: &str) -> Option<((&str, &str), u64)> {
    let line = line.trim();
    let (key, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
    let (name, labels) = key.split_once('{').map_or((key, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
    let value: f64 = value.parse().ok()?;
    Some(((name, labels), value.max(0.0) as u64))
}

/// Resident memory, from `/proc`.
fn memory(pid: Pid) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_queue_of_a_name_is_paired_with_its_own_bound() {
        let text = "# HELP x d\nx{partition=\"0\"} 3\nx{partition=\"1\"} 9\nx_cap{partition=\"0\"} 10\n\
                    x_cap{partition=\"1\"} 10\ny{g=\"1\"} 2\ny_cap{g=\"1\"} 4\nz_total 7\n";
        let gauge = |name: &str, value, cap| Gauge { name: name.into(), value, cap };
        assert_eq!(queues(text), [gauge("x", 9, Some(10)), gauge("y", 2, Some(4))]);
    }

    #[test]
    fn restarts_are_those_of_the_writer_stage() {
        let text = "# TYPE dmp_registry_stage_restarts_total counter\n\
                    dmp_registry_stage_restarts_total{stage=\"core\"} 1\n\
                    dmp_registry_stage_restarts_total{stage=\"writer\"} 9\n";
        assert_eq!(value(text, STAGE_RESTARTS, WRITER), Some(9));
        assert_eq!(value("dmp_bridge_stage_restarts_total 2\n", STAGE_RESTARTS, WRITER), None);
    }

    #[test]
    fn the_hits_of_a_planted_bug_are_the_highest_of_each_life_summed_and_unknown_where_nobody_told() {
        let hits = SabotageHits::default();
        hits.saw(Pid::from_raw(1), value("dmp_other 4\n", SABOTAGE_HITS, ""));
        assert_eq!(hits.total(), None);
        for (life, text) in [(1, "dmp_sabotage_hits 3\n"), (2, "# HELP x y\ndmp_sabotage_hits 5\n"), (1, "x 1\n")] {
            hits.saw(Pid::from_raw(life), value(text, SABOTAGE_HITS, ""));
        }
        hits.saw(Pid::from_raw(1), Some(2));
        assert_eq!(hits.total(), Some(8));
    }
}
