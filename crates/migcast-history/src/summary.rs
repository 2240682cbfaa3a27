//! What a history says in a few numbers.
use std::time::Duration;

use migcast_model::dirty::DirtySource;
use migcast_model::dirty::wws::{DesignEffect, Neighbours, WriteTracker};

use crate::damage::ReadError;
use crate::parts::INDEX_WINDOWS_MAX;
use crate::reader::{History, Segment};
use crate::sample::Tracked;
use crate::timeline::{Entry, Timeline};
use crate::vcpu::VcpuTime;
use crate::windows::State;

/// The spans for which a summary states the write set.
pub const SPANS: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(60)];

/// A history in numbers. Pages are estimates for the whole memory: counts of tracked pages times what one stands for.
#[derive(Clone, Debug)]
pub struct Summary {
    /// All windows that can be read.
    pub timeline: Timeline,
    /// Mean dirty rate: pages written per window, added up, by recorded second. A page counts once per window.
    pub pages_per_second: f64,
    /// The dirty rate over time: equal slices of the history.
    pub slices: Vec<Slice>,
    /// Mean size of the write set by span, for the spans the history is long enough for.
    pub wws: Vec<WriteSet>,
    /// Zero pages at the start of the first window.
    pub zero_pages_start: f64,
    /// Zero pages at the end of the last window.
    pub zero_pages_end: f64,
    /// How busy the vCPUs were; `None` where nobody looked.
    pub vcpu_time: Option<VcpuTime>,
    /// What recording cost.
    pub cost: Cost,
}

/// A slice of a history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slice {
    /// Its start, since the start of the history.
    pub offset: Duration,
    /// Its length.
    pub length: Duration,
    /// Dirty rate over the recorded windows that begin in it; `None` without one.
    pub pages_per_second: Option<f64>,
}

/// The mean size of the write set of a span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WriteSet {
    /// The span asked for.
    pub span: Duration,
    /// The recorded windows that come closest to it.
    pub windows: u32,
    /// Distinct pages written in so many consecutive recorded windows, mean over all places in the history.
    pub pages: f64,
    /// Standard error of `pages` from sampling; 0 where every page is tracked.
    pub pages_standard_error: f64,
}

/// CPU time the recorder spent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Of one core, over the time of all windows: 0.05 is 5 %.
    pub core_share: f64,
    /// Mean per window.
    pub mean: Duration,
    /// 95 % of the windows cost no more.
    pub p95: Duration,
}

impl History {
    /// Reads the whole history once. `slices` ≥ 1 is how finely the dirty rate over time is wanted.
    ///
    /// # Errors
    /// Damage in any file; [`ReadError::Empty`] without a closed segment.
    pub fn summary(&self, slices: u32) -> Result<Summary, ReadError> {
        let timeline = self.timeline()?;
        let weight = self.tracked().weight();
        let mut counts = WriteSets::new(&timeline, self.tracked());
        let (first, last) = (&timeline.entries()[0].window, &timeline.entries()[timeline.entries().len() - 1].window);
        let (mut zero_start, zero_end) = (None, last.zero);
        let has_pages = self.segments().iter().all(Segment::has_pages);
        if has_pages {
            let mut stream = self.stream(timeline.all());
            while let Some(view) = stream.next_window()? {
                zero_start.get_or_insert_with(|| view.zero_at_start.count());
                if view.window.state == State::Recorded {
                    counts.window(view.written);
                }
            }
        }
        let wws = match has_pages {
            true => counts.finish(),
            false => counts.of_index(self, &timeline, INDEX_WINDOWS_MAX)?,
        };
        let written: u64 = timeline.recorded().map(|entry| u64::from(entry.window.written)).sum();
        Ok(Summary {
            pages_per_second: rate(written as f64 * weight, timeline.recorded_duration()).unwrap_or_default(),
            slices: cut(&timeline, slices.max(1), weight),
            wws,
            zero_pages_start: f64::from(zero_start.unwrap_or(first.zero)) * weight,
            zero_pages_end: f64::from(zero_end) * weight,
            vcpu_time: self.vcpu_time(timeline.all()),
            cost: Cost::of(timeline.entries()),
            timeline,
        })
    }
}

fn rate(pages: f64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| pages / time.as_secs_f64())
}

fn cut(timeline: &Timeline, slices: u32, weight: f64) -> Vec<Slice> {
    let length = timeline.duration() / slices;
    let mut sums = vec![(0u64, Duration::ZERO); slices as usize];
    for Entry { window, .. } in timeline.recorded() {
        let offset = window.start_unix_ns.abs_diff(timeline.start_unix_ns());
        let slice = u128::from(offset) / length.as_nanos().max(1);
        let slice = usize::try_from(slice).unwrap_or(usize::MAX).min(sums.len() - 1);
        sums[slice].0 += u64::from(window.written);
        sums[slice].1 += window.length();
    }
    let slice = |(index, (pages, time)): (u32, (u64, Duration))| Slice {
        offset: length * index,
        length,
        pages_per_second: rate(pages as f64 * weight, time),
    };
    (0..).zip(sums).map(slice).collect()
}

impl Cost {
    fn of(entries: &[Entry]) -> Cost {
        let mut costs: Vec<u32> = entries.iter().map(|entry| entry.window.cost_us).collect();
        costs.sort_unstable();
        let micros = |us: f64| Duration::from_secs_f64(us / 1e6);
        let total = costs.iter().map(|us| f64::from(*us)).sum::<f64>();
        let time: Duration = entries.iter().map(|entry| entry.window.length()).sum();
        // The smallest cost that at least 95 % of the windows do not exceed.
        let p95 = costs.get((costs.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        Cost {
            core_share: if time.is_zero() { 0.0 } else { total / 1e6 / time.as_secs_f64() },
            mean: micros(total / costs.len().max(1) as f64),
            p95: micros(f64::from(p95)),
        }
    }
}

/// Counts, exactly, the distinct pages of every run of s consecutive recorded windows, for several s at once.
///
/// A page written in window k and before that in window k − g is new in the windows (a, a + s] for the a with
/// k − g ≤ a < k ≤ a + s; each event adds as many places as there are such a.
struct WriteSets {
    /// Recorded windows of the history.
    total: u64,
    writes: WriteTracker,
    /// What the sample errs by, where it is one.
    neighbours: Option<Neighbours>,
    /// Pages of the memory that a tracked one stands for.
    weight: f64,
    /// Span, windows, and the sum over all places.
    spans: Vec<(Duration, u64, u128)>,
}

impl WriteSets {
    fn new(timeline: &Timeline, tracked: &Tracked) -> WriteSets {
        let total = timeline.recorded().count() as u64;
        let window = timeline.recorded_duration().as_secs_f64() / total as f64;
        let spans = SPANS.iter().filter_map(|span| {
            let windows = (span.as_secs_f64() / window).round() as u64;
            (1..=total).contains(&windows).then_some((*span, windows, 0))
        });
        let (count, weight) = (tracked.count(), tracked.weight());
        let neighbours = (weight > 1.0).then(|| Neighbours::new(count));
        WriteSets { total, writes: WriteTracker::new(count), neighbours, weight, spans: spans.collect() }
    }

    fn window(&mut self, ranks: &[u32]) {
        let WriteSets { total, writes, neighbours, spans, .. } = self;
        let k = u64::from(writes.recorded()) + 1;
        writes.window(ranks, |write| {
            if let Some(neighbours) = neighbours {
                neighbours.write(write.rank, write.gap);
            }
            let before = if write.gap == 0 { 0 } else { k - u64::from(write.gap) };
            for (_, s, sum) in spans.iter_mut() {
                let first = before.max(k.saturating_sub(*s));
                let last = (k - 1).min(*total - *s);
                *sum += u128::from((last + 1).saturating_sub(first));
            }
        });
    }

    /// The same as the index knows it, of so many windows at once, for places that start over at the end of those. The same
    /// pages are tracked in all of them, so that standard errors are averaged as means are.
    fn of_index(self, history: &History, timeline: &Timeline, windows_max: usize) -> Result<Vec<WriteSet>, ReadError> {
        let mut sets: Vec<(f64, f64)> = vec![(0.0, 0.0); self.spans.len()];
        for part in history.index_parts(timeline, &timeline.all(), windows_max) {
            let index = match history.wws_index(part) {
                Err(ReadError::NothingRecorded { .. }) => continue,
                index => index?,
            };
            let window = index.length().unwrap_or_default().as_secs_f64() / index.windows() as f64;
            let share = index.windows() as f64 / self.total as f64;
            for ((pages, error), (_, windows, _)) in sets.iter_mut().zip(&self.spans) {
                let set = index.write_set(Duration::from_secs_f64(window * *windows as f64));
                *pages += set.mean * share;
                *error += set.variance.sqrt() * share;
            }
        }
        Ok(self.sets(sets.into_iter()))
    }

    fn finish(self) -> Vec<WriteSet> {
        let recorded = self.writes.recorded();
        let effect = self.neighbours.as_ref().and_then(|neighbours| neighbours.design_effect(recorded, [0; 2]));
        let set = |(_, windows, sum): &(Duration, u64, u128)| {
            let in_sample = *sum as f64 / (self.total - windows + 1) as f64;
            let variance = DesignEffect::write_set_variance(effect.as_ref(), self.weight, in_sample, *windows as f64);
            (in_sample * self.weight, variance.sqrt())
        };
        let sets: Vec<(f64, f64)> = self.spans.iter().map(set).collect();
        self.sets(sets.into_iter())
    }

    /// Each span with the mean of its pages and their standard error.
    fn sets(self, sets: impl Iterator<Item = (f64, f64)>) -> Vec<WriteSet> {
        let set = |((span, windows, _), (pages, pages_standard_error)): ((Duration, u64, u128), (f64, f64))| WriteSet {
            span,
            windows: u32::try_from(windows).expect("windows are numbered with 32 bits"),
            pages,
            pages_standard_error,
        };
        self.spans.into_iter().zip(sets).map(set).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::Manifest;
    use crate::writer::{NewWindow, Writer};

    #[test]
    fn an_index_in_parts_says_of_write_sets_what_it_says_at_once() {
        let manifest = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "test",
            "method": "import", "written_means": "dirty-log", "resource": "ram", "guest_name": "made-up",
            "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
            "accelerator": "tcg", "page_size_bytes": 4096, "blocks": [{"name": "ram", "length_bytes": 4096000}],
            "window_seconds": 1.0, "sample": {"one_in": 1, "seed": 0}, "keep_pages_seconds": 60}"#;
        let manifest = Manifest::parse(manifest.as_bytes(), Path::new("manifest.json")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(dir.path(), manifest, &[]).unwrap();
        for second in 0..1_800 {
            let start_unix_ns = 1_767_225_600_000_000_000 + second * 1_000_000_000;
            let written: Vec<u64> = (0..1_000).filter(|page| (page * 7 + second as u64).is_multiple_of(20)).collect();
            let end_unix_ns = start_unix_ns + 1_000_000_000;
            let state = if second % 600 < 200 { State::Gap } else { State::Recorded };
            let written = if state == State::Recorded { &written[..] } else { &[] };
            writer
                .push(NewWindow { start_unix_ns, end_unix_ns, state, written, zero_changes: &[], cost_us: 0 })
                .unwrap();
        }
        writer.finish().unwrap();
        let history = History::open(dir.path()).unwrap();
        let timeline = history.timeline().unwrap();
        let sets = |windows_max| {
            let counts = WriteSets::new(&timeline, history.tracked());
            let sets = counts.of_index(&history, &timeline, windows_max).unwrap();
            sets.into_iter().map(|set| (set.span.as_secs(), set.pages)).collect::<Vec<_>>()
        };
        let (parts, at_once) = (sets(180), sets(INDEX_WINDOWS_MAX));
        assert!(history.index_parts(&timeline, &timeline.all(), 180).len() > 5);
        assert_eq!(at_once.len(), 3);
        for ((span, parts), (_, at_once)) in parts.into_iter().zip(at_once) {
            assert!((parts / at_once - 1.0).abs() < 0.01, "{span} s: {parts} and {at_once}");
        }
    }
}
