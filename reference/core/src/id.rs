//! Identity and versions: who a device is, and which of two events about it is newer.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Largest epoch and seq: what a JSON number holds exactly.
pub const MAX_EXACT: u64 = (1 << 53) - 1;

/// The clock's part of an epoch is clamped to this, so that an epoch can always be beaten.
pub const MAX_CLOCK_EPOCH: u64 = 1 << 52;

/// Longest RAE serial, in bytes.
pub const MAX_SERIAL_BYTES: usize = 64;

/// Serial of a RAE: 1 to 64 of `[A-Za-z0-9_-]`, for example `RAE-0000042`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Arc<str>", into = "Arc<str>")]
pub struct Rae(Arc<str>);

impl Rae {
    /// The serial as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard of this RAE: CRC-32 (IEEE) of the serial modulo 16.
    #[must_use]
    pub fn shard(&self) -> Shard {
        Shard((crc32fast::hash(self.0.as_bytes()) % u32::from(Shard::COUNT)) as u8)
    }
}

impl TryFrom<Arc<str>> for Rae {
    type Error = IdError;
    fn try_from(serial: Arc<str>) -> Result<Rae, IdError> {
        let fits = (1..=MAX_SERIAL_BYTES).contains(&serial.len())
            && serial.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if fits { Ok(Rae(serial)) } else { Err(IdError::Serial(serial.chars().take(80).collect())) }
    }
}

impl TryFrom<&str> for Rae {
    type Error = IdError;
    fn try_from(serial: &str) -> Result<Rae, IdError> {
        Rae::try_from(Arc::<str>::from(serial))
    }
}

impl From<Rae> for Arc<str> {
    fn from(rae: Rae) -> Arc<str> {
        rae.0
    }
}

impl fmt::Display for Rae {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a RAE serial.
    #[error("RAE serial {0:?} is not 1 to 64 of [A-Za-z0-9_-]")]
    Serial(String),
    /// Not a shard.
    #[error("shard {0:?} is not one of s00 to s15")]
    Shard(String),
    /// Not an epoch or seq.
    #[error("{0} is not within 1 to 2^53 - 1")]
    OutOfRange(u64),
}

/// One of the 16 parts into which RAEs fall; bridges scale out by disjoint sets of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// How many shards there are.
    pub const COUNT: u8 = 16;

    /// Shard number `index`, 0 to 15.
    #[must_use]
    pub fn new(index: u8) -> Option<Shard> {
        (index < Shard::COUNT).then_some(Shard(index))
    }

    /// 0 to 15.
    #[must_use]
    pub fn index(self) -> u8 {
        self.0
    }
}

impl std::str::FromStr for Shard {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Shard, IdError> {
        match text.as_bytes() {
            [b's', tens @ b'0'..=b'1', ones @ b'0'..=b'9'] => Shard::new((tens - b'0') * 10 + (ones - b'0')),
            _ => None,
        }
        .ok_or_else(|| IdError::Shard(text.chars().take(16).collect()))
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{:02}", self.0)
    }
}

/// A device: UUIDv5 of the hardware serial that it reports when probed, so that it survives wiped RAEs and moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Device(pub Uuid);

impl Device {
    /// Namespace of device ids.
    pub const NAMESPACE: Uuid = uuid::uuid!("6f0d6c5e-3c1b-5e0e-9d43-0a1d2b6f7c11");

    /// The device with this hardware serial.
    #[must_use]
    pub fn of_hardware(serial: &str) -> Device {
        Device(Uuid::new_v5(&Device::NAMESPACE, serial.as_bytes()))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `device_session_id`: one connection period of a device on a RAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Session(pub Uuid);

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! exact_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u64", into = "u64")]
        pub struct $name(u64);

        impl $name {
            /// The smallest, 1.
            pub const FIRST: $name = $name(1);

            /// Its number, 1 to 2^53 - 1.
            #[must_use]
            pub fn get(self) -> u64 {
                self.0
            }

            /// The next one; `None` at 2^53 - 1.
            #[must_use]
            pub fn next(self) -> Option<$name> {
                $name::try_from(self.0 + 1).ok()
            }
        }

        impl TryFrom<u64> for $name {
            type Error = IdError;
            fn try_from(number: u64) -> Result<$name, IdError> {
                if (1..=MAX_EXACT).contains(&number) { Ok($name(number)) } else { Err(IdError::OutOfRange(number)) }
            }
        }

        impl From<$name> for u64 {
            fn from(number: $name) -> u64 {
                number.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

exact_number!(
    /// Orders the sessions of one device, and the boots of one RAE. 1 to 2^53 - 1.
    Epoch
);
exact_number!(
    /// Numbers the events of one session, deltas and snapshots alike. 1 to 2^53 - 1.
    Seq
);

impl Epoch {
    /// A new epoch: above `last` where one is known, else the wall clock, whose part is clamped to 1 to 2^52.
    ///
    /// At 2^53 - 1 there is nothing above: the epoch stays, and the session id decides.
    #[must_use]
    pub fn after(last: Option<Epoch>, wall: crate::time::Wall) -> Epoch {
        let clock = u64::try_from(wall.0).unwrap_or(0).clamp(1, MAX_CLOCK_EPOCH);
        let above = last.map_or(1, |last| (last.0 + 1).min(MAX_EXACT));
        Epoch(clock.max(above))
    }
}

/// Version of an event: compared lexicographically, session by its bytes. A total order, also when two epochs are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Orders sessions.
    pub epoch: Epoch,
    /// Breaks ties between sessions of equal epoch.
    pub session: Session,
    /// Orders the events of a session.
    pub seq: Seq,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.epoch, self.session, self.seq)
    }
}
