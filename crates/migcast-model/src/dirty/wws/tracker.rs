//! What a recorder keeps of every page to count write gaps while windows stream by: its last write, its first, and for
//! how many windows on end it has been written.

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
}
