//! What tracking only some of a guest's pages costs a forecast: its sampling error.
//!
//! ```text
//!  tracked pages ─► two halves, by coin ─► each forecast by itself ─► half their difference, many times over
//! ```
//! The error of a count follows from how many pages were counted; that of a migration does not: a page too many in one
//! iteration lengthens the next. So the whole migration is simulated again with halves of the sample. Where only counts
//! are left ([`SamplingError::of_index`]), with counts that are too small and too large by their standard error.

use std::time::Duration;

use crate::dirty::{Deviating, PageReplay, PageSource, WwsIndex};
use crate::paired::{Difference, mean_difference};
use crate::simulate::Scenario;

/// Standard errors of a forecast from a sampled history: how far another draw of the tracked pages would move it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SamplingError {
    /// Of migration times, relative, ≥ 0.
    pub time: f64,
    /// Of downtimes, in seconds, ≥ 0.
    pub downtime_seconds: f64,
    /// Of the bytes sent, relative, ≥ 0.
    pub sent: f64,
}

/// Pairs of halves; the estimate has as many degrees of freedom.
const PAIRS: u64 = 8;

impl SamplingError {
    /// The error of a forecast of `scenario` from `replay` over `starts`. None for a full history; `None` where too few
    /// pages are tracked, or where no start converges with both halves.
    pub fn of(scenario: &Scenario, replay: &PageReplay, starts: &[Duration]) -> Option<SamplingError> {
        if replay.tracked() == scenario.guest.memory {
            return Some(SamplingError::default());
        }
        let differences: Option<Vec<Difference>> = (0..PAIRS)
            .map(|seed| {
                let [first, second] = replay.halves(seed)?;
                mean_difference(starts, |start| scenario.run(&first, start), |start| scenario.run(&second, start))
            })
            .collect();
        let differences = differences?;
        // The halves are half as large as the sample: the variance of their difference is four times the sample's. And
        // what is not left out cannot err.
        let left_out = 1.0 - replay.tracked().get() as f64 / scenario.guest.memory.get() as f64;
        let error = |quantity: fn(&Difference) -> f64| {
            let squares = differences.iter().map(|difference| quantity(difference).powi(2) / 4.0);
            (left_out * squares.sum::<f64>() / PAIRS as f64).sqrt()
        };
        Some(SamplingError {
            time: error(|difference| difference.log_time),
            downtime_seconds: error(|difference| difference.downtime_seconds),
            sent: error(|difference| difference.log_sent),
        })
    }

    /// The error of a forecast of `scenario` from an index over `starts`: half the difference that it makes whether the counts
    /// of written pages are larger or smaller by their standard errors, all of them at once, and likewise the zero pages.
    /// `None` where no start converges with both.
    pub fn of_index(scenario: &Scenario, index: &WwsIndex, starts: &[Duration]) -> Option<SamplingError> {
        if index.tracked() == scenario.guest.memory {
            return Some(SamplingError::default());
        }
        let run = |source: &Deviating<'_>, start| scenario.run(source, start);
        let difference = |more: &Deviating<'_>, fewer: &Deviating<'_>| {
            mean_difference(starts, |start| run(more, start), |start| run(fewer, start))
        };
        let written = difference(&index.deviating(1.0), &index.deviating(-1.0))?;
        let zero = difference(&index.deviating_in_zero(1.0), &index.deviating_in_zero(-1.0))?;
        let error = |quantity: fn(&Difference) -> f64| libm::hypot(quantity(&written), quantity(&zero)) / 2.0;
        Some(SamplingError {
            time: error(|difference| difference.log_time),
            downtime_seconds: error(|difference| difference.downtime_seconds),
            sent: error(|difference| difference.log_sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::dirty::{PageReplayBuilder, WwsIndexBuilder};
    use crate::guest::Guest;
    use crate::link::Link;
    use crate::platform::Platform;
    use crate::units::{BytesPerSec, PageCount};

    const MEMORY: u32 = 64_000;

    /// A guest that writes every page of a scattered tenth once a second, of which one page in `one_in` is tracked: what
    /// is written in each of 40 windows.
    fn windows(one_in: u32, draw: u32) -> (PageCount, Vec<Vec<u32>>) {
        let tracked: Vec<u32> =
            (0..MEMORY / one_in).map(|run| run * one_in + hash(run ^ draw << 20) % one_in).collect();
        let window = |window: u32| {
            let written = |page: u32| hash(page).is_multiple_of(10) && hash(page ^ 1 << 30) % 10 == window % 10;
            (0..tracked.len() as u32).filter(|rank| written(tracked[*rank as usize])).collect()
        };
        (PageCount::new(tracked.len() as u64), (0..40).map(window).collect())
    }

    fn replay(one_in: u32, draw: u32) -> PageReplay {
        let (tracked, windows) = windows(one_in, draw);
        let mut builder = PageReplayBuilder::new(tracked, PageCount::new(u64::from(MEMORY)));
        windows.iter().for_each(|written| builder.window(Duration::from_millis(100), written, &[]));
        builder.build().unwrap()
    }

    fn index(one_in: u32, draw: u32) -> WwsIndex {
        let (tracked, windows) = windows(one_in, draw);
        let mut builder = WwsIndexBuilder::new(tracked, PageCount::new(u64::from(MEMORY)));
        windows.iter().for_each(|written| builder.window(Duration::from_millis(100), written, &[]));
        builder.build().unwrap()
    }

    fn hash(value: u32) -> u32 {
        (crate::dirty::splitmix(1, u64::from(value)) >> 32) as u32
    }

    fn scenario() -> Scenario {
        Scenario {
            guest: Guest { name: "g".into(), memory: PageCount::new(u64::from(MEMORY)), page_size: Guest::PAGE_SIZE },
            link: Link::ethernet(BytesPerSec::from_bits(400_000_000)),
            platform: Platform::free(),
            algorithm: Algorithm::named("qemu-10.0").unwrap(),
            horizon: Duration::from_secs(120),
        }
    }

    #[test]
    fn a_full_history_has_no_sampling_error() {
        assert_eq!(SamplingError::of(&scenario(), &replay(1, 0), &[Duration::ZERO]), Some(SamplingError::default()));
    }

    #[test]
    fn too_small_a_sample_has_an_unknown_error() {
        let mut builder = PageReplayBuilder::new(PageCount::new(1), PageCount::new(u64::from(MEMORY)));
        builder.window(Duration::from_millis(100), &[], &[]);
        assert_eq!(SamplingError::of(&scenario(), &builder.build().unwrap(), &[Duration::ZERO]), None, "one page");
        let hurried = Scenario { horizon: Duration::from_millis(1), ..scenario() };
        assert_eq!(SamplingError::of(&hurried, &replay(40, 0), &[Duration::ZERO]), None, "nothing converges");
    }

    #[test]
    fn the_error_is_that_of_drawing_other_pages() {
        let scenario = scenario();
        let starts: Vec<Duration> = (0..10).map(|start| Duration::from_millis(400 * start)).collect();
        let log_time = |replay: &PageReplay| {
            let time = |start: &Duration| {
                libm::log(scenario.run(replay, *start).completed().unwrap().migration_time.as_secs_f64())
            };
            starts.iter().map(time).sum::<f64>() / starts.len() as f64
        };
        let draws: Vec<PageReplay> = (0..12).map(|draw| replay(40, draw)).collect();
        let times: Vec<f64> = draws.iter().map(log_time).collect();
        let mean = times.iter().sum::<f64>() / times.len() as f64;
        let scatter = (times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / 11.0).sqrt();
        let errors: Vec<f64> =
            draws.iter().take(4).map(|draw| SamplingError::of(&scenario, draw, &starts).unwrap().time).collect();
        let estimated = (errors.iter().map(|error| error.powi(2)).sum::<f64>() / 4.0).sqrt();
        assert!((0.5..2.0).contains(&(estimated / scatter)), "estimated {estimated}, draws scatter by {scatter}");
    }

    #[test]
    fn counts_alone_tell_the_error_as_halves_do() {
        let scenario = scenario();
        let starts: Vec<Duration> = (0..10).map(|start| Duration::from_millis(400 * start)).collect();
        let errors = (0..4).map(|draw| {
            let (halves, counts) = (replay(40, draw), index(40, draw));
            let errors =
                [SamplingError::of(&scenario, &halves, &starts), SamplingError::of_index(&scenario, &counts, &starts)];
            errors.map(|error| error.unwrap().time.powi(2))
        });
        let [halves, counts] = errors.fold([0.0, 0.0], |sum, more| [sum[0] + more[0], sum[1] + more[1]]).map(f64::sqrt);
        assert!((0.4..2.5).contains(&(counts / halves)), "{counts} by counts, {halves} by halves");
        let full = SamplingError::of_index(&scenario, &index(1, 0), &starts);
        assert_eq!(full, Some(SamplingError::default()));
    }
}
