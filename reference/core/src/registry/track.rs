//! The last seq of each session, to tell duplicates and gaps.
//!
//! Bounded, and forgotten with the assignment: the first record of a session that is not remembered is its baseline.
//! Telling a duplicate never decides what is written; that is the merge rule's alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use super::gaps::{Closed, Gaps};
use crate::{
    event::{Body, StateEvent},
    id::{Device, Epoch, Rae, Seq, Session, Version},
    time::{Mono, Now, Wall},
};

/// Names a session of a device.
pub(super) type Key = (Device, Session);

/// Two generations of memory: what was not seen while `recent` filled its half is forgotten. At one map access for a
/// session that is busy this is as good as an exact order of use.
#[derive(Debug)]
pub(super) struct Sessions {
    half: usize,
    recent: BTreeMap<Key, Known>,
    older: BTreeMap<Key, Known>,
    /// How long a gap may last before a snapshot is asked for; `None` where none ever is.
    gap_wait: Option<Duration>,
    /// The sessions with a gap for which a request is due, and when: at most one entry for each.
    due: BTreeSet<(Mono, Key)>,
    gaps: usize,
}

#[derive(Debug)]
struct Known {
    epoch: Epoch,
    last: Seq,
    /// Of the few sessions that have any.
    gaps: Option<Box<Gaps>>,
}

/// How a record stands to the one before it in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The first that is known of its session.
    Baseline,
    /// The next one.
    Next,
    /// Some are missing in between.
    Gap { after: Version },
    /// One that was missing.
    Late,
    /// At or below what was seen.
    Duplicate,
}

impl Sessions {
    pub(super) fn new(most: usize, gap_wait: Option<Duration>) -> Sessions {
        let (recent, older, due) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Sessions { half: most.div_ceil(2), recent, older, gap_wait, due, gaps: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    pub(super) fn cap(&self) -> usize {
        2 * self.half
    }

    /// Sessions with a gap.
    pub(super) fn gaps(&self) -> usize {
        self.gaps
    }

    /// Takes note of an event that was received at `received`; gaps that end with it go to `closed`.
    pub(super) fn observe(
        &mut self,
        now: Now,
        event: &StateEvent,
        received: Wall,
        closed: &mut Vec<(Key, Closed)>,
    ) -> Standing {
        let Version { epoch, session, seq } = event.version;
        let key = (event.device, session);
        let Some(known) = self.known(key, closed) else {
            self.remember(key, Known { epoch, last: seq, gaps: None }, closed);
            return Standing::Baseline;
        };
        let mut ended = Vec::new();
        let had = known.gaps.is_some();
        let standing = known.observe(now, event, received, &mut ended);
        let gaps = known.gaps.take_if(|gaps| gaps.is_empty());
        let has = known.gaps.is_some();
        closed.extend(ended.into_iter().map(|ended| (key, ended)));
        self.gaps = self.gaps + usize::from(has) - usize::from(had);
        if let Some(due) = gaps.and_then(|gaps| gaps.due) {
            self.due.remove(&(due, key));
        }
        if let (Standing::Gap { .. }, true, Some(wait)) = (standing, has, self.gap_wait) {
            self.schedule(key, now.mono + wait);
        }
        standing
    }

    /// When a request is due.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.due.first().map(|&(at, _)| at)
    }

    /// The next session for which a request is due, and who holds it, if `is_young` still says so of a record that told
    /// of a gap.
    pub(super) fn take_due(&mut self, now: Mono, is_young: impl Fn(Wall) -> bool) -> Option<(Key, Rae)> {
        let wait = self.gap_wait?;
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.due.pop_first();
            let Some(gaps) = self.gaps_of(key) else { continue };
            gaps.due = None;
            if gaps.is_to_be_asked(now - wait, &is_young) {
                return Some((key, gaps.rae.clone()));
            }
            // The gap that made it due is closed by now; another may have opened since.
            if let Some(opened) = gaps.next_to_be_asked(now - wait) {
                self.schedule(key, opened + wait);
            }
        }
        None
    }

    /// The session's gaps are not asked for before `at`.
    pub(super) fn schedule(&mut self, key: Key, at: Mono) {
        let Some(gaps) = self.gaps_of(key) else { return };
        let at = *gaps.due.get_or_insert(at);
        self.due.insert((at, key));
    }

    /// The session is asked for a snapshot.
    pub(super) fn set_asked(&mut self, key: Key) {
        if let Some(gaps) = self.gaps_of(key) {
            gaps.set_asked();
        }
    }

    /// The session's gaps, if it has any.
    pub(super) fn gaps_of(&mut self, key: Key) -> Option<&mut Gaps> {
        let known = match self.recent.get_mut(&key) {
            Some(known) => known,
            None => self.older.get_mut(&key)?,
        };
        known.gaps.as_deref_mut()
    }

    /// What is known of a session, as one that is in use.
    fn known(&mut self, key: Key, closed: &mut Vec<(Key, Closed)>) -> Option<&mut Known> {
        if !self.recent.contains_key(&key) {
            let known = self.older.remove(&key)?;
            self.remember(key, known, closed);
        }
        self.recent.get_mut(&key)
    }

    fn remember(&mut self, key: Key, known: Known, closed: &mut Vec<(Key, Closed)>) {
        if self.recent.len() >= self.half {
            let forgotten = mem::replace(&mut self.older, mem::take(&mut self.recent));
            for (key, known) in forgotten {
                self.forget(key, known, closed);
            }
        }
        self.recent.insert(key, known);
    }

    fn forget(&mut self, key: Key, known: Known, closed: &mut Vec<(Key, Closed)>) {
        let Some(mut gaps) = known.gaps else { return };
        let mut ended = Vec::new();
        gaps.forget(&mut ended);
        closed.extend(ended.into_iter().map(|ended| (key, ended)));
        self.gaps -= 1;
        if let Some(due) = gaps.due {
            self.due.remove(&(due, key));
        }
    }
}

impl Known {
    fn observe(&mut self, now: Now, event: &StateEvent, received: Wall, closed: &mut Vec<Closed>) -> Standing {
        let Version { epoch, seq, .. } = event.version;
        let last = self.last;
        let standing = if epoch != self.epoch {
            // One session has one epoch; with another it is another story.
            self.gaps.iter_mut().for_each(|gaps| gaps.forget(closed));
            (self.epoch, self.last) = (epoch, seq);
            return Standing::Baseline;
        } else if seq <= last {
            let late = self.gaps.as_mut().is_some_and(|gaps| gaps.fill(seq, closed));
            if late { Standing::Late } else { Standing::Duplicate }
        } else if last.next() == Some(seq) {
            Standing::Next
        } else {
            let gaps = self.gaps.get_or_insert_with(|| Box::new(Gaps::new(event.rae.clone())));
            gaps.open(now.mono, received, last, seq, closed);
            Standing::Gap { after: Version { seq: last, ..event.version } }
        };
        self.last = last.max(seq);
        if let (Body::Snapshot { .. }, Some(gaps)) = (&event.body, &mut self.gaps) {
            gaps.cover(seq, closed);
        }
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::GapEnd;
    use uuid::Uuid;

    fn version(session: u128, seq: u64) -> Version {
        let number = |n| Epoch::try_from(n).expect("small");
        Version {
            epoch: number(5),
            session: Session(Uuid::from_u128(session)),
            seq: Seq::try_from(seq).expect("small"),
        }
    }

    const DEVICE: Device = Device(Uuid::nil());
    const NOW: Now = Now { mono: Mono(0), wall: Wall(0) };

    /// Sessions, and the ends of gaps that they told.
    struct Bench {
        sessions: Sessions,
        ends: Vec<GapEnd>,
    }

    impl Bench {
        fn new(most: usize) -> Bench {
            Bench { sessions: Sessions::new(most, Some(Duration::from_secs(2))), ends: Vec::new() }
        }

        fn observe(&mut self, version: Version, body: Body) -> Standing {
            let rae = Rae::try_from("RAE-1").expect("a serial");
            let event = StateEvent { rae, device: DEVICE, version, at: Wall(0), body };
            let mut closed = Vec::new();
            let standing = self.sessions.observe(NOW, &event, Wall(0), &mut closed);
            self.ends.extend(closed.into_iter().map(|(_, closed)| closed.by));
            let known = self.sessions.recent.values().chain(self.sessions.older.values());
            let with_gaps = known.filter(|known| known.gaps.is_some()).count();
            assert_eq!((self.sessions.gaps(), with_gaps), (with_gaps, self.sessions.due.len()));
            standing
        }

        fn delta(&mut self, version: Version) -> Standing {
            self.observe(version, Body::Delta { set: [].into(), unset: [].into() })
        }

        fn snapshot(&mut self, version: Version) -> Standing {
            self.observe(version, Body::Snapshot { attributes: [].into() })
        }
    }

    #[test]
    fn the_first_record_of_a_session_is_its_baseline_and_later_ones_are_told_apart() {
        let mut bench = Bench::new(4);
        assert_eq!(bench.delta(version(1, 7)), Standing::Baseline);
        assert_eq!(bench.delta(version(1, 8)), Standing::Next);
        assert_eq!(bench.delta(version(1, 8)), Standing::Duplicate);
        assert_eq!(bench.delta(version(1, 3)), Standing::Duplicate);
        assert_eq!(bench.delta(version(1, 9)), Standing::Next);
        assert_eq!(bench.delta(version(1, 12)), Standing::Gap { after: version(1, 9) });
        assert_eq!(bench.delta(version(2, 12)), Standing::Baseline);
    }

    #[test]
    fn late_arrivals_that_fill_the_whole_gap_close_it() {
        let mut bench = Bench::new(4);
        bench.delta(version(1, 1));
        bench.delta(version(1, 5));
        assert_eq!(bench.delta(version(1, 3)), Standing::Late);
        assert_eq!(bench.delta(version(1, 3)), Standing::Duplicate, "it is missing no longer");
        assert_eq!(bench.delta(version(1, 4)), Standing::Late);
        assert_eq!(bench.ends, []);
        assert_eq!(bench.delta(version(1, 2)), Standing::Late);
        assert_eq!(bench.ends, [GapEnd::Update]);
        assert_eq!(bench.delta(version(1, 6)), Standing::Next);
    }

    #[test]
    fn a_later_snapshot_closes_every_gap_below_it_and_no_other() {
        let mut bench = Bench::new(4);
        for seq in [1, 4, 8] {
            bench.delta(version(1, seq));
        }
        assert_eq!(bench.snapshot(version(1, 6)), Standing::Late);
        assert_eq!(bench.ends, [GapEnd::Snapshot], "the one below it");
        assert_eq!(bench.delta(version(1, 5)), Standing::Duplicate, "covered");
        assert_eq!(bench.delta(version(1, 7)), Standing::Late);
        assert_eq!(bench.ends, [GapEnd::Snapshot, GapEnd::Update]);
        assert_eq!(bench.snapshot(version(1, 20)), Standing::Gap { after: version(1, 8) });
        assert_eq!(bench.ends.len(), 3, "a snapshot closes the gap that it tells of");
    }

    #[test]
    fn a_session_that_misses_very_much_is_remembered_within_a_bound() {
        let mut bench = Bench::new(4);
        for seq in 1..=100 {
            bench.delta(version(1, 2 * seq));
        }
        assert_eq!(bench.ends, [GapEnd::Forgotten; 91]);
        bench.snapshot(version(1, 201));
        assert_eq!(bench.ends.len(), 99, "each gap ends once");
        bench.delta(version(1, 301));
        (204..300).step_by(2).for_each(|seq| {
            bench.delta(version(1, seq));
        });
        bench.snapshot(version(1, 302));
        assert_eq!(bench.ends.len(), 100);
    }

    #[test]
    fn memory_is_bounded_and_a_busy_session_is_not_forgotten() {
        let mut bench = Bench::new(10);
        for n in 1..1_000 {
            assert_eq!(bench.delta(version(0, n)) == Standing::Next, n > 1, "seq {n}");
            bench.delta(version(u128::from(n), 1));
            bench.delta(version(u128::from(n), 3));
            assert!(bench.sessions.len() <= bench.sessions.cap());
        }
        assert_eq!(bench.delta(version(3, 4)), Standing::Baseline, "an idle one is forgotten");
        assert_eq!(bench.ends.len() + bench.sessions.gaps(), 999, "and its gap with it");
    }
}
