//! Begins and ends of faults, in order of time.

use std::time::Duration;

use crate::scenario::Fault;

/// A fault begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Edge {
    /// What it held is released. Before begins of the same moment: faults that follow each other do not overlap.
    End(usize),
    /// Fault number so and so of the scenario takes hold.
    Begin(usize),
}

/// All begins and ends of a scenario's faults.
#[derive(Debug)]
pub struct Timeline {
    edges: Vec<(Duration, Edge)>,
}

impl Timeline {
    /// The timeline of a scenario's faults.
    #[must_use]
    pub fn new(faults: &[Fault]) -> Timeline {
        let mut edges: Vec<_> = (0..)
            .zip(faults)
            .flat_map(|(index, fault)| {
                [(fault.at, Edge::Begin(index)), (fault.at + fault.kind.lasts(), Edge::End(index))]
            })
            .collect();
        edges.sort_by_key(|&(at, edge)| match edge {
            // A fault without duration still begins before it ends.
            Edge::End(index) if faults[index].kind.lasts().is_zero() => (at, 2, index),
            Edge::End(index) => (at, 0, index),
            Edge::Begin(index) => (at, 1, index),
        });
        Timeline { edges }
    }

    /// Begins and ends in order, each from the begin of the load.
    pub fn edges(&self) -> impl Iterator<Item = (Duration, Edge)> + '_ {
        self.edges.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{FaultKind, Server, ServerFault};

    #[test]
    fn a_fault_without_duration_begins_before_it_ends_and_ends_come_before_begins() {
        let fault = |at, kind| Fault { at: Duration::from_secs(at), at_text: String::new(), kind };
        let faults = [
            fault(1, FaultKind::Server(ServerFault::CutLink { to: Server::Broker, lasts: Duration::from_secs(2) })),
            fault(3, FaultKind::StageFailure { index: 0, times: 1 }),
        ];
        let edges: Vec<_> = Timeline::new(&faults).edges().map(|(_, edge)| edge).collect();
        assert_eq!(edges, [Edge::Begin(0), Edge::End(0), Edge::Begin(1), Edge::End(1)]);
    }
}
