//! Pages in the midst of a run: what spans shorter than a window meet of pages that are written in windows on end.
//!
//! ```text
//!              │ window k − 1 │ window k     │ window k + 1 │
//!  its windows │          •   │          •   │          •   │   gaps 1 in k and k + 1: from its first write to its last
//!  counts as   │          •   │  •   •   •   │  •   •   •   │   a run goes on for a window before each
//! ```
//! A page written in `n` windows on end counts as written `m` = ln(n + 1) times in each, as the replay has it
//! ([`PageReplay`](crate::dirty::PageReplay)). So of a span `s` < 1 window from `a` on
//!
//! ```text
//!  |W(a, a+s]|  =  writes of gaps above 1 in (a, a+s]  +  Σ  min(1, m s) × the runs that go on at a
//!                                                         m
//! ```
//! and how many of which go on differs from one window to the next: in a burst few are long. While a run lasts nobody knows
//! its length; so when it has grown long enough to count as written more often, its windows so far are counted again, those of
//! the part that is being recorded by the recorder, those before it by who reads the parts.

use std::ops::Range;

use crate::dirty::replay::times_in_run;

/// Most often that a page counts as written in a window: in a run of 2^16 windows or more, ln(2^16 + 1).
pub const TIMES_MAX: u8 = 11;

/// One value for pages that count as written once, twice, … in a window.
type PerTimes<T> = [T; TIMES_MAX as usize];

/// Runs that go on through a window: pages written in it and in the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunCount {
    /// The window, counted from the part's first.
    pub window: u32,
    /// How often their pages count as written in it, from 2 to [`TIMES_MAX`]. Of all writes of gap 1 the others count once.
    pub times: u8,
    /// How many, ≥ 1.
    pub pages: u32,
}

/// Runs that have in a part grown long enough to count as written once more in each of their windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengthened {
    /// How many of them had gone on before the part.
    pub runs: u32,
    /// Through how many windows before it, all together.
    pub before: u64,
}

impl RunCount {
    /// Runs of a part of which is known how many writes of all its windows count once, twice, … in their window, but not in which:
    /// `gone_on` are its writes of gap 1, by window, ascending, and those of each window are mixed as all of them. That is all that
    /// index formats before version 4 kept.
    pub fn mixed(gone_on: &[(u32, u32)], times_written: &[i64; TIMES_MAX as usize]) -> Vec<RunCount> {
        // A run of n windows goes on through n − 1, and counts as written ln(n + 1) times. One that was lengthened took what it
        // counted before the part from the part's own.
        let going = |(times, writes): (u8, &i64)| (*writes).max(0) as f64 * (1.0 - 1.0 / libm::expm1(f64::from(times)));
        let writes: Vec<f64> = (1..).zip(times_written).map(going).skip(1).collect();
        let all: f64 = gone_on.iter().map(|(_, pages)| f64::from(*pages)).sum();
        let share = 1.0 / all.max(writes.iter().sum()).max(1.0);
        let mut due = vec![0.0; writes.len()];
        let mut counts = Vec::new();
        for &(window, pages) in gone_on {
            let mut left = pages;
            for ((times, writes), due) in (2..).zip(&writes).zip(&mut due) {
                *due += f64::from(pages) * writes * share;
                let whole = (*due as u32).min(left);
                (*due, left) = (*due - f64::from(whole), left - whole);
                if whole > 0 {
                    counts.push(RunCount { window, times, pages: whole });
                }
            }
        }
        counts
    }
}

/// Runs by window, while a part is recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenRuns {
    /// Pages of each window by how often they count as written, as differences from the window before.
    differences: Vec<PerTimes<i32>>,
    lengthened: PerTimes<Lengthened>,
}

impl OpenRuns {
    /// One more window.
    pub(super) fn window(&mut self) {
        self.differences.resize(self.differences.len().max(1) + 1, [0; TIMES_MAX as usize]);
    }

    fn add(&mut self, windows: Range<usize>, times: u8, pages: i32) {
        self.differences[windows.start][usize::from(times) - 1] += pages;
        self.differences[windows.end][usize::from(times) - 1] -= pages;
    }

    /// Counts a page that was written in the last window, the `run`-th on end.
    pub(super) fn count(&mut self, run: u16) {
        if run < 2 {
            return;
        }
        let (now, times) = (self.differences.len() - 2, times_in_run(run.into()));
        self.add(now..now + 1, times, 1);
        let before = times_in_run(u32::from(run) - 1);
        // In its first window no run goes on.
        let earlier = usize::from(run) - 2;
        if times == before || earlier == 0 {
            return;
        }
        let inside = earlier.min(now);
        self.add(now - inside..now, before, -1);
        self.add(now - inside..now, times, 1);
        if earlier > inside {
            let lengthened = &mut self.lengthened[usize::from(times) - 1];
            lengthened.runs += 1;
            lengthened.before += (earlier - inside) as u64;
        }
    }

    /// What was counted, by window; another part begins.
    pub(super) fn take(&mut self) -> (Vec<RunCount>, PerTimes<Lengthened>) {
        let (mut counts, mut sum) = (Vec::new(), [0i32; TIMES_MAX as usize]);
        for (window, differences) in (0..).zip(std::mem::take(&mut self.differences)) {
            sum.iter_mut().zip(differences).for_each(|(sum, more)| *sum += more);
            for (times, &pages) in (1..).zip(&sum).skip(1).filter(|(_, pages)| **pages > 0) {
                counts.push(RunCount { window, times, pages: pages.cast_unsigned() });
            }
        }
        (counts, std::mem::take(&mut self.lengthened))
    }
}

/// Runs by window, while parts are read.
#[derive(Clone, Debug, Default)]
pub(super) struct RunsBuilder {
    pages: Vec<PerTimes<f32>>,
}

impl RunsBuilder {
    /// Counts writes of gap 1 in a window.
    pub(super) fn gone_on(&mut self, window: u32, pages: u32) {
        let window = window as usize;
        if self.pages.len() <= window {
            self.pages.resize(window + 1, [0.0; TIMES_MAX as usize]);
        }
        self.pages[window][0] += pages as f32;
    }

    /// Tells those of a part apart whose first window is `first`, and counts again the windows before it, as many of them as are
    /// `remembered`, of runs it has lengthened. Its writes of gap 1 have been counted.
    pub(super) fn part(&mut self, first: u32, remembered: u32, runs: &[RunCount], lengthened: &PerTimes<Lengthened>) {
        for &RunCount { window, times, pages } in runs {
            if let Some(of_window) = self.pages.get_mut((first + window) as usize) {
                move_pages(of_window, 0, usize::from(times) - 1, pages as f32);
            }
        }
        for (longer, &Lengthened { runs, before }) in
            lengthened.iter().enumerate().skip(1).filter(|(_, is)| is.runs > 0)
        {
            // Most have been going on since the same moment, as a recording's beginning.
            let windows = (before as f64 / f64::from(runs)).round() as usize;
            let end = self.pages.len().min(first as usize);
            let begin = (first as usize).saturating_sub(windows.min(remembered as usize)).min(end);
            self.pages[begin..end]
                .iter_mut()
                .for_each(|of_window| move_pages(of_window, longer - 1, longer, runs as f32));
        }
    }

    /// Ends the counting of so many windows.
    pub(super) fn finish(mut self, windows: u32) -> Runs {
        self.pages.resize(windows as usize, [0.0; TIMES_MAX as usize]);
        let mut totals = [0.0; TIMES_MAX as usize];
        for of_window in &self.pages {
            totals.iter_mut().zip(of_window).for_each(|(total, pages)| *total += f64::from(*pages));
        }
        let most = totals.iter().rposition(|total| *total > 0.0).map_or(1, |last| last + 1);
        let pages = self.pages.iter().flat_map(|of_window| &of_window[..most]).copied().collect();
        Runs { most, pages, totals }
    }
}

/// Lets so many pages, or as many as there are, count as written another number of times.
fn move_pages(of_window: &mut PerTimes<f32>, from: usize, to: usize, pages: f32) {
    let moved = pages.min(of_window[from]);
    of_window[from] -= moved;
    of_window[to] += moved;
}

/// Runs by window and by how often their pages count as written in one.
#[derive(Clone, Debug)]
pub(super) struct Runs {
    /// Most often that any does.
    most: usize,
    /// Tracked pages written in a window and in the one before; windows × `most`.
    pages: Vec<f32>,
    /// The same of all windows together.
    totals: PerTimes<f64>,
}

impl Runs {
    /// Tracked pages whose runs go on at `from` and that are written in a span of less than a window behind it. The history
    /// starts over at its end.
    pub(super) fn met(&self, from: f64, span: f64) -> f64 {
        // The end of the last window counts as its own.
        let window = (from as usize).min(self.pages.len() / self.most - 1);
        let (here, part) = (window * self.most, from - window as f64);
        let next = if here + self.most < self.pages.len() { here + self.most } else { 0 };
        let [these, behind] = [here, next].map(|row| &self.pages[row..row + self.most]);
        let mut met = 0.0;
        for ((times, here), behind) in (1..).zip(these).zip(behind) {
            // Evenly spread from a window before the end of a run's window to that, its writes in the span are those of windows
            // that end within `reach`.
            let times = f64::from(times);
            let reach = (1.0 - 1.0 / times + span).min(1.0);
            let later = (part + reach - 1.0).max(0.0);
            let ending = (reach - later) * f64::from(*here) + later * f64::from(*behind);
            met += ending * (times * span).min(1.0) / reach;
        }
        met
    }

    /// Of the runs that go on at `from` the share whose pages are written in a span of less than a window behind it: at least
    /// `span` of a window; all if none goes on.
    pub(super) fn share_met(&self, from: f64, span: f64) -> f64 {
        let all = self.met(from, 1.0);
        if all > 0.0 { (self.met(from, span) / all).max(span) } else { 1.0 }
    }

    /// What [`Self::met`] says, on average over all of the history.
    pub(super) fn met_anywhere(&self, span: f64) -> f64 {
        let met = (1..).zip(&self.totals).map(|(times, total)| total * (f64::from(times) * span).min(1.0));
        met.sum::<f64>() / (self.pages.len() / self.most) as f64
    }

    /// Writes of pages whose runs go on, all together.
    pub(super) fn writes(&self) -> f64 {
        self.totals.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is counted of pages that are written in these windows on end, one part after another of so many windows.
    fn recorded(runs: &[Range<u16>], each: u16, windows: u16) -> Vec<(Vec<RunCount>, PerTimes<Lengthened>)> {
        let mut open = OpenRuns::default();
        let mut parts = Vec::new();
        for window in 0..windows {
            open.window();
            runs.iter().filter(|run| run.contains(&window)).for_each(|run| open.count(window + 1 - run.start));
            if (window + 1) % each == 0 {
                parts.push(open.take());
            }
        }
        parts
    }

    /// Pages by window and times written, of the same.
    fn read(runs: &[Range<u16>], each: u16, windows: u16) -> Runs {
        let mut builder = RunsBuilder::default();
        for (part, (counts, lengthened)) in (0..).zip(recorded(runs, each, windows)) {
            let first = part * u32::from(each);
            for window in first..first + u32::from(each) {
                let goes_on = |run: &&Range<u16>| (u32::from(run.start) + 1..u32::from(run.end)).contains(&window);
                builder.gone_on(window, runs.iter().filter(goes_on).count() as u32);
            }
            builder.part(first, first, &counts, &lengthened);
        }
        builder.finish(windows.into())
    }

    #[test]
    fn a_run_that_grows_long_enough_is_counted_again() {
        // Four windows on end count as written ln 5 = 1.6 times in each, three once.
        let [(counts, lengthened)] = &recorded(&[2..6, 3..6], 10, 10)[..] else { panic!("one part") };
        let count = |window, times, pages| RunCount { window, times, pages };
        assert_eq!(*counts, [count(3, 2, 1), count(4, 2, 1), count(5, 2, 1)]);
        assert_eq!(*lengthened, PerTimes::default());
    }

    #[test]
    fn its_windows_before_a_part_are_counted_again_by_who_reads_it() {
        // Two runs of 40 windows in parts of 10: twice from the 4th window on, three times from the 12th, four from the 33rd.
        let parts = recorded(&[0..40, 1..40], 10, 40);
        let longer = |part: usize, times: usize| parts[part].1[times - 1];
        assert_eq!(longer(0, 2), Lengthened::default(), "all of it lies in the part");
        assert_eq!(longer(1, 3), Lengthened { runs: 2, before: 9 + 8 });
        assert_eq!(longer(3, 4), Lengthened { runs: 2, before: 29 + 28 });
        let runs = read(&[0..40, 1..40], 10, 40);
        assert_eq!(runs.most, 4);
        let of_window = |window: usize| &runs.pages[4 * window..4 * (window + 1)];
        assert_eq!([0, 1, 2, 20, 39].map(of_window).map(|pages| pages[3]), [0.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(runs.writes(), 39.0 + 38.0);
        assert_eq!(runs.totals[3], runs.writes(), "however it was cut into parts");
    }

    #[test]
    fn a_span_meets_as_many_as_are_written_in_it() {
        // Runs of two windows, each alone: written once, where its second window's place is.
        let pairs: Vec<Range<u16>> = (0..100).map(|_| 4..6).collect();
        let runs = read(&pairs, 10, 10);
        let near = |told: f64, expected: f64| assert!((told - expected).abs() < 1e-3, "{told}, not {expected}");
        near(runs.met(5.0, 0.25), 25.0);
        near(runs.met(4.75, 0.5), 25.0);
        near(runs.met(4.0, 0.5), 0.0);
        near(runs.met_anywhere(0.25), 2.5);
        // A run of 40 windows is met by every quarter of a window, of which it has four writes, and by half of the eighths.
        let long = read(&[0..40, 50..51], 60, 60);
        near(long.met(20.3, 0.25), 1.0);
        near(long.met(20.3, 0.125), 0.5);
        near(long.met(5.0, 0.9), 1.0);
        near(long.share_met(5.0, 0.125), 0.5);
        near(runs.met(10.0, 0.5), 0.0);
    }

    #[test]
    fn of_writes_told_all_together_each_window_has_its_part() {
        // 60 writes in runs of 4 to 11 windows, of which some 60 × (1 − 1 ÷ 6.4) = 50.6 go on; 20 of shorter ones.
        let mut times_written = [0; TIMES_MAX as usize];
        (times_written[0], times_written[1]) = (40, 60);
        let counts = RunCount::mixed(&[(3, 40), (4, 0), (7, 30)], &times_written);
        assert!(counts.iter().all(|count| count.times == 2));
        let pages: Vec<(u32, u32)> = counts.iter().map(|count| (count.window, count.pages)).collect();
        assert_eq!(pages, [(3, 28), (7, 22)], "50.6 in 70");
        // More than there are go on: what was counted before the part is in it.
        times_written[2] = 600;
        let counts = RunCount::mixed(&[(3, 40)], &times_written);
        assert!(counts.iter().map(|count| count.pages).sum::<u32>() <= 40);
        assert_eq!(RunCount::mixed(&[], &times_written), []);
    }

    #[test]
    fn none_goes_on_in_a_history_of_single_windows() {
        let runs = read(&[1..2, 5..6], 10, 10);
        assert_eq!((runs.most, runs.met(1.0, 0.5), runs.met_anywhere(0.5), runs.writes()), (1, 0.0, 0.0, 0.0));
    }
}
