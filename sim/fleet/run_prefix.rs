//! What a run puts before the serials of its fleet on servers that are not its own, so that its traces can be told apart.

use std::{fmt, str::FromStr};

/// Most characters: with the longest serial of a plan it stays far below the 64 that a serial may have.
const MOST: usize = 16;

/// Letters of a new prefix: upper case and digits, less what is misread.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Characters of a new prefix: 40 bits, so that milliseconds tell two runs apart for 34 years.
const NEW: usize = 8;

/// Begins the serials of one run: 1 to 16 of `A-Z` and `0-9`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunPrefix(String);

/// A text that is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not 1 to {MOST} capital letters and digits")]
pub struct NotARunPrefix(String);

impl RunPrefix {
    /// The prefix of a run that begins at this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn of_time(millis: u64) -> RunPrefix {
        let letter = |place: usize| char::from(LETTERS[(millis >> (5 * place) & 31) as usize]);
        RunPrefix((0..NEW).rev().map(letter).collect())
    }

    /// The serial of this run that a run on its own servers would call `serial`.
    #[must_use]
    pub fn serial(&self, serial: &str) -> String {
        format!("{}-{serial}", self.0)
    }

    /// Whether a run with this prefix gave this serial, and nobody else: what `clean` may remove.
    #[must_use]
    pub fn made(&self, serial: &str) -> bool {
        let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some(rest) = serial.strip_prefix(&self.0).and_then(|rest| rest.strip_prefix('-')) else { return false };
        match rest.split_once('-') {
            Some(("RAE", number)) => digits(number, 7),
            Some(("CANARY", rest)) => rest
                .split_once('-')
                .is_some_and(|(phase, number)| digits(phase, phase.len()) && !phase.is_empty() && digits(number, 5)),
            Some(("ABSENT", number)) => digits(number, number.len()) && !number.is_empty(),
            Some((_, _)) | None => false,
        }
    }

    /// Whether a topic, which is also a record's key, is of a RAE of this run.
    #[must_use]
    pub fn is_of(&self, topic: &str) -> bool {
        topic.split('/').nth(3).is_some_and(|serial| self.made(serial))
    }
}

impl FromStr for RunPrefix {
    type Err = NotARunPrefix;

    fn from_str(text: &str) -> Result<RunPrefix, NotARunPrefix> {
        let known = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        match (1..=MOST).contains(&text.len()) && text.bytes().all(known) {
            true => Ok(RunPrefix(text.to_owned())),
            false => Err(NotARunPrefix(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for RunPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_knows_the_serials_of_its_run_and_nobody_elses() {
        let prefix: RunPrefix = "LAB1".parse().expect("a prefix");
        for made in ["RAE-0000042", "CANARY-2-00017", "ABSENT-3"] {
            assert!(prefix.made(&prefix.serial(made)), "{made}");
        }
        let others =
            ["RAE-0000042", "LAB1RAE-0000042", "LAB1-RAE-42", "LAB12-RAE-0000042", "LAB1-ROUTER-7", "LAB1-", "LAB1"];
        for other in others {
            assert!(!prefix.made(other), "{other}");
        }
        assert!(prefix.is_of("dmp/v1/s07/LAB1-RAE-0000042/status"));
        assert!(!prefix.is_of("dmp/v1/s07/RAE-0000042/status"));
        assert!(!prefix.is_of("LAB1-RAE-0000042"));
    }

    #[test]
    fn runs_of_different_milliseconds_have_different_prefixes_that_read_back() {
        let (one, next) = (RunPrefix::of_time(1_796_000_000_000), RunPrefix::of_time(1_796_000_000_001));
        assert_ne!(one, next);
        assert_eq!(one.to_string().parse(), Ok(one));
        for wrong in ["", "lab1", "LAB-1", "L%", "ABCDEFGHIJKLMNOPQ"] {
            assert!(wrong.parse::<RunPrefix>().is_err(), "{wrong:?}");
        }
    }
}
