//! Two versions of a scenario, simulated from the same starting points: what one moves against the other.
//!
//! What depends on the start alone falls on both and is not in their difference.

use std::time::Duration;

use rayon::prelude::*;

use crate::forecast::thinned;
use crate::outcome::{Completed, Outcome};

/// Starting points simulated of each version.
const STARTS: usize = 24;

/// What the first version has more than the second, on average over the starting points.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Difference {
    /// Of the logarithms of the migration times.
    pub(crate) log_time: f64,
    /// Of the downtimes, in seconds.
    pub(crate) downtime_seconds: f64,
    /// Of the logarithms of the bytes sent.
    pub(crate) log_sent: f64,
}

/// The mean difference over up to [`STARTS`] of `starts`. A start from which only one version converges tells nothing;
/// `None` where that is all of them.
pub(crate) fn mean_difference(
    starts: &[Duration],
    first: impl Fn(Duration) -> Outcome + Sync,
    second: impl Fn(Duration) -> Outcome + Sync,
) -> Option<Difference> {
    let quantities = |done: &Completed| {
        let time = libm::log(done.migration_time.as_secs_f64());
        [time, done.downtime.total().as_secs_f64(), libm::log(done.sent_bytes.get() as f64)]
    };
    let one = |start: &Duration| {
        let (first, second) = (first(*start), second(*start));
        let (first, second) = (quantities(first.completed()?), quantities(second.completed()?));
        Some(std::array::from_fn(|quantity| first[quantity] - second[quantity]))
    };
    let differences: Vec<[f64; 3]> = thinned(starts, STARTS).par_iter().filter_map(one).collect();
    let mean = |quantity: usize| {
        differences.iter().map(|difference| difference[quantity]).sum::<f64>() / differences.len() as f64
    };
    (!differences.is_empty()).then(|| Difference { log_time: mean(0), downtime_seconds: mean(1), log_sent: mean(2) })
}
