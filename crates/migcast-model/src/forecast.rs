//! A forecast: the distribution of outcomes over many starting points of a source.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;

use crate::due::DueSource;
use crate::outcome::{Completed, Outcome};
use crate::simulate::Scenario;

/// The outcomes of a scenario over its starting points.
#[derive(Clone, Debug)]
pub struct Forecast {
    starts: Vec<(Duration, Outcome)>,
}

/// A quantity's distribution over starting points. A migration that does not converge counts as +∞, shown as `None`;
/// so the mean is `None` as soon as one does not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distribution {
    /// Arithmetic mean.
    pub mean: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// 5 % quantile (nearest rank, as all quantiles here).
    pub p5: Option<f64>,
    /// Median.
    pub p50: Option<f64>,
    /// 95 % quantile.
    pub p95: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
}

impl Distribution {
    /// Of `values`, at least one; those that are not finite never come to an end.
    pub fn of(mut values: Vec<f64>) -> Distribution {
        values.sort_by(f64::total_cmp);
        let finite = |value: f64| value.is_finite().then_some(value);
        let at = |q| finite(quantile(&values, q));
        Distribution {
            mean: finite(values.iter().sum::<f64>() / values.len() as f64),
            min: finite(values[0]),
            p5: at(0.05),
            p50: at(0.5),
            p95: at(0.95),
            max: finite(values[values.len() - 1]),
        }
    }

    /// The same with a lower bound that scatter, which knows of none, cannot pass. The mean is left as it is.
    pub fn at_least(self, bound: f64) -> Distribution {
        let raise = |value: Option<f64>| value.map(|value| value.max(bound));
        let Distribution { mean, min, p5, p50, p95, max } = self;
        Distribution { mean, min: raise(min), p5: raise(p5), p50: raise(p50), p95: raise(p95), max: raise(max) }
    }
}

/// How a platform scatters a quantity about its forecast from one starting point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scatter {
    /// Not at all, or nobody knows.
    None,
    /// Log-normally, with this relative standard deviation (> 0).
    Relative(f64),
    /// Normally, with this standard deviation in the quantity's unit (> 0); values end at zero.
    Absolute(f64),
}

impl Scatter {
    /// Equally likely values about one: itself, or 39 quantiles.
    pub fn spread(self, value: f64) -> Vec<f64> {
        match self {
            Scatter::None => vec![value],
            Scatter::Relative(sd) => normal_quantiles().map(|z| value * libm::exp(sd * z)).to_vec(),
            Scatter::Absolute(sd) => normal_quantiles().map(|z| f64::max(value + sd * z, 0.0)).to_vec(),
        }
    }

    /// Seven equally likely errors of an absolute scatter, the middle one 0; of another one only that.
    pub fn off(self) -> Vec<f64> {
        match self {
            Scatter::Absolute(sd) => normal_quantiles().iter().skip(1).step_by(6).map(|z| sd * z).collect(),
            Scatter::None | Scatter::Relative(_) => vec![0.0],
        }
    }
}

impl Forecast {
    /// Simulates `scenario` from every one of `starts` (at least one), on all cores. `done` is called after each, from
    /// any thread: for a progress bar.
    pub fn new<S: DueSource + ?Sized>(
        scenario: &Scenario,
        source: &S,
        starts: &[Duration],
        done: impl Fn() + Sync,
    ) -> Forecast {
        assert!(!starts.is_empty(), "a forecast has at least one start");
        // One alone has nobody to share with.
        let first_pass = (starts.len() > 1).then(Arc::default);
        let simulate = |start: &Duration| {
            let outcome = scenario.run_sharing(first_pass.as_ref(), source, *start);
            done();
            (*start, outcome)
        };
        Forecast { starts: starts.par_iter().map(simulate).collect() }
    }

    /// The same behind earlier starts, its own counted from `begins` on.
    #[must_use]
    pub fn after(self, mut earlier: Vec<(Duration, Outcome)>, begins: Duration) -> Forecast {
        earlier.extend(self.starts.into_iter().map(|(start, outcome)| (begins + start, outcome)));
        Forecast { starts: earlier }
    }

    /// Each start, in order, with its outcome.
    pub fn starts(&self) -> &[(Duration, Outcome)] {
        &self.starts
    }

    /// The same from these of its starts only, at least one.
    #[must_use]
    pub fn only(&self, starts: &[Duration]) -> Forecast {
        let mut wanted = starts.to_vec();
        wanted.sort_unstable();
        let is_wanted = |(start, _): &&(Duration, Outcome)| wanted.binary_search(start).is_ok();
        let starts: Vec<_> = self.starts.iter().filter(is_wanted).cloned().collect();
        assert!(!starts.is_empty(), "a forecast has at least one start");
        Forecast { starts }
    }

    /// The migrations that completed.
    pub fn completed(&self) -> impl Iterator<Item = &Completed> {
        self.starts.iter().filter_map(|(_, outcome)| outcome.completed())
    }

    /// The distribution of one quantity over the starting points.
    pub fn distribution(&self, quantity: impl Fn(&Completed) -> f64) -> Distribution {
        self.scattered(quantity, Scatter::None)
    }

    /// The distribution of one quantity over the starting points, each value spread by the platform's scatter.
    pub fn scattered(&self, quantity: impl Fn(&Completed) -> f64, scatter: Scatter) -> Distribution {
        Distribution::of(self.values(quantity, scatter))
    }

    /// One quantity at the quantile `q` in [0, 1], over the starting points alone; `None` where that start does not
    /// converge.
    pub fn quantile(&self, quantity: impl Fn(&Completed) -> f64, q: f64) -> Option<f64> {
        self.scattered_quantile(quantity, Scatter::None, q)
    }

    /// The same with a scatter of the platform, see [`Forecast::scattered`].
    pub fn scattered_quantile(&self, quantity: impl Fn(&Completed) -> f64, scatter: Scatter, q: f64) -> Option<f64> {
        let mut values = self.values(quantity, scatter);
        values.sort_by(f64::total_cmp);
        Some(quantile(&values, q)).filter(|value| value.is_finite())
    }

    /// How often each stop reason occurs.
    pub fn stop_reasons(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for (_, outcome) in &self.starts {
            *counts.entry(outcome.stop_reason()).or_insert(0) += 1;
        }
        counts
    }

    /// The start whose migration time is the median (nearest rank), with its outcome.
    pub fn median(&self) -> &(Duration, Outcome) {
        let time = |outcome: &Outcome| outcome.completed().map_or(Duration::MAX, |completed| completed.migration_time);
        let mut order: Vec<&(Duration, Outcome)> = self.starts.iter().collect();
        order.sort_by_key(|(start, outcome)| (time(outcome), *start));
        order[rank(order.len(), 0.5)]
    }

    fn values(&self, quantity: impl Fn(&Completed) -> f64, scatter: Scatter) -> Vec<f64> {
        let value = |outcome: &Outcome| outcome.completed().map_or(f64::INFINITY, &quantity);
        self.starts.iter().map(|(_, outcome)| value(outcome)).flat_map(|value| scatter.spread(value)).collect()
    }
}

/// The standard normal distribution at 1/40, 2/40, … 39/40, the lower half mirrored: with nearest ranks its 5 % and 95 %
/// quantiles are exact even for a single starting point.
fn normal_quantiles() -> [f64; 39] {
    const UPPER: [f64; 19] = [
        0.062_707, 0.125_661, 0.189_118, 0.253_347, 0.318_639, 0.385_320, 0.453_762, 0.524_401, 0.597_760, 0.674_490,
        0.755_415, 0.841_621, 0.934_589, 1.036_433, 1.150_349, 1.281_552, 1.439_531, 1.644_854, 1.959_964,
    ];
    std::array::from_fn(|index| match index {
        0..19 => -UPPER[18 - index],
        19 => 0.0,
        _ => UPPER[index - 20],
    })
}

/// At most `most` of `all`, evenly spread.
pub fn thinned<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let count = all.len().min(most);
    (0..count).map(|index| all[index * all.len() / count]).collect()
}

/// The value at the nearest rank of quantile `q` in sorted, non-empty values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[rank(sorted.len(), q)]
}

fn rank(len: usize, q: f64) -> usize {
    ((q * len as f64).ceil() as usize).clamp(1, len) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values = [1.0, 2.0, 3.0, 4.0, f64::INFINITY];
        assert_eq!(quantile(&values, 0.0), 1.0);
        assert_eq!(quantile(&values, 0.2), 1.0);
        assert_eq!(quantile(&values, 0.21), 2.0);
        assert_eq!(quantile(&values, 0.5), 3.0);
        assert_eq!(quantile(&values, 0.8), 4.0);
        assert_eq!(quantile(&values, 0.95), f64::INFINITY);
    }

    #[test]
    fn what_is_thinned_stays_evenly_spread() {
        assert_eq!(thinned(&[0, 1, 2, 3, 4, 5, 6], 3), [0, 2, 4]);
        assert_eq!(thinned(&[0, 1, 2], 3), [0, 1, 2]);
        assert_eq!(thinned(&[0, 1], 3), [0, 1]);
        assert!(thinned::<u32>(&[], 3).is_empty());
    }

    #[test]
    fn scatter_widens_a_band_and_leaves_its_middle() {
        // A single value of 100 with 5 % of scatter: 5 to 95 % is 100 × e^(∓1.645 × 0.05).
        let source = crate::dirty::ConstantRate::new(
            crate::units::PageCount::new(100),
            crate::units::PageCount::ZERO,
            crate::units::PagesPerSec::ZERO,
            crate::dirty::WritePattern::Uniform,
            0,
        );
        let scenario = Scenario {
            guest: crate::guest::Guest::new("g", crate::units::ByteCount::new(100 * 4096)),
            link: crate::link::Link::ethernet(crate::units::BytesPerSec::new(1_000_000)),
            platform: crate::platform::Platform::free(),
            algorithm: crate::algorithm::Algorithm::named("qemu").unwrap(),
            horizon: Duration::from_secs(60),
        };
        let forecast = Forecast::new(&scenario, &source, &[Duration::ZERO], || {});
        let band = forecast.scattered(|_| 100.0, Scatter::Relative(0.05));
        assert!((band.p5.unwrap() - 92.105).abs() < 0.01, "{band:?}");
        assert!((band.p95.unwrap() - 108.571).abs() < 0.01, "{band:?}");
        assert_eq!(band.p50, Some(100.0));
        let band = forecast.scattered(|_| 100.0, Scatter::Absolute(20.0));
        assert!((band.p5.unwrap() - 67.103).abs() < 0.01, "{band:?}");
        assert!((band.p95.unwrap() - 132.897).abs() < 0.01, "{band:?}");
        assert_eq!(forecast.scattered(|_| 1.0, Scatter::Absolute(20.0)).min, Some(0.0));
        assert_eq!(forecast.distribution(|_| 100.0).p95, Some(100.0));
        let bounded = band.at_least(80.0);
        assert_eq!((bounded.p5, bounded.p50, bounded.p95), (Some(80.0), band.p50, band.p95));
    }
}
