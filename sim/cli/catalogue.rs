//! `fleetproof checks`: what a run is held against, in words.

use super::Exit;
use crate::check::verdict::CheckId;

/// Every check in the order of the catalogue, with its name and what it promises.
const CATALOGUE: [(CheckId, &str, &str); 24] = [
    (
        CheckId::C1,
        "provenance",
        "every visible attribute has a value that its device really had, at the version it was published under",
    ),
    (CheckId::C2, "attribute monotonicity", "the stored version of an attribute never falls"),
    (
        CheckId::C3,
        "floor monotonicity",
        "the version of a device's newest snapshot never falls; a clean-up removes nothing visible",
    ),
    (
        CheckId::C4,
        "key and order",
        "all records of one topic are in one partition, and their numbers rise among first appearances",
    ),
    (
        CheckId::C5,
        "commit safety",
        "every record below a committed offset is reflected in durable rows, or quarantined with a reason",
    ),
    (CheckId::C5b, "start position", "a new owner of a partition starts at or before the committed offset"),
    (CheckId::C6, "commit monotonicity", "a committed offset never falls"),
    (CheckId::C7, "boundedness", "every queue stays within its cap, and memory within its budget"),
    (CheckId::C8, "acknowledged is stored", "what a bridge acknowledged is in the log by the end of the run"),
    (
        CheckId::C15,
        "conservation",
        "every event of an agent is in the log, or something says where it ended; the log holds nothing else",
    ),
    (CheckId::C9, "convergence", "after heal, within a bound, every row equals its device, and stays so"),
    (CheckId::C10, "staleness", "how long a change takes until its row shows it, and how old what is not shown is"),
    (CheckId::C11, "lag", "how many records wait: the peak, the time to drain, and the quiet level"),
    (
        CheckId::C12,
        "progress",
        "a partition with lag and a living owner moves; not judged while a registry fault and recovery hold",
    ),
    (
        CheckId::C16,
        "commands",
        "every command is executed once and replied to, expires unexecuted, or is refused; none twice, none unheard of",
    ),
    (CheckId::C17, "round trip", "how long a command takes from its intended time until its reply is in the log"),
    (
        CheckId::C18,
        "bounded feedback",
        "registries ask and tell each session once in a snapshot period, within a budget, and only while they are to",
    ),
    (
        CheckId::C19,
        "lease",
        "a device that is silent for three snapshot periods is marked as stale, and no other one, whatever is behind",
    ),
    (CheckId::C20, "presence", "in the end every RAE is shown online or offline as it is, and as it last said"),
    (
        CheckId::C21,
        "active repair",
        "how much sooner a snapshot that was asked for heals than one that was not; only where a limit is set",
    ),
    (
        CheckId::C22,
        "reconstruction",
        "a store that begins empty shows every device within its bound, and its registry says nothing to any RAE",
    ),
    (
        CheckId::C23,
        "before and after",
        "what a comparison with the baseline consumer, which does what not to do, must show; only where limits are set",
    ),
    (
        CheckId::C24,
        "scale-out",
        "after the number of bridges or registries changed, consumption is soon back at the rate of publication",
    ),
    (CheckId::Generator, "generator", "the harness kept its own schedule and its feet; else the run is INVALID"),
];

const EXPLANATION: &str = "
Each check ends as
  pass      it held, and it saw something
  FAIL      it did not; a witness names device, versions, offsets and times
  INVALID   it could not be judged, or it can be observed here and saw nothing
  not seen  this target cannot observe it

A failed invariant (C1 to C8, C15, C16) makes the run FAIL whatever else happened. Then INVALID comes before a failed
promise (C9 to C12, C17 to C24). Only a run in which every observable check passed is a PASS.
";

pub(super) fn print() -> Exit {
    super::run::print(&shown());
    Exit::Pass
}

pub(super) fn shown() -> String {
    let mut text = String::new();
    for (id, name, promise) in CATALOGUE {
        let id = match id {
            CheckId::Generator => "-".to_owned(),
            id => format!("{id:?}"),
        };
        text.push_str(&format!("{id:<4} {name:<23} {promise}\n"));
    }
    text + EXPLANATION
}
