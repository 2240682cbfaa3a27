//! The part of a recorded history that forecasts are made from: page by page, or off its WWS index.

use std::ops::Range;
use std::time::Duration;

use anyhow::ensure;
use migcast_history::reader::History;
use migcast_history::timeline::Timeline;
use migcast_model::dirty::{ConstantRate, CountedSource, DirtySource, PageReplay, SpanCounts, WwsIndex};
use migcast_model::due::DueSource;
use migcast_model::sampling::SamplingError;
use migcast_model::simulate::Scenario;
use migcast_model::units::GuestTime;

use super::scenario::{ReadFrom, STARTS_MAX, Start};

/// More writes than this are not replayed page by page unless that is asked for: a replay takes 4 bytes for each.
const PAGES_WRITES_MAX: u64 = 20_000_000;
/// Likewise of tracked pages, each counted for every starting point: some 5 ns.
const PAGES_SENT_MAX: u64 = 500_000_000;
/// Windows of which an index is held at once: a day at 100 ms, in half a gigabyte.
const INDEX_WINDOWS_MAX: usize = 1 << 20;
/// Writes of which an index can tell.
const INDEX_WRITES_MAX: u64 = (1 << 31) - 1;

/// What is known of the writes.
#[derive(Debug)]
pub(super) enum Source {
    Pages(Box<PageReplay>),
    Index(Box<WwsIndex>),
}

impl Source {
    /// Opens the windows `part` of a history, or the last of them where they are too many; says which.
    pub(super) fn open(
        history: &History,
        timeline: &Timeline,
        part: Range<u32>,
        (start, from): (Start, Option<ReadFrom>),
        warnings: &mut Vec<String>,
    ) -> anyhow::Result<(Source, Range<u32>)> {
        let in_part = || timeline.recorded().filter(|entry| part.contains(&entry.index));
        let with_pages = history.windows_with_pages();
        let has_pages = in_part().next().is_some_and(|first| with_pages.contains(&first.index));
        let starts = if matches!(start, Start::At(_)) { 1 } else { (in_part().count() as u64).min(STARTS_MAX as u64) };
        let sent = u64::from(history.tracked().count()).saturating_mul(starts);
        let writes: u64 = in_part().map(|entry| u64::from(entry.window.written)).sum();
        let from = from.unwrap_or(if has_pages && writes <= PAGES_WRITES_MAX && sent <= PAGES_SENT_MAX {
            ReadFrom::Pages
        } else {
            ReadFrom::Index
        });
        if from == ReadFrom::Pages {
            ensure!(
                has_pages,
                "--from pages: which pages were written is kept only from window {} on, allowed: --from index, or --start \
                 now",
                with_pages.start
            );
            return Ok((Source::Pages(Box::new(history.page_replay(part.clone())?)), part));
        }
        let entries: Vec<_> = in_part().collect();
        let mut sum = 0;
        let fitting = entries.iter().rev().take(INDEX_WINDOWS_MAX).take_while(|entry| {
            sum += u64::from(entry.window.written);
            sum <= INDEX_WRITES_MAX
        });
        let kept = fitting.count().max(1).min(entries.len());
        let first = entries.get(entries.len() - kept).map_or(part.start, |first| first.index);
        // An index is of whole segments.
        let segment = history.segments().iter().find(|segment| segment.windows().contains(&first));
        let part = segment.map_or(first, |segment| segment.windows().start)..part.end;
        if kept < entries.len() {
            warnings
                .push(format!("the last {kept} of {} windows are used: an index holds no more at once", entries.len()));
        }
        Ok((Source::Index(Box::new(history.wws_index(part.clone())?)), part))
    }

    /// Whether it counts.
    pub(super) fn is_index(&self) -> bool {
        matches!(self, Source::Index(_))
    }

    /// As a source that says how much was written.
    pub(super) fn counted(&self) -> &dyn DirtySource {
        match self {
            Source::Pages(replay) => replay.as_ref(),
            Source::Index(index) => index.as_ref(),
        }
    }

    /// As one over which migrations are simulated.
    pub(super) fn due_source(&self) -> &dyn DueSource {
        match self {
            Source::Pages(replay) => replay.as_ref(),
            Source::Index(index) => index.as_ref(),
        }
    }

    /// Recorded windows.
    pub(super) fn windows(&self) -> usize {
        match self {
            Source::Pages(replay) => replay.windows(),
            Source::Index(index) => index.windows(),
        }
    }

    /// Start of each window, in recorded time.
    pub(super) fn window_starts(&self) -> Vec<Duration> {
        match self {
            Source::Pages(replay) => replay.window_starts().collect(),
            Source::Index(index) => index.window_starts().collect(),
        }
    }

    /// A constant rate with the zero pages that there were at the start.
    pub(super) fn zero_at_start(&self, rate: ConstantRate) -> ConstantRate {
        match self {
            Source::Pages(replay) => rate.with_zero_of(replay),
            Source::Index(index) => {
                rate.with_zero_per_band(&index.counts(Duration::ZERO).zero_per_band(GuestTime::ZERO))
            }
        }
    }

    /// What tracking only some of the pages costs a forecast, where that can be told.
    pub(super) fn sampling_error(&self, scenario: &Scenario, starts: &[Duration]) -> Option<SamplingError> {
        match self {
            Source::Pages(replay) => SamplingError::of(scenario, replay, starts),
            Source::Index(index) => SamplingError::of_index(scenario, index, starts),
        }
    }
}
