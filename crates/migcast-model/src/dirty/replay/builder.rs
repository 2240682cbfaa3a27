//! From windows to writes: when in its window, and how often, a page was written.
//!
//! A window of a history knows neither. *When*: each page has its place in the window, the same in all of them, so that writes
//! are spread evenly, in an order that has nothing to do with their addresses. *How often*: a page that is written in `n`
//! windows on end and then is not is taken for one that is written at random, at the likeliest rate. A window then sees it
//! with probability n / (n + 1) = 1 − e^(−m), so it is written m = ln(n + 1) times a window, from its place in the first of
//! them to its place in the last:
//!
//! ```text
//! windows   │  ▓   │      │  ▓   │  ▓   │  ▓   │      │  ▓   │  ▓   │  ▓   │  ▓   │ …      │  ▓   │      │
//! n            1             3      3      3             7      7      7      7               7
//! writes    │  •   │      │  •   │  •   │  •   │      │  •  •│  •  •│  •  •│  •  •│ …      │  •   │      │
//! ```
//! So a span of a window's length holds as many pages as a window, wherever it lies: windows fall anywhere in a guest's life.
//! How often matters to spans shorter than a window: a page that is written all the time is in every one of them.

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

/// By this pages are put in order: the golden section of 2^64, of which multiples lie evenly and far from their neighbours'.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// How a page was written in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Turns {
    /// How often in a window of its run: ln(n + 1), rounded, at least once.
    times: u8,
    /// Whether the run begins with this window, or ends.
    begins: bool,
    ends: bool,
}

/// The same of each event.
fn times_written(replay: &PageReplay) -> Vec<Turns> {
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
    let mut times = vec![Turns::default(); replay.events.len()];
    for window in 0..replay.windows() {
        for index in written_in(replay, window) {
            let (before, behind) = (meet(replay.events[index], window, window.wrapping_sub(1)), runs[index]);
            times[index] = Turns { times: times_in_run(before + behind - 1), begins: before == 1, ends: behind == 1 };
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
fn spread(pages: &[Event], turns: &[Turns], moments: &mut Vec<(f64, Event)>) {
    let mut order: Vec<(u64, usize)> =
        pages.iter().map(|page| u64::from(page.rank()).wrapping_mul(GOLDEN)).zip(0..).collect();
    order.sort_unstable();
    moments.clear();
    for (k, (_, page)) in order.into_iter().enumerate() {
        let place = k as f64 / pages.len() as f64;
        let Turns { times, begins, ends } = turns[page];
        let at = |turn: u8| (place + f64::from(turn) / f64::from(times)).fract();
        let is_written = |at: &f64| !(begins && *at < place || ends && *at > place);
        moments.extend((0..times).map(at).filter(is_written).map(|at| (at, pages[page])));
    }
    moments.sort_by(|one, other| one.0.total_cmp(&other.0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dirty::{DirtySource, PageCursor, PageSource};
    use crate::units::GuestTime;

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
        assert_eq!(writes, [vec![3; 11], vec![1, 0], vec![2; 6], vec![1]].concat(), "up to its place in the last");
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
        let times: Vec<u64> = (0..10).map(|k| replay.event_time(k / 2, k % 2) / 1_000_000).collect();
        assert_eq!(times, (0..10).map(|k| 25 + 50 * k).collect::<Vec<_>>());
        // And at 550 ms, before it is at 25 ms again.
        assert_eq!(replay.write_set(Duration::from_millis(25)).mean, 275.0 / 600.0);
        assert_eq!(replay.write_set(Duration::from_millis(50)).mean, 550.0 / 600.0);
    }

    #[test]
    fn a_span_of_a_windows_length_holds_as_many_pages_wherever_it_lies() {
        // Each page in runs of its own length, one window apart.
        let is_written = |page: u32, window: u32| !(window + page).is_multiple_of(page + 2);
        let written = |window: u32| (0..64).filter(|page| is_written(*page, window)).collect::<Vec<_>>();
        let windows: Vec<Vec<u32>> = (0..600).map(written).collect();
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        let replay = replay(&windows);
        let in_windows = windows.iter().map(|written| written.len()).sum::<usize>() as f64 / 600.0;
        for tenths in 0..10 {
            let distinct = (0..599).map(|window| {
                let mut cursor = replay.cursor(Duration::from_millis(100 * window + 10 * tenths));
                let mut met = std::collections::BTreeSet::new();
                cursor.advance(GuestTime::from_nanos(100_000_000), |rank| {
                    met.insert(rank);
                });
                met.len()
            });
            let mean = distinct.sum::<usize>() as f64 / 599.0;
            assert!((mean / in_windows - 1.0).abs() < 0.01, "{tenths}: {mean} of {in_windows}");
        }
    }
}
