//! A batch as columns: what both stores send, owned, so that it can go to another thread or onto the wire.
//!
//! Keys come sorted out of [`Rows`]: two writers that touch the same rows lock them in the same order, and do not
//! deadlock. No key is there twice.

use dmp_core::{event::PresenceState, id::Version, merge::Rows, time::Wall};
use uuid::Uuid;

/// Stands between the names of a floor in one text; not of the alphabet of names.
pub(super) const NAME_SEPARATOR: &str = "|";

/// Latest receive time that is stored as it is, 9999-12-31T23:59:59.999Z: what is beyond is clamped, so that no clock,
/// however wrong, makes the view's arithmetic overflow for everybody.
const LATEST: i64 = 253_402_300_799_999;

/// Table `device`.
#[derive(Default)]
pub(super) struct DeviceColumns {
    pub(super) device: Vec<Uuid>,
    pub(super) version: VersionColumns,
    /// Names of the floor, joined by [`NAME_SEPARATOR`].
    pub(super) names: Vec<String>,
    pub(super) rae: Vec<String>,
    pub(super) seen_at: Vec<i64>,
}

/// Table `device_attribute`.
#[derive(Default)]
pub(super) struct AttributeColumns {
    pub(super) device: Vec<Uuid>,
    pub(super) name: Vec<String>,
    pub(super) version: VersionColumns,
    /// JSON; absent for a tombstone.
    pub(super) value: Vec<Option<String>>,
}

/// Table `device_session`.
#[derive(Default)]
pub(super) struct SessionColumns {
    pub(super) device: Vec<Uuid>,
    pub(super) session: Vec<Uuid>,
    pub(super) epoch: Vec<i64>,
    pub(super) rae: Vec<String>,
    pub(super) opened: Vec<i64>,
}

/// The sessions with a snapshot in the batch, whose standing among the device's sessions is asked for.
#[derive(Default)]
pub(super) struct StandingColumns {
    pub(super) device: Vec<Uuid>,
    pub(super) session: Vec<Uuid>,
    pub(super) epoch: Vec<i64>,
    /// When the snapshot was received.
    pub(super) snapshot: Vec<i64>,
}

/// Table `rae`.
#[derive(Default)]
pub(super) struct RaeColumns {
    pub(super) rae: Vec<String>,
    pub(super) boot: Vec<i64>,
    pub(super) connection: Vec<i64>,
    pub(super) offline: Vec<bool>,
}

/// The row of table `feed`.
#[derive(Clone, Copy)]
pub(super) struct FeedColumns {
    pub(super) partition: i64,
    pub(super) next_offset: i64,
    pub(super) received: i64,
}

/// Versions.
#[derive(Default)]
pub(super) struct VersionColumns {
    pub(super) epoch: Vec<i64>,
    pub(super) session: Vec<Uuid>,
    pub(super) seq: Vec<i64>,
}

/// A whole batch.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) devices: DeviceColumns,
    pub(super) attributes: AttributeColumns,
    pub(super) sessions: SessionColumns,
    pub(super) standings: StandingColumns,
    pub(super) raes: RaeColumns,
    pub(super) feed: Option<FeedColumns>,
}

impl Columns {
    pub(super) fn of(rows: &Rows) -> Columns {
        let mut columns = Columns::default();
        for (device, state) in &rows.devices {
            if let Some(floor) = &state.floor {
                let names: Vec<&str> = floor.names.iter().map(|name| name.as_str()).collect();
                columns.devices.device.push(device.0);
                columns.devices.version.push(floor.version);
                columns.devices.names.push(names.join(NAME_SEPARATOR));
                columns.devices.rae.push(floor.rae.to_string());
                columns.devices.seen_at.push(storable(floor.seen_at));
            }
            for (name, offer) in &state.attributes {
                columns.attributes.device.push(device.0);
                columns.attributes.name.push(name.to_string());
                columns.attributes.version.push(offer.version);
                columns.attributes.value.push(offer.value.as_ref().map(ToString::to_string));
            }
        }
        for ((device, session), row) in &rows.sessions {
            columns.sessions.device.push(device.0);
            columns.sessions.session.push(session.0);
            columns.sessions.epoch.push(exact(row.epoch.get()));
            columns.sessions.rae.push(row.rae.to_string());
            columns.sessions.opened.push(storable(row.opened));
            if let Some(snapshot) = row.snapshot {
                columns.standings.device.push(device.0);
                columns.standings.session.push(session.0);
                columns.standings.epoch.push(exact(row.epoch.get()));
                columns.standings.snapshot.push(storable(snapshot));
            }
        }
        for (rae, presence) in &rows.raes {
            columns.raes.rae.push(rae.to_string());
            columns.raes.boot.push(exact(presence.boot.get()));
            columns.raes.connection.push(exact(presence.connection.get()));
            columns.raes.offline.push(presence.state == PresenceState::Offline);
        }
        columns.feed = rows.feed.map(|feed| FeedColumns {
            partition: i64::from(feed.partition),
            next_offset: feed.next_offset,
            received: storable(feed.received),
        });
        columns
    }
}

impl VersionColumns {
    fn push(&mut self, version: Version) {
        self.epoch.push(exact(version.epoch.get()));
        self.session.push(version.session.0);
        self.seq.push(exact(version.seq.get()));
    }
}

fn exact(number: u64) -> i64 {
    i64::try_from(number).expect("epochs and seqs are at most 2^53 - 1")
}

fn storable(time: Wall) -> i64 {
    time.0.clamp(0, LATEST)
}
