//! What the registries of the run write to and commit as, while there is it: a fault can take it away and give it anew.
//!
//! Readers hold it while they read and enter what they saw, so that nothing of a store that is gone is entered behind
//! the entry that says so.

use std::sync::Arc;

use anyhow::Context;
use dmp_service::kafka::inspect::Inspector;
use tokio::sync::{RwLock, RwLockReadGuard};

use super::{journal::Journal, stack::Stack, store_view::StoreView};
use crate::{fleet::plan::Plan, history::What, scenario::Scenario};

/// One life of store and group, from empty on.
#[derive(Clone)]
pub(super) struct Incarnation {
    /// The first is 1.
    pub(super) number: u32,
    pub(super) store: Arc<StoreView>,
    pub(super) inspector: Inspector,
}

impl Incarnation {
    /// Opens what a registry that is ready has made.
    pub(super) async fn open(target: &Stack, scenario: &Scenario, plan: &Plan) -> anyhow::Result<Incarnation> {
        let url = target.store().full_url().context("parsing the store's URL")?;
        let store = StoreView::open(&url, target.view(), plan).await.context("opening the store for reading")?;
        let inspector = Inspector::new(&target.kafka(), &target.group(scenario))?;
        Ok(Incarnation { number: target.incarnation(), store: Arc::new(store), inspector })
    }
}

/// The incarnation that is; cheap to clone.
#[derive(Clone)]
pub(super) struct Primary(Arc<RwLock<Option<Incarnation>>>);

impl Primary {
    pub(super) fn new(first: Incarnation) -> Primary {
        Primary(Arc::new(RwLock::new(Some(first))))
    }

    /// What there is now, to be held until what was read of it is in the history.
    pub(super) async fn held(&self) -> RwLockReadGuard<'_, Option<Incarnation>> {
        self.0.read().await
    }

    /// It is gone, and will come back as `group`.
    pub(super) async fn gone(&self, journal: &Journal, group: &str) {
        let mut now = self.0.write().await;
        *now = None;
        journal.enter(What::StoreWiped { group: group.into() }).await;
    }

    /// It is back.
    pub(super) async fn back(&self, next: Incarnation) {
        *self.0.write().await = Some(next);
    }
}
