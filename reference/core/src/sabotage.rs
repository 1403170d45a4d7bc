//! Planted bugs: the one seam through which they enter, so that the checks can be checked.
//!
//! Without the feature `sabotage`, [`planted`] is `false` at compile time and nothing else of this module exists.

/// A planted bug, named after what it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// The bridge acknowledges a message before Kafka has stored its record.
    BridgeAcksEarly,
    /// The registry commits an offset before the rows below it are durable.
    RegistryCommitsEarly,
    /// The store writes without comparing versions.
    StoreWithoutGuard,
    /// The agent answers "ok" to `reonboard` and does nothing.
    NoReonboard,
    /// The agent answers `reonboard` with a new session of what it last knew, without probing the device.
    ReonboardUnprobed,
    /// The registry holds leases against its own clock instead of against what it has read.
    LeaseByClock,
}

impl Bug {
    /// Every planted bug.
    pub const ALL: [Bug; 6] = [
        Bug::BridgeAcksEarly,
        Bug::RegistryCommitsEarly,
        Bug::StoreWithoutGuard,
        Bug::NoReonboard,
        Bug::ReonboardUnprobed,
        Bug::LeaseByClock,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bug::BridgeAcksEarly => "bridge-acks-early",
            Bug::RegistryCommitsEarly => "registry-commits-early",
            Bug::StoreWithoutGuard => "store-without-guard",
            Bug::NoReonboard => "no-reonboard",
            Bug::ReonboardUnprobed => "reonboard-unprobed",
            Bug::LeaseByClock => "lease-by-clock",
        }
    }
}

/// Whether `bug` is planted in this process; to be asked exactly where it would act. Each `true` counts as a hit.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "sabotage")]
pub use armed::{hits, plant, planted};

#[cfg(feature = "sabotage")]
mod armed {
    use super::Bug;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    /// Index into `Bug::ALL`, plus one; zero is none.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);
    static HITS: AtomicU64 = AtomicU64::new(0);

    /// Plants `bug` in this process and sets its hits to zero.
    pub fn plant(bug: Bug) {
        let index = Bug::ALL.iter().position(|&b| b == bug).expect("ALL holds every bug");
        HITS.store(0, Ordering::Relaxed);
        PLANTED.store(index + 1, Ordering::Relaxed);
    }

    /// Whether `bug` is planted in this process. Each `true` counts as a hit.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        let index = PLANTED.load(Ordering::Relaxed);
        let is = index > 0 && Bug::ALL[index - 1] == bug;
        if is {
            HITS.fetch_add(1, Ordering::Relaxed);
        }
        is
    }

    /// How often the planted bug has acted; a bug that never acted was not exercised.
    #[must_use]
    pub fn hits() -> u64 {
        HITS.load(Ordering::Relaxed)
    }
}
