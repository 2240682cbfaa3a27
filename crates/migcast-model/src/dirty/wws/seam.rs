//! What is not known where counting begins, at the start of a history and wherever one was laid behind another: when the
//! pages written first were written last.
//!
//! Who has followed every page knows ([`WriteTracker::laps`]). Where counts are all there is, a seam is taken to be a
//! moment like any other of this history: a page written `f` windows behind it for the first time has a gap longer than
//! f, and of such gaps each is as frequent as it is elsewhere. Pages that are written once in all the history come back
//! after all of it; they are as frequent as first writes far behind a seam are beyond what gaps explain.
//!
//! [`WriteTracker::laps`]: super::tracker::WriteTracker::laps

use std::ops::Range;

use super::gap;

/// Gaps for writes that have none.
#[derive(Clone, Debug)]
pub(super) struct Seam {
    /// Windows that were counted together, from one seam to the next.
    pieces: Vec<Range<u32>>,
    windows: u32,
    /// Writes per window of each bucket, over the windows in which such a gap could be seen.
    rates: Vec<f64>,
    /// Likewise of pages that are written once in all the history.
    once: f64,
    /// Of each bucket what has been given out in parts of a write.
    parts: Vec<f64>,
}

impl Seam {
    /// `totals` are the writes of known gap by bucket, `unknown` those of unknown gap by window. Counting began anew at the
    /// windows `seams`, ascending, the first of which is 0.
    pub(super) fn new(totals: &[u64], unknown: &[f64], seams: &[u32]) -> Seam {
        let windows = unknown.len() as u32;
        let ends = seams.iter().skip(1).copied().chain([windows]);
        let pieces: Vec<Range<u32>> = seams.iter().zip(ends).map(|(start, end)| *start..end).collect();
        let over_pieces = |of: &dyn Fn(u32) -> u32| pieces.iter().map(|piece| of(piece.len() as u32)).sum::<u32>();
        let middle = |bucket: u16| gap::bucket_start(bucket).saturating_add(gap::bucket_width(bucket) / 2);
        let rate = |(bucket, writes): (usize, &u64)| {
            let bucket = bucket as u16;
            let seen = over_pieces(&|length| length.saturating_sub(middle(bucket))).max(1);
            if bucket == gap::FIRST_WRITE { 0.0 } else { *writes as f64 / f64::from(seen) }
        };
        let rates: Vec<f64> = totals.iter().enumerate().map(rate).collect();
        // The second half of a piece is far behind its seam.
        let late = |length: u32| length / 2;
        let mut explained = 0.0;
        for (bucket, rate) in (0..).zip(&rates).skip(1) {
            // f windows behind a seam those gaps of the bucket are explained that are longer than f.
            let reach = over_pieces(&|length| middle(bucket).min(length).saturating_sub(late(length)));
            explained += rate * f64::from(reach);
        }
        let far = |piece: &Range<u32>| {
            let late = piece.start + late(piece.len() as u32);
            unknown[late as usize..piece.end as usize].iter().sum::<f64>()
        };
        let found: f64 = pieces.iter().map(far).sum();
        let once = ((found - explained) / f64::from(over_pieces(&|length| length - late(length)))).max(0.0);
        Seam { windows, parts: vec![0.0; rates.len()], rates, once, pieces }
    }

    /// Gives the first writes of all windows their gaps: tells window, bucket and how many.
    pub(super) fn give(mut self, unknown: &[f64], mut tell: impl FnMut(u32, u16, u32)) {
        let last = gap::bucket(self.windows);
        let mut left = 0.0;
        let pieces = std::mem::take(&mut self.pieces);
        let places =
            pieces.into_iter().flat_map(|piece| piece.clone().map(move |window| (window, window - piece.start)));
        for ((window, behind), writes) in places.zip(unknown) {
            left += writes;
            if left < 0.5 {
                continue;
            }
            let first = gap::bucket(behind + 1);
            let longer = |bucket: u16| {
                let (start, width) = (gap::bucket_start(bucket), gap::bucket_width(bucket));
                let share = f64::from((start + width).saturating_sub(behind + 1).min(width)) / f64::from(width);
                self.rates[usize::from(bucket)] * share
            };
            let all: f64 = (first..=last).map(longer).sum::<f64>() + self.once;
            let shares: Vec<f64> =
                (first..=last).map(|bucket| if all > 0.0 { longer(bucket) / all } else { 0.0 }).collect();
            let once = if all > 0.0 { self.once / all } else { 1.0 };
            for (bucket, mut share) in (first..=last).zip(shares) {
                share += if bucket == last { once } else { 0.0 };
                let part = &mut self.parts[usize::from(bucket)];
                *part += left * share;
                let whole = part.round().max(0.0);
                *part -= whole;
                if whole > 0.0 {
                    tell(window, bucket, whole as u32);
                }
            }
            left = 0.0;
        }
    }
}

/// The same for a band of the memory, of whose gaps only the octave is known.
#[derive(Clone, Debug)]
pub(super) struct OctaveSeam {
    /// Writes per window of each octave, over the windows in which such a gap could be seen.
    rates: Vec<f64>,
    /// Likewise of pages that are written once in all the history.
    once: f64,
}

/// A stretch of windows behind a seam.
#[derive(Clone, Debug)]
pub(super) struct Behind {
    windows: f64,
    /// Whether it begins in the second half of what lies between two seams.
    is_late: bool,
    /// For each octave how many of the windows its gaps reach back from, over the seam, each weighed by the share of the
    /// octave's gaps that do.
    reached: Vec<f64>,
}

impl Behind {
    /// The windows `behind` a seam that is followed by another after so many.
    pub(super) fn new(behind: Range<u32>, piece: u32, octaves: usize) -> Behind {
        // Of the octave from t to 2t all gaps reach back further than t, half of them further than 1.5 t.
        let reached_to = |window: u32, octave: usize| {
            let (window, least) = (f64::from(window), (1u64 << octave) as f64);
            let part = ((window - least) / least).clamp(0.0, 1.0);
            window.min(least) + least * (part - part * part / 2.0)
        };
        let reached = |octave: usize| reached_to(behind.end, octave) - reached_to(behind.start, octave);
        Behind {
            windows: f64::from(behind.end - behind.start),
            is_late: behind.start >= piece / 2 || behind.end >= piece,
            reached: (0..octaves).map(reached).collect(),
        }
    }
}

impl OctaveSeam {
    /// `known` tells the writes of an octave in a stretch, `unknown` those of unknown gap.
    pub(super) fn new(stretches: &[Behind], known: impl Fn(usize, usize) -> f64, unknown: &[f64]) -> OctaveSeam {
        let octaves = stretches.first().map_or(0, |stretch| stretch.reached.len());
        let rate = |octave: usize| {
            let writes: f64 = (0..stretches.len()).map(|stretch| known(stretch, octave)).sum();
            let seen: f64 = stretches.iter().map(|stretch| stretch.windows - stretch.reached[octave]).sum();
            writes / seen.max(1.0)
        };
        let rates: Vec<f64> = (0..octaves).map(rate).collect();
        let explained =
            |stretch: &Behind| rates.iter().zip(&stretch.reached).map(|(rate, reached)| rate * reached).sum::<f64>();
        let late = || stretches.iter().enumerate().filter(|(_, stretch)| stretch.is_late);
        let left: f64 = late().map(|(index, stretch)| unknown[index] - explained(stretch)).sum();
        let windows: f64 = late().map(|(_, stretch)| stretch.windows).sum();
        OctaveSeam { once: (left / windows.max(1.0)).max(0.0), rates }
    }

    /// The shares, by octave, of writes of unknown gap so many windows behind a seam: their gaps are longer than that. What is left
    /// comes back after all the history.
    pub(super) fn shares(&self, behind: f64, shares: &mut Vec<f64>) {
        let longer = |(octave, rate): (usize, &f64)| {
            let least = (1u64 << octave) as f64;
            rate * (1.0 - ((behind - least) / least).clamp(0.0, 1.0))
        };
        shares.clear();
        shares.extend(self.rates.iter().enumerate().map(longer));
        let all = shares.iter().sum::<f64>() + self.once;
        shares.iter_mut().for_each(|share| *share = if all > 0.0 { *share / all } else { 0.0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bucket and number of what is given.
    fn given(totals: &[(u32, u64)], unknown: &[f64], seams: &[u32]) -> Vec<(u32, u16, u32)> {
        let mut all = vec![0; usize::from(gap::BUCKETS)];
        totals.iter().for_each(|(gap, writes)| all[usize::from(gap::bucket(*gap))] += writes);
        let mut told = Vec::new();
        Seam::new(&all, unknown, seams).give(unknown, |window, bucket, writes| told.push((window, bucket, writes)));
        told
    }

    #[test]
    fn a_page_that_comes_back_every_five_windows_does_so_over_the_end() {
        // Ten pages, two of them each window.
        let mut unknown = vec![0.0; 100];
        unknown[..5].fill(2.0);
        let told = given(&[(5, 190)], &unknown, &[0]);
        let writes: u32 = told.iter().map(|(.., writes)| writes).sum();
        assert_eq!(writes, 10);
        assert!(told.iter().all(|(_, bucket, _)| *bucket == 5), "{told:?}");
    }

    #[test]
    fn a_page_that_comes_back_every_five_windows_does_so_over_every_seam() {
        // The same, of which counting begins anew twice.
        let mut unknown = vec![0.0; 100];
        [0, 40, 70].into_iter().for_each(|seam| unknown[seam..seam + 5].fill(2.0));
        let told = given(&[(5, 170)], &unknown, &[0, 40, 70]);
        let writes: u32 = told.iter().map(|(.., writes)| writes).sum();
        assert_eq!(writes, 30);
        assert!(told.iter().all(|(_, bucket, _)| *bucket == 5), "{told:?}");
    }

    #[test]
    fn pages_written_once_come_back_after_all_of_it() {
        let told = given(&[], &[3.0; 40], &[0]);
        assert!(told.iter().all(|(_, bucket, writes)| *bucket == gap::bucket(40) && *writes == 3), "{told:?}");
        assert_eq!(told.len(), 40);
    }

    #[test]
    fn a_band_whose_pages_come_back_every_hundred_windows_does_so_over_the_end() {
        // Two pages a window, of which 100 windows show no gap; the second stretch shows all of them.
        let stretches = [Behind::new(0..1_000, 2_000, 11), Behind::new(1_000..2_000, 2_000, 11)];
        let known = |stretch: usize, octave: usize| if octave == 6 { [1_800.0, 2_000.0][stretch] } else { 0.0 };
        let seam = OctaveSeam::new(&stretches, known, &[200.0, 0.0]);
        let mut shares = Vec::new();
        seam.shares(100.0, &mut shares);
        assert_eq!((seam.once, shares[6], shares.iter().sum::<f64>()), (0.0, 1.0, 1.0));
        seam.shares(128.0, &mut shares);
        assert_eq!(shares.iter().sum::<f64>(), 0.0, "no gap of that octave reaches back so far");
    }

    #[test]
    fn a_band_whose_pages_are_written_once_has_no_gap_to_give() {
        let stretches = [Behind::new(0..1_000, 1_500, 11), Behind::new(1_000..1_500, 1_500, 11)];
        let known = |_: usize, octave: usize| if octave == 2 { 500.0 } else { 0.0 };
        let seam = OctaveSeam::new(&stretches, known, &[1_000.0, 500.0]);
        assert_eq!(seam.once, 1.0);
        let mut shares = Vec::new();
        seam.shares(1.0, &mut shares);
        assert!((shares[2] - 0.4).abs() < 0.01, "two writes in three windows come back soon, three do not");
        seam.shares(8.0, &mut shares);
        assert_eq!(shares.iter().sum::<f64>(), 0.0);
    }
}
