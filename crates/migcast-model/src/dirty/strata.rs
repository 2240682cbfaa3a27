//! How far a sample errs of which one page was drawn out of each run (stratum) of addresses.
//!
//! ```text
//!  runs         │ · · · a · · · · │ · b · · · · · · │ · · · · · · c · │
//!  neighbours           a ─── a run away ─── b ─ two runs ─ …         what pages differ by, a run and two runs apart
//!                  ·─·  a third of a run                              what the pages of one run differ by, on average
//! ```
//! One draw says nothing of how its run varies, but neighbours do (collapsed strata, successive differences; Wolter,
//! *Introduction to Variance Estimation*, 2007, ch. 2 and 8). Half the mean square of their difference is right where pages lie
//! at random, and too much where pages that lie together are alike: it grows with the distance (a *variogram*; Matheron 1963),
//! and two pages of one run are a third as far from each other as two neighbours. So it is drawn on from two runs over one to
//! a third of one, on a straight line: what bends does so downwards, as pages that are far apart are as different as can be, so
//! that the line is too high rather than too low.

/// Pages written all the time that a sample is taken to have missed: a count of which N were drawn has the variance N + ½
/// (the posterior of a Poisson rate; Jeffreys, *Theory of Probability*, 1961). Without it a draw that missed the few pages
/// which are in every span would be the surer the less it saw.
const MISSED: f64 = 0.5;

/// Variance of `w Σ y` over draws of one page out of each run of `weight` pages: `w (w − 1) (Σ S² + ½)`, with the variances within
/// the runs summed, `y` being each drawn page's part of the mean write set of a span of so many windows. Zero where all pages are
/// tracked.
pub(crate) fn variance(weight: f64, within_runs: f64, windows: f64) -> f64 {
    weight * (weight - 1.0) * (within_runs + MISSED * windows.min(1.0).powi(2))
}

/// What tracked pages differ by from the next and from the next but one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Differences {
    /// How many of each were compared.
    pairs: [f64; 2],
    /// Half the squares of the differences, summed.
    half_squares: [f64; 2],
}

impl Differences {
    /// Of so many neighbours that are in or out, so many of which differ from the next, and from the next but one.
    pub(crate) fn of_set(members: u32, borders: [u32; 2]) -> Differences {
        let pairs = [1, 2].map(|lag| f64::from(members.saturating_sub(lag)));
        Differences { pairs, half_squares: borders.map(|borders| f64::from(borders) / 2.0) }
    }

    /// Adds those of neighbours with these values, in the order of their addresses.
    pub(crate) fn add(&mut self, neighbours: &[f64]) {
        for lag in 1..=2 {
            let pairs = neighbours.iter().zip(neighbours.iter().skip(lag));
            self.pairs[lag - 1] += pairs.len() as f64;
            self.half_squares[lag - 1] += pairs.map(|(one, next)| (one - next).powi(2) / 2.0).sum::<f64>();
        }
    }

    /// Likewise of so many neighbours that are all 0.
    pub(crate) fn add_alike(&mut self, neighbours: usize) {
        (1..=2).for_each(|lag| self.pairs[lag - 1] += neighbours.saturating_sub(lag) as f64);
    }

    /// The variance within a run, of one page; `None` where no page has a neighbour. At least a third of what neighbours differ
    /// by, which is that of pages that differ the more the further apart they are, and at most all of it.
    pub(crate) fn within_run(&self) -> Option<f64> {
        let mean = |lag: usize| (self.pairs[lag - 1] > 0.0).then(|| self.half_squares[lag - 1] / self.pairs[lag - 1]);
        let next = mean(1)?;
        let Some(next_but_one) = mean(2) else { return Some(next) };
        Some((next - (next_but_one - next) * 2.0 / 3.0).clamp(next / 3.0, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(values: &[f64]) -> Option<f64> {
        let mut differences = Differences::default();
        differences.add(values);
        differences.within_run()
    }

    #[test]
    fn one_border_in_many_pages_says_that_runs_are_alike_within() {
        let values: Vec<f64> = (0..101).map(|page| f64::from(u8::from(page < 50))).collect();
        // One pair of 100, and two of 99: nearly a third of what neighbours differ by.
        let expected: f64 = 0.005 - (1.0 / 99.0 - 0.005) * 2.0 / 3.0;
        assert!((within(&values).unwrap() - expected.max(0.005 / 3.0)).abs() < 1e-12);
    }

    #[test]
    fn pages_at_random_differ_as_much_from_the_next_as_from_the_next_but_one() {
        let values: Vec<f64> = (0..10_000).map(|page| (crate::dirty::splitmix(7, page) >> 63) as f64).collect();
        assert!((within(&values).unwrap() - 0.25).abs() < 0.01);
    }

    #[test]
    fn every_other_page_is_told_to_vary_and_no_more_than_it_does() {
        let values: Vec<f64> = (0..100).map(|page| f64::from(page % 2)).collect();
        assert_eq!(within(&values), Some(0.5));
    }

    #[test]
    fn a_pair_is_enough_and_one_page_is_not() {
        assert_eq!((within(&[1.0, 0.0]), within(&[1.0]), within(&[])), (Some(0.5), None, None));
    }

    #[test]
    fn sets_and_idle_pages_count_as_their_values_would() {
        let values = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        // Borders at 1, 3 and 6; two apart all but (1, 1) … differ: 0-2, 1-3, 2-4, 4-6.
        assert_eq!(Differences::of_set(7, [3, 4]).within_run(), within(&values));
        let (mut told, mut shown) = (Differences::default(), Differences::default());
        [&mut told, &mut shown].into_iter().for_each(|differences| differences.add(&values));
        told.add_alike(5);
        shown.add(&[0.0; 5]);
        assert_eq!(told.within_run(), shown.within_run());
    }
}
