//! Named, independent random streams: one more draw or one more entity never shifts another's.

use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

/// The random stream of entity `entity` for the purpose `name` under `seed`.
#[must_use]
pub fn stream(seed: u64, name: &str, entity: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(mix(seed, name, entity))
}

/// Whether entity `entity` is among a share `share` (0 to 1) of all, for the purpose `name` under `seed`.
#[must_use]
pub fn chosen(seed: u64, name: &str, entity: u64, share: f64) -> bool {
    // 53 bits: what a float holds exactly.
    ((mix(seed, name, entity) >> 11) as f64) < share * (1u64 << 53) as f64
}

/// FNV-1a over the name, then SplitMix64 finalization over each part: cheap, stable across platforms and versions.
fn mix(seed: u64, name: &str, entity: u64) -> u64 {
    let named = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    [seed, named, entity].into_iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, part| {
        let mut z = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_chosen_about_as_often_as_it_says() {
        let of_ten_thousand = (0..10_000).filter(|&entity| chosen(7, "x", entity, 0.25)).count();
        assert!((2_300..2_700).contains(&of_ten_thousand), "{of_ten_thousand}");
        assert!(!(0..1_000).any(|entity| chosen(7, "x", entity, 0.0)));
        assert!((0..1_000).all(|entity| chosen(7, "x", entity, 1.0)));
    }
}
