//! The form of a scenario file, before anything is judged but types and key names.
//!
//! Every field may be absent here, also one that must not be: that is for the builder to say, with all else that is wrong,
//! and at the right place. No flattened and no internally tagged type, for with those serde loses the place of an error.

use std::{fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use toml::Spanned;

use crate::scenario::{
    Addressee, Ask, OldRae, Part, PoisonKind, ReadFrom, Server,
    quantity::{A_DURATION, A_SHIFT, A_SIZE, Shift, parse_duration, parse_shift, parse_size},
};

/// A key that may be absent, with the place of its value.
pub(crate) type Field<T> = Option<Spanned<T>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScenario {
    pub(super) seed: Field<Whole>,
    pub(super) fleet: Field<RawFleet>,
    pub(super) pipeline: Field<RawPipeline>,
    #[serde(default)]
    pub(super) phase: Vec<Spanned<RawPhase>>,
    #[serde(default)]
    pub(super) fault: Vec<Spanned<RawFault>>,
    #[serde(default)]
    pub(super) command: Vec<Spanned<RawCommand>>,
    pub(super) checks: Field<RawChecks>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleet {
    pub(super) raes: Field<Whole>,
    pub(super) devices_per_rae: Field<Whole>,
    pub(super) update_every: Field<Length>,
    pub(super) unset_share: Field<Number>,
    pub(super) reattach_every: Field<Length>,
    pub(super) snapshot_every: Field<Length>,
    pub(super) probe_every: Field<Length>,
    pub(super) record_bytes: Field<Size>,
    pub(super) qos: Field<Whole>,
    pub(super) connects_per_s: Field<Whole>,
    pub(super) clock_offset: Field<Length>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPipeline {
    pub(super) shard_groups: Field<Whole>,
    pub(super) bridges: Field<Whole>,
    pub(super) registries: Field<Whole>,
    pub(super) partitions: Field<Whole>,
    pub(super) bridge_window: Field<Whole>,
    pub(super) batch_rows: Field<Whole>,
    pub(super) batch_wait: Field<Length>,
    pub(super) partition_credit: Field<Whole>,
    pub(super) commit_records: Field<Whole>,
    pub(super) commit_every: Field<Length>,
    pub(super) session_timeout: Field<Length>,
    pub(super) clean_every: Field<Length>,
    pub(super) repair: Field<bool>,
    pub(super) gap_wait: Field<Length>,
    pub(super) baseline: Field<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPhase {
    pub(super) name: Field<String>,
    pub(super) lasts: Field<Length>,
    pub(super) rate: Field<Number>,
    pub(super) repair: Field<bool>,
    pub(super) canary: Field<RawCanary>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCanary {
    pub(super) clients: Field<Whole>,
    pub(super) over: Field<Length>,
    pub(super) messages: Field<Whole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChecks {
    pub(super) converged_within: Field<Length>,
    pub(super) lag_peak: Field<AtMost<Whole>>,
    pub(super) lag_reflected_p99: Field<AtMost<Whole>>,
    pub(super) lag_committed_p99: Field<AtMost<Whole>>,
    pub(super) drained_within: Field<Length>,
    pub(super) quiet_lag: Field<Whole>,
    pub(super) staleness_p99: Field<AtMost<Length>>,
    pub(super) stalled_at_most: Field<Length>,
    pub(super) lateness_at_most: Field<Length>,
    pub(super) command_p99: Field<AtMost<Length>>,
    pub(super) repair_ratio: Field<AtMost<Number>>,
    pub(super) before_after: Field<RawBeforeAfter>,
    pub(super) scaled_within: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBeforeAfter {
    pub(super) fewer_commits: Field<Number>,
    pub(super) follows_within: Field<Number>,
    pub(super) wrong_rows: Field<Whole>,
}

/// `{ at_most = 20_000 }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a limit such as { at_most = 20_000 } or { at_most = \"500ms\" }")]
pub(super) struct AtMost<T> {
    pub(super) at_most: Option<Spanned<T>>,
}

/// `at`, and exactly one of the others.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFault {
    pub(super) at: Field<String>,
    pub(super) missed_updates: Field<ShareLasts>,
    pub(super) qos0_loss: Field<ShareLasts>,
    pub(super) duplicates: Field<ShareDelayLasts>,
    pub(super) delayed_tails: Field<ShareDelayLasts>,
    pub(super) poison: Field<RawPoison>,
    pub(super) reboot: Field<ShareDown>,
    pub(super) wipe: Field<ShareDown>,
    pub(super) gone: Field<Share>,
    pub(super) clock_step: Field<RawClockStep>,
    pub(super) clock_drift: Field<RawClockDrift>,
    #[serde(rename = "move")]
    pub(super) moves: Field<RawMove>,
    pub(super) flapping: Field<RawFlapping>,
    pub(super) disconnect: Field<ShareLasts>,
    pub(super) kill: Field<RawKill>,
    pub(super) pause: Field<RawPause>,
    pub(super) scale: Field<RawScale>,
    pub(super) stage_failure: Field<RawStageFailure>,
    pub(super) restart: Field<RawRestart>,
    pub(super) full_disk: Field<RawFullDisk>,
    pub(super) cut_link: Field<RawLink>,
    pub(super) slow_link: Field<RawSlowLink>,
    pub(super) half_open_link: Field<RawLink>,
    pub(super) throttled_store: Field<RawThrottledStore>,
    pub(super) slow_store: Field<RawSlowStore>,
    pub(super) wipe_store: Field<RawWipeStore>,
    pub(super) new_consumer: Field<RawNewConsumer>,
    pub(super) command_loss: Field<ShareLasts>,
    pub(super) command_duplicates: Field<ShareDelayLasts>,
    pub(super) late_commands: Field<ShareDelayLasts>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    pub(super) at: Field<String>,
    pub(super) kind: Field<Ask>,
    pub(super) count: Field<Whole>,
    pub(super) over: Field<Length>,
    pub(super) expires_after: Field<Length>,
    pub(super) to: Field<Addressee>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareLasts {
    pub(super) share: Field<Number>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareDelayLasts {
    pub(super) share: Field<Number>,
    pub(super) delay: Field<Length>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    pub(super) to: Field<Server>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPoison {
    pub(super) kind: Field<PoisonKind>,
    pub(super) messages: Field<Whole>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareDown {
    pub(super) share: Field<Number>,
    pub(super) down: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Share {
    pub(super) share: Field<Number>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClockStep {
    pub(super) share: Field<Number>,
    pub(super) by: Field<Signed>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClockDrift {
    pub(super) share: Field<Number>,
    pub(super) rate: Field<Number>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMove {
    pub(super) share: Field<Number>,
    pub(super) over: Field<Length>,
    pub(super) old: Field<OldRae>,
    pub(super) back_after: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlapping {
    pub(super) share: Field<Number>,
    pub(super) every: Field<Length>,
    pub(super) lasts: Field<Length>,
}

/// What can be killed and paused.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawPart {
    Bridge,
    Registry,
    Broker,
    Kafka,
    Store,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRestart {
    pub(super) part: Field<Server>,
    pub(super) back_after: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFullDisk {
    pub(super) part: Field<Server>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKill {
    pub(super) part: Field<RawPart>,
    pub(super) index: Field<Whole>,
    pub(super) back_after: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPause {
    pub(super) part: Field<RawPart>,
    pub(super) index: Field<Whole>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawScale {
    pub(super) part: Field<Part>,
    pub(super) to: Field<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStageFailure {
    pub(super) index: Field<Whole>,
    pub(super) times: Field<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlowLink {
    pub(super) to: Field<Server>,
    pub(super) delay: Field<Length>,
    pub(super) bytes_per_s: Field<Size>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawThrottledStore {
    pub(super) rows_per_s: Field<Whole>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlowStore {
    pub(super) delay: Field<Length>,
    pub(super) lasts: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWipeStore {
    pub(super) back_after: Field<Length>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNewConsumer {
    pub(super) from: Field<ReadFrom>,
}

/// A whole number of any sign, so that one out of range is judged with the range at hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole(pub(super) i64);

/// A number, with or without a fraction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number(pub(super) f64);

/// A duration: `"10s"`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length(pub(super) Duration);

/// A duration with a sign: `"-3h"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed(pub(super) Shift);

/// A size in bytes: `930` or `"64KiB"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Whole, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Number, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Number, E> {
                Ok(Number(number as f64))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Number, E> {
                Ok(Number(number))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Length, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Length;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(A_DURATION)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Length, E> {
                parse_duration(text).map(Length).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Signed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Signed, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Signed;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(A_SHIFT)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Signed, E> {
                parse_shift(text).map(Signed).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Read)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Size, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(A_SIZE)
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                let bytes = parse_size(text).and_then(|bytes| i64::try_from(bytes).ok());
                bytes.map(Size).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        from.deserialize_any(Read)
    }
}
