//! What a recorder keeps of every page to count write gaps while windows stream by: its last write, its first, and for
//! how many windows on end it has been written.

use crate::dirty::replay::times_in_run;

/// Most often that a page counts as written in a window: in a run of 2^16 windows or more, ln(2^16 + 1).
pub const TIMES_MAX: u8 = 11;

/// One page written in a recorded window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The page, by its rank among the tracked ones.
    pub rank: u32,
    /// Recorded windows since the one in which it was last written; 0 for its first write.
    pub gap: u32,
    /// Windows on end, this one included, in which it was written.
    pub run: u16,
}

/// A page's writes over the end of a history that starts over: from its last back to its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lap {
    /// The page.
    pub rank: u32,
    /// The recorded window of its first write, counted from 0.
    pub first: u32,
    /// Recorded windows from its last write, around the end, to that.
    pub gap: u32,
}

/// The last and first recorded window of every tracked page. Memory (12 bytes a page) is taken only for parts that were
/// ever written: a large and quiet guest costs little, and so does a damaged manifest that claims a huge one.
#[derive(Clone, Debug)]
pub struct WriteTracker {
    parts: Vec<Option<Box<[Page; Self::PART]>>>,
    /// Recorded windows so far; gaps are counted in them.
    recorded: u32,
}

/// Windows are counted from 1; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    last: u32,
    first: u32,
    run: u16,
}

impl WriteTracker {
    const PART: usize = 4096;

    /// No page of so many has been written.
    pub fn new(tracked: u32) -> WriteTracker {
        let mut parts = Vec::new();
        parts.resize_with((tracked as usize).div_ceil(Self::PART), || None);
        WriteTracker { parts, recorded: 0 }
    }

    /// Recorded windows so far.
    pub fn recorded(&self) -> u32 {
        self.recorded
    }

    /// Notes a recorded window in which the pages of `ranks` were written, each once, and tells of each.
    pub fn window(&mut self, ranks: &[u32], mut tell: impl FnMut(Write)) {
        self.recorded += 1;
        let now = self.recorded;
        for &rank in ranks {
            let part = self.parts[rank as usize / Self::PART].get_or_insert_with(|| Box::new([Page::default(); _]));
            let page = &mut part[rank as usize % Self::PART];
            let gap = if page.last == 0 { 0 } else { now - page.last };
            page.run = if gap == 1 { page.run.saturating_add(1) } else { 1 };
            page.last = now;
            if page.first == 0 {
                page.first = now;
            }
            tell(Write { rank, gap, run: page.run });
        }
    }

    /// Tells how every page that was written goes on if the history starts over now, in the order of the pages.
    pub fn laps(&self, mut tell: impl FnMut(Lap)) {
        let written = |(index, part): (usize, &Option<Box<[Page; Self::PART]>>)| {
            part.iter()
                .flat_map(|part| part.iter())
                .enumerate()
                .map(move |(at, page)| (index * Self::PART + at, *page))
                .collect::<Vec<_>>()
        };
        for (rank, page) in self.parts.iter().enumerate().flat_map(written).filter(|(_, page)| page.last != 0) {
            let rank = u32::try_from(rank).expect("ranks are 32 bits");
            tell(Lap { rank, first: page.first - 1, gap: page.first + self.recorded - page.last });
        }
    }
}

/// How many pages count as written once, twice, … in the window they are written in.
///
/// A page written in `n` windows on end is taken for one written ln(n + 1) times in each (see
/// [`PageReplay`](crate::dirty::PageReplay)). While its run lasts nobody knows its length; so when a run grows long
/// enough, its windows so far are counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimesWritten(pub [f64; TIMES_MAX as usize]);

impl TimesWritten {
    /// Counts a write that is the `run`-th window on end of its page.
    pub fn count(&mut self, run: u16) {
        // The windows of the run before this one, none for its first, move to the new count.
        let before = run.saturating_sub(1).max(1);
        let [times, counted] = [run, before].map(|run| usize::from(times_in_run(run.into())));
        let moved = if times == counted { 0.0 } else { f64::from(run - 1) };
        self.0[times - 1] += 1.0 + moved;
        self.0[counted - 1] -= moved;
    }

    /// All writes counted.
    pub fn writes(&self) -> f64 {
        self.0.iter().sum()
    }

    /// Each of these and of `others`.
    pub(super) fn with(mut self, others: &TimesWritten) -> TimesWritten {
        self.0.iter_mut().zip(others.0).for_each(|(sum, more)| *sum += more);
        self
    }

    /// The same as what a span shorter than a window meets.
    pub(super) fn within(&self) -> Within {
        let mut within = Within { once: 1.0, often: [0.0; TIMES_MAX as usize], most: 0 };
        let writes = self.writes();
        if writes <= 0.0 {
            return within;
        }
        within.once = 0.0;
        for (index, often) in within.often.iter_mut().enumerate() {
            // A run of n windows has n writes, and counts as written ln(n + 1) times.
            let runs = self.0[index] / libm::expm1(index as f64 + 1.0);
            within.once += runs / writes;
            *often = (self.0[index] - runs) / writes;
        }
        within.most = within.often.iter().rposition(|share| *share != 0.0).map_or(0, |last| last + 1);
        within
    }
}

/// Pages written in windows by how a part of one meets them. From its first write to its last a run of n windows takes n − 1
/// of them; it is met by each span that lies in them, if that is as long as it takes from one write to the next, and by those
/// that end behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Within {
    /// The share met by spans that end behind a run.
    once: f64,
    /// Those met within one whose pages count as written once, twice, … a window.
    often: [f64; TIMES_MAX as usize],
    /// Most often that any counts.
    most: usize,
}

impl Within {
    /// Of the pages written in a window, those met in a part of it, `span` ≤ 1 window long, wherever it lies; as a multiple of
    /// `span`.
    pub(super) fn met(&self, span: f64) -> f64 {
        let most = 1.0 / span;
        let often = self.often[..self.most].iter().zip(1..);
        self.once + often.map(|(share, times)| share * f64::from(times).min(most)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(tracker: &mut WriteTracker, ranks: &[u32]) -> Vec<(u32, u32)> {
        let mut told = Vec::new();
        tracker.window(ranks, |write| told.push((write.rank, write.gap)));
        told
    }

    #[test]
    fn a_write_carries_its_gap_in_recorded_windows() {
        let mut tracker = WriteTracker::new(10_000);
        assert_eq!(gaps(&mut tracker, &[0, 9_999]), [(0, 0), (9_999, 0)]);
        assert_eq!(gaps(&mut tracker, &[0]), [(0, 1)]);
        assert_eq!(gaps(&mut tracker, &[]), []);
        assert_eq!(gaps(&mut tracker, &[0, 9_999]), [(0, 2), (9_999, 3)]);
    }

    #[test]
    fn a_lap_leads_from_the_last_write_around_the_end_to_the_first() {
        let mut tracker = WriteTracker::new(8);
        [&[][..], &[3], &[3, 5], &[5], &[]].iter().for_each(|ranks| drop(gaps(&mut tracker, ranks)));
        let mut laps = Vec::new();
        tracker.laps(|lap| laps.push(lap));
        // Page 3 in windows 1 and 2 of five, page 5 in 2 and 3: 2 → 1 + 5 and 3 → 2 + 5.
        assert_eq!(laps, [Lap { rank: 3, first: 1, gap: 4 }, Lap { rank: 5, first: 2, gap: 4 }]);
    }

    #[test]
    fn a_page_written_window_after_window_is_written_often() {
        let mut tracker = WriteTracker::new(8);
        let mut written = TimesWritten::default();
        for window in 0..14 {
            let ranks: &[u32] = if window == 12 { &[] } else { &[7] };
            tracker.window(ranks, |write| written.count(write.run));
            let expected: &[f64] = match window {
                0..3 => &[f64::from(window + 1)],
                3..11 => &[0.0, f64::from(window + 1)],
                11 | 12 => &[0.0, 0.0, 12.0],
                _ => &[1.0, 0.0, 12.0],
            };
            assert_eq!(written.0[..expected.len()], *expected, "window {window}: ln 5 = 1.61, ln 13 = 2.56");
        }
        assert_eq!(written.writes(), 13.0);
        // Of those written three times a window some 12 ÷ (e³ − 1) = 0.63 are runs; half of a window meets each once.
        let within = written.within();
        assert!((within.met(0.5) - (1.0 + 2.0 * 12.0 - 0.629) / 13.0).abs() < 1e-4);
        assert!((within.met(1.0) - 1.0).abs() < 1e-12);
    }
}
