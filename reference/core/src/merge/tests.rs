//! The properties that everything else leans on, over random histories of one device with several sessions.

use proptest::{collection, option, prelude::*, test_runner::RngSeed};
use uuid::Uuid;

use super::*;
use crate::id::Seq;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What happened on the device, told by its sessions: plain events and the record that they end in.
#[derive(Debug, Clone)]
struct History {
    events: Vec<StateEvent>,
    /// The record that the newest session ends in.
    truth: BTreeMap<AttributeName, Value>,
    /// The last snapshot of the newest session.
    last_snapshot: StateEvent,
}

/// One step of a session: a snapshot, or a delta of `(name, new value or unset)`.
type Step = Option<Vec<(usize, Option<i64>)>>;

/// One fixed seed, so that a red run is red again.
fn fixed_seed() -> ProptestConfig {
    ProptestConfig { cases: 500, rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::default() }
}

fn received() -> Wall {
    Wall(1_700_000_000_000)
}

/// The events of one session as an agent makes them: it opens with a snapshot at seq 1.
fn session(epoch: u64, id: u128, opening: Vec<(usize, i64)>, steps: Vec<Step>) -> Vec<StateEvent> {
    let mut record: BTreeMap<AttributeName, (Value, Seq)> =
        opening.into_iter().map(|(name, value)| (nth(name), (Value::Integer(value), Seq::FIRST))).collect();
    let mut version =
        Version { epoch: Epoch::try_from(epoch).unwrap(), session: Session(Uuid::from_u128(id)), seq: Seq::FIRST };
    let event = |version, body| StateEvent {
        rae: Rae::try_from("RAE-1").unwrap(),
        device: Device::of_hardware("SN-1"),
        version,
        at: received(),
        body,
    };
    let mut events = vec![event(version, Body::Snapshot { attributes: record.clone() })];
    for step in steps {
        version.seq = version.seq.next().unwrap();
        let Some(changes) = step else {
            events.push(event(version, Body::Snapshot { attributes: record.clone() }));
            continue;
        };
        let changes: BTreeMap<AttributeName, Option<i64>> =
            changes.into_iter().map(|(name, value)| (nth(name), value)).collect();
        let (mut set, mut unset) = (BTreeMap::new(), BTreeSet::new());
        for (name, value) in changes {
            if let Some(value) = value {
                record.insert(name.clone(), (Value::Integer(value), version.seq));
                set.insert(name, Value::Integer(value));
            } else if record.remove(&name).is_some() {
                unset.insert(name);
            }
        }
        events.push(event(version, Body::Delta { set, unset }));
    }
    version.seq = version.seq.next().unwrap();
    events.push(event(version, Body::Snapshot { attributes: record }));
    events
}

fn nth(index: usize) -> AttributeName {
    AttributeName::try_from(NAMES[index]).unwrap()
}

/// Several sessions; epochs may be equal, so that the session id decides.
fn history() -> impl Strategy<Value = History> {
    let name = 0..NAMES.len();
    let step = option::weighted(0.8, collection::vec((name.clone(), option::of(0i64..100)), 0..4));
    let opening = collection::vec((name, 0i64..100), 0..5);
    let session = (1u64..4, any::<u128>(), opening, collection::vec(step, 0..8));
    collection::vec(session, 1..5).prop_map(|sessions| {
        let sessions: Vec<Vec<StateEvent>> =
            sessions.into_iter().map(|(epoch, id, opening, steps)| self::session(epoch, id, opening, steps)).collect();
        let newest = sessions.iter().max_by_key(|events| events[0].version).unwrap();
        let last_snapshot = newest.last().unwrap().clone();
        let Body::Snapshot { attributes } = &last_snapshot.body else { unreachable!("each session ends in one") };
        let truth = attributes.iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect();
        History { truth, events: sessions.concat(), last_snapshot }
    })
}

/// A history and two orders in which some of its events arrive, both holding the same events, each at least once.
fn two_arrivals() -> impl Strategy<Value = (History, Vec<StateEvent>, Vec<StateEvent>)> {
    history().prop_flat_map(|history| {
        let events = history.events.clone();
        let count = events.len();
        (Just(history), proptest::sample::subsequence(events, 0..=count))
            .prop_flat_map(|(history, subset)| (Just(history), arrival(subset.clone()), arrival(subset)))
    })
}

/// Every event at least once, some more often, in any order.
fn arrival(events: Vec<StateEvent>) -> impl Strategy<Value = Vec<StateEvent>> {
    let count = events.len();
    collection::vec(any::<prop::sample::Index>(), 0..10)
        .prop_map(move |repeats| {
            let mut all = events.clone();
            all.extend(repeats.iter().filter(|_| count > 0).map(|index| events[index.index(count)].clone()));
            all
        })
        .prop_shuffle()
}

fn merged<'a>(events: impl IntoIterator<Item = &'a StateEvent>) -> DeviceState {
    let mut state = DeviceState::default();
    for event in events {
        state.apply(event, received());
    }
    state
}

/// The same through batches of `Rows`, as the registry and a store do it.
fn merged_in_batches(events: &[StateEvent], sizes: &[usize]) -> DeviceState {
    let mut sizes = sizes.iter().cycle();
    let mut state = DeviceState::default();
    let mut rest = events;
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(*sizes.next().unwrap_or(&1)));
        rest = later;
        let mut rows = Rows::default();
        for event in batch {
            rows.apply(&Event::State(event.clone()), received());
        }
        for device in rows.devices.values() {
            state.join(device);
        }
    }
    state
}

fn record(state: &DeviceState) -> Option<BTreeMap<AttributeName, Value>> {
    let visible = state.visible()?;
    Some(visible.into_iter().map(|(name, (value, _))| (name.clone(), value.clone())).collect())
}

proptest! {
    #![proptest_config(fixed_seed())]

    #[test]
    fn any_order_repetition_subset_and_batch_split_of_the_same_events_ends_in_the_same_state(
        (_, one, other) in two_arrivals(), sizes in collection::vec(1usize..7, 1..5),
    ) {
        let state = merged(&one);
        prop_assert_eq!(&merged(&other), &state);
        prop_assert_eq!(&merged_in_batches(&other, &sizes), &state);
    }

    #[test]
    fn all_events_end_in_the_record_of_the_newest_session(history in history()) {
        prop_assert_eq!(record(&merged(&history.events)), Some(history.truth));
    }

    #[test]
    fn the_last_snapshot_alone_gives_the_right_record((history, some, _) in two_arrivals()) {
        prop_assert_eq!(record(&merged([&history.last_snapshot])), Some(history.truth.clone()));
        let state = merged(some.iter().chain([&history.last_snapshot]));
        prop_assert_eq!(record(&state), Some(history.truth), "whatever else was missed");
    }

    #[test]
    fn a_late_duplicate_replaces_nothing_and_revives_nothing((history, late, _) in two_arrivals()) {
        let full = merged(&history.events);
        let mut state = full.clone();
        for event in &late {
            prop_assert!(!state.apply(event, received()));
        }
        prop_assert_eq!(state, full);
    }

    #[test]
    fn cleaning_changes_nothing_that_is_visible_now_or_after_late_duplicates((_, some, late) in two_arrivals()) {
        let state = merged(&some);
        let mut cleaned = state.clone();
        cleaned.clean();
        prop_assert_eq!(cleaned.visible(), state.visible());
        for event in &late {
            cleaned.apply(event, received());
            prop_assert_eq!(cleaned.visible(), state.visible());
        }
    }

    #[test]
    fn cleaning_before_the_rest_arrives_changes_nothing_in_the_end((history, some, _) in two_arrivals()) {
        let mut state = merged(&some);
        state.clean();
        for event in &history.events {
            state.apply(event, received());
        }
        prop_assert_eq!(record(&state), Some(history.truth));
    }

    #[test]
    fn the_join_is_commutative_associative_and_idempotent(
        (_, one, _) in two_arrivals(), (_, two, _) in two_arrivals(), (_, three, _) in two_arrivals(),
    ) {
        let [one, two, three] = [one, two, three].map(|events| merged(&events));
        let join = |left: &DeviceState, right: &DeviceState| {
            let mut state = left.clone();
            state.join(right);
            state
        };
        prop_assert_eq!(join(&one, &two), join(&two, &one));
        prop_assert_eq!(join(&join(&one, &two), &three), join(&one, &join(&two, &three)));
        prop_assert_eq!(&join(&one, &one), &one);
        prop_assert!(!join(&one, &two).join(&one));
    }

    #[test]
    fn what_is_stored_never_falls((history, arrival, _) in two_arrivals()) {
        let mut state = DeviceState::default();
        for event in arrival.iter().chain(&history.events) {
            let before = state.clone();
            state.apply(event, received());
            prop_assert!(state.floor.as_ref().map(|floor| floor.version) >= before.floor.as_ref().map(|floor| floor.version));
            for (name, offer) in &before.attributes {
                prop_assert!(state.attributes[name].version >= offer.version);
            }
        }
    }
}

#[test]
fn a_device_without_a_snapshot_is_not_shown() {
    let events = session(1, 1, vec![(0, 1)], vec![Some(vec![(1, Some(2))])]);
    assert_eq!(merged([&events[1]]).visible(), None);
    assert_eq!(record(&merged([&events[1], &events[0]])).unwrap().len(), 2);
}

#[test]
fn a_delta_of_a_new_session_that_overtakes_its_opening_snapshot_harms_nothing() {
    let old = session(1, 1, vec![(0, 1), (1, 1)], vec![]);
    let new = session(2, 2, vec![(0, 2)], vec![Some(vec![(2, Some(3))])]);
    let overtaken = merged(old.iter().chain([&new[1], &new[0]]));
    assert_eq!(overtaken, merged(old.iter().chain([&new[0], &new[1]])));
    assert_eq!(record(&overtaken), Some(BTreeMap::from([(nth(0), Value::Integer(2)), (nth(2), Value::Integer(3))])));
}

#[test]
fn presence_in_a_batch_is_the_newest() {
    use crate::event::PresenceState::{Offline, Online};
    let rae = Rae::try_from("RAE-1").unwrap();
    let presence =
        |number: u64, state| Presence { boot: Epoch::FIRST, connection: Seq::try_from(number).unwrap(), state };
    let mut rows = Rows::default();
    assert!(rows.apply(&Event::Status(rae.clone(), presence(2, Online)), received()));
    assert!(
        !rows.apply(&Event::Status(rae.clone(), presence(1, Offline)), received()),
        "a late will of an old connection"
    );
    assert_eq!(rows.raes[&rae], presence(2, Online));
    assert!(!rows.is_empty());
}
