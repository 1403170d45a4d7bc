//! Durations as `"250ms"` and sizes as `"64KiB"`: serde adapters for plain `Duration` and `usize`.

use std::time::Duration;

/// `#[serde(with = "duration")]`: a whole number and `us`, `ms`, `s`, `m`, `h` or `d`.
pub mod duration {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads a duration.
    ///
    /// # Errors
    /// For a text that is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes a duration.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&show_duration(*duration))
    }
}

/// `#[serde(with = "optional_duration")]`: as [`duration`], and `None` where the key is absent.
pub mod optional_duration {
    use super::*;
    use serde::{Deserializer, Serializer};

    /// Reads a duration that is there.
    ///
    /// # Errors
    /// For a text that is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(from).map(Some)
    }

    /// Writes a duration; to be skipped where there is none.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => duration::serialize(duration, to),
            None => to.serialize_none(),
        }
    }
}

/// `#[serde(with = "size")]`: a whole number and `B`, `KiB`, `MiB` or `GiB`.
pub mod size {
    use super::parse_size;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads a size.
    ///
    /// # Errors
    /// For a text that is none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        parse_size(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes a size.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(size: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{size}B"))
    }
}

/// Reads `"250ms"`.
///
/// # Errors
/// What would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"30d\"");
    let (number, unit) = split_unit(text).ok_or_else(wrong)?;
    let nanos_per_unit: u64 = match unit {
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3_600 * 1_000_000_000,
        "d" => 86_400 * 1_000_000_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(nanos_per_unit).map(Duration::from_nanos).ok_or_else(wrong)
}

/// Reads `"64KiB"`.
///
/// # Errors
/// What would be right.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size such as \"512B\", \"64KiB\", \"16MiB\" or \"1GiB\"");
    let (number, unit) = split_unit(text).ok_or_else(wrong)?;
    let bytes_per_unit: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(bytes_per_unit).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(wrong)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros.is_multiple_of(1_000_000) {
        format!("{}s", micros / 1_000_000)
    } else if micros.is_multiple_of(1_000) {
        format!("{}ms", micros / 1_000)
    } else {
        format!("{micros}us")
    }
}
