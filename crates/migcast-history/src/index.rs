//! The WWS index on disk: how many pages were written again after how long, without the pages.
//!
//! An *event* is a page written in a recorded window. Its *gap* is the number of recorded windows since the one in
//! which that page was last written (1 = the window before). Of a segment is kept what the model calls a part
//! ([`WwsPart`]), in two tables:
//!
//! ```text
//! wws     band 64     whole memory: events by bucket of their gap; of 2^level windows, 1 for gaps below 64
//!         band 0 … 63 events by octave of their gap; of a cell, or as many windows as a quarter of the octave's gaps
//!         band 65     pages written in windows on end, by how often they count as written in one; of 1 window
//! bands   per band: pages written, left zero, zero; of a cell
//! ```
//! A cell has 1 to 1,024 windows, as the memory is small or large. In format version 4 it has 8, and events of bands are by 1,024
//! windows. Version 3 has no band 65 either, and how often pages count as written only of a segment as a whole. Version 1 has events
//! by window, band and bucket, first writes included, and no `bands`.

use migcast_model::dirty::wws::part::{
    BandCount, BandGapCount, CELL_MAX, GapCount, OCTAVES, PartWindow, windows_of, windows_of_octave,
};
use migcast_model::dirty::wws::{self, DesignEffect, Lengthened, RunCount, TIMES_MAX, WwsPart};
use serde::{Deserialize, Serialize};

pub use migcast_model::dirty::wws::band;
pub use migcast_model::dirty::wws::gap::{BUCKETS, FIRST_WRITE, bucket, bucket_start};

use crate::table::Values;
use crate::windows::{State, Window};

/// Bands of an index.
pub const BANDS: u16 = wws::BANDS as u16;

/// The band of rows that are about the whole memory.
pub const ALL_BANDS: u16 = BANDS;

/// The band of rows that are about pages of the whole memory written in windows on end.
pub const RUNS: u16 = BANDS + 1;

/// Windows for which older segments count the gaps in a band together.
const STRETCH: u32 = 1024;

/// One row of `wws/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRow {
    /// The first of the windows that are counted together, counted from the start of the history.
    pub window: u32,
    /// Band of the pages, below [`BANDS`], or [`ALL_BANDS`], or [`RUNS`].
    pub band: u16,
    /// Bucket of their gaps, below [`BUCKETS`]; of rows for a band the first bucket of an octave, of [`RUNS`] how often the pages
    /// count as written, 2 to [`TIMES_MAX`].
    pub bucket: u16,
    /// How many there are, ≥ 1.
    pub events: u32,
}

impl IndexRow {
    /// The columns of `wws/`.
    pub(crate) fn columns(rows: &[IndexRow]) -> [Values; 4] {
        [
            Values::U32(rows.iter().map(|row| row.window.cast_signed()).collect()),
            Values::U32(rows.iter().map(|row| i32::from(row.band)).collect()),
            Values::U32(rows.iter().map(|row| i32::from(row.bucket)).collect()),
            Values::U32(rows.iter().map(|row| row.events.cast_signed()).collect()),
        ]
    }
}

/// One row of `bands/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BandRow {
    /// The first of the recorded windows of a cell, counted from the start of the history.
    pub window: u32,
    /// The band.
    pub band: u16,
    /// Pages written in them, each counted in every window it was written in.
    pub written: u32,
    /// Of those the ones that were zero after their window.
    pub left_zero: u32,
    /// Tracked pages that are zero after the last of the windows.
    pub zero: u32,
}

impl BandRow {
    /// The columns of `bands/`.
    pub(crate) fn columns(rows: &[BandRow]) -> [Values; 5] {
        let column =
            |value: fn(&BandRow) -> u32| Values::U32(rows.iter().map(|row| value(row).cast_signed()).collect());
        [
            column(|row| row.window),
            column(|row| row.band.into()),
            column(|row| row.written),
            column(|row| row.left_zero),
            column(|row| row.zero),
        ]
    }
}

/// What an index needs of a segment beside rows: the metadata `migcast.index`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beside {
    /// Windows that were recorded before the segment.
    recorded_before: u32,
    /// Recorded windows whose writes are counted together in `bands/`, a power of two up to [`CELL_MAX`].
    cell: u32,
    /// Of older segments: likewise in rows of `wws/` for a band, of any octave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stretch: Option<u32>,
    /// Tracked pages that were zero at the segment's start.
    zero_at_start: u64,
    /// How often one became zero in it.
    made_zero: u64,
    /// Of runs that count as written once, twice, … since they have gone on in the segment: how many had begun before it, and through
    /// how many windows before it they had gone on, all together; see [`Lengthened`]. Without those that are none at the end.
    #[serde(default)]
    lengthened: Vec<[u64; 2]>,
    /// Of older segments, which have no rows of runs: writes by how often they count as written in their window, once, twice, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    times_written: Option<[i64; TIMES_MAX as usize]>,
    /// Of samples; older recordings lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    design_effect: Option<Effect>,
}

/// What a sample errs by, see [`DesignEffect`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Effect {
    windows: u32,
    per_million: Vec<u32>,
    zero_borders: [u32; 2],
}

impl Effect {
    fn of(effect: &DesignEffect) -> Effect {
        let DesignEffect { windows, ref per_million, zero_borders } = *effect;
        Effect { windows, per_million: per_million.clone(), zero_borders }
    }

    fn design_effect(&self) -> DesignEffect {
        let Effect { windows, ref per_million, zero_borders } = *self;
        DesignEffect { windows, per_million: per_million.clone(), zero_borders }
    }
}

/// What a segment keeps for an index.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) index: Vec<IndexRow>,
    pub(crate) bands: Vec<BandRow>,
    pub(crate) beside: Beside,
}

impl Kept {
    /// What is kept of `part`, whose windows have these numbers.
    pub(crate) fn of(part: &WwsPart, numbers: &[u32]) -> Kept {
        let number = |window: u32| numbers[window as usize];
        let all = |count: &GapCount| IndexRow {
            window: number(count.window),
            band: ALL_BANDS,
            bucket: count.bucket,
            events: count.writes,
        };
        let in_band = |count: &BandGapCount| IndexRow {
            window: number(count.window),
            band: count.band,
            bucket: bucket(1 << count.octave),
            events: count.writes,
        };
        let run = |count: &RunCount| IndexRow {
            window: number(count.window),
            band: RUNS,
            bucket: count.times.into(),
            events: count.pages,
        };
        let mut index: Vec<IndexRow> = part.gaps.iter().map(all).collect();
        index.extend(part.band_gaps.iter().map(in_band));
        index.extend(part.runs.iter().map(run));
        index.sort_unstable();
        let bands = part.bands.iter().map(|&BandCount { window, band, written, left_zero, zero }| BandRow {
            window: number(window),
            band,
            written,
            left_zero,
            zero,
        });
        let last = part.lengthened.iter().rposition(|is| is.runs > 0).map_or(0, |last| last + 1);
        let lengthened = part.lengthened[..last].iter();
        let beside = Beside {
            recorded_before: part.before,
            cell: part.cell,
            stretch: None,
            zero_at_start: part.zero_at_start,
            made_zero: part.made_zero,
            lengthened: lengthened.map(|is| [is.runs.into(), is.before]).collect(),
            times_written: None,
            design_effect: part.design_effect.as_ref().map(Effect::of),
        };
        Kept { index, bands: bands.collect(), beside }
    }

    /// The part this was kept of, if it fits together and to the segment's windows, the first of which is `first`.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn part(&self, first: u32, windows: &[Window], tracked: u32) -> Result<WwsPart, Misfit> {
        let recorded = || (first..).zip(windows).filter(|(_, window)| window.state == State::Recorded);
        // The place of each of the segment's windows among the recorded ones.
        let mut places = vec![None; windows.len()];
        (0..).zip(recorded()).for_each(|(place, (number, _))| places[(number - first) as usize] = Some(place));
        let place = |number: u32| places.get(number.checked_sub(first)? as usize).copied().flatten();
        let Beside { recorded_before, cell, stretch, zero_at_start, made_zero, times_written, .. } = self.beside;
        let design_effect = self.beside.design_effect.as_ref().map(Effect::design_effect);
        let is_known = |effect: &DesignEffect| effect.per_million.len() <= DesignEffect::OCTAVES_MAX;
        let is_cell = cell.is_power_of_two() && cell <= CELL_MAX && stretch.is_none_or(|stretch| stretch == STRETCH);
        if !is_cell || !design_effect.as_ref().is_none_or(is_known) {
            return Err(Misfit::Beside);
        }
        let mut part = WwsPart {
            before: recorded_before,
            cell,
            zero_at_start,
            made_zero,
            lengthened: self.beside.lengthened(tracked).ok_or(Misfit::Beside)?,
            design_effect,
            ..WwsPart::default()
        };
        part.windows.extend(recorded().map(|(_, window)| PartWindow {
            nanos: window.end_unix_ns.abs_diff(window.start_unix_ns),
            written: window.written,
        }));
        for (row, &IndexRow { window, band, bucket: in_bucket, events }) in self.index.iter().enumerate() {
            let misfit = Misfit::Index { row: row as u64 };
            let window = place(window).ok_or(misfit)?;
            if band == ALL_BANDS && in_bucket != FIRST_WRITE && window % windows_of(in_bucket) == 0 {
                part.gaps.push(GapCount { window, bucket: in_bucket, writes: events });
            } else if band < BANDS && in_bucket != FIRST_WRITE {
                let octave = bucket_start(in_bucket).ilog2() as u16;
                let is_octave = bucket(1 << octave) == in_bucket && usize::from(octave) < OCTAVES;
                if !is_octave || window % stretch.unwrap_or_else(|| windows_of_octave(octave.into(), cell)) != 0 {
                    return Err(misfit);
                }
                part.band_gaps.push(BandGapCount { window, band, octave, writes: events });
            } else if band == RUNS && (2..=u16::from(TIMES_MAX)).contains(&in_bucket) && times_written.is_none() {
                part.runs.push(RunCount { window, times: in_bucket as u8, pages: events });
            } else {
                return Err(misfit);
            }
        }
        for (row, &BandRow { window, band, written, left_zero, zero }) in self.bands.iter().enumerate() {
            let window = place(window).filter(|window| window % cell == 0);
            let (Some(window), true) = (window, left_zero <= written && zero <= tracked) else {
                return Err(Misfit::Bands { row: row as u64 });
            };
            part.bands.push(BandCount { window, band, written, left_zero, zero });
        }
        let gone_on: Vec<(u32, u32)> = part
            .gaps
            .iter()
            .filter(|count| count.bucket == bucket(1))
            .map(|count| (count.window, count.writes))
            .collect();
        if let Some(times_written) = &times_written {
            part.runs = RunCount::mixed(&gone_on, times_written);
        }
        let written: u64 = part.windows.iter().map(|window| u64::from(window.written)).sum();
        let sum = |counts: &mut dyn Iterator<Item = u32>| counts.map(u64::from).sum::<u64>();
        let fits = sum(&mut part.bands.iter().map(|count| count.written)) == written
            && sum(&mut part.gaps.iter().map(|count| count.writes)) <= written
            && sum(&mut part.band_gaps.iter().map(|count| count.writes)) <= written
            && times_written.is_none_or(|times| times.map(i128::from).iter().sum::<i128>() == i128::from(written))
            && runs_go_on(&part.runs, &gone_on)
            && zero_at_start <= u64::from(tracked)
            && made_zero <= u64::from(tracked) * windows.len() as u64;
        if !fits {
            return Err(Misfit::Sums);
        }
        if let Some(stretch) = stretch {
            part.band_gaps = BandGapCount::mixed(&part.band_gaps, stretch, &part.bands, cell);
        }
        Ok(part)
    }
}

impl Beside {
    /// What [`WwsPart::lengthened`] is, if it can be of so many tracked pages.
    fn lengthened(&self, tracked: u32) -> Option<[Lengthened; TIMES_MAX as usize]> {
        let mut lengthened = [Lengthened::default(); TIMES_MAX as usize];
        if self.lengthened.len() > lengthened.len() {
            return None;
        }
        for (is, &[runs, before]) in lengthened.iter_mut().zip(&self.lengthened) {
            let runs = u32::try_from(runs).ok().filter(|runs| *runs <= tracked)?;
            if before > u64::from(runs) * u64::from(self.recorded_before) {
                return None;
            }
            *is = Lengthened { runs, before };
        }
        Some(lengthened)
    }
}

/// Whether in no window more runs go on than it has writes of gap 1; both ascend by window.
fn runs_go_on(runs: &[RunCount], gone_on: &[(u32, u32)]) -> bool {
    runs.chunk_by(|one, next| one.window == next.window).all(|of_window| {
        let pages: u64 = of_window.iter().map(|count| u64::from(count.pages)).sum();
        let at = gone_on.binary_search_by_key(&of_window[0].window, |(window, _)| *window);
        at.is_ok_and(|at| pages <= u64::from(gone_on[at].1))
    })
}

/// What of an index does not fit to the rest of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// A row of `wws/`.
    Index { row: u64 },
    /// A row of `bands/`.
    Bands { row: u64 },
    /// The metadata.
    Beside,
    /// More or fewer writes than the windows have.
    Sums,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use migcast_model::dirty::wws::PartRecorder;
    use migcast_model::units::PageCount;

    use super::*;

    /// Windows of which every third was not recorded, and what is kept of them.
    fn kept() -> (Vec<Window>, Kept, WwsPart) {
        let mut recorder = PartRecorder::new(128, PageCount::new(256), 8);
        let (mut windows, mut numbers) = (Vec::new(), Vec::new());
        for number in 0..600u32 {
            let state = if number % 3 == 2 { State::Gap } else { State::Recorded };
            let is_written =
                |rank: &u32| *rank < 4 && number % 50 < 40 || (number * 7 + rank * 13).is_multiple_of(rank + 2);
            let ranks: Vec<u32> = (0..128).filter(is_written).collect();
            let written = if state == State::Recorded { ranks.len() as u32 } else { 0 };
            if state == State::Recorded {
                recorder.window(Duration::from_nanos(5), &ranks);
                numbers.push(100 + number);
            }
            let start = i64::from(number) * 5;
            windows.push(Window { start_unix_ns: start, end_unix_ns: start + 5, state, written, zero: 0, cost_us: 0 });
        }
        let part = recorder.take();
        (windows, Kept::of(&part, &numbers), part)
    }

    #[test]
    fn what_is_kept_gives_the_part_back() {
        let (windows, kept, part) = kept();
        assert!(kept.index.len() > 100 && kept.bands.len() > 100 && kept.beside.design_effect.is_some());
        assert!(kept.index.iter().any(|row| row.band == RUNS), "some runs are long");
        assert_eq!(kept.part(100, &windows, 128).unwrap(), part);
    }

    #[test]
    fn of_a_segment_without_runs_they_are_mixed_evenly() {
        let (windows, mut kept, part) = kept();
        let going: u64 = part.runs.iter().map(|count| u64::from(count.pages)).sum();
        let written: u64 = part.windows.iter().map(|window| u64::from(window.written)).sum();
        let mut times_written = [0; TIMES_MAX as usize];
        (times_written[0], times_written[2]) = ((written - going).cast_signed(), going.cast_signed());
        kept.index.retain(|row| row.band != RUNS);
        (kept.beside.lengthened, kept.beside.times_written) = (Vec::new(), Some(times_written));
        let older = kept.part(100, &windows, 128).unwrap();
        let mixed: u64 = older.runs.iter().map(|count| u64::from(count.pages)).sum();
        assert!(
            older.runs.iter().all(|count| count.times == 3) && mixed.abs_diff(going * 18 / 19) < 10,
            "{mixed} of {going}"
        );
        assert_eq!(WwsPart { runs: part.runs.clone(), lengthened: part.lengthened, ..older }, part);
    }

    #[test]
    fn of_a_segment_with_stretches_gaps_lie_where_bands_were_written() {
        let (windows, mut kept, part) = kept();
        let first = kept.index[0].window;
        let mut stretches = std::collections::BTreeMap::new();
        for row in kept.index.iter().filter(|row| row.band < BANDS) {
            *stretches.entry((first, row.band, row.bucket)).or_insert(0) += row.events;
        }
        kept.index.retain(|row| row.band >= BANDS);
        let rows = stretches.into_iter();
        kept.index.extend(rows.map(|((window, band, bucket), events)| IndexRow { window, band, bucket, events }));
        kept.index.sort_unstable();
        kept.beside.stretch = Some(STRETCH);
        let older = kept.part(100, &windows, 128).unwrap();
        let by_octave = |part: &WwsPart| {
            let mut writes = [0; OCTAVES];
            part.band_gaps.iter().for_each(|count| writes[usize::from(count.octave)] += count.writes);
            writes
        };
        assert_eq!(by_octave(&older), by_octave(&part));
        assert!(older.band_gaps.iter().any(|count| count.window > 300), "not all in the first cell");
        assert_eq!(WwsPart { band_gaps: part.band_gaps.clone(), ..older }, part);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let misfit = |spoil: fn(&mut Kept)| {
            let (windows, mut kept, _) = kept();
            spoil(&mut kept);
            kept.part(100, &windows, 128).unwrap_err()
        };
        assert_eq!(misfit(|kept| kept.index[3].window = 99), Misfit::Index { row: 3 });
        assert_eq!(misfit(|kept| kept.index[0].window = 102), Misfit::Index { row: 0 });
        assert_eq!(misfit(|kept| kept.index[0].bucket = FIRST_WRITE), Misfit::Index { row: 0 });
        assert_eq!(misfit(|kept| kept.bands[1].left_zero = 5_000), Misfit::Bands { row: 1 });
        assert_eq!(misfit(|kept| kept.bands[1].window += 1), Misfit::Bands { row: 1 });
        assert_eq!(misfit(|kept| kept.bands[1].written += 1), Misfit::Sums);
        let older = |kept: &mut Kept| {
            kept.index.retain(|row| row.band != RUNS);
            kept.beside.times_written = Some([1; TIMES_MAX as usize]);
        };
        assert_eq!(misfit(older), Misfit::Sums);
        assert_eq!(misfit(|kept| kept.beside.lengthened = vec![[0, 0], [1, 1]]), Misfit::Beside);
        assert_eq!(misfit(|kept| kept.beside.lengthened = vec![[129, 0]]), Misfit::Beside);
        assert_eq!(misfit(|kept| kept.beside.lengthened = vec![[0, 0]; TIMES_MAX as usize + 1]), Misfit::Beside);
        fn run(kept: &mut Kept) -> (u64, &mut IndexRow) {
            let row = kept.index.iter().position(|row| row.band == RUNS).unwrap();
            (row as u64, &mut kept.index[row])
        }
        let (row, _) = run(&mut kept().1);
        assert_eq!(misfit(|kept| kept.beside.times_written = Some([0; TIMES_MAX as usize])), Misfit::Index { row });
        assert_eq!(misfit(|kept| run(kept).1.bucket = 1), Misfit::Index { row });
        assert_eq!(misfit(|kept| run(kept).1.bucket = u16::from(TIMES_MAX) + 1), Misfit::Index { row });
        assert_eq!(misfit(|kept| run(kept).1.events += 128), Misfit::Sums);
        assert_eq!(misfit(|kept| kept.beside.stretch = Some(7)), Misfit::Beside);
        assert_eq!(misfit(|kept| kept.beside.cell = 7), Misfit::Beside);
        assert_eq!(misfit(|kept| kept.beside.cell = 2 * CELL_MAX), Misfit::Beside);
        let too_long = |kept: &mut Kept| {
            kept.beside.design_effect.as_mut().unwrap().per_million = vec![1; DesignEffect::OCTAVES_MAX + 1];
        };
        assert_eq!(misfit(too_long), Misfit::Beside);
    }
}
