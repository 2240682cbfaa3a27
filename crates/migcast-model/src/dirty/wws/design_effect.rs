//! What the sample of a recording errs by, for those who have only its counts: the design effect.
//!
//! ```text
//! ranks     0 … 63 │ 64 … 127 │ 128 … 191 │ …       some groups of neighbours, evenly spread
//! of each   how often it was written by octave of the gap, and the sum of those gaps
//!           └─► y, its part of the mean write set of a span ─► what neighbours differ by
//! ```
//! A draw that took each page by itself would err with the variance `w (w − 1) Σ y`, `w` being the pages that a tracked one
//! stands for. One page of each run of `w` is tracked, and pages written together lie together; how much less that errs, the
//! *design effect* (Kish, *Survey Sampling*, 1965), shows in how neighbours differ ([`Differences`]), as with a replay's pages.

use super::part::OCTAVES;
use crate::dirty::strata::{self, Differences};

/// Neighbours that are watched together.
const GROUP: usize = 64;

/// Groups that are watched at most: 8 MiB if all of their pages are written.
const GROUPS_MAX: u32 = 512;

/// Variance of sampled write sets, over the one that a draw of each page by itself would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesignEffect {
    /// Recorded windows by which it was found, ≥ 1.
    pub windows: u32,
    /// Millionths, of spans of 1, 2, 4, … windows: up to [`Self::OCTAVES_MAX`] of them, none where nothing was written.
    pub per_million: Vec<u32>,
    /// Tracked pages of which, at the end, one is zero and the next, or the next but one, is not.
    pub zero_borders: [u32; 2],
}

impl DesignEffect {
    /// Spans of up to 2^31 windows.
    pub const OCTAVES_MAX: usize = OCTAVES;

    /// The variance, in pages², of a mean write set of spans of so many windows of which a sample holds `in_sample` pages, each
    /// standing for `weight` of the memory; without a design effect as if each page had been drawn by itself.
    pub fn write_set_variance(effect: Option<&DesignEffect>, weight: f64, in_sample: f64, windows: f64) -> f64 {
        let effect = effect.map_or(1.0, |effect| effect.of_span(windows));
        strata::variance(weight, in_sample * effect, windows)
    }

    /// That of spans of so many windows: between two octaves by a straight line, beyond the ends as at them.
    fn of_span(&self, windows: f64) -> f64 {
        let Some(last) = self.per_million.len().checked_sub(1) else { return 1.0 };
        between_octaves(libm::log2(windows), last, |octave| f64::from(self.per_million[octave]) / 1e6)
    }

    /// Of so many tracked pages the variances within their runs of whether a page is zero, summed.
    pub(super) fn zero_within_runs(&self, tracked: u32) -> f64 {
        f64::from(tracked) * Differences::of_set(tracked, self.zero_borders).within_run().unwrap_or(0.0)
    }
}

/// What is known of octaves 0 to `last`, at a place among them: between two on a straight line, beyond the ends as at them.
pub(super) fn between_octaves(place: f64, last: usize, known: impl Fn(usize) -> f64) -> f64 {
    let place = place.clamp(0.0, last as f64);
    let below = (place as usize).min(last);
    let (one, next) = (known(below), known((below + 1).min(last)));
    one + (next - one) * (place - below as f64)
}

/// Watches some of the tracked pages, with their neighbours, while windows stream by.
#[derive(Clone, Debug)]
pub struct Neighbours {
    tracked: u32,
    /// Of so many groups one is watched.
    one_in: u32,
    /// Taken for groups that were ever written.
    groups: Vec<Option<Box<[Page; GROUP]>>>,
}

/// How often a page was written.
#[derive(Clone, Copy, Debug, Default)]
struct Page {
    ever: bool,
    /// By octave of the gap: how often, and the gaps together.
    gaps: [(u32, u32); OCTAVES],
}

impl Page {
    /// The parts of all spans of 1, 2, 4, … windows that hold a write of the page, if what was recorded, `recorded` windows, starts
    /// over and over: min(gap, span) of each write, the first of which has the gap from the last one around the end.
    fn shares(&self, recorded: u32, shares: &mut [f64]) {
        let sum = |of: fn(&(u32, u32)) -> u32| self.gaps.iter().map(|gaps| u64::from(of(gaps))).sum::<u64>();
        let (mut longer, mut shorter) = (sum(|gaps| gaps.0), 0);
        let around = if self.ever { u64::from(recorded).saturating_sub(sum(|gaps| gaps.1)) } else { 0 };
        for (octave, share) in shares.iter_mut().enumerate() {
            let span = 1u64 << octave;
            *share = (shorter + longer * span + around.min(span)) as f64 / f64::from(recorded);
            let (writes, gaps) = self.gaps[octave];
            (longer, shorter) = (longer - u64::from(writes), shorter + u64::from(gaps));
        }
    }
}

impl Neighbours {
    /// Of so many tracked pages.
    pub fn new(tracked: u32) -> Neighbours {
        let groups = tracked.div_ceil(GROUP as u32);
        let one_in = groups.div_ceil(GROUPS_MAX).max(1);
        let mut watched = Vec::new();
        watched.resize_with(groups.div_ceil(one_in) as usize, || None);
        Neighbours { tracked, one_in, groups: watched }
    }

    /// Notes that the page of this rank was written, so many windows after it was before; 0 for the first time.
    pub fn write(&mut self, rank: u32, gap: u32) {
        let group = rank / GROUP as u32;
        if !group.is_multiple_of(self.one_in) {
            return;
        }
        let group = &mut self.groups[(group / self.one_in) as usize];
        let page = &mut group.get_or_insert_with(|| Box::new([Page::default(); GROUP]))[rank as usize % GROUP];
        page.ever = true;
        if gap > 0 {
            let (writes, gaps) = &mut page.gaps[gap.ilog2() as usize];
            (*writes, *gaps) = (writes.saturating_add(1), gaps.saturating_add(gap));
        }
    }

    /// The design effect as it is after so many recorded windows, of spans that are no longer; `zero_borders` as there
    /// ([`DesignEffect::zero_borders`]). `None` where no page has a neighbour, or no window was recorded.
    pub fn design_effect(&self, recorded: u32, zero_borders: [u32; 2]) -> Option<DesignEffect> {
        let octaves = recorded.checked_ilog2()? as usize + 1;
        let (mut pages, mut sums) = (0.0, vec![0.0; octaves]);
        let mut differences = vec![Differences::default(); octaves];
        // Page by page, and the same octave by octave.
        let mut of_page = vec![0.0; octaves];
        let mut of_octave = vec![0.0; octaves * GROUP];
        for (group, first) in self.groups.iter().zip((0..self.tracked).step_by(GROUP * self.one_in as usize)) {
            let members = (self.tracked - first).min(GROUP as u32) as usize;
            pages += members as f64;
            let Some(group) = group else {
                differences.iter_mut().for_each(|differences| differences.add_alike(members));
                continue;
            };
            for (member, page) in group[..members].iter().enumerate() {
                page.shares(recorded, &mut of_page);
                of_page.iter().enumerate().for_each(|(octave, share)| of_octave[octave * GROUP + member] = *share);
            }
            for (octave, shares) in of_octave.chunks_exact(GROUP).enumerate() {
                sums[octave] += shares[..members].iter().sum::<f64>();
                differences[octave].add(&shares[..members]);
            }
        }
        let effect = |(differences, sum): (&Differences, &f64)| Some(differences.within_run()? / (sum / pages));
        let is_written = sums.iter().all(|sum| *sum > 0.0);
        let effects = differences.iter().zip(&sums).filter(|_| is_written).map_while(effect);
        let per_million = effects.map(|effect| (effect * 1e6).round() as u32).collect();
        (self.tracked > 1).then_some(DesignEffect { windows: recorded, per_million, zero_borders })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of pages that are written as `period` says of their rank, 0 for never: the effect after 4,096 windows.
    fn effect(tracked: u32, period: fn(u32) -> u32) -> Option<DesignEffect> {
        let mut neighbours = Neighbours::new(tracked);
        for rank in (0..tracked).filter(|rank| period(*rank) > 0) {
            let period = period(rank);
            (0..4_096 / period).for_each(|write| neighbours.write(rank, if write == 0 { 0 } else { period }));
        }
        neighbours.design_effect(4_096, [0; 2])
    }

    #[test]
    fn pages_that_are_alike_need_no_luck_to_be_drawn() {
        let alike = effect(640, |_| 16).unwrap();
        assert_eq!((alike.windows, &alike.per_million[..]), (4_096, &[0; 13][..]));
    }

    #[test]
    fn of_pages_written_all_the_time_each_counts_once() {
        // Every fourth: half of the pairs are of a written and an idle one, and of those two apart.
        let apart = effect(6_400, |rank| u32::from(rank.is_multiple_of(4))).unwrap();
        assert!((apart.of_span(1.0) - 1.0).abs() < 0.03, "{apart:?}");
        // Eight of them together, once in a group: one such pair of 63, and less within a run.
        let together = effect(6_400, |rank| u32::from(rank % 64 < 8)).unwrap();
        assert!((together.of_span(32.0) - 1.0 / 63.0 / 2.0 * 8.0 / 3.0).abs() < 1e-6, "{together:?}");
    }

    #[test]
    fn the_longer_a_span_the_less_counts_how_often_pages_are_written() {
        // Every other page every window, the others every 64.
        let effect = effect(640, |rank| if rank % 2 == 0 { 1 } else { 64 }).unwrap();
        assert!(effect.of_span(1.0) > 0.9, "{effect:?}");
        assert!(effect.per_million.is_sorted_by(|one, next| one >= next), "{effect:?}");
        assert_eq!(effect.per_million[6..], [0; 7], "all are in each span of 64");
        assert_eq!(effect.of_span(0.1), effect.of_span(1.0));
        assert_eq!(effect.of_span(1e9), 0.0);
        let between = effect.of_span(2.0 * f64::sqrt(2.0));
        assert!((between - (effect.of_span(2.0) + effect.of_span(4.0)) / 2.0).abs() < 1e-9);
    }

    #[test]
    fn of_a_large_memory_some_groups_stand_for_all() {
        let neighbours = Neighbours::new(1 << 22);
        assert_eq!((neighbours.one_in, neighbours.groups.len()), (128, 512));
        // Of every three pages one, and of two neighbours of three only one.
        let effect = effect(1 << 18, |rank| if rank.is_multiple_of(3) { 64 } else { 0 }).unwrap();
        assert!((effect.of_span(64.0) - 1.0).abs() < 0.01, "{effect:?}");
    }

    #[test]
    fn what_wrote_nothing_or_has_no_neighbour_has_none() {
        let idle = effect(640, |_| 0).unwrap();
        assert_eq!((&idle.per_million[..], idle.of_span(1.0)), (&[][..], 1.0), "as if each page were drawn by itself");
        assert_eq!(effect(1, |_| 1), None);
        assert_eq!(Neighbours::new(640).design_effect(0, [0; 2]), None);
    }
}
