//! What runs beside the core: the clean-up of the store, and a look at the lag.

use std::{future::Future, sync::Arc, time::Duration};

use dmp_core::event::kafka_topic;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{Shared, log_store_failure};
use crate::{kafka::inspect::Inspector, program::chain, stage::restart_on_panic, store::Store};

/// Time between two looks at the lag.
const LAG_EVERY: Duration = Duration::from_secs(2);

/// Starts both; they end when the set is dropped.
pub(super) fn start<S: Store>(shared: &Shared<S>) -> JoinSet<()> {
    let mut beside = JoinSet::new();
    let of = shared.clone();
    beside.spawn(supervised("clean-up", shared, move || clean(of.clone())));
    let of = shared.clone();
    beside.spawn(supervised("lag", shared, move || lag(of.clone())));
    beside
}

fn supervised<S, F>(
    name: &'static str,
    shared: &Shared<S>,
    work: impl FnMut() -> F + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static
where
    F: Future<Output = ()> + Send + 'static,
{
    let (restarts, backoff) = (shared.gauges.restarts(name), shared.config.backoff.into());
    async move { restart_on_panic(name, backoff, work, move || restarts.increment()).await }
}

/// Cleans and retires every `clean.every`; what fails is told and done the next time.
async fn clean<S: Store>(shared: Shared<S>) {
    let mut ticks = interval(shared.config.clean.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match shared.store.clean().await {
            Ok(attributes) => shared.gauges.cleaned.add(attributes),
            Err(error) => log_store_failure("cleaning", &error),
        }
        match shared.store.retire(shared.config.clean.retire_after).await {
            Ok(devices) => shared.gauges.retired.add(devices),
            Err(error) => log_store_failure("retiring", &error),
        }
    }
}

/// Looks at committed offsets, then at end offsets, so that the lag is never negative.
async fn lag<S: Store>(shared: Shared<S>) {
    let inspector = match Inspector::new(&shared.config.kafka, &shared.config.group) {
        Ok(inspector) => Arc::new(inspector),
        Err(error) => return tracing::error!("no lag will be shown: {}", chain(&error)),
    };
    let mut ticks = interval(LAG_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let looked = async {
            let committed = inspector.committed(kafka_topic::EVENTS).await?;
            Ok::<_, crate::kafka::KafkaError>((committed, inspector.watermarks(kafka_topic::EVENTS).await?))
        };
        match looked.await {
            Ok((committed, marks)) => {
                for (partition, (low, end)) in marks {
                    let from = committed.get(&partition).copied().unwrap_or(low);
                    shared.gauges.lag(partition).set(end - from);
                }
            }
            Err(error) => tracing::warn!("looking at the lag: {}", chain(&error)),
        }
    }
}
