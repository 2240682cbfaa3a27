//! What is written is what is read.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use migcast_history::damage::ReadError;
use migcast_history::format::Manifest;
use migcast_history::index::{ALL_BANDS, BANDS, RUNS, bucket};
use migcast_history::merge::merge;
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use migcast_history::vcpu::VcpuTime;
use migcast_history::windows::State;
use migcast_history::writer::Writer;
use migcast_model::dirty::{CountedSource, PageCursor, PageSource, SpanCounts, WwsIndexBuilder};
use migcast_model::units::{GuestTime, PageCount};
use proptest::prelude::*;
use support::{Recording, manifest, read_back};

fn recording(sizes: &[u64], one_in: u32, seed: u64, count: usize) -> Recording {
    Recording::made_up(manifest(sizes, Sample { one_in, seed }), seed, count, 40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn windows_pages_and_zero_map_come_back(
        sizes in prop::collection::vec(0u64..400, 1..4), one_in in 1u32..9, seed: u64, count in 1usize..1_500,
    ) {
        prop_assume!(sizes.iter().sum::<u64>() > 0);
        let made = recording(&sizes, one_in, seed, count);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let history = History::open(dir.path()).unwrap();
        prop_assert!(history.problems().is_empty() && history.verify().is_empty());
        prop_assert_eq!(history.manifest(), &made.manifest);
        prop_assert_eq!(read_back(&history), made.windows.clone());

        let maps = made.zero_maps();
        let mut stream = history.stream(0..u32::MAX);
        while let Some(view) = stream.next_window().unwrap() {
            let zero: BTreeSet<u64> = view.zero_at_start.iter().flatten().map(|r| made.tracked.page_of_rank(r)).collect();
            prop_assert_eq!(&zero, &maps[view.index as usize]);
            prop_assert_eq!(view.window.zero as usize, maps[view.index as usize + 1].len());
        }
    }

    #[test]
    fn a_stream_can_begin_and_end_anywhere(seed: u64, start in 0u32..1_300, length in 0u32..1_300) {
        let made = recording(&[300, 77], 1, seed, 1_300);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let history = History::open(dir.path()).unwrap();
        let maps = made.zero_maps();
        let mut expected = start;
        let mut stream = history.stream(start..start + length);
        while let Some(view) = stream.next_window().unwrap() {
            prop_assert_eq!(view.index, expected);
            let zero: Vec<u64> = view.zero_at_start.iter().flatten().map(u64::from).collect();
            prop_assert_eq!(zero, maps[expected as usize].iter().copied().collect::<Vec<_>>());
            let pages: Vec<u64> = view.written.iter().copied().map(u64::from).collect();
            prop_assert_eq!(&pages, &made.windows[expected as usize].written);
            expected += 1;
        }
        prop_assert_eq!(expected, (start + length).min(1_300).max(start));
    }

    #[test]
    fn the_index_counts_every_event_once(seed: u64, one_in in 1u32..5) {
        let made = recording(&[500], one_in, seed, 900);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let history = History::open(dir.path()).unwrap();
        let mut expected = std::collections::BTreeMap::new();
        let mut last = std::collections::HashMap::new();
        let mut recorded = 0u32;
        for (index, window) in made.windows.iter().enumerate().filter(|(_, w)| w.state == State::Recorded) {
            recorded += 1;
            for page in &window.written {
                let rank = made.tracked.rank_of_page(*page).unwrap();
                let gap = last.insert(rank, recorded).map_or(0, |before| recorded - before);
                if gap > 0 {
                    let band = (u64::from(rank) * u64::from(BANDS) / u64::from(made.tracked.count())) as u16;
                    // Gaps below 64 are known to the window, longer ones to two windows and more.
                    let window = if gap < 64 { index as u32 } else { u32::MAX };
                    *expected.entry((window, ALL_BANDS, bucket(gap))).or_insert(0u32) += 1;
                    *expected.entry((u32::MAX, band, bucket(1 << gap.ilog2()))).or_insert(0u32) += 1;
                }
            }
        }
        let mut found = std::collections::BTreeMap::new();
        let rows = history.segments().iter().flat_map(|segment| history.index(segment).unwrap());
        for row in rows.filter(|row| row.band != RUNS) {
            let is_known = row.band == ALL_BANDS && row.bucket < bucket(64);
            let window = if is_known { row.window } else { u32::MAX };
            *found.entry((window, row.band, row.bucket)).or_insert(0u32) += row.events;
        }
        prop_assert_eq!(found, expected);
    }

    /// The index says the same of any span whether it is made from the pages or from what is kept of them.
    #[test]
    fn the_index_needs_no_pages(seed: u64, from in 0u32..300, length in 1u32..200) {
        let made = recording(&[500], 1, seed, 900);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let history = History::open(dir.path()).unwrap();
        let kept = history.wws_index(0..u32::MAX).unwrap();
        let replay = history.page_replay(0..u32::MAX).unwrap();
        prop_assert_eq!(kept.windows(), replay.windows());
        let starts: Vec<Duration> = kept.window_starts().collect();
        let until = GuestTime::ZERO + (starts[(from + length) as usize] - starts[from as usize]);
        let mut pages = BTreeSet::new();
        replay.cursor(starts[from as usize]).advance(until, |rank| _ = pages.insert(rank));
        let told = kept.counts(starts[from as usize]).written(GuestTime::ZERO, until);
        let counted = pages.len() as f64;
        prop_assert!((told - counted).abs() <= 2.0 + 0.03 * counted, "{} against {}", told, counted);
    }

    /// So it does of parts of windows, also where runs of windows go on from one segment to the next.
    #[test]
    fn the_index_needs_no_pages_for_parts_of_windows(seed: u64, from in 0f64..1_500.0, span in 0.01f64..1.0) {
        let mut made = recording(&[500], 1, seed, 1_500);
        made.write_on_end(5);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let history = History::open(dir.path()).unwrap();
        prop_assert!(history.segments().len() > 2);
        let kept = history.wws_index(0..u32::MAX).unwrap();
        let tracked = PageCount::new(500);
        let mut from_pages = WwsIndexBuilder::new(tracked, tracked);
        let mut stream = history.stream(0..u32::MAX);
        while let Some(view) = stream.next_window().unwrap() {
            if view.window.state == State::Recorded {
                from_pages.window(view.window.length(), view.written, &[]);
            }
        }
        let from_pages = from_pages.build().unwrap();
        let start = Duration::from_secs_f64(0.07 * from);
        let until = GuestTime::ZERO + Duration::from_secs_f64(0.05 * span);
        let [told, expected] = [&kept, &from_pages].map(|index| index.counts(start).written(GuestTime::ZERO, until));
        // Runs of pages written by chance are lengthened where most of them are; over the end nobody has seen the pages.
        prop_assert!((told - expected).abs() <= 0.5 + 0.02 * expected, "{} against {}", told, expected);
    }

    /// It knows where the zero pages of the end lie: of 500 pages, to a seventh of a band.
    #[test]
    fn the_index_knows_where_the_last_zero_pages_lie(seed: u64) {
        let made = recording(&[500], 1, seed, 900);
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let index = History::open(dir.path()).unwrap().wws_index(0..u32::MAX).unwrap().from_last_zero_map();
        let last = made.zero_maps().pop().unwrap();
        let counts = index.counts(Duration::ZERO);
        prop_assert!(counts.zero_places().is_some() || last.is_empty());
        for page in (0..=500).step_by(125) {
            let before = last.range(..page).count() as f64;
            let told = counts.zero_places().map_or(0.0, |places| places.before(page as f64));
            prop_assert!((told - before).abs() < 1e-6, "before {}", page);
        }
    }
}

#[test]
fn segments_are_at_most_60_s() {
    let made = recording(&[300], 1, 1, 2_000);
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    let history = History::open(dir.path()).unwrap();
    assert!(history.segments().len() >= 4);
    let lengths = history.segments().iter().map(|s| s.end_unix_ns() - s.start_unix_ns());
    assert!(lengths.clone().all(|length| length <= 60_000_000_000), "{:?}", lengths.collect::<Vec<_>>());
}

#[test]
fn a_replay_holds_the_recorded_windows_only() {
    let made = recording(&[300], 1, 5, 700);
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    let history = History::open(dir.path()).unwrap();
    let replay = history.page_replay(0..u32::MAX).unwrap();
    let written: Vec<u64> = replay.written_per_window().map(|pages| pages.get()).collect();
    let recorded = made.windows.iter().filter(|window| window.state == State::Recorded);
    assert_eq!(written, recorded.map(|window| window.written.len() as u64).collect::<Vec<_>>());
    assert_eq!(written.len(), history.timeline().unwrap().recorded().count());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn write_sets_are_those_counted_plainly(seed: u64, count in 2usize..260) {
        let mut made = recording(&[200], 1, seed, count);
        let mut start = support::START_NS;
        for window in &mut made.windows {
            window.start_unix_ns = start;
            start += 100_000_000;
            window.end_unix_ns = start;
        }
        let dir = tempfile::tempdir().unwrap();
        made.write(dir.path()).unwrap();
        let recorded: Vec<_> = made.windows.iter().filter(|w| w.state == State::Recorded).collect();
        prop_assume!(!recorded.is_empty());
        let summary = History::open(dir.path()).unwrap().summary(10).unwrap();
        let fits = [1, 10, 100, 600].iter().filter(|n| **n <= recorded.len()).count();
        prop_assert_eq!(summary.wws.len(), fits);
        for set in summary.wws {
            let sizes = recorded.windows(set.windows as usize).map(|windows| {
                windows.iter().flat_map(|w| &w.written).collect::<BTreeSet<_>>().len()
            });
            let (sum, places) = sizes.fold((0, 0), |(sum, places), size| (sum + size, places + 1));
            prop_assert!((set.pages - sum as f64 / f64::from(places)).abs() < 1e-9);
            prop_assert_eq!(set.pages_standard_error, 0.0);
        }
    }

    #[test]
    fn a_trimmed_history_is_the_piece(seed: u64, one_in in 1u32..4, from in 0usize..900, length in 1usize..900) {
        let made = recording(&[300, 50], one_in, seed, 900);
        let (whole, piece) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        made.write(whole.path()).unwrap();
        let to = (from + length).min(900);
        let (start, end) = (made.windows[from].start_unix_ns, made.windows[to - 1].end_unix_ns);
        let history = History::open(whole.path()).unwrap();
        // One nanosecond less at either end loses the window there.
        let range = if length % 2 == 0 { start..end } else { start - 1..end + 1 };
        let trimmed = migcast_history::trim::trim(&history, range, piece.path()).unwrap();
        prop_assert_eq!(trimmed.windows as usize, to - from);
        let history = History::open(piece.path()).unwrap();
        prop_assert_eq!(read_back(&history), made.windows[from..to].to_vec());
        let mut stream = history.stream(0..1);
        let view = stream.next_window().unwrap().unwrap();
        let zero: Vec<u64> = view.zero_at_start.iter().flatten().map(|rank| made.tracked.page_of_rank(rank)).collect();
        prop_assert_eq!(zero, made.zero_maps()[from].iter().copied().collect::<Vec<_>>());
    }
}

#[test]
fn a_cut_window_is_not_kept_and_an_empty_piece_is_refused() {
    let made = recording(&[300], 1, 2, 10);
    let (whole, piece) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made.write(whole.path()).unwrap();
    let history = History::open(whole.path()).unwrap();
    let window = &made.windows[4];
    let cut = window.start_unix_ns + 1..window.end_unix_ns;
    let error = migcast_history::trim::trim(&history, cut, piece.path()).unwrap_err();
    assert!(error.to_string().starts_with("no window lies wholly between 2026-01-01T00:00:00."), "{error}");
}

#[test]
fn a_piece_of_a_history_has_its_share_of_the_vcpus_time() {
    let mut made = recording(&[300], 1, 6, 1_500);
    made.windows.iter_mut().for_each(|window| {
        window.written.clear();
        window.state = State::Recorded;
    });
    let (whole, piece) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Busy by a fifth in the first segment, by two thirds later.
    let mut writer = Writer::create(whole.path(), made.manifest.clone(), &made.zero_at_start).unwrap();
    for window in &made.windows {
        writer.push(window.new_window()).unwrap();
        let span = (window.end_unix_ns - window.start_unix_ns) as u64;
        let used = if window.end_unix_ns - support::START_NS < 60_000_000_000 { span / 5 } else { span * 2 / 3 };
        writer.add_vcpu_time(VcpuTime::of_span(span, &[used]).unwrap());
    }
    writer.finish().unwrap();
    let history = History::open(whole.path()).unwrap();
    let shares: Vec<f64> = history.segments().iter().map(|s| s.vcpu_time().unwrap().mean_share()).collect();
    assert!((shares[0] - 0.2).abs() < 1e-3 && (shares[1] - 2.0 / 3.0).abs() < 1e-2, "{shares:?}");
    let later = history.segments()[1].windows();
    assert_eq!(history.vcpu_time(later.clone()), history.segments()[1].vcpu_time());

    // From the middle of the first segment to the middle of the second: half of either, and each keeps its share.
    let middle = |segment: &migcast_history::reader::Segment| (segment.start_unix_ns() + segment.end_unix_ns()) / 2;
    let range = middle(&history.segments()[0])..middle(&history.segments()[1]);
    migcast_history::trim::trim(&history, range, piece.path()).unwrap();
    let cut = History::open(piece.path()).unwrap();
    let (time, recorded) = (cut.vcpu_time(0..u32::MAX).unwrap(), cut.timeline().unwrap().recorded_duration());
    assert!((time.watched_ns as f64 / recorded.as_nanos() as f64 - 1.0).abs() < 1e-3, "{time:?} of {recorded:?}");
    assert!((time.mean_share() - (0.2 + 2.0 / 3.0) / 2.0).abs() < 0.02, "{time:?}");
    // Both halves laid together again have what the whole has.
    let halves = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (start, end) = (history.segments()[0].start_unix_ns(), history.segments().last().unwrap().end_unix_ns());
    let middle = history.segments()[1].start_unix_ns();
    migcast_history::trim::trim(&history, start..middle, halves[0].path()).unwrap();
    migcast_history::trim::trim(&history, middle..end, halves[1].path()).unwrap();
    let parts = [0, 1].map(|half| History::open(halves[half].path()).unwrap());
    migcast_history::merge::merge(&parts, false, halves[2].path()).unwrap();
    let together = History::open(halves[2].path()).unwrap().vcpu_time(0..u32::MAX).unwrap();
    let shares = [together, history.vcpu_time(0..u32::MAX).unwrap()].map(|time| time.mean_share());
    assert!((shares[0] - shares[1]).abs() < 1e-3, "{shares:?}");
    // What nobody watched stays unknown.
    let (plain, piece) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made.write(plain.path()).unwrap();
    let history = History::open(plain.path()).unwrap();
    assert_eq!((history.vcpu_time(0..u32::MAX), history.summary(1).unwrap().vcpu_time), (None, None));
    migcast_history::trim::trim(&history, 0..i64::MAX, piece.path()).unwrap();
    assert_eq!(History::open(piece.path()).unwrap().vcpu_time(0..u32::MAX), None);
}

#[test]
fn exports_have_a_line_per_row() {
    let made = recording(&[300], 1, 3, 30);
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    let history = History::open(dir.path()).unwrap();
    let (mut windows, mut pages) = (Vec::new(), Vec::new());
    migcast_history::export::windows_csv(&history, &mut windows).unwrap();
    migcast_history::export::pages_csv(&history, &mut pages).unwrap();
    let windows = String::from_utf8(windows).unwrap();
    assert_eq!(windows.lines().count(), 31);
    let first = windows.lines().nth(1).unwrap();
    assert!(first.starts_with("0,2026-01-01T00:00:00.100") && first.split(',').count() == 7, "{first}");
    let written =
        made.windows.iter().enumerate().flat_map(|(i, w)| w.written.iter().map(move |page| format!("{i},{page}")));
    assert!(String::from_utf8(pages).unwrap().lines().skip(1).map(str::to_owned).eq(written));
}

#[test]
fn a_guest_that_writes_nothing_and_has_no_zero_page_is_a_history_too() {
    let mut made = recording(&[300], 1, 4, 30);
    made.zero_at_start.clear();
    for window in &mut made.windows {
        window.state = State::Recorded;
        window.written.clear();
        window.zero_changes.clear();
    }
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    let history = History::open(dir.path()).unwrap();
    assert!(history.problems().is_empty() && history.verify().is_empty());
    assert_eq!(read_back(&history), made.windows);
    let summary = history.summary(5).unwrap();
    assert!(summary.pages_per_second == 0.0 && summary.wws.iter().all(|set| set.pages == 0.0));
    assert_eq!(history.page_replay(0..u32::MAX).unwrap().windows(), 30);
}

#[test]
fn a_history_of_gaps_has_nothing_to_replay() {
    let mut made = recording(&[300], 1, 4, 30);
    for window in &mut made.windows {
        window.state = State::Gap;
        window.written.clear();
    }
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    let history = History::open(dir.path()).unwrap();
    let summary = history.summary(5).unwrap();
    assert!(summary.wws.is_empty() && summary.slices.iter().all(|slice| slice.pages_per_second.is_none()));
    let error = history.page_replay(0..30).unwrap_err();
    assert!(error.to_string().ends_with("nothing was recorded in windows 0 to 30"), "{error}");
}

#[test]
fn old_pages_go_where_they_are_not_wanted_and_the_index_stays() {
    let kept = Manifest { keep_pages_seconds: Some(120.0), ..manifest(&[300], Sample::full()) };
    let made = Recording::made_up_every(kept, 7, 300, 40, 1_000_000_000);
    let whole = Recording { manifest: manifest(&[300], Sample::full()), ..made.clone() };
    let (dir, all) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    made.write(dir.path()).unwrap();
    whole.write(all.path()).unwrap();
    let (history, all) = (History::open(dir.path()).unwrap(), History::open(all.path()).unwrap());
    assert!(history.problems().is_empty() && history.verify().is_empty());
    let with_pages: Vec<bool> = history.segments().iter().map(|segment| segment.has_pages()).collect();
    assert_eq!(with_pages[..2], [false, false], "{with_pages:?}");
    assert_eq!(with_pages[3..], [true, true], "{with_pages:?}");
    let (kept, end) = (history.windows_with_pages(), all.timeline().unwrap().all().end);
    let since_kept = history.segments()[kept_from(&with_pages)].windows().start;
    assert_eq!(kept, since_kept..end);
    assert!(matches!(history.page_replay(0..end), Err(ReadError::NoPages { segment: 0, .. })));
    assert_eq!(history.page_replay(kept.clone()).unwrap().windows(), all.page_replay(kept).unwrap().windows());
    let span = |history: &History| {
        let index = history.wws_index(0..end).unwrap();
        index.counts(Duration::from_secs(20)).written(GuestTime::ZERO, GuestTime::ZERO + Duration::from_secs(90))
    };
    assert_eq!(span(&history), span(&all));
    assert!(history.bytes_on_disk() < all.bytes_on_disk());
    let (some, full) = (history.summary(5).unwrap(), all.summary(5).unwrap());
    assert_eq!((some.pages_per_second, some.zero_pages_end), (full.pages_per_second, full.zero_pages_end));
    for (some, full) in some.wws.iter().zip(&full.wws) {
        assert!((some.pages / full.pages - 1.0).abs() < 0.05, "{some:?} {full:?}");
    }
}

fn kept_from(with_pages: &[bool]) -> usize {
    with_pages.iter().position(|has| *has).unwrap()
}

/// Bytes of the files in a history's tables.
fn bytes_below(dir: &Path) -> u64 {
    let tables = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = tables.flat_map(|table| std::fs::read_dir(table).unwrap().map(|file| file.unwrap()));
    files.map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn old_segments_go_altogether_where_they_are_not_wanted() {
    for keep_pages_seconds in [None, Some(600.0), Some(3_600.0)] {
        let kept =
            Manifest { keep_pages_seconds, keep_index_seconds: Some(3_600.0), ..manifest(&[300], Sample::full()) };
        // Three hours.
        let made = Recording::made_up_every(kept, 7, 1_080, 40, 10_000_000_000);
        let whole = Recording { manifest: manifest(&[300], Sample::full()), ..made.clone() };
        let (dir, all) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut writer = Writer::create(dir.path(), made.manifest.clone(), &made.zero_at_start).unwrap();
        for (number, window) in made.windows.iter().enumerate() {
            writer.push(window.new_window()).unwrap();
            // Of the open segment there is an empty file.
            assert!(number % 60 > 0 || writer.bytes_on_disk() == bytes_below(dir.path()));
        }
        writer.finish().unwrap();
        whole.write(all.path()).unwrap();
        // A recorder that died between two files.
        std::fs::copy(all.path().join("windows/000000.parquet"), dir.path().join("windows/000000.parquet")).unwrap();
        let (history, all) = (History::open(dir.path()).unwrap(), History::open(all.path()).unwrap());
        assert!(history.problems().is_empty(), "{:?}", history.problems());
        assert!(history.verify().is_empty());
        let (kept, end) = (history.timeline().unwrap(), all.timeline().unwrap().all().end);
        let seconds = kept.duration().as_secs();
        assert!((3_400..=3_480).contains(&seconds), "an hour but for what goes in the next two minutes: {seconds} s");
        let first = history.segments()[0].windows().start;
        let span = |history: &History| {
            let index = history.wws_index(first..end).unwrap();
            index.counts(Duration::from_secs(20)).written(GuestTime::ZERO, GuestTime::ZERO + Duration::from_secs(9))
        };
        assert_eq!(span(&history), span(&all));
        // Elsewhere it stays.
        let out = tempfile::tempdir().unwrap();
        merge(&[history], false, out.path()).unwrap();
        let merged = History::open(out.path()).unwrap();
        assert_eq!((merged.manifest().keep_index_seconds, merged.segments()[0].number()), (None, 0));
        assert_eq!(merged.timeline().unwrap().duration(), kept.duration());
        // What is damaged is named, what is left out beside it is not missed.
        let oldest =
            std::fs::read_dir(dir.path().join("wws")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
        std::fs::write(oldest, "no table").unwrap();
        let named = History::open(dir.path()).unwrap().problems().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(named.len() == 1 && named[0].contains("is not used"), "{named:?}");
        // Where nobody said that they may go, they are missing.
        let manifest = dir.path().join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap().replace("\"keep_index_seconds\"", "\"other\"");
        std::fs::write(&manifest, text).unwrap();
        let problems =
            History::open(dir.path()).unwrap().problems().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(problems.iter().any(|problem| problem.contains("missing")), "{problems:?}");
    }
}

#[test]
fn missing_pages_are_damage_where_all_are_to_be_kept() {
    let made = recording(&[300], 1, 1, 900);
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    std::fs::remove_file(dir.path().join("pages/000000.parquet")).unwrap();
    assert_eq!(History::open(dir.path()).unwrap().problems().len(), 1);
}
