//! What is measured.

/// One step of the pipeline, or what one is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Messages through the bridge.
    Forward,
    /// The same to a bare subscriber.
    Subscribe,
    /// Records of new keys through the registry.
    ReflectCold,
    /// The same rows by raw upserts.
    UpsertCold,
    /// Records of the same keys again and again.
    ReflectHot,
    /// The same rows by raw upserts.
    UpsertHot,
    /// One change through everything.
    Change,
    /// A backlog through the registry.
    Drain,
}

/// A step, what it is held against, and which part of its rate it must reach.
pub(crate) const RATIOS: [(Step, Step, f64); 3] = [
    (Step::Forward, Step::Subscribe, 0.6),
    (Step::ReflectCold, Step::UpsertCold, 0.6),
    (Step::ReflectHot, Step::UpsertHot, 0.6),
];

impl Step {
    /// Group and name of the bench.
    pub(crate) fn name(self) -> (&'static str, &'static str) {
        match self {
            Step::Forward => ("bridge", "messages acknowledged after Kafka"),
            Step::Subscribe => ("bridge", "messages to a bare subscriber"),
            Step::ReflectCold => ("registry", "records, cold keys"),
            Step::UpsertCold => ("registry", "raw upserts, cold keys"),
            Step::ReflectHot => ("registry", "records, hot keys"),
            Step::UpsertHot => ("registry", "raw upserts, hot keys"),
            Step::Change => ("freshness", "a change at 900 messages per second"),
            Step::Drain => ("backlog", "100,000 records drained"),
        }
    }

    /// Messages or records of one run: about a second of work each, but for the backlog.
    pub(crate) fn items(self) -> u64 {
        match self {
            Step::Forward | Step::Subscribe => 40_000,
            // A snapshot has 19 rows.
            Step::ReflectCold | Step::UpsertCold => 5_000,
            Step::ReflectHot | Step::UpsertHot => 20_000,
            Step::Change => 1,
            Step::Drain => 100_000,
        }
    }
}
