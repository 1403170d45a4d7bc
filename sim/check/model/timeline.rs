//! The causal timeline of one device, for a witness: intent, save, send, acknowledgements, log offset, row.

use std::time::Duration;

use dmp_core::id::Version;

use super::{Life, Models};
use crate::{
    check::verdict::Moment,
    fleet::plan::{ChangeKind, DeviceIndex},
};

/// Most lines of a timeline: those nearest before the failure.
const LINES: usize = 40;

/// How far a timeline goes beyond the failure.
const BEYOND: Duration = Duration::from_secs(2);

impl Models {
    /// The timeline of a device up to `at`.
    pub(in crate::check) fn timeline(&self, device: DeviceIndex, at: Duration) -> Vec<Moment> {
        let mut moments = self.intents(device);
        for session in self.ledger.sessions(device) {
            let short = short(session.session.0);
            for (seq, life) in (1u64..).zip(&session.events).filter(|(_, life)| life.recorded.is()) {
                moments.extend(steps(life).map(|(at, what)| {
                    let kind = if life.snapshot() { "snapshot" } else { "delta" };
                    Moment { at, what: format!("{kind} {short}/{seq} {what}") }
                }));
            }
        }
        moments.extend(self.rows.device(device).recent.iter().map(|seen| {
            let name = seen.name.map_or("floor", |number| self.rows.name(number).as_str());
            let version = seen.version.map_or("gone".to_owned(), |version| format!("at {}", brief(version)));
            Moment { at: seen.at, what: format!("store: {name} {version}") }
        }));
        moments.retain(|moment| moment.at <= at + BEYOND);
        moments.sort_by_key(|moment| moment.at);
        let surplus = moments.len().saturating_sub(LINES);
        moments.drain(..surplus);
        moments
    }

    fn intents(&self, device: DeviceIndex) -> Vec<Moment> {
        let changes = &self.plan.devices[device.0 as usize].changes;
        let line = |(number, change): (u32, &crate::fleet::plan::Change)| {
            let what = match change.kind {
                ChangeKind::Update { .. } => format!("change {number} intended: rev becomes {number}"),
                ChangeKind::Detach => format!("change {number} intended: unplugged"),
                ChangeKind::Attach => format!("change {number} intended: plugged in, rev becomes {number}"),
            };
            Moment { at: self.clock.in_run(change.at), what }
        };
        if self.clock.load.is_none() { Vec::new() } else { (1..).zip(changes).map(line).collect() }
    }
}

/// A version for human eyes: the session's first digits and the seq.
pub(in crate::check) fn brief(version: Version) -> String {
    format!("{}/{} (epoch {})", short(version.session.0), version.seq, version.epoch)
}

fn short(session: uuid::Uuid) -> String {
    session.simple().to_string()[..8].to_owned()
}

fn steps(life: &Life) -> impl Iterator<Item = (Duration, String)> {
    let dropped = match (life.withheld(), life.lost_at_qos0()) {
        (true, _) => "withheld by a fault",
        (false, true) => "lost at QoS 0 by a fault",
        (false, false) => "shed from the full outbox",
    };
    let rev = life.rev().map_or(String::new(), |rev| format!(", rev {rev}"));
    let quarantined = if life.quarantined() { ", quarantined" } else { "" };
    let copies = if life.copies > 1 { format!(", {} copies", life.copies) } else { String::new() };
    let place = format!("in the log at {}/{}{rev}{copies}{quarantined}", life.partition, life.offset);
    [
        (life.recorded, "saved".to_owned()),
        (life.dropped, dropped.to_owned()),
        (life.sent, "sent".to_owned()),
        (life.acknowledged, "acknowledged by the broker".to_owned()),
        (life.delivered, "delivered to the bridge".to_owned()),
        (life.appended, place),
        (life.bridge_acknowledged, "acknowledged by the bridge".to_owned()),
    ]
    .into_iter()
    .filter_map(|(moment, what)| Some((moment.get()?, what)))
}
