//! A store that is slow or takes only so many rows per second, around the real one: the store faults of a scenario.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dmp_core::{
    event::Presence,
    id::{Device, Rae},
    merge::{Feed, Rows},
};
use dmp_service::store::{Record, Store, StoreError, WriteOutcome};

use crate::history::StoreLimit;

/// What slows the store down; clones speak to the same one.
#[derive(Debug, Clone)]
pub(super) struct Brake(Arc<Limits>);

struct Limits {
    /// 0 is unlimited.
    rows_per_s: AtomicU64,
    delay_us: AtomicU64,
    /// When the rows taken so far are paid for.
    paid_until: Mutex<Option<Instant>>,
    /// Told of the first write that each limit slows down after it was given.
    tell: Box<dyn Fn(StoreLimit) + Send + Sync>,
    rate_told: AtomicBool,
    delay_told: AtomicBool,
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits")
            .field("rows_per_s", &self.rows_per_s)
            .field("delay_us", &self.delay_us)
            .finish_non_exhaustive()
    }
}

impl Brake {
    /// No limits yet; `tell` is told of the first write that each of them slows down.
    pub(super) fn new(tell: impl Fn(StoreLimit) + Send + Sync + 'static) -> Brake {
        let tell = Box::new(tell);
        Brake(Arc::new(Limits {
            rows_per_s: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            paid_until: Mutex::new(None),
            tell,
            rate_told: AtomicBool::new(true),
            delay_told: AtomicBool::new(true),
        }))
    }

    /// Takes only so many rows per second from now on; `None` is unlimited.
    pub(super) fn throttle(&self, rows_per_s: Option<u32>) {
        self.0.rows_per_s.store(rows_per_s.unwrap_or(0).into(), Ordering::Relaxed);
        *self.paid_until() = None;
        self.0.rate_told.store(false, Ordering::Relaxed);
    }

    /// Each write takes so much longer from now on.
    pub(super) fn delay(&self, delay: Duration) {
        self.0.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.delay_told.store(false, Ordering::Relaxed);
    }

    /// Says so once, after a limit was given.
    fn slowed(&self, limit: StoreLimit) {
        let told = match limit {
            StoreLimit::Rate => &self.0.rate_told,
            StoreLimit::Delay => &self.0.delay_told,
        };
        if !told.swap(true, Ordering::Relaxed) {
            (self.0.tell)(limit);
        }
    }

    /// Waits as long as `rows` cost, behind all that were taken before.
    async fn pay(&self, rows: usize) {
        let rows_per_s = self.0.rows_per_s.load(Ordering::Relaxed);
        if rows_per_s == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(rows as f64 / rows_per_s as f64);
        let until = {
            let mut paid_until = self.paid_until();
            let now = Instant::now();
            let until = paid_until.map_or(now, |until| until.max(now)) + cost;
            *paid_until.insert(until)
        };
        self.slowed(StoreLimit::Rate);
        tokio::time::sleep_until(until.into()).await;
    }

    fn paid_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.paid_until.lock().expect("nothing panics while it is held")
    }
}

/// The real store behind a [`Brake`]. Reading and maintenance are not slowed down.
#[derive(Debug)]
pub(super) struct FaultyStore<S> {
    store: S,
    brake: Brake,
}

impl<S> FaultyStore<S> {
    pub(super) fn new(store: S, brake: Brake) -> FaultyStore<S> {
        FaultyStore { store, brake }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    async fn migrate(&self, snapshot_period: Duration) -> Result<(), StoreError> {
        self.store.migrate(snapshot_period).await
    }

    /// Half of the delay comes before the transaction and half behind it, so that a crash hits both sides of the commit.
    async fn write(&self, rows: &Rows) -> WriteOutcome {
        self.brake.pay(rows.len()).await;
        let half = Duration::from_micros(self.brake.0.delay_us.load(Ordering::Relaxed) / 2);
        if half.is_zero() {
            return self.store.write(rows).await;
        }
        self.brake.slowed(StoreLimit::Delay);
        tokio::time::sleep(half).await;
        let outcome = self.store.write(rows).await;
        tokio::time::sleep(half).await;
        outcome
    }

    async fn clean(&self) -> Result<u64, StoreError> {
        self.store.clean().await
    }

    async fn retire(&self, retire_after: Duration) -> Result<u64, StoreError> {
        self.store.retire(retire_after).await
    }

    async fn records(&self) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.store.records().await
    }

    async fn records_of(&self, devices: &[Device]) -> Result<BTreeMap<Device, Record>, StoreError> {
        self.store.records_of(devices).await
    }

    async fn feeds(&self) -> Result<Vec<Feed>, StoreError> {
        self.store.feeds().await
    }

    async fn presence(&self) -> Result<BTreeMap<Rae, Presence>, StoreError> {
        self.store.presence().await
    }
}
