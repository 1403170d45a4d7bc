//! What a reader gets: one record per device, put together from the rows of the view `device_record`.

use std::collections::{BTreeMap, BTreeSet};

use dmp_core::{
    event::{AttributeName, Presence, PresenceState, Value},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    record::Record,
    registry::Beaten,
    time::Wall,
};
use uuid::Uuid;

use super::StoreError;

/// One row of `device_record`, as it comes from either driver.
pub(super) struct RecordRow<'a> {
    pub(super) device: Uuid,
    pub(super) floor: RawVersion,
    pub(super) rae: &'a str,
    pub(super) seen_at: i64,
    pub(super) stale: bool,
    /// Absent where a device has no visible attribute.
    pub(super) attribute: Option<(&'a str, &'a str, RawVersion)>,
}

/// Epoch, session and seq as they are stored.
#[derive(Clone, Copy)]
pub(super) struct RawVersion(pub(super) i64, pub(super) Uuid, pub(super) i64);

/// Puts records together. Names and serials are shared: a fleet has few of them, and many rows.
#[derive(Default)]
pub(super) struct Assembly {
    records: BTreeMap<Device, Record>,
    names: BTreeSet<AttributeName>,
    rae: Option<Rae>,
}

impl Assembly {
    /// Takes one row. The rows of a device may come in any order.
    pub(super) fn take(&mut self, row: &RecordRow<'_>) -> Result<(), StoreError> {
        let attribute = row.attribute.map(|(name, value, version)| {
            Ok::<_, StoreError>((self.name(name)?, (decode_value(value)?, decode_version(version)?)))
        });
        let device = Device(row.device);
        if !self.records.contains_key(&device) {
            let rae = self.rae(row.rae)?;
            let floor = decode_version(row.floor)?;
            let seen_at = Wall(row.seen_at);
            self.records.insert(device, Record { floor, rae, seen_at, stale: row.stale, attributes: BTreeMap::new() });
        }
        if let Some(attribute) = attribute {
            let (name, value) = attribute?;
            let record = self.records.get_mut(&device).expect("inserted above where it was missing");
            record.attributes.insert(name, value);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> BTreeMap<Device, Record> {
        self.records
    }

    fn name(&mut self, text: &str) -> Result<AttributeName, StoreError> {
        if let Some(name) = self.names.get(text) {
            return Ok(name.clone());
        }
        let name = AttributeName::try_from(text).map_err(|_| StoreError::corrupt("device_attribute.name", text))?;
        self.names.insert(name.clone());
        Ok(name)
    }

    fn rae(&mut self, text: &str) -> Result<Rae, StoreError> {
        match &self.rae {
            Some(rae) if rae.as_str() == text => Ok(rae.clone()),
            Some(_) | None => Ok(self.rae.insert(decode_rae(text)?).clone()),
        }
    }
}

pub(super) fn decode_rae(text: &str) -> Result<Rae, StoreError> {
    Rae::try_from(text).map_err(|_| StoreError::corrupt("rae", text))
}

pub(super) fn decode_presence(boot: i64, connection: i64, offline: bool) -> Result<Presence, StoreError> {
    let state = if offline { PresenceState::Offline } else { PresenceState::Online };
    Ok(Presence { boot: decode_epoch(boot)?, connection: decode_seq(connection)?, state })
}

/// `None` where the store holds an epoch that is none: no reason to withhold that the rows are durable.
pub(super) fn decode_beaten(device: Uuid, session: Uuid, by: i64) -> Option<Beaten> {
    match decode_epoch(by) {
        Ok(by) => Some(Beaten { device: Device(device), session: Session(session), by }),
        Err(error) => {
            tracing::warn!(%device, "looking for the newest session: {error}");
            None
        }
    }
}

pub(super) fn decode_version(RawVersion(epoch, session, seq): RawVersion) -> Result<Version, StoreError> {
    Ok(Version { epoch: decode_epoch(epoch)?, session: Session(session), seq: decode_seq(seq)? })
}

fn decode_epoch(number: i64) -> Result<Epoch, StoreError> {
    let exact = u64::try_from(number).ok().and_then(|number| Epoch::try_from(number).ok());
    exact.ok_or_else(|| StoreError::corrupt("epoch", number))
}

fn decode_seq(number: i64) -> Result<Seq, StoreError> {
    let exact = u64::try_from(number).ok().and_then(|number| Seq::try_from(number).ok());
    exact.ok_or_else(|| StoreError::corrupt("seq", number))
}

pub(super) fn decode_value(json: &str) -> Result<Value, StoreError> {
    serde_json::from_str(json).map_err(|_| StoreError::corrupt("device_attribute.value", json))
}
