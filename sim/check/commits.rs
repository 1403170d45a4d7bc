//! C6: a committed offset never falls, within one life of the group.

use std::collections::BTreeMap;

use super::{
    tally::Tally,
    verdict::{CheckId, CheckResult},
};
use crate::history::{Entry, What};

/// C6.
#[derive(Debug)]
pub(super) struct Commits {
    tally: Tally,
    committed: BTreeMap<i32, i64>,
    /// Offsets named by reads: they were read before the rows, so they are compared among themselves only.
    before_reads: BTreeMap<i32, i64>,
}

impl Commits {
    pub(super) fn new() -> Commits {
        Commits { tally: Tally::new(CheckId::C6), committed: BTreeMap::new(), before_reads: BTreeMap::new() }
    }

    pub(super) fn observe(&mut self, entry: &Entry) {
        match &entry.what {
            What::Committed { partition, offset } => {
                compare(&mut self.tally, &mut self.committed, entry, *partition, *offset);
            }
            What::Read(read) => {
                for &(partition, offset) in &read.committed {
                    compare(&mut self.tally, &mut self.before_reads, entry, partition, offset);
                }
            }
            What::StoreWiped { .. } => {
                self.committed.clear();
                self.before_reads.clear();
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) -> CheckResult {
        let figure = format!("{} readings", self.tally.observed);
        self.tally.result(figure, String::new(), "committed offset")
    }
}

fn compare(tally: &mut Tally, known: &mut BTreeMap<i32, i64>, entry: &Entry, partition: i32, offset: i64) {
    tally.saw();
    let before = known.insert(partition, offset);
    if let Some(before) = before.filter(|&before| offset < before) {
        let what = format!("committed offset of partition {partition} fell from {before} to {offset}");
        tally.fail(entry.at, || (what, Vec::new()));
    }
}
