//! The attributes of a device, and values that lead back to the change that set them.

use std::sync::LazyLock;

use dmp_core::event::{AttributeName, Value};

use super::{ChangeNumber, DeviceIndex, Plan};

/// The attributes of a device; `connection` is the agent's own and comes on top.
pub const ATTRIBUTES: [&str; 10] =
    ["rev", "report", "availability", "firmware", "ip", "mac", "charging", "temperature", "esn", "sdk_version"];

/// The attribute of a device that only commands change, to their id; absent until the first one.
pub const COMMANDED: &str = "commanded";

pub(super) const REV: usize = 0;
pub(super) const REPORT: usize = 1;
/// `esn` and `sdk_version` come and go; the others are always there.
pub(super) const OPTIONAL: std::ops::Range<usize> = 8..10;

static NAMES: LazyLock<Vec<AttributeName>> =
    LazyLock::new(|| ATTRIBUTES.iter().map(|&name| AttributeName::try_from(name).expect("valid by hand")).collect());

/// The name of attribute number `index` of [`ATTRIBUTES`].
#[must_use]
pub fn attribute(index: usize) -> AttributeName {
    NAMES[index].clone()
}

/// A set of attribute names, as bits into [`ATTRIBUTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Names(pub(super) u16);

impl Names {
    pub(super) fn all() -> Names {
        Names((1 << ATTRIBUTES.len()) - 1)
    }

    /// Whether attribute number `index` of [`ATTRIBUTES`] is in the set.
    #[must_use]
    pub fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }
}

impl Plan {
    /// The value that change number `change` gives to attribute number `index`.
    #[must_use]
    pub fn value(&self, device: DeviceIndex, change: ChangeNumber, index: usize) -> Value {
        let (d, k) = (device.0, change.0);
        let [_, high, mid, low] = k.to_be_bytes();
        Value::Text(match ATTRIBUTES[index] {
            "rev" => return Value::Integer(i64::from(k)),
            "charging" => return Value::Bool(k % 2 == 1),
            "temperature" => return Value::Float(f64::from(k) + 0.5),
            "availability" => format!("{}.{k}", ["available", "in_test", "reserved"][k as usize % 3]).into(),
            "firmware" => format!("7.2.{k}").into(),
            "sdk_version" => format!("2026.3.{k}").into(),
            "esn" => format!("NFXD{d:07}-{k}").into(),
            "ip" => format!("10.{high}.{mid}.{low}").into(),
            "mac" => format!("02:{:02x}:{:02x}:{high:02x}:{mid:02x}:{low:02x}", d >> 8 & 0xff, d & 0xff).into(),
            _ => self.report(d, k).into(),
        })
    }

    fn report(&self, device: u32, change: u32) -> String {
        let mut text = format!("device {device} change {change} ");
        // Words rather than one letter, so that compression somewhere on the way does not flatter.
        let mut state = u64::from(device) << 32 | u64::from(change) | 1;
        while text.len() < self.report_bytes {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            text.push(char::from(b'a' + ((state >> 59) % 26) as u8));
        }
        text.truncate(self.report_bytes.max(32));
        text
    }
}
