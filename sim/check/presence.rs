//! C20: in the end every RAE is shown as it last said, by the order of its boots and connections: online where it is
//! connected, offline where it is not. A status waits in the same queues as all else, and settling does not wait for it: the
//! last reading is what counts.

use std::{collections::BTreeMap, time::Duration};

use dmp_core::event::{Event, Presence as Status, PresenceState};

use super::{
    model::Models,
    tally::{ATTRIBUTES_ALONE, Tally},
    verdict::{CheckId, CheckResult},
};
use crate::{
    fleet::plan::RaeIndex,
    history::{Entry, Read, Stage, What},
};

/// Time for a status, or a will, to travel through brokers and registry.
const TRAVELS: Duration = Duration::from_secs(5);

/// C20.
#[derive(Debug)]
pub(super) struct Presence {
    tally: Tally,
    /// The newest status in the log, and where it is.
    said: BTreeMap<RaeIndex, (Status, i32, i64)>,
    shown: BTreeMap<RaeIndex, Status>,
    verifying: bool,
    online: usize,
    /// Those that the newest reading shows wrongly, and how.
    wrong: BTreeMap<RaeIndex, String>,
    read_at: Duration,
}

impl Presence {
    pub(super) fn new() -> Presence {
        Presence {
            tally: Tally::new(CheckId::C20),
            said: BTreeMap::new(),
            shown: BTreeMap::new(),
            verifying: false,
            online: 0,
            wrong: BTreeMap::new(),
            read_at: Duration::ZERO,
        }
    }

    pub(super) fn observe(&mut self, models: &Models, entry: &Entry) {
        match &entry.what {
            What::Phase { stage, .. } => self.verifying = *stage >= Stage::Verify,
            What::Appended(record) => {
                if let Some(Event::Status(rae, status)) = record.event.as_deref()
                    && let Some(rae) = models.plan.rae(rae)
                {
                    let said = (*status, record.partition, record.offset);
                    let newest = self.said.entry(rae).or_insert(said);
                    *newest = (*newest).max(said);
                }
            }
            What::Presence { rae, presence } => {
                if let Some(rae) = models.plan.rae(rae) {
                    self.shown.insert(rae, *presence);
                }
            }
            What::Read(read) if self.verifying && models.observable.records => self.read(models, entry.at, read),
            _ => {}
        }
    }

    pub(super) fn finish(&mut self, models: &Models) -> CheckResult {
        if !models.observable.records {
            return self.tally.not_observable(ATTRIBUTES_ALONE);
        }
        for (rae, wrong) in &self.wrong {
            let serial = &models.plan.raes[rae.0 as usize].serial;
            self.tally.fail(self.read_at, || (format!("{serial} {wrong}"), Vec::new()));
        }
        let figure = format!("{} of {} RAEs shown online, {} wrongly", self.online, self.shown.len(), self.wrong.len());
        self.tally.result(figure, "as each last said".to_owned(), "RAE")
    }

    fn read(&mut self, models: &Models, at: Duration, read: &Read) {
        (self.online, self.read_at) = (0, at);
        self.wrong.clear();
        for rae in (0..models.plan.raes.len() as u32).map(RaeIndex) {
            let Some((online, since)) = models.commands.is_online(rae) else { continue };
            if since + TRAVELS > read.began {
                continue;
            }
            self.tally.saw();
            let shown = self.shown.get(&rae);
            self.online += usize::from(shown.is_some_and(|shown| shown.state == PresenceState::Online));
            if let Some(wrong) = self.wrong_with(rae, online, shown, read) {
                self.wrong.insert(rae, wrong);
            }
        }
    }

    fn wrong_with(&self, rae: RaeIndex, online: bool, shown: Option<&Status>, read: &Read) -> Option<String> {
        let Some(shown) = shown else { return Some("is not shown at all".to_owned()) };
        let really = if online { PresenceState::Online } else { PresenceState::Offline };
        if shown.state != really {
            return Some(format!("is shown {}, and is {}", word(shown.state), word(really)));
        }
        let is_committed =
            |partition: i32, at: i64| read.committed.iter().any(|&(of, offset)| of == partition && at < offset);
        match self.said.get(&rae) {
            Some((said, partition, offset)) if said != shown && is_committed(*partition, *offset) => Some(format!(
                "is shown at boot {}, connection {}, and last said boot {}, connection {}",
                shown.boot, shown.connection, said.boot, said.connection
            )),
            Some(_) | None => None,
        }
    }
}

fn word(state: PresenceState) -> &'static str {
    match state {
        PresenceState::Online => "online",
        PresenceState::Offline => "offline",
    }
}
