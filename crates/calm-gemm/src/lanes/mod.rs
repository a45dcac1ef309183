//! Vectors of neighbouring numbers that stay in a register: one kernel's text for every
//! instruction set, where the compiler's own vectors would go through memory.

mod vectors;

use half::bf16;

/// A vector of `N` numbers. The methods are safe to call where the machine has the instructions,
/// which is what the caller of a `by_level!` function has checked.
pub trait Lanes: Copy {
    const N: usize;

    fn zero() -> Self;

    fn splat(x: f32) -> Self;

    /// The numbers from `data[at]` on.
    ///
    /// # Panics
    /// Where they lie outside.
    fn load(data: &[f32], at: usize) -> Self;

    /// The same of bf16, widened.
    ///
    /// # Panics
    /// Where they lie outside.
    fn load_bf16(data: &[bf16], at: usize) -> Self;

    /// The same of whole numbers.
    ///
    /// # Panics
    /// Where they lie outside.
    fn load_i8(data: &[i8], at: usize) -> Self;

    /// The reverse of [`Lanes::load`].
    fn store(self, data: &mut [f32], at: usize);

    fn add(self, other: Self) -> Self;

    fn sub(self, other: Self) -> Self;

    fn mul(self, other: Self) -> Self;

    /// `self + a b`, rounded once where the machine can.
    fn add_product(self, a: Self, b: Self) -> Self;

    /// The larger of both; `self` where a number is none.
    fn at_least(self, low: Self) -> Self;

    /// The smaller of both; `self` where a number is none.
    fn at_most(self, high: Self) -> Self;

    /// `2^n`, n in -126 ..= 127, from the low bits of numbers to which 1.5 * 2^23 was added.
    fn power_of_two(self) -> Self;

    fn total(self) -> f32;

    /// The largest; what is no number is passed over.
    fn largest(self) -> f32;
}

/// `1.5 * 2^23`: adding it rounds to an integer, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// `e^x` within 2 units in the last place; constant below -87.3 (1.2e-38) and above 88.3 (2.2e38).
#[inline(always)]
pub fn exp<V: Lanes>(x: V) -> V {
    let c = V::splat;
    let x = x.at_least(c(-87.3)).at_most(c(88.3));
    let shifted = c(MAGIC).add_product(x, c(std::f32::consts::LOG2_E));
    let n = shifted.sub(c(MAGIC));
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = x.add_product(n, c(-0.693_359_4));
    let r = r.add_product(n, c(2.121_944_4e-4));
    // The series of e^r with coefficients fitted to |r| <= ln(2) / 2.
    let p = c(1.398_199_9e-3).add_product(c(1.987_569_1e-4), r);
    let p = c(8.333_452e-3).add_product(p, r);
    let p = c(4.166_579_6e-2).add_product(p, r);
    let p = c(1.666_666_5e-1).add_product(p, r);
    let p = c(5e-1).add_product(p, r);
    let value = r.add_product(p.mul(r), r).add(c(1.0));
    value.mul(shifted.power_of_two())
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The largest of some numbers, `-inf` of none; what is no number is passed over.
#[inline(always)]
pub fn largest<V: Lanes>(row: &[f32]) -> f32 {
    let whole = row.len() / V::N * V::N;
    let mut tops = V::splat(f32::NEG_INFINITY);
    for j in (0..whole).step_by(V::N) {
        tops = tops.at_least(V::load(row, j));
    }
    row[whole..]
        .iter()
        .fold(tops.largest(), |top, &x| top.at_least(x))
}

/// `f` of every number of a row, in place, and the sum of the results.
#[inline(always)]
pub fn replace_all<V: Lanes>(
    row: &mut [f32],
    many: impl Fn(V) -> V,
    one: impl Fn(f32) -> f32,
) -> f32 {
    let whole = row.len() / V::N * V::N;
    let mut sums = V::zero();
    for j in (0..whole).step_by(V::N) {
        let y = many(V::load(row, j));
        y.store(row, j);
        sums = sums.add(y);
    }
    let mut total = sums.total();
    for x in &mut row[whole..] {
        *x = one(*x);
        total += *x;
    }
    total
}

/// Makes a function of a kernel that is generic over [`Lanes`] and has the given parameters: compiled
/// once for each instruction set, picked at run time.
#[macro_export]
macro_rules! by_level {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? = $kernel:ident [$($parameter:tt),*]) => {
        $(#[$meta])*
        $vis fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::simd::{Level, level};
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $out)? {
                    $kernel::<std::arch::x86_64::__m512 $(, $parameter)*>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn middle($($arg: $ty),*) $(-> $out)? {
                    $kernel::<std::arch::x86_64::__m256 $(, $parameter)*>($($arg),*)
                }
                match level() {
                    // SAFETY: the features were found.
                    Level::Wide => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    Level::Middle => return unsafe { middle($($arg),*) },
                    Level::Base => {}
                }
            }
            $kernel::<[f32; 8] $(, $parameter)*>($($arg),*)
        }
    };
}
#[cfg(test)]
mod tests {
    use super::*;

    fn check<V: Lanes>() {
        let numbers: Vec<f32> = (0..997).map(|i| (i as f32 - 500.0) * 0.17).collect();
        for n in [0, 1, 7, 8, 15, 16, 17, 100, 997] {
            let mut row = numbers[..n].to_vec();
            let expected = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest::<V>(&row), expected, "of {n}");
            let total = replace_all::<V>(&mut row, exp, exp);
            let mut sum = 0.0;
            for (&y, &x) in row.iter().zip(&numbers) {
                let expected = f64::from(x.clamp(-87.3, 88.3)).exp();
                let error = (f64::from(y) - expected).abs();
                assert!(
                    error <= 3e-7 * expected,
                    "e^{x} is {y}, expected {expected}"
                );
                sum += expected;
            }
            assert!(
                (f64::from(total) - sum).abs() <= 1e-6 * sum,
                "{total}, expected {sum}"
            );
        }
        // What is no number stays what it is, and is never the largest.
        let mut row = vec![1.0; 2 * V::N];
        row[0] = f32::NAN;
        assert_eq!(largest::<V>(&row), 1.0);
        assert!(replace_all::<V>(&mut row, exp, exp).is_nan());
        assert!(row[0].is_nan() && row[1].is_finite());
        // The ends of the range.
        let mut row = vec![f32::INFINITY; V::N];
        row[0] = f32::NEG_INFINITY;
        replace_all::<V>(&mut row, exp, exp);
        assert!(row[0] < 1.3e-38 && row[1..].iter().all(|y| y.is_finite() && *y > 2e38));
    }

    /// The suite only sees the widest vectors of the machine that it runs on.
    #[test]
    fn all_vectors_agree() {
        check::<f32>();
        check::<[f32; 8]>();
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Level, level};
            if level() >= Level::Middle {
                check::<std::arch::x86_64::__m256>();
            }
            if level() == Level::Wide {
                check::<std::arch::x86_64::__m512>();
            }
        }
    }

    #[test]
    fn exp_is_close_everywhere() {
        let mut x = -87.0f32;
        while x < 88.0 {
            let expected = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!(
                (got - expected).abs() <= 3e-7 * expected,
                "e^{x} is {got}, expected {expected}"
            );
            x += 0.001_7;
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) < 1.3e-38 && exp(f32::NEG_INFINITY) < 1.3e-38);
        assert!(exp(1e9).is_finite());
    }
}
