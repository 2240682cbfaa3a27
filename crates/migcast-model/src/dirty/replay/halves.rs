//! Two halves of a sampled replay, each an independent smaller sample: what the sampling error is measured with.

use super::{Event, PageReplay};
use crate::dirty::splitmix;
use crate::page_set::PageSet;

impl PageReplay {
    /// Splits the tracked pages into two halves that each stand for the whole memory: of every two neighbours one goes
    /// each way, by a coin that `seed` tosses. `None` where fewer than two pages are tracked.
    ///
    /// Tracked pages are drawn one out of each run of addresses, so neighbours are two draws from the same stretch of
    /// memory; half the difference of what the halves give estimates the error of the whole (balanced half-samples over
    /// collapsed strata; Wolter, *Introduction to Variance Estimation*, ch. 3).
    pub fn halves(&self, seed: u64) -> Option<[PageReplay; 2]> {
        let pairs = self.tracked / 2;
        (pairs > 0).then(|| [0, 1].map(|side| self.half(pairs, |pair| (splitmix(seed, pair.into()) as u32 & 1) ^ side)))
    }

    /// The replay of the pages `2 × pair + chosen(pair)`.
    fn half(&self, pairs: u32, chosen: impl Fn(u32) -> u32) -> PageReplay {
        let kept = |rank: u32| Some(rank / 2).filter(|pair| *pair < pairs && rank % 2 == chosen(*pair));
        let set = |whole: &PageSet| {
            let mut half = PageSet::empty(pairs);
            (0..pairs).filter(|pair| whole.contains(2 * pair + chosen(*pair))).for_each(|pair| half.set(pair, true));
            half
        };
        let mut events = Vec::with_capacity(self.events.len() / 2);
        let mut event_bounds = vec![0];
        let mut written = Vec::with_capacity(self.windows());
        let mut last_window = vec![usize::MAX; pairs as usize];
        for window in 0..self.windows() {
            let mut distinct = 0;
            for event in &self.events[self.event_bounds[window]..self.event_bounds[window + 1]] {
                let Some(pair) = kept(event.rank()) else { continue };
                events.push(Event::new(pair, event.written(), event.zero()));
                let again = std::mem::replace(&mut last_window[pair as usize], window) == window;
                distinct += u32::from(event.written() && !again);
            }
            event_bounds.push(events.len());
            written.push(distinct);
        }
        let zero_checkpoints: Vec<PageSet> = self.zero_checkpoints.iter().map(set).collect();
        PageReplay {
            tracked: pairs,
            memory: self.memory,
            events,
            event_bounds,
            written,
            time_bounds: self.time_bounds.clone(),
            zero_mean: self.zero_mean / f64::from(self.tracked) * f64::from(pairs),
            ever_zero: set(&self.ever_zero),
            zero_checkpoints,
            zero_at_end: set(&self.zero_at_end),
            starts_from_end: self.starts_from_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::dirty::{DirtySource, PageCursor, PageReplayBuilder, PageSource, ZeroChange};
    use crate::units::{GuestTime, PageCount};

    #[test]
    fn every_page_is_in_one_half_with_its_writes_and_zeros() {
        let mut builder = PageReplayBuilder::new(PageCount::new(40), PageCount::new(400));
        builder.zero_at_start(std::iter::once(30..40));
        for window in 0..10 {
            let change = ZeroChange { rank: 30 + window, zero: false };
            builder.window(Duration::from_millis(100), &[window, window + 10, 30 + window], &[change]);
        }
        let whole = builder.build().unwrap();
        let halves = whole.halves(7).unwrap();
        let written = halves.iter().map(|half| half.written_per_window().map(PageCount::get).sum::<u64>());
        // Each of a half's 20 pages stands for twenty of 400, each of the whole's 40 for ten.
        assert_eq!(written.sum::<u64>(), 2 * whole.written_per_window().map(PageCount::get).sum::<u64>());
        for half in &halves {
            assert_eq!((half.tracked().get(), half.memory().get()), (20, 400));
            assert_eq!(half.length(), whole.length());
            let mut cursor = half.cursor(Duration::ZERO);
            let zero = (0..20).filter(|rank| cursor.is_zero(*rank)).count();
            assert_eq!(zero, 5, "one of each two neighbours");
            cursor.advance(GuestTime::from_nanos(999_999_999), |_| {});
            assert_eq!((0..20).filter(|rank| cursor.is_zero(*rank)).count(), 0);
        }
        assert_ne!(format!("{:?}", halves[0].events), format!("{:?}", halves[1].events));
        assert_ne!(format!("{:?}", whole.halves(8).unwrap()[0].events), format!("{:?}", halves[0].events));
    }

    #[test]
    fn one_page_has_no_halves() {
        let mut builder = PageReplayBuilder::new(PageCount::new(1), PageCount::new(9));
        builder.window(Duration::from_millis(100), &[0], &[]);
        assert!(builder.build().unwrap().halves(1).is_none());
    }
}
