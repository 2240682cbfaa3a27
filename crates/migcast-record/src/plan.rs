//! Choosing how many pages to track: what a look costs is measured on this guest, not assumed.

use std::time::Duration;

use migcast_history::format::Block;
use migcast_history::sample::{Sample, SampleError, Tracked};

use crate::clock::Clock;
use crate::memory::{Memory, MemoryError, PAGE_SIZE};
use crate::scan::Scanner;

/// Part of the CPU limit that scans may use; the rest pays for writing segments and for looking at the guest's state.
const SCAN_SHARE: f64 = 0.7;
/// Pages of the first trial.
const TRIAL_PAGES: u64 = 1024;
/// Trials after the first: each has the size the one before suggests.
const TRIALS: u64 = 3;

/// Which pages to track, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleChoice {
    /// Every page.
    All,
    /// One page in this many, ≥ 1.
    OneIn(u32),
    /// As many as the CPU limit allows without making windows longer.
    Auto,
}

/// Why no sample could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The pages cannot be laid out.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// A sample, and what one scan of it costs in CPU time (zero where that was not tried).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) sample: Sample,
    pub(crate) scan_cost: Duration,
}

/// Chooses the sample: trial scans of different pages, each as large as the one before says is affordable.
pub(crate) fn choose(
    choice: SampleChoice,
    (window, cpu_limit, seed): (Duration, f64, u64),
    blocks: &[Block],
    memory: &mut dyn Memory,
    clock: &dyn Clock,
) -> Result<Plan, PlanError> {
    let one_in = match choice {
        SampleChoice::All => Some(1),
        SampleChoice::OneIn(one_in) => Some(one_in),
        SampleChoice::Auto => None,
    };
    if let Some(one_in) = one_in {
        return Ok(Plan { sample: sample_of(one_in, seed), scan_cost: Duration::ZERO });
    }
    let pages: u64 = blocks.iter().map(|block| block.length_bytes.div_ceil(PAGE_SIZE)).sum();
    let affordable = window.as_secs_f64() * cpu_limit * SCAN_SHARE;
    let mut one_in = one_in_of(pages, TRIAL_PAGES as f64);
    for trial in 0..=TRIALS {
        // Other pages each time, or the trial finds in the cache what the recording will not.
        let sample = Sample { one_in, seed: seed.wrapping_add(trial + 1) };
        let mut scanner = Scanner::new(Tracked::new(blocks, PAGE_SIZE, sample)?);
        scanner.prepare(memory);
        let before = clock.cpu();
        scanner.scan(memory)?;
        let cost = clock.cpu().saturating_sub(before).as_secs_f64().max(1e-9);
        let fits = f64::from(scanner.tracked()) * affordable / cost;
        let next = one_in_of(pages, fits);
        tracing::debug!(
            "trial: 1 in {one_in}, {} pages, {:.3} ms CPU; next 1 in {next}",
            scanner.tracked(),
            cost * 1e3
        );
        one_in = next;
    }
    Ok(Plan { sample: sample_of(one_in, seed), scan_cost: Duration::from_secs_f64(affordable) })
}

fn sample_of(one_in: u32, seed: u64) -> Sample {
    if one_in == 1 { Sample::full() } else { Sample { one_in, seed } }
}

/// The smallest 1/N that tracks at most about `tracked` of `pages`.
fn one_in_of(pages: u64, tracked: f64) -> u32 {
    let one_in = (pages as f64 / tracked.max(1.0)).ceil();
    // More than this many pages apart a sample says nothing; casting saturates.
    (one_in.max(1.0) as u32).min(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::fake::FakeTime;
    use crate::memory::{Look, Sink};

    /// Every look costs the same CPU time.
    struct Priced {
        time: FakeTime,
        per_page: Duration,
    }

    impl Memory for Priced {
        fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
            let cost = self.per_page * u32::try_from(pages.len()).unwrap();
            self.time.work(cost, cost);
            (0..pages.len()).for_each(|index| sink(index, Look::Hole));
            Ok(())
        }

        fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
            Ok(Vec::new())
        }
    }

    fn chosen(per_page: Duration, pages: u64) -> Sample {
        let time = FakeTime::default();
        let blocks = [Block { name: "ram".into(), length_bytes: pages * PAGE_SIZE, guest_physical_address: None }];
        let mut memory = Priced { time: time.clone(), per_page };
        choose(SampleChoice::Auto, (Duration::from_millis(100), 0.05, 1), &blocks, &mut memory, &time).unwrap().sample
    }

    #[test]
    fn auto_tracks_what_the_limit_pays_for() {
        // 100 ms at 5 % and 0.7 of it: 3.5 ms, 3500 pages of 1 µs.
        let sample = chosen(Duration::from_micros(1), 131_072);
        assert_eq!(sample.one_in, 131_072_u32.div_ceil(3500));
    }

    #[test]
    fn auto_tracks_everything_where_that_is_cheap() {
        assert!(chosen(Duration::from_micros(1), 3000).is_full());
    }
}
