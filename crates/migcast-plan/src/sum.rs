//! The sum of n independent draws from a distribution that is known by its draws.
//!
//! A mean says nothing of how often a sum stays below a budget. The distribution is laid on a lattice, each draw shared
//! between its two neighbours so that the mean stays what it is. The sum of n draws is its n-th power under convolution,
//! which is the plain n-th power of its Fourier transform, as quick for a million draws as for one. A lattice bends a sum
//! that passes its end back to its beginning, so it reaches to four times the budget: a sum that gets there by draws that
//! each stay below the budget has long been improbable. Draws beyond the budget leave the lattice; what is left of the
//! probability is that of sums without one.
//!
//! Draws may depend on something that all of a sum have in common and nobody knows: then there are several distributions,
//! each as likely, and a sum is drawn from one of them.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;

/// Cells between nothing and the limit. Sharing a draw between two of them adds at most a quarter of a squared cell to its
/// variance.
const CELLS: usize = 1 << 15;
/// So many times the limit.
const REACH: usize = 4;
/// Where a transform of real values begins to repeat itself.
const HALF: usize = REACH * CELLS / 2;
/// Counts beyond this are not told apart.
pub const COUNT_MAX: u64 = 1 << 20;
/// Rounding leaves a certain sum a little short of 1.
const ROUNDING: f64 = 1e-9;

/// What is left of a term that is smaller than e to this is less than rounding.
const NEGLIGIBLE: f64 = -45.0;

/// Sums of draws, as far as they stay within a limit.
#[derive(Clone, Debug)]
pub struct Sum {
    /// Fourier transform of one draw's probabilities, for each distribution: logarithms of its values, the first half. The
    /// other half mirrors it, since probabilities are real.
    logarithms: Vec<Vec<Complex<f64>>>,
    /// Conjugate of that of the lattice up to the limit, by the lattice's size: multiplied with a transform and summed up it
    /// gives the probability up to the limit. The first half, those that are mirrored twice.
    up_to_limit: Vec<Complex<f64>>,
    step: f64,
}

impl Sum {
    /// Draws from `draws` (at least one, none negative; infinite ones exceed every limit) below `limit` (more than 0).
    pub fn of(draws: &[f64], limit: f64) -> Sum {
        Sum::of_one_of(&[draws.to_vec()], limit)
    }

    /// Draws from one of these, at least one, each as likely.
    pub fn of_one_of(distributions: &[Vec<f64>], limit: f64) -> Sum {
        assert!(!distributions.is_empty() && limit > 0.0, "draws below a limit");
        let step = limit / CELLS as f64;
        let forward = FftPlanner::new().plan_fft_forward(REACH * CELLS);
        let transform = |draws: &Vec<f64>| -> Vec<Complex<f64>> {
            assert!(!draws.is_empty(), "something may happen");
            let mut one = vec![Complex::ZERO; REACH * CELLS];
            let share = 1.0 / draws.len() as f64;
            for draw in draws {
                let place = draw / step;
                if place > CELLS as f64 {
                    continue;
                }
                let (cell, rest) = (place.floor() as usize, place.fract());
                one[cell].re += share * (1.0 - rest);
                one[cell + 1].re += share * rest;
            }
            forward.process(&mut one);
            let (radius, angle) = (|value: &Complex<f64>| libm::log(value.norm()), |value: &Complex<f64>| value.arg());
            one[..=HALF].iter().map(|value| Complex::new(radius(value), angle(value))).collect()
        };
        let logarithms = distributions.iter().map(transform).collect();
        // Half a cell more, so that a sum that is the limit itself stays within it.
        let mut within = vec![Complex::ZERO; REACH * CELLS];
        within[..=CELLS].fill(Complex::ONE);
        forward.process(&mut within);
        let weight = |index: usize| if index == 0 || index == HALF { 1.0 } else { 2.0 } / (REACH * CELLS) as f64;
        let up_to_limit =
            within[..=HALF].iter().enumerate().map(|(index, value)| value.conj() * weight(index)).collect();
        Sum { logarithms, up_to_limit, step }
    }

    /// The transform of the sum of `count` draws, its first half.
    fn power(&self, count: u64) -> Vec<Complex<f64>> {
        let (count, share) = (count as f64, 1.0 / self.logarithms.len() as f64);
        let mut all = vec![Complex::ZERO; HALF + 1];
        for logarithms in &self.logarithms {
            for (sum, value) in all.iter_mut().zip(logarithms) {
                let size = count * value.re;
                if size > NEGLIGIBLE {
                    let (sine, cosine) = libm::sincos(count * value.im);
                    *sum += Complex::new(cosine, sine) * (share * libm::exp(size));
                }
            }
        }
        all
    }

    /// Probability that the sum of `count` draws stays within the limit.
    pub fn within(&self, count: u64) -> f64 {
        if count == 0 {
            return 1.0;
        }
        let sums = self.power(count);
        sums.iter().zip(&self.up_to_limit).map(|(sum, limit)| (sum * limit).re).sum::<f64>().clamp(0.0, 1.0)
    }

    /// The value below which the sum of `count` draws stays with this probability; infinite where that is beyond the limit.
    pub fn quantile(&self, count: u64, probability: f64) -> f64 {
        let mut mass = self.power(count);
        mass.extend((1..HALF).rev().map(|index| mass[index].conj()).collect::<Vec<_>>());
        FftPlanner::new().plan_fft_inverse(REACH * CELLS).process(&mut mass);
        let mut reached = 0.0;
        for (cell, mass) in mass[..=CELLS].iter().enumerate() {
            reached += mass.re / (REACH * CELLS) as f64;
            if reached >= probability - ROUNDING {
                return cell as f64 * self.step;
            }
        }
        f64::INFINITY
    }

    /// The most draws whose sum stays within the limit with this probability; at most [`COUNT_MAX`].
    pub fn most(&self, probability: f64) -> u64 {
        let fits = |count: u64| self.within(count) >= probability - ROUNDING;
        let (mut fit, mut not) = (0, 1);
        while fits(not) {
            if not >= COUNT_MAX {
                return COUNT_MAX;
            }
            (fit, not) = (not, 2 * not);
        }
        // More draws never cost less.
        while not - fit > 1 {
            let middle = u64::midpoint(fit, not);
            if fits(middle) { fit = middle } else { not = middle }
        }
        fit
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    #[test]
    fn equal_draws_fit_as_often_as_division_says() {
        assert_eq!(Sum::of(&[0.3], 10.0).most(0.95), 33);
        assert_eq!(Sum::of(&[2.5], 10.0).most(0.5), 4);
        assert_eq!(Sum::of(&[10.5], 10.0).most(0.5), 0);
        assert_eq!(Sum::of(&[f64::INFINITY], 10.0).most(0.5), 0);
        assert_eq!(Sum::of(&[0.0], 10.0).most(0.99), COUNT_MAX);
    }

    #[test]
    fn a_rare_long_one_costs_what_the_binomial_says() {
        // One in a hundred takes more than there is: n fit as long as 0.99^n is 0.95.
        let draws: Vec<f64> = (0..100).map(|index| if index == 0 { 100.0 } else { 0.0 }).collect();
        assert_eq!(Sum::of(&draws, 10.0).most(0.95), 5);
        // Four times 2.5 fit, with one chance in two each: at most four of n are long.
        let within = Sum::of(&[0.0, 2.5], 10.0).within(8);
        let binomial = [1.0, 8.0, 28.0, 56.0, 70.0].iter().sum::<f64>() / 256.0;
        assert!((within - binomial).abs() < 1e-9, "{within} and {binomial}");
    }

    #[test]
    fn many_small_draws_come_to_the_normal_distribution() {
        // Uniform over 0 to 0.02: 900 of them have a mean of 9 and a deviation of 0.173.
        let draws: Vec<f64> = (0..1_000).map(|index| 0.02 * (f64::from(index) + 0.5) / 1_000.0).collect();
        let within = Sum::of(&draws, 9.0 + 1.645 * 0.173_2).within(900);
        assert!((within - 0.95).abs() < 0.001, "{within}");
        let most = Sum::of(&draws, 10.0).most(0.95);
        assert!((968..=971).contains(&most), "{most}");
    }

    #[test]
    fn what_a_sum_has_in_common_does_not_average_out() {
        // 0.9 or 1.1 s each: of independent draws a hundred stay below 105 s, of draws that are all alike every other does.
        assert!(Sum::of(&[0.9, 1.1], 105.0).within(100) > 0.999);
        let alike = Sum::of_one_of(&[vec![0.9], vec![1.1]], 105.0);
        assert!((alike.within(100) - 0.5).abs() < 1e-6);
        assert_eq!(alike.quantile(100, 0.95), f64::INFINITY);
        assert!((alike.quantile(90, 0.95) - 99.0).abs() < 0.05);
        assert_eq!(alike.most(0.95), 95);
    }

    #[test]
    fn a_quantile_is_where_the_sum_is() {
        let sum = Sum::of(&[0.2, 0.3, 0.3, 4.0], 20.0);
        assert!((sum.quantile(1, 0.75) - 0.3).abs() < 1e-3 && (sum.quantile(1, 0.95) - 4.0).abs() < 1e-3);
        assert_eq!(sum.quantile(40, 0.95), f64::INFINITY);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn sums_are_what_drawing_says(draws in proptest::collection::vec(0.0..3.0f64, 1..20), count in 1u64..12, seed in any::<u64>()) {
            let limit = 12.0;
            let within = Sum::of(&draws, limit).within(count);
            let mut random = Random::new(seed);
            let rounds = 20_000;
            let drawn = (0..rounds).filter(|_| {
                (0..count).map(|_| draws[random.below(draws.len())]).sum::<f64>() <= limit
            }).count();
            prop_assert!((within - drawn as f64 / f64::from(rounds)).abs() < 0.03);
        }
    }
}
