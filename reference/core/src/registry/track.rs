//! The last seq of each session, to tell duplicates and gaps.
//!
//! Bounded, and forgotten with the assignment: the first record of a session that is not remembered is its baseline.
//! Telling a duplicate never decides what is written; that is the merge rule's alone.

use std::collections::BTreeMap;

use crate::id::{Device, Epoch, Seq, Session, Version};

/// Two generations of memory: what was not seen while `recent` filled its half is forgotten. At one map access for a
/// session that is busy this is as good as an exact order of use.
#[derive(Debug)]
pub(super) struct Sessions {
    half: usize,
    recent: BTreeMap<(Device, Session), (Epoch, Seq)>,
    older: BTreeMap<(Device, Session), (Epoch, Seq)>,
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
    /// At or below what was seen.
    Duplicate,
}

impl Sessions {
    pub(super) fn new(most: usize) -> Sessions {
        Sessions { half: most.div_ceil(2), recent: BTreeMap::new(), older: BTreeMap::new() }
    }

    pub(super) fn observe(&mut self, device: Device, version: Version) -> Standing {
        let Version { epoch, session, seq } = version;
        let key = (device, session);
        let last = self.recent.get(&key).or_else(|| self.older.get(&key)).copied();
        let standing = match last {
            Some((known, last)) if known == epoch && seq <= last => Standing::Duplicate,
            Some((known, last)) if known == epoch && last.next() == Some(seq) => Standing::Next,
            Some((known, last)) if known == epoch => Standing::Gap { after: Version { seq: last, ..version } },
            Some(_) | None => Standing::Baseline,
        };
        let newest = match (standing, last) {
            (Standing::Duplicate, Some(last)) => last,
            _ => (epoch, seq),
        };
        self.remember(key, newest);
        standing
    }

    fn remember(&mut self, key: (Device, Session), newest: (Epoch, Seq)) {
        if let Some(known) = self.recent.get_mut(&key) {
            *known = newest;
            return;
        }
        if self.recent.len() >= self.half {
            self.older = std::mem::take(&mut self.recent);
        }
        self.recent.insert(key, newest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn the_first_record_of_a_session_is_its_baseline_and_later_ones_are_told_apart() {
        let mut sessions = Sessions::new(4);
        assert_eq!(sessions.observe(DEVICE, version(1, 7)), Standing::Baseline);
        assert_eq!(sessions.observe(DEVICE, version(1, 8)), Standing::Next);
        assert_eq!(sessions.observe(DEVICE, version(1, 8)), Standing::Duplicate);
        assert_eq!(sessions.observe(DEVICE, version(1, 3)), Standing::Duplicate);
        assert_eq!(sessions.observe(DEVICE, version(1, 9)), Standing::Next);
        assert_eq!(sessions.observe(DEVICE, version(1, 12)), Standing::Gap { after: version(1, 9) });
        assert_eq!(sessions.observe(DEVICE, version(2, 12)), Standing::Baseline);
    }

    #[test]
    fn memory_is_bounded_and_a_busy_session_is_not_forgotten() {
        let mut sessions = Sessions::new(10);
        for n in 1..1_000 {
            assert_eq!(sessions.observe(DEVICE, version(0, n)) == Standing::Next, n > 1, "seq {n}");
            sessions.observe(DEVICE, version(u128::from(n), 1));
            assert!(sessions.recent.len() + sessions.older.len() <= 10);
        }
        assert_eq!(sessions.observe(DEVICE, version(3, 2)), Standing::Baseline, "an idle one is forgotten");
    }
}
