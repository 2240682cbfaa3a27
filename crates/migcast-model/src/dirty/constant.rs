//! AVG: a constant dirty rate over a writable working set of stated size.

use std::sync::Arc;
use std::time::Duration;

use super::{BANDS, DirtySource, Estimate, PageCursor, PageReplay, PageSource, PerBand};
use crate::page_set::PageSet;
use crate::units::{GuestTime, PageCount, PagesPerSec};

/// Where a span holds more writes than this per page of the working set, every page counts as written: exact for
/// sequential writes, and all but e^−8 of the pages for uniform ones. It bounds the work of a span, whatever the rate.
const WRITES_PER_PAGE_MAX: u64 = 8;

/// How the writes fall on the working set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePattern {
    /// Each write hits any page of the set with the same chance: W(t) = N·(1 − e^(−rt/N)).
    #[default]
    Uniform,
    /// Each write hits the next page of the set, round and round: W(t) = min(rt, N).
    Sequential,
}

impl WritePattern {
    /// The rate of writes that makes `distinct` pages of a working set distinct within `span`: the inverse of W(t).
    /// `None` where the set does not hold so many, or, written uniformly, would never see all of them written.
    pub fn rate_for(self, working_set: PageCount, distinct: f64, span: Duration) -> Option<PagesPerSec> {
        let (set, seconds) = (working_set.get() as f64, span.as_secs_f64());
        match self {
            WritePattern::Uniform if distinct < set => {
                Some(PagesPerSec::new(-set * libm::log1p(-distinct / set) / seconds))
            }
            WritePattern::Sequential if distinct <= set => Some(PagesPerSec::new(distinct / seconds)),
            WritePattern::Uniform | WritePattern::Sequential => None,
        }
    }
}

/// A guest that writes at a constant rate: the AVG model of Akoush et al. (2010).
///
/// Write `i` falls at `(i + ½) ÷ rate`. The working set is spread evenly over the memory, so that no scan order favours
/// it. No page is zero unless [`ConstantRate::with_zero_of`] says so; one that is written is zero no longer.
#[derive(Clone, Debug)]
pub struct ConstantRate {
    memory: PageCount,
    working_set: PageCount,
    rate: PagesPerSec,
    pattern: WritePattern,
    seed: u64,
    /// Shared by guests that differ in their rate only.
    zero: Arc<PageSet>,
}

impl ConstantRate {
    /// Most pages a guest may have.
    pub const MEMORY_MAX: PageCount = PageCount::new(u32::MAX as u64);

    /// `rate` writes per second over `working_set` of the `memory` pages. The working set is cut to the memory; an
    /// empty one writes nothing. `seed` fixes where uniform writes fall.
    ///
    /// # Panics
    /// If the memory has more than [`ConstantRate::MEMORY_MAX`].
    pub fn new(memory: PageCount, working_set: PageCount, rate: PagesPerSec, pattern: WritePattern, seed: u64) -> Self {
        let rate = if working_set.is_zero() || memory.is_zero() { PagesPerSec::ZERO } else { rate };
        let pages = u32::try_from(memory.get()).expect("a page-level source has fewer than 2^32 pages");
        let (working_set, zero) = (working_set.min(memory), Arc::new(PageSet::empty(pages)));
        ConstantRate { memory, working_set, rate, pattern, seed, zero }
    }

    /// The same guest at another rate.
    pub(super) fn with_rate(&self, rate: PagesPerSec) -> ConstantRate {
        let rate = if self.working_set.is_zero() { PagesPerSec::ZERO } else { rate };
        ConstantRate { rate, ..self.clone() }
    }

    /// The same with the zero map a recorded guest had at its start. In a sampled one a page is zero if the tracked page
    /// that stands for it is.
    pub fn with_zero_of(mut self, replay: &PageReplay) -> Self {
        let first = replay.cursor(Duration::ZERO);
        let tracked = replay.tracked().get();
        let zero = Arc::make_mut(&mut self.zero);
        for page in 0..zero.universe() {
            let rank = u128::from(page) * u128::from(tracked) / u128::from(self.memory.get());
            zero.set(page, first.is_zero(u32::try_from(rank).expect("a rank is below the page's number")));
        }
        self
    }

    /// The same with so many zero pages in each band, the first of it.
    pub fn with_zero_per_band(mut self, pages: &PerBand) -> Self {
        let zero = Arc::make_mut(&mut self.zero);
        let universe = u64::from(zero.universe());
        for (band, pages) in (0..).zip(pages) {
            let [first, end] = [band, band + 1].map(|band| (universe * band / BANDS as u64) as u32);
            (first..end).take(pages.round() as usize).for_each(|page| zero.set(page, true));
        }
        self
    }

    /// Writes per second.
    pub fn rate(&self) -> PagesPerSec {
        self.rate
    }

    /// Pages that are written at all.
    pub fn working_set(&self) -> PageCount {
        self.working_set
    }

    /// How the writes fall.
    pub fn pattern(&self) -> WritePattern {
        self.pattern
    }

    fn rank_of_write(&self, index: u64) -> u32 {
        let in_set = match self.pattern {
            WritePattern::Uniform => splitmix(self.seed, index) % self.working_set.get(),
            WritePattern::Sequential => index % self.working_set.get(),
        };
        self.rank_of_page(in_set)
    }

    /// Where a page of the working set lies in the memory.
    fn rank_of_page(&self, in_set: u64) -> u32 {
        let page = u128::from(in_set) * u128::from(self.memory.get()) / u128::from(self.working_set.get());
        u32::try_from(page).expect("a page-level source has fewer than 2^32 pages")
    }
}

impl DirtySource for ConstantRate {
    fn memory(&self) -> PageCount {
        self.memory
    }

    fn length(&self) -> Option<Duration> {
        None
    }

    fn write_set(&self, span: Duration) -> Estimate {
        let writes = self.rate.get() * span.as_secs_f64();
        let set = self.working_set.get() as f64;
        Estimate::exact(match self.pattern {
            _ if set == 0.0 => 0.0,
            WritePattern::Uniform => -set * libm::expm1(-writes / set),
            WritePattern::Sequential => writes.min(set),
        })
    }

    fn zero(&self) -> Estimate {
        Estimate::exact(f64::from(self.zero.len()))
    }

    fn never_zero(&self) -> PageCount {
        self.memory - PageCount::new(u64::from(self.zero.len()))
    }
}

impl PageSource for ConstantRate {
    type Cursor<'a> = ConstantCursor<'a>;

    fn tracked(&self) -> PageCount {
        self.memory
    }

    fn cursor(&self, start: Duration) -> ConstantCursor<'_> {
        let skipped = self.writes_until(start.as_secs_f64());
        ConstantCursor {
            source: self,
            start_seconds: start.as_secs_f64(),
            next: skipped,
            zero: PageSet::clone(&self.zero),
        }
    }
}

impl ConstantRate {
    /// Writes up to and including this time, a whole number. Beyond 2^53 of them it is a multiple of a power of two, and
    /// beyond any rate at which each nanosecond writes every page it grows no further.
    fn writes_until(&self, seconds: f64) -> f64 {
        let rate_max = self.writes_max() * 1e9;
        (self.rate.get().min(rate_max) * seconds + 0.5).floor()
    }

    /// Writes in a span beyond which every page counts as written.
    fn writes_max(&self) -> f64 {
        (WRITES_PER_PAGE_MAX * self.working_set.get()) as f64
    }
}

/// Walks the writes of a [`ConstantRate`].
#[derive(Clone, Debug)]
pub struct ConstantCursor<'a> {
    source: &'a ConstantRate,
    start_seconds: f64,
    /// Writes that have been told of.
    next: f64,
    zero: PageSet,
}

impl PageCursor for ConstantCursor<'_> {
    fn advance(&mut self, until: GuestTime, mut written: impl FnMut(u32)) {
        let end = self.source.writes_until(self.start_seconds + until.as_nanos() as f64 / 1e9);
        let mut write = |rank| {
            self.zero.set(rank, false);
            written(rank);
        };
        if end - self.next > self.source.writes_max() {
            (0..self.source.working_set.get()).for_each(|page| write(self.source.rank_of_page(page)));
        } else {
            // Numbers of writes go round at 2^64.
            let first = (self.next % 2f64.powi(64)) as u64;
            let count = (end - self.next) as u64;
            (0..count).for_each(|index| write(self.source.rank_of_write(first.wrapping_add(index))));
        }
        self.next = self.next.max(end);
    }

    fn is_zero(&self, rank: u32) -> bool {
        self.zero.contains(rank)
    }

    fn zero_is_settled(&self) -> bool {
        self.zero.len() == 0
    }
}

/// The `index`-th output of a SplitMix64 generator (Steele, Lea, Flood, OOPSLA 2014), computed directly.
pub(crate) fn splitmix(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dirty::PageReplayBuilder;

    fn distinct(source: &ConstantRate, span: Duration) -> usize {
        let mut pages = BTreeSet::new();
        source.cursor(Duration::ZERO).advance(GuestTime::ZERO + span, |rank| {
            pages.insert(rank);
        });
        pages.len()
    }

    #[test]
    fn uniform_writes_follow_the_random_writer() {
        let source = ConstantRate::new(
            PageCount::new(50_000),
            PageCount::new(8_000),
            PagesPerSec::new(4_000.0),
            WritePattern::Uniform,
            7,
        );
        for seconds in [1, 2, 5, 10] {
            let span = Duration::from_secs(seconds);
            let expected = source.write_set(span).mean;
            let counted = distinct(&source, span) as f64;
            assert!((counted - expected).abs() < 0.02 * expected, "{seconds} s: {counted} against {expected}");
        }
    }

    #[test]
    fn sequential_writes_fill_the_set_and_no_more() {
        let source = ConstantRate::new(
            PageCount::new(50_000),
            PageCount::new(3_000),
            PagesPerSec::new(1_000.0),
            WritePattern::Sequential,
            0,
        );
        assert_eq!(distinct(&source, Duration::from_secs(2)), 2_000);
        assert_eq!(distinct(&source, Duration::from_secs(9)), 3_000);
        assert_eq!(source.write_set(Duration::from_secs(9)).mean, 3_000.0);
    }

    #[test]
    fn a_cursor_in_two_steps_sees_what_one_step_sees() {
        let source = ConstantRate::new(
            PageCount::new(1_000),
            PageCount::new(100),
            PagesPerSec::new(333.0),
            WritePattern::Uniform,
            1,
        );
        let collect = |stops: &[u64]| {
            let mut seen = Vec::new();
            let mut cursor = source.cursor(Duration::from_secs(3));
            for &millis in stops {
                cursor.advance(GuestTime::from_nanos(millis * 1_000_000), |rank| seen.push(rank));
            }
            seen
        };
        assert_eq!(collect(&[777, 2_000]), collect(&[2_000]));
    }

    #[test]
    fn the_rate_for_a_write_set_gives_that_write_set() {
        let (memory, set, span) = (PageCount::new(50_000), PageCount::new(8_000), Duration::from_secs(2));
        for pattern in [WritePattern::Uniform, WritePattern::Sequential] {
            let rate = pattern.rate_for(set, 6_000.0, span).unwrap();
            let source = ConstantRate::new(memory, set, rate, pattern, 0);
            assert!((source.write_set(span).mean - 6_000.0).abs() < 1e-6, "{pattern:?}");
            assert!(pattern.rate_for(set, 8_000.5, span).is_none());
        }
        assert!(WritePattern::Uniform.rate_for(set, 8_000.0, span).is_none(), "every page takes for ever");
        assert!(WritePattern::Sequential.rate_for(set, 8_000.0, span).is_some());
    }

    #[test]
    fn any_rate_is_walked_in_bounded_time_and_goes_on() {
        for pattern in [WritePattern::Uniform, WritePattern::Sequential] {
            for rate in [1e12, 1e15, 1e19, 1e300, f64::MAX] {
                let rate = PagesPerSec::new(rate);
                let source = ConstantRate::new(PageCount::new(1_000), PageCount::new(100), rate, pattern, 1);
                let mut cursor = source.cursor(Duration::ZERO);
                for seconds in [1, 1_000, 1_000_000, 1_000_000_000] {
                    let mut written = BTreeSet::new();
                    let end = GuestTime::ZERO + Duration::from_secs(seconds);
                    cursor.advance(end, |_| {});
                    cursor.advance(end + Duration::from_millis(1), |rank| {
                        written.insert(rank);
                    });
                    assert_eq!(written.len(), 100, "{rate:?}, {pattern:?}, after {seconds} s");
                }
            }
        }
    }

    #[test]
    fn an_empty_working_set_writes_nothing() {
        let source =
            ConstantRate::new(PageCount::new(1_000), PageCount::ZERO, PagesPerSec::new(9.0), WritePattern::Uniform, 1);
        assert_eq!(distinct(&source, Duration::from_secs(100)), 0);
        assert_eq!(source.write_set(Duration::from_secs(1)).mean, 0.0);
    }

    #[test]
    fn zero_pages_of_a_history_are_zero_until_they_are_written() {
        let mut builder = PageReplayBuilder::new(PageCount::new(10), PageCount::new(20));
        builder.zero_at_start(std::iter::once(5..10));
        builder.window(Duration::from_secs(1), &[], &[]);
        let replay = builder.build().unwrap();
        let memory = PageCount::new(20);
        let source =
            ConstantRate::new(memory, memory, PagesPerSec::new(1.0), WritePattern::Sequential, 0).with_zero_of(&replay);
        assert_eq!((source.zero().mean, source.never_zero().get()), (10.0, 10));
        let mut cursor = source.cursor(Duration::ZERO);
        let zero = |cursor: &ConstantCursor<'_>| (0..20).filter(|rank| cursor.is_zero(*rank)).count();
        assert_eq!(zero(&cursor), 10);
        cursor.advance(GuestTime::from_nanos(13_000_000_000), |_| {});
        assert_eq!(zero(&cursor), 7, "pages 0 to 12 were written, three of them had been zero");
    }
}
