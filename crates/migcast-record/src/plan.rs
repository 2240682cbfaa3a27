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

/// What a sample may cost, and how it is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    pub(crate) window: Duration,
    /// Share of one core, > 0.
    pub(crate) cpu_limit: f64,
    /// Threads that scan, ≥ 1: each has one core at most.
    pub(crate) threads: usize,
    pub(crate) seed: u64,
}

/// A sample, and what one scan of it costs in CPU time (zero where that was not tried).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) sample: Sample,
    pub(crate) scan_cost: Duration,
    /// What was chosen and why, for people; `None` where there was no choice.
    pub(crate) why: Option<String>,
}

/// Chooses the sample: trial scans of different pages, each as large as the one before says is affordable.
pub(crate) fn choose(
    choice: SampleChoice,
    means: Means,
    blocks: &[Block],
    memory: &mut dyn Memory,
    clock: &mut dyn Clock,
) -> Result<Plan, PlanError> {
    let Means { window, threads, seed, .. } = means;
    let one_in = match choice {
        SampleChoice::All => Some(1),
        SampleChoice::OneIn(one_in) => Some(one_in),
        SampleChoice::Auto => None,
    };
    if let Some(one_in) = one_in {
        return Ok(Plan { sample: sample_of(one_in, seed), scan_cost: Duration::ZERO, why: None });
    }
    let pages: u64 = blocks.iter().map(|block| block.length_bytes.div_ceil(PAGE_SIZE)).sum();
    let limit = means.cpu_limit.min(threads as f64);
    let affordable = window.as_secs_f64() * limit * SCAN_SHARE;
    let mut one_in = one_in_of(pages, TRIAL_PAGES as f64);
    let mut price = Price::default();
    for trial in 0..=TRIALS {
        // Other pages each time, or the trial finds in the cache what the recording will not.
        let sample = Sample { one_in, seed: seed.wrapping_add(trial + 1) };
        let mut scanner = Scanner::new(Tracked::new(blocks, PAGE_SIZE, sample)?).with_threads(threads);
        scanner.prepare(memory);
        price = Price::of_scan(&mut scanner, memory, clock)?;
        let next = one_in_of(pages, price.pages_for(affordable, window));
        tracing::debug!("trial: 1 in {one_in}, {} pages, {price:?}; next 1 in {next}", scanner.tracked());
        one_in = next;
    }
    let sample = sample_of(one_in, seed);
    let tracked = match Tracked::new(blocks, PAGE_SIZE, sample)?.count() {
        _ if sample.is_full() => format!("all {pages} pages"),
        tracked => format!("1/{one_in}, {tracked} of {pages} pages"),
    };
    let why = format!("--sample auto: {tracked}, because {}", price.why(limit, affordable, window));
    Ok(Plan { sample, scan_cost: Duration::from_secs_f64(affordable), why: Some(why) })
}

/// What a look at a page costs, in seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Price {
    cpu: f64,
    /// Time passed. With several threads it is less than the CPU time, if there are cores free for them.
    wall: f64,
}

impl Price {
    fn of_scan(scanner: &mut Scanner, memory: &mut dyn Memory, clock: &mut dyn Clock) -> Result<Price, MemoryError> {
        let (start, before) = (clock.now(), clock.cpu());
        let scan = scanner.scan(memory)?;
        clock.charge(scan.cpu_elsewhere);
        let per_page = |span: Duration| span.as_secs_f64().max(1e-9) / f64::from(scanner.tracked());
        let (cpu, wall) = (clock.cpu().saturating_sub(before), clock.now().saturating_sub(start));
        Ok(Price { cpu: per_page(cpu), wall: per_page(wall) })
    }

    /// Pages that `affordable` seconds of CPU time pay for, and that can be looked at in good time.
    fn pages_for(self, affordable: f64, window: Duration) -> f64 {
        (affordable / self.cpu).min(self.pages_in_time(window))
    }

    fn pages_in_time(self, window: Duration) -> f64 {
        window.as_secs_f64() * SCAN_SHARE / self.wall
    }

    /// What bounds [`Price::pages_for`], for people.
    fn why(self, limit: f64, affordable: f64, window: Duration) -> String {
        let share = SCAN_SHARE * 100.0;
        if self.pages_in_time(window) < affordable / self.cpu {
            return format!(
                "a look at a page takes {:.2} µs on this machine as it is now, and {share:.0} % of a window of \
                 {window:?} are for looks",
                self.wall * 1e6
            );
        }
        format!(
            "a look at a page costs {:.2} µs of CPU on this guest, and {share:.0} % of {} % of one core pay for {:.2} ms \
             of looks in a window of {window:?}",
            self.cpu * 1e6,
            (limit * 1e6).round() / 1e4,
            affordable * 1e3
        )
    }
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

    /// Every look costs the same CPU time, and as many times that of time passed.
    struct Priced {
        time: FakeTime,
        per_page: Duration,
        waits: u32,
    }

    impl Memory for Priced {
        fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
            let cost = self.per_page * u32::try_from(pages.len()).unwrap();
            self.time.work(cost * self.waits, cost);
            (0..pages.len()).for_each(|index| sink(index, Look::Hole));
            Ok(())
        }

        fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
            Ok(Vec::new())
        }
    }

    fn plan(
        choice: SampleChoice,
        (cpu_limit, threads): (f64, usize),
        (per_page, waits): (Duration, u32),
        pages: u64,
    ) -> Plan {
        let time = FakeTime::default();
        let blocks = [Block { name: "ram".into(), length_bytes: pages * PAGE_SIZE, guest_physical_address: None }];
        let mut memory = Priced { time: time.clone(), per_page, waits };
        let means = Means { window: Duration::from_millis(100), cpu_limit, threads, seed: 1 };
        choose(choice, means, &blocks, &mut memory, &mut time.clone()).unwrap()
    }

    const MICROSECOND: Duration = Duration::from_micros(1);

    fn auto(limit: (f64, usize), per_page: Duration, pages: u64) -> Plan {
        plan(SampleChoice::Auto, limit, (per_page, 0), pages)
    }

    #[test]
    fn auto_tracks_what_the_limit_pays_for_and_says_so() {
        // 100 ms at 5 % and 0.7 of it: 3.5 ms, 3500 pages of 1 µs.
        let plan = auto((0.05, 1), MICROSECOND, 131_072);
        assert_eq!(plan.sample.one_in, 131_072_u32.div_ceil(3500));
        let said = "--sample auto: 1/38, 3450 of 131072 pages, because a look at a page costs 1.00 µs of CPU on this guest, \
                    and 70 % of 5 % of one core pay for 3.50 ms of looks in a window of 100ms";
        assert_eq!(plan.why.unwrap(), said);
    }

    #[test]
    fn auto_tracks_everything_where_that_is_cheap() {
        let plan = auto((0.05, 1), MICROSECOND, 3000);
        assert!(plan.sample.is_full());
        assert!(plan.why.unwrap().starts_with("--sample auto: all 3000 pages, because "));
    }

    #[test]
    fn a_limit_of_more_cores_than_scan_pays_for_those_that_do() {
        let one_in = |cpu_limit, threads| auto((cpu_limit, threads), MICROSECOND, 1 << 20).sample.one_in;
        assert_eq!((one_in(1.0, 1), one_in(2.0, 2), one_in(8.0, 2)), (15, 8, 8));
    }

    #[test]
    fn a_scan_that_would_not_end_in_time_is_made_smaller() {
        // Two threads that get one core between them: 70 ms of a window, not 140.
        let plan = |waits| plan(SampleChoice::Auto, (2.0, 2), (MICROSECOND, waits), 1 << 20);
        assert_eq!(plan(1).sample.one_in, (1_u32 << 20).div_ceil(70_000));
        assert_eq!(plan(2).sample.one_in, (1_u32 << 20).div_ceil(35_000));
        let said = "because a look at a page takes 2.00 µs on this machine as it is now, and 70 % of a window of 100ms are \
                    for looks";
        assert!(plan(2).why.unwrap().ends_with(said));
    }

    #[test]
    fn what_is_asked_for_is_not_tried_nor_explained() {
        for (choice, one_in) in [(SampleChoice::All, 1), (SampleChoice::OneIn(16), 16)] {
            let plan = plan(choice, (0.05, 1), (MICROSECOND, 1), 131_072);
            assert_eq!((plan.sample.one_in, plan.scan_cost, plan.why), (one_in, Duration::ZERO, None));
        }
    }
}
