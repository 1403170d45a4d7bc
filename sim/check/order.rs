//! C4: all records of one topic are in one partition, and first appearances of a session's events come in order of seq.
//!
//! Duplicates are legal, and counted; gaps are missed events.

use std::{collections::BTreeMap, sync::Arc};

use dmp_core::event::Event;

use super::{
    model::{Models, Step, brief},
    tally::Tally,
    verdict::{CheckId, CheckResult, Moment},
};
use crate::history::{Appended, Entry, What};

/// C4.
#[derive(Debug)]
pub(super) struct Order {
    tally: Tally,
    partition_of: BTreeMap<Arc<str>, i32>,
    partitions: Option<u32>,
    duplicates: u64,
}

impl Order {
    pub(super) fn new() -> Order {
        Order { tally: Tally::new(CheckId::C4), partition_of: BTreeMap::new(), partitions: None, duplicates: 0 }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry, step: &Step) {
        match &entry.what {
            What::Appended(record) => self.appended(models, entry, record, step),
            What::Partitions(count) => {
                let before = self.partitions.replace(*count);
                if let Some(before) = before.filter(|before| before != count) {
                    let what = format!("the number of partitions changed from {before} to {count}: keys are remapped");
                    self.tally.fail(entry.at, || (what, Vec::new()));
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) -> CheckResult {
        let figure = format!("{} records, {} of them duplicates", self.tally.observed, self.duplicates);
        self.tally.result(figure, String::new(), "record in the log")
    }

    fn appended(&mut self, models: &Models, entry: &Entry, record: &Appended, step: &Step) {
        self.tally.saw();
        let place = format!("{}/{}", record.partition, record.offset);
        if !record.key.is_empty() {
            let partition = *self.partition_of.entry(record.key.clone()).or_insert(record.partition);
            if partition != record.partition {
                let what = format!("record {place} of {} lies outside partition {partition}", record.key);
                self.tally.fail(entry.at, || (what, of_record(models, entry, record)));
            }
        }
        let &Step::Logged { first, newest_before } = step else { return };
        self.duplicates += u64::from(!first);
        let Some(Event::State(event)) = record.event.as_deref() else { return };
        if first && event.version.seq.get() < newest_before {
            self.tally.fail(entry.at, || {
                let version = brief(event.version);
                let what = format!(
                    "device {}: {version} is in the log for the first time at {place}, behind seq {newest_before}",
                    event.device
                );
                (what, of_record(models, entry, record))
            });
        }
    }
}

fn of_record(models: &Models, entry: &Entry, record: &Appended) -> Vec<Moment> {
    let Some(Event::State(event)) = record.event.as_deref() else { return Vec::new() };
    models.plan.device(event.device).map(|device| models.timeline(device, entry.at)).unwrap_or_default()
}
