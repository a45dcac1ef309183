//! A keyed permutation of `0..n` that stores nothing: a small Feistel network with cycle walking.

/// Bijective mixing of 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 2^64 divided by the golden ratio: steps of this size spread evenly over 64 bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A hash of `(seed, epoch, purpose)`; purposes keep independent draws of one epoch apart.
pub(crate) fn key(seed: u64, epoch: u64, purpose: u64) -> u64 {
    let absorb = |state: u64, word: u64| mix(state.wrapping_add(GOLDEN) ^ mix(word ^ GOLDEN));
    [epoch, purpose].into_iter().fold(mix(seed), absorb)
}

/// A uniform draw from `0..n` (n > 0) out of one hash; the bias is below n / 2^64.
pub(crate) fn below(hash: u64, n: u64) -> u64 {
    ((u128::from(hash) * u128::from(n)) >> 64) as u64
}

const ROUNDS: u64 = 8;

/// A pseudo-random permutation of `0..n`, chosen by a key and evaluated one index at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permutation {
    n: u64,
    half_bits: u32,
    key: u64,
}

impl Permutation {
    pub(crate) fn new(n: u64, key: u64) -> Self {
        // The network permutes 2^(2 * half_bits) >= n values, fewer than 4 n.
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self {
            n,
            half_bits: bits.div_ceil(2).max(1),
            key,
        }
    }

    /// Image of `index` (< n), which is again below n.
    pub(crate) fn get(&self, index: u64) -> u64 {
        debug_assert!(index < self.n);
        // Walking the cycle until it is back in range keeps the map one to one; it takes fewer
        // than four rounds on average.
        let mut value = self.network(index);
        while value >= self.n {
            value = self.network(value);
        }
        value
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1_u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for round in 0..ROUNDS {
            let scrambled = mix(self.key ^ mix(right.wrapping_add(GOLDEN.wrapping_mul(round + 1))));
            (left, right) = (right, left ^ (scrambled & mask));
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn every_value_comes_exactly_once(n in 1_u64..3000, key in any::<u64>()) {
            let permutation = Permutation::new(n, key);
            let mut seen = vec![false; n as usize];
            for i in 0..n {
                let value = permutation.get(i) as usize;
                prop_assert!(!seen[value]);
                seen[value] = true;
            }
        }
    }

    #[test]
    fn first_images_are_uniform_over_keys() {
        // Chi-square over 10 values and 10,000 keys: 9 degrees of freedom, 99.9 % point 27.9.
        let mut counts = [0_f64; 10];
        for seed in 0..10_000 {
            counts[Permutation::new(10, key(seed, 0, 0)).get(0) as usize] += 1.0;
        }
        let chi_square: f64 = counts.iter().map(|c| (c - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_square < 27.9, "{chi_square}");
    }

    #[test]
    fn neighbours_are_scattered() {
        // Of a random permutation of n values, about one index in all keeps its successor.
        let permutation = Permutation::new(10_000, 42);
        let kept = (0..9_999)
            .filter(|&i| permutation.get(i + 1) == permutation.get(i) + 1)
            .count();
        assert!(kept < 10, "{kept}");
    }

    #[test]
    fn large_domains_stay_in_range() {
        for n in [u64::from(u32::MAX), (1 << 62) + 1] {
            let permutation = Permutation::new(n, 1);
            assert!(
                [0, 1, n / 2, n - 1]
                    .into_iter()
                    .all(|i| permutation.get(i) < n)
            );
        }
    }

    #[test]
    fn below_covers_its_range() {
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u64::MAX, 7), 6);
    }
}
