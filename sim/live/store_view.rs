//! The store as the harness reads it: whole where it is the run's own, and else only what is of the run; the reference's
//! tables, or a view over somebody's own.

use std::collections::BTreeMap;

use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::Feed,
    record::Record,
    time::Wall,
};
use dmp_service::store::{Access, Attributes, Database, Store as _, StoreError, StoreUrl, View};

use crate::fleet::{RunPrefix, plan::Plan};

/// Devices that one statement asks for: some ten thousand rows, a fraction of a second.
const AT_A_TIME: usize = 2_000;

/// Stands for the RAE of a record where a view shows attributes alone.
const UNTOLD: &str = "untold";

/// A store that is read.
#[derive(Debug)]
pub(super) struct StoreView {
    rows: Rows,
    /// Of a run that is not alone: its devices, and what its serials begin with.
    run: Option<(Vec<Device>, RunPrefix)>,
}

#[derive(Debug)]
enum Rows {
    Reference(Database),
    Mapped(View),
}

impl StoreView {
    /// Opens the store, or the view of it that is named.
    pub(super) async fn open(url: &StoreUrl, view: Option<&str>, plan: &Plan) -> Result<StoreView, StoreError> {
        let rows = match view {
            None => Rows::Reference(Database::open(url, Access::Read).await?),
            Some(view) => Rows::Mapped(View::open(url, view).await?),
        };
        let run = plan.prefix().map(|prefix| (plan.devices.iter().map(|device| device.id).collect(), prefix.clone()));
        Ok(StoreView { rows, run })
    }

    /// Everything that a run is judged by.
    pub(super) async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        match (&self.run, &self.rows) {
            (None, Rows::Reference(database)) => database.records().await,
            (None, Rows::Mapped(view)) => Ok(records(view.all().await?)),
            (Some((devices, _)), _) => {
                let mut all = BTreeMap::new();
                for devices in devices.chunks(AT_A_TIME) {
                    all.append(&mut self.records_of(devices).await?);
                }
                Ok(all)
            }
        }
    }

    pub(super) async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        match &self.rows {
            Rows::Reference(database) => database.records_of(devices).await,
            Rows::Mapped(view) => Ok(records(view.of(devices).await?)),
        }
    }

    /// How far each partition is read; nothing where the view does not tell.
    pub(super) async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        match &self.rows {
            Rows::Reference(database) => database.feeds().await,
            Rows::Mapped(_) => Ok(Vec::new()),
        }
    }

    /// Presence of the run's RAEs; nothing where the view does not tell.
    pub(super) async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        let mut presence = match &self.rows {
            Rows::Reference(database) => database.presence().await?,
            Rows::Mapped(_) => BTreeMap::new(),
        };
        if let Some((_, prefix)) = &self.run {
            presence.retain(|rae, _| prefix.made(rae.as_str()));
        }
        Ok(presence)
    }
}

/// Records of attributes alone: their floor is their newest version, which shows that a device is there, and is not judged.
fn records(attributes: BTreeMap<Device, Attributes>) -> BTreeMap<Device, Record> {
    let untold = Rae::try_from(UNTOLD).expect("valid by hand");
    let record = |(device, attributes): (Device, Attributes)| {
        let floor = attributes.values().map(|(_, version)| *version).max()?;
        Some((device, Record { floor, rae: untold.clone(), seen_at: Wall(0), stale: false, attributes }))
    };
    attributes.into_iter().filter_map(record).collect()
}
