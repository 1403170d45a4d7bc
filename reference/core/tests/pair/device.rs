//! The devices themselves: what is true, before any agent has seen it.

use std::collections::{BTreeMap, BTreeSet};

use dmp_core::{
    agent::Probe,
    event::{AttributeName, CONNECTION, Value},
    id::Device,
};

/// A device at its port.
pub(crate) struct Hardware {
    pub(crate) serial: String,
    /// Index of the agent that it is, or was last, plugged into.
    pub(crate) agent: usize,
    pub(crate) plugged: bool,
    pub(crate) record: BTreeMap<AttributeName, Value>,
    changes: i64,
    /// Every value that an attribute of it ever had: changes are numbered, so no two are alike.
    pub(crate) had: BTreeSet<(AttributeName, String)>,
}

impl Hardware {
    pub(crate) fn new(serial: String, agent: usize) -> Hardware {
        let (record, had) = (BTreeMap::new(), BTreeSet::new());
        let mut hardware = Hardware { serial, agent, plugged: false, record, changes: 0, had };
        for state in ["attached", "detached"] {
            hardware.had.insert((name(CONNECTION), Value::Text(state.into()).to_string()));
        }
        hardware.change("rev", false);
        hardware.change("fw", false);
        hardware
    }

    pub(crate) fn device(&self) -> Device {
        Device::of_hardware(&self.serial)
    }

    /// Sets or removes one attribute; `rev` always counts. Returns what the device reports.
    pub(crate) fn change(
        &mut self,
        attribute: &str,
        remove: bool,
    ) -> (BTreeMap<AttributeName, Value>, BTreeSet<AttributeName>) {
        self.changes += 1;
        let mut set = BTreeMap::from([(name("rev"), Value::Integer(self.changes))]);
        let mut unset = BTreeSet::new();
        if remove {
            self.record.remove(attribute);
            unset.insert(name(attribute));
        } else {
            set.insert(name(attribute), Value::Integer(self.changes));
        }
        self.had.extend(set.iter().map(|(name, value)| (name.clone(), value.to_string())));
        self.record.extend(set.clone());
        (set, unset)
    }

    /// Changes attributes from outside; counts as a change.
    pub(crate) fn set(&mut self, set: BTreeMap<AttributeName, Value>, unset: BTreeSet<AttributeName>) {
        self.had.extend(set.iter().map(|(name, value)| (name.clone(), value.to_string())));
        self.record.retain(|name, _| !unset.contains(name));
        self.record.extend(set);
    }

    /// What a probe by `agent` finds.
    pub(crate) fn probe(&self, agent: usize) -> Probe {
        if self.plugged && self.agent == agent { Probe::Found(self.record.clone()) } else { Probe::Absent }
    }

    /// The record as the cloud should show it.
    pub(crate) fn truth(&self) -> BTreeMap<AttributeName, Value> {
        let state = if self.plugged { "attached" } else { "detached" };
        let mut record = self.record.clone();
        record.insert(name(CONNECTION), Value::Text(state.into()));
        record
    }
}

pub(crate) fn name(text: &str) -> AttributeName {
    AttributeName::try_from(text).unwrap()
}
