//! Guests that do what a test says, shared by the tests of the algorithms' rules.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use migcast_model::dirty::{PageReplay, PageReplayBuilder, ZeroChange};
use migcast_model::manager::Watch;
use migcast_model::migration::{Command, Progress};
use migcast_model::outcome::Completed;
use migcast_model::units::{PageCount, SimTime};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A guest of `pages` pages and what it writes in each window (100 ms), after which it rests (for a minute). Of `n` pages written
/// in a window the `k`-th is written at `(k + ½) / n` of it; more than two are shuffled first.
pub(crate) struct Trace {
    /// Tracked pages.
    pub(crate) pages: u64,
    /// Pages of the guest each of them stands for.
    pub(crate) each: u64,
    pub(crate) zero: Range<u32>,
    pub(crate) windows: Vec<Vec<u32>>,
    /// Length of a window.
    pub(crate) window: Duration,
    /// Pages that become zero, or cease to be, as they are written in this window.
    pub(crate) zero_changes: Vec<(usize, ZeroChange)>,
}

impl Trace {
    pub(crate) fn new(pages: u64, windows: &[Range<u32>]) -> Trace {
        let windows = windows.iter().map(|range| range.clone().collect()).collect();
        Trace { pages, each: 1, zero: 0..0, windows, window: ms(100), zero_changes: Vec::new() }
    }

    pub(crate) fn idle(pages: u64) -> Trace {
        Trace::new(pages, &[])
    }

    pub(crate) fn with_zero(self, zero: Range<u32>) -> Trace {
        Trace { zero, ..self }
    }

    /// The pages written in each window, one by one.
    pub(crate) fn with_windows(self, windows: &[&[u32]]) -> Trace {
        Trace { windows: windows.iter().map(|written| written.to_vec()).collect(), ..self }
    }

    /// Each tracked page stands for `each` pages.
    pub(crate) fn sampled(self, each: u64) -> Trace {
        Trace { each, ..self }
    }

    pub(crate) fn memory(&self) -> PageCount {
        PageCount::new(self.pages * self.each)
    }

    pub(crate) fn source(&self) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(self.pages), self.memory());
        builder.zero_at_start(std::iter::once(self.zero.clone()));
        for (window, written) in self.windows.iter().enumerate() {
            let changes = self.zero_changes.iter().filter(|(at, _)| *at == window);
            builder.window(self.window, written, &changes.map(|(_, change)| *change).collect::<Vec<_>>());
        }
        (0..600).for_each(|_| builder.window(ms(100), &[], &[]));
        builder.build().unwrap()
    }
}

/// Pages with data sent in each iteration, stop-and-copy last.
pub(crate) fn data_pages(completed: &Completed) -> Vec<u64> {
    completed.iterations.iter().map(|iteration| iteration.sent.data.get()).collect()
}

/// To the nearest millisecond: a section's 18 bytes take four microseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    (duration + Duration::from_micros(500)).as_millis() as u64
}

/// Says each of these things so many milliseconds after the request.
#[derive(Clone, Debug)]
pub(crate) struct Script(VecDeque<(u64, Command)>);

impl Script {
    pub(crate) fn new(says: &[(u64, Command)]) -> Script {
        Script(says.iter().copied().collect())
    }
}

impl Watch for Script {
    fn next_look(&self) -> SimTime {
        self.0.front().map_or(SimTime::MAX, |(at, _)| SimTime::ZERO + ms(*at))
    }

    fn look(&mut self, _progress: &Progress) -> Option<Command> {
        self.0.pop_front().map(|(_, command)| command)
    }
}
