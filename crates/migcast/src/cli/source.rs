//! The part of a recorded history that forecasts are made from: page by page, or off its WWS index.

use std::ops::Range;
use std::time::Duration;

use anyhow::ensure;
use migcast_history::parts::with_what_follows;
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
/// What is known of the writes.
#[derive(Debug)]
pub(super) enum Source {
    Pages(Box<PageReplay>),
    Index(Box<WwsIndex>),
}

/// What forecasts are made from.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) source: Source,
    /// The windows of `source`.
    pub(super) part: Range<u32>,
    /// Parts before it that are too long to be held beside it, in order: opened one by one.
    pub(super) earlier: Vec<Range<u32>>,
}

impl Source {
    /// Opens the windows `part` of a history. Of an index no more than `windows_max` at once: the last windows, or those from a
    /// single start on.
    pub(super) fn open(
        history: &History,
        timeline: &Timeline,
        part: Range<u32>,
        (start, from): (Start, Option<ReadFrom>),
        windows_max: usize,
    ) -> anyhow::Result<Opened> {
        // A moment that is named had the zero pages of that moment; a migration to come has those of the end.
        let is_past = matches!(start, Start::At(_));
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
                has_pages || !with_pages.is_empty(),
                "--from pages: which pages were written is no longer kept, allowed: --from index"
            );
            ensure!(
                has_pages,
                "--from pages: which pages were written is kept only from window {} on, allowed: --from index, or --start \
                 now",
                with_pages.start
            );
            let replay = history.page_replay(part.clone())?;
            let source = Source::Pages(Box::new(if is_past { replay } else { replay.from_last_zero_map() }));
            return Ok(Opened { source, part, earlier: Vec::new() });
        }
        let mut parts = history.index_parts(timeline, &part, windows_max);
        let begins = |part: &Range<u32>| timeline.recorded().find(|entry| entry.index >= part.start);
        if let Start::At(moment) = start {
            let at = moment.unix_ns(timeline.start_unix_ns());
            let is_begun = |part: &Range<u32>| begins(part).is_some_and(|first| first.window.start_unix_ns <= at);
            parts.truncate(parts.iter().filter(|part| is_begun(part)).count().max(1));
        }
        let last = parts.pop().unwrap_or(part);
        let earlier = if matches!(start, Start::At(_)) { Vec::new() } else { parts };
        // A single start may have been cut off from what its migration goes on into.
        let follows = if matches!(start, Start::At(_)) { Duration::MAX } else { Duration::ZERO };
        let part = with_what_follows(timeline, &last, follows, windows_max);
        let index = history.wws_index(part.clone())?;
        let source = Source::Index(Box::new(if is_past { index } else { index.from_last_zero_map() }));
        Ok(Opened { source, part, earlier })
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

    /// A constant rate with the zero pages that a forecast finds.
    pub(super) fn with_zero_pages(&self, rate: ConstantRate) -> ConstantRate {
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
