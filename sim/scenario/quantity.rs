//! Durations and sizes as a scenario writes them: `"250ms"`, `"64KiB"`.
//!
//! No blanks, no fractions, one unit: what is written once can be searched for, compared and set on a command line.

use std::{ops::Add, time::Duration};

use serde::{Serialize, Serializer};

/// What a duration looks like, for messages.
pub const A_DURATION: &str = "a duration such as \"250ms\", \"10s\" or \"5m\"";

/// What a duration with a sign looks like, for messages.
pub const A_SHIFT: &str = "a duration with or without a minus, such as \"-3h\" or \"250ms\"";

/// What a size looks like, for messages.
pub const A_SIZE: &str = "a size in bytes such as 930 or \"64KiB\"";

/// A duration with a sign: how far a clock is ahead; behind, where it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Shift {
    micros: i64,
}

impl Shift {
    /// So many seconds, to a microsecond; at most 290,000 years.
    #[must_use]
    pub fn of_seconds(seconds: f64) -> Shift {
        Shift { micros: (seconds * 1e6) as i64 }
    }

    /// In whole milliseconds.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.micros / 1_000
    }

    /// So far back.
    #[must_use]
    pub fn back(by: Duration) -> Shift {
        Shift { micros: -Shift::from(by).micros }
    }
}

impl From<Duration> for Shift {
    fn from(by: Duration) -> Shift {
        Shift { micros: i64::try_from(by.as_micros()).unwrap_or(i64::MAX) }
    }
}

impl Add for Shift {
    type Output = Shift;
    fn add(self, other: Shift) -> Shift {
        Shift { micros: self.micros.saturating_add(other.micros) }
    }
}

impl Serialize for Shift {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&show_shift(*self))
    }
}

/// Reads `"-3h"`: a duration, with a minus where it goes back. `None` if it is no such thing.
#[must_use]
pub fn parse_shift(text: &str) -> Option<Shift> {
    match text.strip_prefix('-') {
        Some(back) => parse_duration(back).map(Shift::back),
        None => parse_duration(text).map(Shift::from),
    }
}

/// Writes a shift so that [`parse_shift`] reads the same again.
#[must_use]
pub fn show_shift(shift: Shift) -> String {
    let sign = if shift.micros < 0 { "-" } else { "" };
    format!("{sign}{}", show_duration(Duration::from_micros(shift.micros.unsigned_abs())))
}

/// Reads `"250ms"`: a whole number and `us`, `ms`, `s`, `m` or `h`. `None` if it is no such thing.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let micros: u64 = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60 * 1_000_000,
        "h" => 3_600 * 1_000_000,
        _ => return None,
    };
    number.checked_mul(micros).map(Duration::from_micros)
}

/// Reads `"64KiB"`: a whole number and `B`, `KiB` or `MiB`. `None` if it is no such thing.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// Writes a duration so that [`parse_duration`] reads the same again, as far as microseconds go.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0 => "0s".to_owned(),
        _ if micros.is_multiple_of(3_600_000_000) => format!("{}h", micros / 3_600_000_000),
        _ if micros.is_multiple_of(60_000_000) => format!("{}m", micros / 60_000_000),
        _ if micros.is_multiple_of(1_000_000) => format!("{}s", micros / 1_000_000),
        _ if micros.is_multiple_of(1_000) => format!("{}ms", micros / 1_000),
        _ => format!("{micros}us"),
    }
}

/// Writes a whole number with a comma at every third digit.
#[must_use]
pub fn show_whole(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `#[serde(serialize_with)]` for a duration: as the scenario file has it.
pub(super) fn as_text<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&show_duration(*duration))
}

/// `#[serde(serialize_with)]` for a duration that may be absent.
pub(super) fn as_text_or_none<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_text(duration, to),
        None => to.serialize_none(),
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..unit].parse().ok()?, &text[unit..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_that_is_shown_reads_the_same_again() {
        for micros in [0, 1, 999, 1_000, 1_500, 250_000, 1_000_000, 1_500_000, 60_000_000, 90_000_000, 7_200_000_000] {
            let duration = Duration::from_micros(micros);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn a_duration_needs_a_whole_number_and_one_known_unit_without_blanks() {
        for wrong in ["10 s", "10x", "s", "10", "1.5s", "-1s", "", " 10s", "10S", "99999999999999999999s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_shift_that_is_shown_reads_the_same_again_and_takes_one_minus_at_most() {
        for (text, millis) in [("-3h", -10_800_000), ("5h", 18_000_000), ("-250ms", -250), ("0s", 0)] {
            let shift = parse_shift(text).expect("a shift");
            assert_eq!((shift.millis(), show_shift(shift).as_str()), (millis, text));
        }
        for wrong in ["--3h", "+3h", "- 3h", "-", "3", "-3 h"] {
            assert_eq!(parse_shift(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_shown_in_groups_of_three_digits() {
        assert_eq!(["7", "999", "1,000", "20,000", "1,234,567"], [7, 999, 1_000, 20_000, 1_234_567].map(show_whole));
    }
}
