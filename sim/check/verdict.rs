//! What a run ends in: one verdict, one outcome per check, and a witness for each failure.

use std::{fmt, time::Duration};

use serde::Serialize;

/// How a run ends. A safety failure stands even in an invalid run; invalid comes before any other failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every check passed that the target can observe.
    Pass,
    /// A check failed, and its witness says where.
    Fail,
    /// Nothing can be said of the system: the harness or its surroundings fell short.
    Invalid,
}

/// A check of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum CheckId {
    /// Provenance: every visible attribute is true, at the version under which it was published.
    C1,
    /// Attribute monotonicity.
    C2,
    /// Floor monotonicity.
    C3,
    /// Key and order.
    C4,
    /// Commit safety.
    C5,
    /// Start position.
    C5b,
    /// Commit monotonicity.
    C6,
    /// Boundedness.
    C7,
    /// Acknowledged is stored.
    C8,
    /// Convergence.
    C9,
    /// Staleness.
    C10,
    /// Lag.
    C11,
    /// Progress.
    C12,
    /// Conservation.
    C15,
    /// Every command has one end.
    C16,
    /// Round trip of commands.
    C17,
    /// Bounded feedback.
    C18,
    /// Lease.
    C19,
    /// Presence of RAEs.
    C20,
    /// Active repair.
    C21,
    /// Reconstruction.
    C22,
    /// Before and after: the comparison with the baseline.
    C23,
    /// Scale-out.
    C24,
    /// The generator kept its schedule and the harness its feet: else the run is invalid.
    Generator,
}

/// Whether a failure of the check stands in an invalid run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// C1 to C8, C15 and C16: an invariant.
    Safety,
    /// C9 to C12 and C17 to C24: a promise.
    Liveness,
    /// About the harness itself.
    Validity,
}

/// The end of one check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckResult {
    /// Which.
    pub id: CheckId,
    /// Its name: "commit safety".
    pub name: &'static str,
    /// Safety, liveness or validity.
    pub class: Class,
    /// How it ended.
    pub outcome: Outcome,
    /// What it measured, with its unit: "412 of 412 devices", "p99 184 ms".
    pub figure: String,
    /// What it was held against: "at most 500 ms"; empty where the invariant has no figure.
    pub limit: String,
    /// How many things it looked at: zero on a target that can observe it is INVALID.
    pub observed: u64,
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "because")]
pub enum Outcome {
    /// It held.
    Pass,
    /// It did not: the first witnesses (at most [`MAX_WITNESSES`]), and how many there are.
    Fail {
        /// The first ones.
        witnesses: Vec<Witness>,
        /// How many in all.
        count: u64,
    },
    /// It could not be judged.
    Invalid(String),
    /// The target cannot observe it.
    NotObservable(String),
}

/// Witnesses kept per check.
pub const MAX_WITNESSES: usize = 5;

/// A failure, with what leads to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Witness {
    /// One sentence that names device, attribute, versions, offsets and times.
    pub what: String,
    /// When it was seen, from the begin of the run.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// The causal timeline of that one device or partition: intent, send, acknowledgement, log offset, row.
    pub timeline: Vec<Moment>,
}

/// One line of a timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moment {
    /// From the begin of the run.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// What happened.
    pub what: String,
}

fn seconds<S: serde::Serializer>(at: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((at.as_secs_f64() * 1e6).round() / 1e6)
}

impl CheckId {
    /// Every check, in the order of the catalogue.
    pub const ALL: [CheckId; 24] = [
        CheckId::C1,
        CheckId::C2,
        CheckId::C3,
        CheckId::C4,
        CheckId::C5,
        CheckId::C5b,
        CheckId::C6,
        CheckId::C7,
        CheckId::C8,
        CheckId::C9,
        CheckId::C10,
        CheckId::C11,
        CheckId::C12,
        CheckId::C15,
        CheckId::C16,
        CheckId::C17,
        CheckId::C18,
        CheckId::C19,
        CheckId::C20,
        CheckId::C21,
        CheckId::C22,
        CheckId::C23,
        CheckId::C24,
        CheckId::Generator,
    ];

    /// Its name in plain words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            CheckId::C1 => "provenance",
            CheckId::C2 => "attribute monotonicity",
            CheckId::C3 => "floor monotonicity",
            CheckId::C4 => "key and order",
            CheckId::C5 => "commit safety",
            CheckId::C5b => "start position",
            CheckId::C6 => "commit monotonicity",
            CheckId::C7 => "boundedness",
            CheckId::C8 => "acknowledged is stored",
            CheckId::C9 => "convergence",
            CheckId::C10 => "staleness",
            CheckId::C11 => "lag",
            CheckId::C12 => "progress",
            CheckId::C15 => "conservation",
            CheckId::C16 => "commands",
            CheckId::C17 => "round trip",
            CheckId::C18 => "bounded feedback",
            CheckId::C19 => "lease",
            CheckId::C20 => "presence",
            CheckId::C21 => "active repair",
            CheckId::C22 => "reconstruction",
            CheckId::C23 => "before and after",
            CheckId::C24 => "scale-out",
            CheckId::Generator => "generator",
        }
    }

    /// Whether its failure stands in an invalid run.
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            CheckId::C1
            | CheckId::C2
            | CheckId::C3
            | CheckId::C4
            | CheckId::C5
            | CheckId::C5b
            | CheckId::C6
            | CheckId::C7
            | CheckId::C8
            | CheckId::C15
            | CheckId::C16 => Class::Safety,
            CheckId::C9
            | CheckId::C10
            | CheckId::C11
            | CheckId::C12
            | CheckId::C17
            | CheckId::C18
            | CheckId::C19
            | CheckId::C20
            | CheckId::C21
            | CheckId::C22
            | CheckId::C23
            | CheckId::C24 => Class::Liveness,
            CheckId::Generator => Class::Validity,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "PASS",
            Verdict::Fail => "FAIL",
            Verdict::Invalid => "INVALID",
        })
    }
}

/// The verdict of a run with these results.
#[must_use]
pub fn verdict(results: &[CheckResult]) -> Verdict {
    let failed = |class| results.iter().any(|r| r.class == class && matches!(r.outcome, Outcome::Fail { .. }));
    let invalid = failed(Class::Validity) || results.iter().any(|r| matches!(r.outcome, Outcome::Invalid(_)));
    match (failed(Class::Safety), invalid, failed(Class::Liveness)) {
        (true, _, _) => Verdict::Fail,
        (false, true, _) => Verdict::Invalid,
        (false, false, true) => Verdict::Fail,
        (false, false, false) => Verdict::Pass,
    }
}
