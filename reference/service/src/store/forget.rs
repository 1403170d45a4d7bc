//! What RAEs have left in the store, and removing it: for RAEs that never were, as those of a load test.

use dmp_core::id::{Device, Rae};

use super::{Database, StoreError};

/// Devices that one transaction removes: some ten thousand rows.
const DEVICES_AT_A_TIME: usize = 500;

/// What there is of some RAEs, in rows of each table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traces {
    /// RAEs with a presence.
    pub raes: u64,
    /// Devices with a record.
    pub devices: u64,
    /// Attributes of their devices.
    pub attributes: u64,
    /// Sessions of their devices.
    pub sessions: u64,
}

impl Traces {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Traces::default()
    }

    pub(super) fn add(&mut self, other: Traces) {
        self.raes += other.raes;
        self.devices += other.devices;
        self.attributes += other.attributes;
        self.sessions += other.sessions;
    }
}

/// Serials and devices of which something is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// RAEs, in the order of their serials.
    pub raes: Vec<Rae>,
    /// Devices that were ever shown under one of them, or had a session on one.
    pub devices: Vec<Device>,
}

impl Database {
    /// The RAEs whose serials begin with `prefix`, which holds neither `%` nor `_`, and that `wanted` takes; with their
    /// devices.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn known(&self, prefix: &str, wanted: impl Fn(&str) -> bool) -> Result<Known, StoreError> {
        let serials = match self {
            Database::Sqlite(store) => store.serials(prefix).await?,
            Database::Server(store) => store.serials(prefix).await?,
        };
        let wanted = serials.iter().filter(|serial| wanted(serial));
        let raes: Vec<Rae> = wanted.filter_map(|serial| Rae::try_from(serial.as_str()).ok()).collect();
        let devices = match self {
            Database::Sqlite(store) => store.devices_under(&raes).await?,
            Database::Server(store) => store.devices_under(&raes).await?,
        };
        Ok(Known { raes, devices })
    }

    /// How many rows there are of these.
    ///
    /// # Errors
    /// Whatever the store says.
    pub async fn traces(&self, known: &Known) -> Result<Traces, StoreError> {
        self.each(known, false).await
    }

    /// Removes every row of these, in bounded transactions. Returns how many.
    ///
    /// # Errors
    /// Whatever the store says; what was removed until then stays removed.
    pub async fn forget(&self, known: &Known) -> Result<Traces, StoreError> {
        self.each(known, true).await
    }

    async fn each(&self, known: &Known, remove: bool) -> Result<Traces, StoreError> {
        let mut all = Traces::default();
        let pages = known.devices.chunks(DEVICES_AT_A_TIME).map(|devices| (devices, &[][..]));
        // RAEs last: as long as one is there, a removal that was cut off finds its devices again.
        for (devices, raes) in pages.chain([(&[][..], &known.raes[..])]) {
            all.add(match self {
                Database::Sqlite(store) => store.rows_of(devices, raes, remove).await?,
                Database::Server(store) => store.rows_of(devices, raes, remove).await?,
            });
        }
        Ok(all)
    }
}
