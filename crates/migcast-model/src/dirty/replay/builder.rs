//! From windows to writes: when in its window, and how often, a page was written.
//!
//! A window of a history knows neither. *When*: writes are spread evenly over the window, in a fixed order that has
//! nothing to do with their addresses. *How often*: a page that is written in `n` windows on end and then is not is
//! taken for one that is written at random, at the likeliest rate. A window then sees it with probability
//! n / (n + 1) = 1 − e^(−m), so it is written m = ln(n + 1) times a window:
//!
//! ```text
//! windows   │ ▓ │   │ ▓ │ ▓ │ ▓ │   │ ▓ │ ▓ │ ▓ │ ▓ │ ▓ │ ▓ │ ▓ │ …
//! n           1       3   3   3       7   7   7   7   7   7   7
//! writes      1       1   1   1       2   2   2   2   2   2   2
//! ```
//! It matters to spans shorter than a window: a page that is written all the time is in every one of them.

use std::ops::Range;
use std::time::Duration;

use super::{CHECKPOINT_WINDOWS, Event, PageReplay};
use crate::page_set::PageSet;
use crate::units::PageCount;

/// A tracked page that became zero, or ceased to be, in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroChange {
    /// Rank among the tracked pages, in scan order.
    pub rank: u32,
    /// What it is from now on.
    pub zero: bool,
}

/// Collects windows into a [`PageReplay`].
#[derive(Debug)]
pub struct PageReplayBuilder {
    /// Complete but for its events, which are one per page and window, in the order of the ranks, until it is built.
    replay: PageReplay,
    zero: PageSet,
    zero_seconds: f64,
}

impl PageReplayBuilder {
    /// `tracked` pages stand for `memory` pages: equal in a full recording, fewer in a sampled one.
    ///
    /// # Panics
    /// Unless 0 < `tracked` ≤ `memory` and `tracked` ≤ [`PageReplay::TRACKED_MAX`].
    pub fn new(tracked: PageCount, memory: PageCount) -> Self {
        assert!(!tracked.is_zero() && tracked <= memory, "some of the memory is tracked");
        let tracked = u32::try_from(tracked.get()).ok().filter(|tracked| *tracked <= Event::RANKS);
        let tracked = tracked.expect("a page replay tracks at most 2^30 pages");
        PageReplayBuilder {
            replay: PageReplay {
                tracked,
                memory,
                events: Vec::new(),
                event_bounds: vec![0],
                written: Vec::new(),
                time_bounds: vec![0],
                zero_checkpoints: Vec::new(),
                zero_at_end: PageSet::empty(tracked),
                starts_from_end: false,
                zero_mean: 0.0,
                ever_zero: PageSet::empty(tracked),
            },
            zero: PageSet::empty(tracked),
            zero_seconds: 0.0,
        }
    }

    /// The zero map at the start of the next window: runs of ranks that are zero, and no other is. Without it no page
    /// is zero at the start.
    pub fn zero_at_start(&mut self, runs: impl IntoIterator<Item = Range<u32>>) {
        self.zero.clear();
        runs.into_iter().flatten().for_each(|rank| self.zero.set(rank, true));
    }

    /// Appends a recorded window: its length (> 0), the ranks written in it (each once, ascending) and the changes of
    /// the zero map.
    pub fn window(&mut self, length: Duration, written: &[u32], zero: &[ZeroChange]) {
        let replay = &mut self.replay;
        if replay.windows().is_multiple_of(CHECKPOINT_WINDOWS) {
            replay.zero_checkpoints.push(self.zero.clone());
            replay.ever_zero.union(&self.zero);
        }
        for change in zero {
            self.zero.set(change.rank, change.zero);
            if change.zero {
                replay.ever_zero.set(change.rank, true);
            }
        }
        replay.events.extend(written.iter().map(|rank| Event::new(*rank, true, self.zero.contains(*rank))));
        replay.written.push(u32::try_from(written.len()).expect("no more pages are written than are tracked"));
        // A page that was discarded rather than written still changes the map.
        let unwritten = zero.iter().filter(|change| written.binary_search(&change.rank).is_err());
        replay.events.extend(unwritten.map(|change| Event::new(change.rank, false, change.zero)));
        replay.event_bounds.push(replay.events.len());
        let nanos = u64::try_from(length.as_nanos()).expect("a window is shorter than 500 years").max(1);
        replay.time_bounds.push(replay.length_nanos() + nanos);
        self.zero_seconds += f64::from(self.zero.len()) * nanos as f64;
    }

    /// The finished replay, or `None` if it holds no window.
    pub fn build(self) -> Option<PageReplay> {
        let mut replay = self.replay;
        if replay.windows() == 0 {
            return None;
        }
        replay.zero_mean = self.zero_seconds / replay.length_nanos() as f64;
        replay.zero_at_end = self.zero;
        let times = times_written(&replay);
        let raw = std::mem::take(&mut replay.events);
        let bounds = std::mem::replace(&mut replay.event_bounds, vec![0]);
        let mut moments = Vec::new();
        for (window, &written) in replay.written.iter().enumerate() {
            let (from, to) = (bounds[window], bounds[window + 1]);
            let unwritten = from + written as usize;
            spread(&raw[from..unwritten], &times[from..unwritten], &mut moments);
            replay.events.extend(moments.iter().map(|(_, event)| *event));
            replay.events.extend(&raw[unwritten..to]);
            replay.event_bounds.push(replay.events.len());
        }
        Some(replay)
    }
}

/// How often each event's page was written in its window: ln(n + 1), rounded, at least once.
fn times_written(replay: &PageReplay) -> Vec<u8> {
    // For each page the window it was last met in, and for how many windows on end. Walking back gives the windows from
    // here to the run's end, walking on those from its beginning.
    let mut met: Vec<(usize, u32)> = vec![(usize::MAX - 1, 0); replay.tracked as usize];
    let mut meet = |event: Event, window: usize, neighbour: usize| {
        let (last, run) = &mut met[event.rank() as usize];
        *run = if *last == neighbour { *run + 1 } else { 1 };
        *last = window;
        *run
    };
    let mut runs = vec![0_u32; replay.events.len()];
    for window in (0..replay.windows()).rev() {
        for index in written_in(replay, window) {
            runs[index] = meet(replay.events[index], window, window + 1);
        }
    }
    let mut times = vec![0; replay.events.len()];
    for window in 0..replay.windows() {
        for index in written_in(replay, window) {
            let run = meet(replay.events[index], window, window.wrapping_sub(1)) + runs[index] - 1;
            times[index] = times_in_run(run);
        }
    }
    times
}

/// How often a page counts as written in each window of a run of so many (≥ 1) on end: ln(n + 1), rounded, at least once.
pub(in crate::dirty) fn times_in_run(windows: u32) -> u8 {
    1 + RUNS_OF_MORE.iter().take_while(|least| windows >= **least).count() as u8
}

/// The least windows on end, n, of which round(ln(n + 1)) is 2, 3, … A recorder asks for every write, so nothing is
/// worked out for it.
const RUNS_OF_MORE: [u32; 20] = [
    4,
    12,
    33,
    90,
    244,
    665,
    1_808,
    4_914,
    13_359,
    36_315,
    98_715,
    268_337,
    729_416,
    1_982_759,
    5_389_698,
    14_650_719,
    39_824_784,
    108_254_987,
    294_267_566,
    799_902_177,
];

/// Indices of a window's writes, while it has one event per page.
fn written_in(replay: &PageReplay, window: usize) -> Range<usize> {
    let first = replay.event_bounds[window];
    first..first + replay.written[window] as usize
}

/// Lays a window's writes out in time, as fractions of the window.
fn spread(pages: &[Event], times: &[u8], moments: &mut Vec<(f64, Event)>) {
    moments.clear();
    let count = pages.len();
    let stride = coprime_stride(count);
    for k in 0..count {
        let page = k * stride % count;
        let phase = k as f64 / count as f64;
        let times = f64::from(times[page]);
        let at = |turn: u8| ((phase + f64::from(turn)) / times, pages[page]);
        moments.extend((0..times as u8).map(at));
    }
    moments.sort_by(|one, other| one.0.total_cmp(&other.0));
}

/// A step near the golden section of `n` that visits all of `0..n`: an even order unrelated to addresses.
fn coprime_stride(n: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (n as f64 * 0.618_033_988_749_895) as usize;
    (golden.max(1)..=n.max(1)).find(|stride| gcd(*stride, n) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::DirtySource;

    fn replay(windows: &[&[u32]]) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(64), PageCount::new(64));
        windows.iter().for_each(|written| builder.window(Duration::from_millis(100), written, &[]));
        builder.build().unwrap()
    }

    #[test]
    fn a_run_of_n_windows_has_ln_of_n_and_one_writes_a_window() {
        for (index, least) in RUNS_OF_MORE.iter().enumerate() {
            for windows in [least - 1, *least] {
                let worked_out = libm::log(f64::from(windows) + 1.0).round().max(1.0) as u8;
                assert_eq!(times_in_run(windows), worked_out, "{windows} windows, entry {index}");
            }
        }
        assert_eq!([1, 3, u32::MAX].map(times_in_run), [1, 1, 21]);
    }

    #[test]
    fn a_page_in_many_windows_on_end_is_written_often_in_each() {
        let always: &[u32] = &[9];
        let windows: Vec<&[u32]> = (0..20).map(|window| if window == 12 { &[][..] } else { always }).collect();
        let replay = replay(&windows);
        // Runs of 12 and 7 windows: ln 13 = 2.56 and ln 8 = 2.08.
        let writes: Vec<usize> = replay.event_bounds.windows(2).map(|bounds| bounds[1] - bounds[0]).collect();
        assert_eq!(writes, [vec![3; 12], vec![0], vec![2; 7]].concat());
        assert_eq!(replay.written, [vec![1; 12], vec![0], vec![1; 7]].concat(), "it stays one page a window");
    }

    #[test]
    fn a_page_written_now_and_then_is_written_once() {
        let replay = replay(&[&[1, 2], &[2], &[1, 2], &[3]]);
        assert_eq!(replay.events.len(), 6, "runs of up to three windows: ln 4 = 1.39");
    }

    #[test]
    fn a_page_written_twice_a_window_is_in_every_half_of_one() {
        let replay = replay(&[&[7][..]; 6]);
        let times: Vec<u64> = (0..12).map(|k| replay.event_time(k / 2, k % 2) / 1_000_000).collect();
        assert_eq!(times, (0..12).map(|k| 25 + 50 * k).collect::<Vec<_>>());
        assert_eq!(replay.write_set(Duration::from_millis(25)).mean, 0.5);
        assert_eq!(replay.write_set(Duration::from_millis(50)).mean, 1.0);
    }

    #[test]
    fn the_stride_visits_every_page() {
        for n in [1, 2, 3, 10, 64, 100, 997] {
            let stride = coprime_stride(n);
            let visited: std::collections::BTreeSet<usize> = (0..n).map(|k| k * stride % n).collect();
            assert_eq!(visited.len(), n);
        }
    }
}
