//! What tracking only some of a guest's pages costs a forecast: its sampling error.
//!
//! ```text
//!  tracked pages ─► two halves, by coin ─► each forecast by itself ─► half their difference, many times over
//! ```
//! The error of a count follows from how many pages were counted; that of a migration does not: a page too many in one
//! iteration lengthens the next. So the whole migration is simulated again with halves of the sample.

use std::time::Duration;

use rayon::prelude::*;

use crate::dirty::{PageReplay, PageSource};
use crate::outcome::Completed;
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
/// Starting points simulated of each half: what depends on the start alone averages out.
const STARTS: usize = 24;

impl SamplingError {
    /// The error of a forecast of `scenario` from `replay` over `starts`. None for a full history; `None` where too few
    /// pages are tracked, or where no start converges with both halves.
    pub fn of(scenario: &Scenario, replay: &PageReplay, starts: &[Duration]) -> Option<SamplingError> {
        if replay.tracked() == scenario.guest.memory {
            return Some(SamplingError::default());
        }
        let count = starts.len().min(STARTS);
        let starts: Vec<Duration> = (0..count).map(|index| starts[index * starts.len() / count]).collect();
        let differences: Option<Vec<[f64; 3]>> =
            (0..PAIRS).map(|seed| difference(scenario, &replay.halves(seed)?, &starts)).collect();
        let differences = differences?;
        // The halves are half as large as the sample: the variance of their difference is four times the sample's. And
        // what is not left out cannot err.
        let left_out = 1.0 - replay.tracked().get() as f64 / scenario.guest.memory.get() as f64;
        let error = |quantity: usize| {
            let squares = differences.iter().map(|difference| difference[quantity].powi(2) / 4.0);
            (left_out * squares.sum::<f64>() / PAIRS as f64).sqrt()
        };
        Some(SamplingError { time: error(0), downtime_seconds: error(1), sent: error(2) })
    }
}

/// Of log time, of downtime in seconds and of log bytes: the mean difference between two halves over `starts`.
fn difference(scenario: &Scenario, halves: &[PageReplay; 2], starts: &[Duration]) -> Option<[f64; 3]> {
    let quantities = |done: &Completed| {
        let time = libm::log(done.migration_time.as_secs_f64());
        [time, done.downtime.total().as_secs_f64(), libm::log(done.sent_bytes.get() as f64)]
    };
    let one = |start: &Duration| {
        let [first, second] = halves.each_ref().map(|half| scenario.run(half, *start));
        let (first, second) = (quantities(first.completed()?), quantities(second.completed()?));
        Some(std::array::from_fn(|quantity| first[quantity] - second[quantity]))
    };
    let differences: Vec<[f64; 3]> = starts.par_iter().filter_map(one).collect();
    let mean = |quantity: usize| {
        differences.iter().map(|difference| difference[quantity]).sum::<f64>() / differences.len() as f64
    };
    (!differences.is_empty()).then(|| std::array::from_fn(mean))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::dirty::PageReplayBuilder;
    use crate::guest::Guest;
    use crate::link::Link;
    use crate::platform::Platform;
    use crate::units::{BytesPerSec, PageCount};

    const MEMORY: u32 = 64_000;

    /// A guest that writes every page of a scattered tenth once a second, of which one page in `one_in` is tracked.
    fn replay(one_in: u32, draw: u32) -> PageReplay {
        let tracked: Vec<u32> =
            (0..MEMORY / one_in).map(|run| run * one_in + hash(run ^ draw << 20) % one_in).collect();
        let mut builder =
            PageReplayBuilder::new(PageCount::new(tracked.len() as u64), PageCount::new(u64::from(MEMORY)));
        for window in 0..40 {
            let written = |page: u32| hash(page).is_multiple_of(10) && hash(page ^ 1 << 30) % 10 == window % 10;
            let ranks = (0..tracked.len() as u32).filter(|rank| written(tracked[*rank as usize]));
            builder.window(Duration::from_millis(100), &ranks.collect::<Vec<_>>(), &[]);
        }
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
}
