//! What the fleet itself knows and no RAE alone: the session of each device, and what a command last made of it.
//!
//! A device that moves carries with it what a `set` did to it; and a command is for the session that its device has at
//! that moment, which only the agents know.

use std::sync::{Mutex, PoisonError};

use dmp_core::id::{Session, Version};
use uuid::Uuid;

use crate::{
    fleet::plan::{DeviceIndex, RaeIndex},
    history::Publish,
};

/// Devices by their index.
#[derive(Debug)]
pub(super) struct Directory(Mutex<Vec<Known>>);

/// What is known of a device.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The newest event that was recorded of it, and by whom.
    pub(super) current: Option<(Version, RaeIndex)>,
    /// The session before that event's.
    pub(super) former: Option<(Session, RaeIndex)>,
    /// The command that last changed it.
    pub(super) commanded: Option<Uuid>,
}

impl Directory {
    pub(super) fn new(devices: usize) -> Directory {
        Directory(Mutex::new(vec![Known::default(); devices]))
    }

    /// An agent recorded an event.
    pub(super) fn recorded(&self, publish: &Publish) {
        self.with(publish.device, |known| {
            let before = known.current.replace((publish.version, publish.rae));
            if let Some((version, rae)) = before.filter(|(version, _)| version.session != publish.version.session) {
                known.former = Some((version.session, rae));
            }
        });
    }

    /// A device did what a command says.
    pub(super) fn changed(&self, device: DeviceIndex, id: Uuid) {
        self.with(device, |known| known.commanded = Some(id));
    }

    pub(super) fn of(&self, device: DeviceIndex) -> Known {
        self.with(device, |known| *known)
    }

    fn with<T>(&self, device: DeviceIndex, look: impl FnOnce(&mut Known) -> T) -> T {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut devices[device.0 as usize])
    }
}
