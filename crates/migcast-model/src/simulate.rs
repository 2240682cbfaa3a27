//! One simulated migration on a link of its own.

use crate::migration::{Event, Migration};
use crate::outcome::Outcome;
use crate::units::{BytesPerSec, SimTime};

/// Runs `migration` over a link that always carries `goodput`, until it completes or `horizon` has come.
pub fn simulate(mut migration: impl Migration, goodput: BytesPerSec, horizon: SimTime) -> Outcome {
    loop {
        match migration.advance(goodput, horizon) {
            Event::Completed(completed) => return Outcome::Completed(*completed),
            Event::IterationEnded | Event::Stopped => {}
            Event::Paused => return Outcome::NotConverged(migration.progress()),
        }
    }
}
