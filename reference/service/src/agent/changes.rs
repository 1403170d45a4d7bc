//! Changes that commands ask of devices: the board on which a device finds its own, and its answer.
//!
//! A device speaks to its RAE and runs no server, so it asks: `GET .../change` waits on the board. What it never fetched
//! it surely did not take: refused. What it fetched and did not answer in time it may have taken: unknown. A change that
//! is not answered is told again to a device that asks again, with the same id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dmp_core::{
    agent::{Event, SetOutcome},
    core::EffectId,
    event::{AttributeName, Value},
};
use serde::Serialize;
use tokio::sync::{Notify, oneshot};

use super::Gauges;
use crate::stage::Work;

/// What a device is asked to change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Change {
    /// Names it in the answer; as text, since a device may be written in a language of floats.
    pub(super) id: String,
    /// New values.
    pub(super) set: BTreeMap<AttributeName, Value>,
    /// Attributes to remove.
    pub(super) unset: BTreeSet<AttributeName>,
}

/// The changes that wait for their devices: one per device, since an agent asks for no more.
#[derive(Debug, Clone)]
pub(super) struct Board {
    within: Duration,
    last: Arc<AtomicU64>,
    pending: Arc<Mutex<BTreeMap<Arc<str>, Pending>>>,
    posted: Arc<Notify>,
}

#[derive(Debug)]
struct Pending {
    change: Change,
    is_fetched: bool,
    answer: oneshot::Sender<SetOutcome>,
}

impl Board {
    /// A board on which a change waits no longer than `within` for its answer.
    pub(super) fn new(within: Duration) -> Board {
        Board { within, last: Arc::default(), pending: Arc::default(), posted: Arc::default() }
    }

    /// Asks a device for a change, and waits for its answer.
    pub(super) async fn ask(
        &self,
        hardware: &Arc<str>,
        set: BTreeMap<AttributeName, Value>,
        unset: BTreeSet<AttributeName>,
    ) -> SetOutcome {
        let id = (self.last.fetch_add(1, Ordering::Relaxed) + 1).to_string();
        let (answer, answered) = oneshot::channel();
        let pending = Pending { change: Change { id: id.clone(), set, unset }, is_fetched: false, answer };
        // What an agent that was started again asked before ends as unknown.
        self.lock().insert(Arc::clone(hardware), pending);
        self.posted.notify_waiters();
        match tokio::time::timeout(self.within, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_displaced)) => SetOutcome::Unknown,
            Err(_late) => self.withdraw(hardware, &id),
        }
    }

    /// The change that waits for a device, as soon as there is one; `None` if there is none within `wait`.
    pub(super) async fn fetch(&self, hardware: &str, wait: Duration) -> Option<Change> {
        let look = async {
            loop {
                let posted = self.posted.notified();
                tokio::pin!(posted);
                // Before the look, so that what is posted after it is noticed.
                posted.as_mut().enable();
                if let Some(change) = self.take(hardware) {
                    return change;
                }
                posted.await;
            }
        };
        tokio::time::timeout(wait, look).await.ok()
    }

    /// Takes the answer of a device, and does `first` with the change before the answer is told. `None` if no such
    /// change waits any more.
    pub(super) fn answer(
        &self,
        hardware: &str,
        id: &str,
        outcome: SetOutcome,
        first: impl FnOnce(&Change),
    ) -> Option<()> {
        let mut board = self.lock();
        board.get(hardware).filter(|pending| pending.change.id == id && pending.is_fetched)?;
        let Pending { change, answer, .. } = board.remove(hardware)?;
        first(&change);
        // It fails where the time was up at this very moment; that was told as unknown.
        answer.send(outcome).ok()
    }

    /// Changes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().len()
    }

    fn take(&self, hardware: &str) -> Option<Change> {
        let mut board = self.lock();
        let pending = board.get_mut(hardware)?;
        pending.is_fetched = true;
        Some(pending.change.clone())
    }

    fn withdraw(&self, hardware: &str, id: &str) -> SetOutcome {
        let mut board = self.lock();
        let is_ours = board.get(hardware).is_some_and(|pending| pending.change.id == id);
        match is_ours.then(|| board.remove(hardware)).flatten() {
            Some(Pending { is_fetched: false, .. }) => {
                SetOutcome::Refused(format!("the device did not ask for changes within {} ms", self.within.as_millis()))
            }
            Some(Pending { is_fetched: true, .. }) | None => SetOutcome::Unknown,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an effect asks to be set.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) id: EffectId,
    pub(super) hardware: Arc<str>,
    pub(super) set: BTreeMap<AttributeName, Value>,
    pub(super) unset: BTreeSet<AttributeName>,
}

/// The stage that asks devices for changes.
pub(super) struct Setter {
    pub(super) board: Board,
    pub(super) gauges: Gauges,
}

impl Work for Setter {
    type Job = Set;
    type Answer = Event;

    async fn work(&self, Set { id, hardware, set, unset }: Set) -> Event {
        let began = Instant::now();
        let outcome = self.board.ask(&hardware, set, unset).await;
        self.gauges.set_ended(&outcome, began.elapsed());
        Event::SetDone(id, outcome)
    }

    fn broken(&self, Set { id, .. }: Set, _reason: String) -> Event {
        Event::SetDone(id, SetOutcome::Unknown)
    }

    fn failed(&self, reason: &str) {
        self.gauges.set_restarts.increment();
        tracing::error!(reason, "asking a device for a change failed and is started again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn wish() -> (Arc<str>, BTreeMap<AttributeName, Value>, BTreeSet<AttributeName>) {
        let name = |name: &str| AttributeName::try_from(name).expect("a name");
        ("SN-1".into(), BTreeMap::from([(name("rate"), Value::Integer(5))]), BTreeSet::from([name("error")]))
    }

    #[tokio::test]
    async fn a_device_that_waits_finds_its_change_and_its_answer_ends_it() {
        let (board, (hardware, set, unset)) = (Board::new(LONG), wish());
        let device = async {
            let change = board.fetch("SN-1", LONG).await.expect("one is posted");
            assert_eq!((change.set.len(), change.unset.len()), (1, 1));
            assert_eq!(board.fetch("SN-1", LONG).await.as_ref(), Some(&change), "told again until it is answered");
            assert!(board.answer("SN-2", &change.id, SetOutcome::Done, |_| {}).is_none(), "another device's");
            assert!(board.answer("SN-1", "0", SetOutcome::Done, |_| {}).is_none(), "no such change");
            assert!(board.answer("SN-1", &change.id, SetOutcome::Done, |_| {}).is_some());
            assert!(board.answer("SN-1", &change.id, SetOutcome::Done, |_| {}).is_none(), "it is answered");
        };
        let (outcome, ()) = tokio::join!(board.ask(&hardware, set, unset), device);
        assert_eq!((outcome, board.waiting()), (SetOutcome::Done, 0));
    }

    #[tokio::test]
    async fn what_was_never_fetched_is_refused_and_what_was_fetched_and_not_answered_is_unknown() {
        let (board, (hardware, set, unset)) = (Board::new(Duration::from_millis(500)), wish());
        let outcome = board.ask(&hardware, set.clone(), unset.clone()).await;
        assert_eq!(outcome, SetOutcome::Refused("the device did not ask for changes within 500 ms".to_owned()));
        assert_eq!(board.fetch("SN-1", Duration::ZERO).await, None, "it is withdrawn");
        let (outcome, fetched) = tokio::join!(board.ask(&hardware, set, unset), board.fetch("SN-1", LONG));
        let change = fetched.expect("one is posted");
        assert_eq!((outcome, board.waiting()), (SetOutcome::Unknown, 0));
        assert!(board.answer("SN-1", &change.id, SetOutcome::Done, |_| {}).is_none(), "too late");
    }
}
