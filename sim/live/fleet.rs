//! The fleet, live: one task per RAE, canaries that come and go, and the faults that hit RAEs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    access::Access,
    clock::RunClock,
    directory::Directory,
    journal::Journal,
    rae::{LiveRae, Order, Shared},
};
use crate::{
    faults::Tampering,
    fleet::plan::{Plan, RaeIndex, hits},
    history::What,
    scenario::Scenario,
};

/// Orders that wait for a RAE: faults that hit the same RAE within one turn of its task.
const ORDERS: usize = 8;

/// Time between two entries of the generator's lateness.
const LATENESS_EVERY: Duration = Duration::from_millis(500);

/// Longest wait for all RAEs to stop; each is bounded by itself to about half of it.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// A fleet that runs.
pub(super) struct Fleet {
    shared: Arc<Shared>,
    begin_load: watch::Sender<bool>,
    /// Of the standing RAEs, by index.
    orders: Vec<mpsc::Sender<Order>>,
    tasks: JoinSet<()>,
    canaries: tokio::task::JoinHandle<()>,
    lateness: tokio::task::JoinHandle<()>,
}

impl Fleet {
    /// Starts the standing fleet, so many connections per second as the scenario says. Returns when the last RAE has
    /// been started; it may not be connected yet.
    pub(super) async fn start(
        scenario: Arc<Scenario>,
        plan: Arc<Plan>,
        clock: Arc<RunClock>,
        journal: Journal,
        access: Arc<Access>,
        directory: Arc<Directory>,
        errors: Arc<AtomicU64>,
    ) -> Fleet {
        let (begin_load, load) = watch::channel(false);
        let tampering = Tampering::new(&scenario);
        let lateness_us = Default::default();
        let shared = Arc::new(Shared {
            scenario,
            plan,
            clock,
            journal,
            tampering,
            access,
            directory,
            lateness_us,
            errors,
            load,
        });
        let mut fleet = Fleet {
            canaries: tokio::spawn(canaries(shared.clone())),
            lateness: tokio::spawn(report_lateness(shared.clone())),
            shared,
            begin_load,
            orders: Vec::new(),
            tasks: JoinSet::new(),
        };
        fleet.connect().await;
        fleet
    }

    async fn connect(&mut self) {
        let pace = Duration::from_secs(1) / self.shared.scenario.fleet.connects_per_s.max(1);
        let began = Instant::now();
        let standing = self.shared.plan.raes.iter().filter(|rae| rae.stay.is_none()).count() as u32;
        for number in 0..standing {
            tokio::time::sleep_until((began + pace * number).into()).await;
            let (orders, obeyed) = mpsc::channel(ORDERS);
            self.orders.push(orders);
            self.tasks.spawn(LiveRae::new(self.shared.clone(), RaeIndex(number)).run(obeyed));
        }
    }

    /// The plan's times count from now.
    pub(super) fn begin_load(&self) {
        self.shared.clock.begin_load(self.shared.clock.at());
        self.begin_load.send_replace(true);
    }

    /// Gives `order` to the share of RAEs that fault number `fault` hits.
    pub(super) async fn order(&self, fault: usize, share: f64, order: Order) {
        for (rae, orders) in (0..).zip(&self.orders) {
            if hits(self.shared.scenario.seed, fault, rae, share) {
                // A RAE that has ended has failed the run by its own panic, found in `stop`.
                let _ended = orders.send(order).await;
            }
        }
    }

    /// Ends all RAEs in good order.
    ///
    /// # Errors
    /// If one of them panicked.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        for orders in &self.orders {
            let _ended = orders.send(Order::Stop).await;
        }
        let deadline = tokio::time::Instant::now() + STOP_WITHIN;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.tasks.join_next()).await {
            ended.map_err(|panic| anyhow::Error::new(panic).context("a simulated RAE failed"))?;
        }
        let mut unfinished = if self.tasks.is_empty() { "" } else { "some simulated RAEs" };
        match tokio::time::timeout_at(deadline, &mut self.canaries).await {
            Ok(ended) => ended.map_err(|panic| anyhow::Error::new(panic).context("a canary failed"))?,
            Err(_elapsed) => unfinished = "some canaries",
        }
        if !unfinished.is_empty() {
            let why = format!("{unfinished} could not say all that they were to say, and leave, by the end of the run");
            self.shared.journal.enter(What::Broken(why.into())).await;
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.canaries.abort();
        self.lateness.abort();
    }
}

/// Starts each canary at its time; ends when the last one has.
async fn canaries(shared: Arc<Shared>) {
    let mut load = shared.load.clone();
    if load.wait_for(|begun| *begun).await.is_err() {
        return;
    }
    let raes = (0..).map(RaeIndex).zip(&shared.plan.raes);
    let mut arrivals: Vec<_> = raes.filter_map(|(index, rae)| Some((rae.stay?.0, index))).collect();
    arrivals.sort_unstable();
    let mut tasks = JoinSet::new();
    let mut orders = Vec::new();
    for (at, index) in arrivals {
        if let Some(instant) = shared.clock.instant_of_load(at) {
            tokio::time::sleep_until(instant.into()).await;
        }
        let (order, obeyed) = mpsc::channel(1);
        orders.push(order);
        tasks.spawn(LiveRae::new(shared.clone(), index).run(obeyed));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic.into_panic());
        }
    }
}

async fn report_lateness(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(LATENESS_EVERY);
    loop {
        let planned = ticks.tick().await;
        // A runtime that does not get round to this timer is as late for changes.
        let own = planned.elapsed();
        let changes = Duration::from_micros(shared.lateness_us.swap(0, Ordering::Relaxed));
        shared.journal.enter(What::Lateness(own.max(changes))).await;
    }
}
