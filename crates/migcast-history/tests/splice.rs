//! Histories whose pages were taken away are cut and merged by whole segments.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use migcast_history::format::Manifest;
use migcast_history::index::IndexRow;
use migcast_history::merge::{MergeError, merge};
use migcast_history::reader::{History, Segment};
use migcast_history::sample::Sample;
use migcast_history::trim::{TrimError, trim};
use migcast_history::vcpu::VcpuTime;
use migcast_history::windows::State;
use migcast_history::writer::Writer;
use migcast_model::dirty::{CountedSource, DirtySource, SpanCounts};
use migcast_model::units::GuestTime;
use support::{Recording, manifest, read_back};

/// Ten minutes, of which pages are kept of about the last four, if of any less than all.
fn recording(keep_pages_seconds: Option<f64>) -> Recording {
    let manifest = Manifest { keep_pages_seconds, ..manifest(&[300, 100], Sample { one_in: 2, seed: 9 }) };
    let mut made = Recording::made_up_every(manifest, 11, 1_200, 30, 500_000_000);
    made.write_on_end(6);
    made
}

fn written(dir: &Path, made: &Recording) -> History {
    made.write(dir).unwrap();
    History::open(dir).unwrap()
}

fn span(segments: &[Segment]) -> Range<i64> {
    segments[0].start_unix_ns()..segments[segments.len() - 1].end_unix_ns()
}

fn windows(segments: &[Segment]) -> Range<u32> {
    segments[0].windows().start..segments[segments.len() - 1].windows().end
}

/// Pages written in spans of several lengths from several moments on, as the index tells.
fn counted(history: &History, range: Range<u32>) -> Vec<f64> {
    let index = history.wws_index(range).unwrap();
    let at = |seconds: u64| GuestTime::ZERO + Duration::from_secs(seconds);
    let mut all = Vec::new();
    for start in [0, 3, 17] {
        let counts = index.counts(Duration::from_secs(start));
        all.extend([(0, 1), (0, 20), (5, 40), (30, 90)].map(|(from, to)| counts.written(at(from), at(to))));
    }
    all
}

fn rows(history: &History) -> Vec<IndexRow> {
    history.segments().iter().flat_map(|segment| history.index(segment).unwrap()).collect()
}

/// The zero map before each window.
fn zero_maps(history: &History) -> Vec<Vec<u32>> {
    let mut maps = Vec::new();
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window().unwrap() {
        maps.push(view.zero_at_start.iter().flatten().collect());
    }
    maps
}

fn later(made: &Recording, seconds: i64) -> Recording {
    let mut made = made.clone();
    for window in &mut made.windows {
        window.start_unix_ns += seconds * 1_000_000_000;
        window.end_unix_ns += seconds * 1_000_000_000;
    }
    made
}

fn has_pages(history: &History) -> Vec<bool> {
    history.segments().iter().map(Segment::has_pages).collect()
}

#[test]
fn a_piece_has_the_counts_of_its_segments_and_the_pages_that_are_left() {
    let dir = tempfile::tempdir().unwrap();
    let history = written(&dir.path().join("all"), &recording(Some(240.0)));
    let segments = history.segments();
    assert!(has_pages(&history).starts_with(&[false; 4]) && segments[8].has_pages(), "{:?}", has_pages(&history));
    let kept = &segments[2..9];
    // A little more than the segments, on both sides.
    let range = span(kept).start - 1_000_000_000..span(kept).end + 1_000_000_000;
    let out = dir.path().join("piece");
    let trimmed = trim(&history, range, &out).unwrap();
    assert!(trimmed.by_segments);
    assert_eq!(trimmed.start_unix_ns..trimmed.end_unix_ns, span(kept));
    assert_eq!(trimmed.windows as usize, windows(kept).len());

    let piece = History::open(&out).unwrap();
    assert!(piece.problems().is_empty() && piece.verify().is_empty(), "{:?}", piece.verify());
    assert_eq!(has_pages(&piece), has_pages(&history)[2..9]);
    assert_eq!(counted(&piece, 0..u32::MAX), counted(&history, windows(kept)));
    let (of_piece, of_all) = (piece.timeline().unwrap(), history.timeline().unwrap());
    let first = windows(kept).start as usize;
    let same = of_piece.entries().iter().zip(&of_all.entries()[first..]);
    assert!(same.clone().all(|(one, other)| one.window == other.window));
    assert_eq!(same.count(), trimmed.windows as usize);

    // Of the segments that have pages, they are the pages.
    let late = &segments[7..9];
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    assert!(!trim(&history, span(late), &a).unwrap().by_segments);
    assert!(!trim(&piece, span(late), &b).unwrap().by_segments);
    assert!(read_back(&History::open(&a).unwrap()) == read_back(&History::open(&b).unwrap()));
}

#[test]
fn pieces_laid_together_are_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let history = written(&dir.path().join("all"), &recording(Some(240.0)));
    let segments = history.segments();
    let (early, late) = (&segments[..5], &segments[5..]);
    let pieces = [("early", early), ("late", late)].map(|(name, segments)| {
        let out = dir.path().join(name);
        trim(&history, span(segments), &out).unwrap();
        History::open(&out).unwrap()
    });
    let out = dir.path().join("again");
    let merged = merge(&pieces, false, &out).unwrap();
    // Windows here end before the next begins: between two histories that is a gap.
    let end = history.timeline().unwrap().all().end;
    assert_eq!((merged.windows, merged.gaps), (u64::from(end), 1));
    assert_eq!(merged.start_unix_ns..merged.end_unix_ns, span(segments));
    let again = History::open(&out).unwrap();
    assert!(again.problems().is_empty() && again.verify().is_empty(), "{:?}", again.verify());
    let seam = windows(late).start;
    let entry = again.timeline().unwrap().entries()[seam as usize];
    assert_eq!((entry.index, entry.window.state), (seam, State::Gap));
    assert_eq!(entry.window.start_unix_ns..entry.window.end_unix_ns, span(early).end..span(late).start);
    // The gap is a segment of its own.
    let (mut kept, mut lengths) = (has_pages(&history), segments.iter().map(Segment::windows).collect::<Vec<_>>());
    kept.insert(5, kept[5]);
    lengths.insert(5, seam..seam + 1);
    lengths[6..].iter_mut().for_each(|windows| *windows = windows.start + 1..windows.end + 1);
    assert_eq!((has_pages(&again), again.segments().iter().map(Segment::windows).collect()), (kept, lengths));
    // What the index says is what it said, but for the windows' numbers: the counts of both pieces are of one recording.
    assert_eq!(counted(&again, 0..u32::MAX), counted(&history, 0..u32::MAX));
    let moved = |row: IndexRow| IndexRow { window: row.window - u32::from(row.window > seam), ..row };
    assert_eq!(rows(&again).into_iter().map(moved).collect::<Vec<_>>(), rows(&history));
}

#[test]
fn behind_a_seam_counts_know_nothing_of_what_was_before() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (recording(Some(240.0)), recording(Some(240.0)));
    let b = Recording { windows: later(&b, 3_600).windows[300..].to_vec(), ..b };
    let whole = |made: &Recording, name: &str| {
        let manifest = Manifest { keep_pages_seconds: None, ..made.manifest.clone() };
        written(&dir.path().join(name), &Recording { manifest, ..made.clone() })
    };
    // The same two, page by page; as they are, by segments; and by segments where the second is cut from a longer one,
    // whose counts reach back to what is not there.
    let longer = Recording { windows: later(&recording(Some(240.0)), 3_600).windows, ..b.clone() };
    let longer = written(&dir.path().join("longer"), &longer);
    let cut = dir.path().join("cut");
    trim(&longer, span(&longer.segments()[3..]), &cut).unwrap();
    let merged = |name: &str, histories: [History; 2]| {
        let out = dir.path().join(name);
        merge(&histories, false, &out).unwrap();
        let history = History::open(&out).unwrap();
        assert!(history.problems().is_empty() && history.verify().is_empty(), "{name}: {:?}", history.verify());
        history
    };
    let by_page = merged("by-page", [whole(&a, "a"), whole(&b, "b")]);
    let by_segment = merged("by-segment", [written(&dir.path().join("c"), &a), written(&dir.path().join("d"), &b)]);
    let piece = merged("piece", [History::open(&dir.path().join("c")).unwrap(), History::open(&cut).unwrap()]);
    let mean = |history: &History, seconds: u64| {
        history.wws_index(0..u32::MAX).unwrap().write_set(Duration::from_secs(seconds)).mean
    };
    for seconds in [1, 5, 20, 60] {
        let exact = mean(&by_page, seconds);
        for other in [&by_segment, &piece] {
            let ratio = mean(other, seconds) / exact;
            println!("spans of {seconds} s: {ratio:.3} of what they are counted page by page");
            assert!((0.97..1.03).contains(&ratio), "{seconds} s: {ratio}");
        }
    }
}

#[test]
fn what_lies_between_is_a_gap_and_what_the_vcpus_did_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all");
    let made = recording(Some(240.0));
    let mut writer = Writer::create(&path, made.manifest.clone(), &made.zero_at_start).unwrap();
    for window in &made.windows {
        writer.push(window.new_window()).unwrap();
        let length = window.end_unix_ns.abs_diff(window.start_unix_ns);
        writer.add_vcpu_time(VcpuTime::of_span(length, &[length / 3]).unwrap());
    }
    writer.finish().unwrap();
    // A segment without pages and one with pages are lost.
    for lost in [2, 7] {
        std::fs::remove_file(path.join(format!("wws/{lost:06}.parquet"))).unwrap();
    }
    let history = History::open(&path).unwrap();
    let left = history.segments();
    let out = dir.path().join("out");
    let trimmed = trim(&history, i64::MIN..i64::MAX, &out).unwrap();
    assert_eq!(trimmed.windows as usize, left.iter().map(|segment| segment.windows().len()).sum::<usize>());
    let copy = History::open(&out).unwrap();
    assert!(copy.problems().is_empty() && copy.verify().is_empty(), "{:?}", copy.verify());
    let gaps: Vec<&Segment> = copy.segments().iter().filter(|segment| segment.windows().len() == 1).collect();
    let between = |before: usize| left[before].end_unix_ns()..left[before + 1].start_unix_ns();
    let spans: Vec<_> = gaps.iter().map(|gap| gap.start_unix_ns()..gap.end_unix_ns()).collect();
    assert_eq!(spans, [between(1), between(5)]);
    let times = |history: &History| history.segments().iter().filter_map(Segment::vcpu_time).collect::<Vec<_>>();
    assert_eq!(times(&copy), times(&history));

    // Page by page, from the last without pages on: as the other way of copying has it.
    let with_pages = span(&left[6..]);
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    assert!(!trim(&history, span(&left[5..]), &a).unwrap().by_segments);
    assert!(!trim(&copy, left[5].start_unix_ns()..with_pages.end, &b).unwrap().by_segments);
    let [one, other] = [a, b].map(|path| History::open(&path).unwrap());
    let plain = |history: &History| -> Vec<_> {
        let made = read_back(history).into_iter();
        made.map(|made| (made.start_unix_ns, made.end_unix_ns, made.state, made.written)).collect()
    };
    assert!(plain(&one) == plain(&other));
    // What became zero in the gap, or ceased to be, does so in it here, and in the window behind it there.
    let maps = [&one, &other].map(zero_maps);
    let behind = 1 + left[5].windows().len();
    let differ: Vec<usize> = (0..maps[0].len()).filter(|index| maps[0][*index] != maps[1][*index]).collect();
    assert_eq!(differ, [behind]);
    // No copy takes pages away.
    assert_eq!(one.manifest().keep_pages_seconds, None);
}

#[test]
fn a_copy_that_stops_midway_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let history = written(&dir.path().join("all"), &recording(Some(240.0)));
    let damaged = dir.path().join("all/bands/000004.parquet");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let out = dir.path().join("out");
    trim(&history, i64::MIN..i64::MAX, &out).unwrap_err();
    let copy = History::open(&out).unwrap();
    assert_eq!(copy.segments().len(), 4);
    assert!(copy.problems().iter().any(|problem| problem.to_string().contains("segment 4")), "{:?}", copy.problems());
}

#[test]
fn a_history_without_any_pages_is_read_off_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let history = written(&dir.path().join("all"), &recording(Some(240.0)));
    let out = dir.path().join("out");
    trim(&history, span(&history.segments()[..4]), &out).unwrap();
    let piece = History::open(&out).unwrap();
    assert!(piece.verify().is_empty() && piece.windows_with_pages().is_empty());
    assert!(counted(&piece, 0..u32::MAX).iter().all(|pages| *pages > 0.0));
}

#[test]
fn a_history_with_all_pages_keeps_them_beside_one_without() {
    let dir = tempfile::tempdir().unwrap();
    let pageless = written(&dir.path().join("pageless"), &recording(Some(60.0)));
    let later = later(&recording(None), 3_600);
    let whole = written(&dir.path().join("whole"), &later);
    let made = read_back(&whole);
    let (out, cut) = (dir.path().join("out"), dir.path().join("cut"));
    let merged = merge(&[whole, pageless], false, &out).unwrap();
    assert_eq!((merged.windows, merged.gaps), (2_400, 1));
    let history = History::open(&out).unwrap();
    assert!(history.problems().is_empty() && history.verify().is_empty(), "{:?}", history.verify());
    // And a copy of it drops none, though the manifest says that pages go after a minute.
    let kept = history.windows_with_pages();
    assert!(!trim(&history, later.windows[0].start_unix_ns..i64::MAX, &cut).unwrap().by_segments);
    let copy = History::open(&cut).unwrap();
    assert!(kept.len() >= 1_200 && has_pages(&copy).iter().all(|has| *has));
    let plain = |history: &History| -> Vec<_> {
        read_back(history).into_iter().map(|made| (made.start_unix_ns, made.state, made.written)).collect()
    };
    let expected: Vec<_> = made.into_iter().map(|made| (made.start_unix_ns, made.state, made.written)).collect();
    assert!(plain(&copy) == expected);
}

#[test]
fn what_cannot_be_cut_is_refused_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let history = written(&dir.path().join("all"), &recording(Some(240.0)));
    let first = &history.segments()[0];
    let inside = first.start_unix_ns() + 1_000_000_000..first.end_unix_ns() - 1_000_000_000;
    let out = dir.path().join("out");
    let error = trim(&history, inside, &out).unwrap_err();
    assert!(matches!(error, TrimError::NoSegment { .. }));
    let said = error.to_string();
    assert!(
        said.starts_with("its pages were taken away, so it is cut by segments, and none lies wholly between 2026-")
    );
    assert!(!said.contains('\n') && !out.exists());
}

#[test]
fn one_of_version_1_is_refused_beside_one_without_pages() {
    let dir = tempfile::tempdir().unwrap();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v1/history");
    let old = History::open(&old).unwrap();
    // The same guest a day later, with its pages taken away.
    let manifest = Manifest { keep_pages_seconds: Some(60.0), ..old.manifest().clone() };
    let path = dir.path().join("later");
    let mut writer = Writer::create(&path, manifest.clone(), &[]).unwrap();
    let mut made = Recording::made_up_every(manifest, 3, 600, 5, 500_000_000);
    let shift = old.timeline().unwrap().end_unix_ns() + 86_400_000_000_000 - made.windows[0].start_unix_ns;
    for window in &mut made.windows {
        window.start_unix_ns += shift;
        window.end_unix_ns += shift;
        window.zero_changes.clear();
        writer.push(window.new_window()).unwrap();
    }
    writer.finish().unwrap();
    let later = History::open(&path).unwrap();
    assert!(!has_pages(&later)[0]);
    let error = merge(&[later, old], false, &dir.path().join("out")).unwrap_err();
    assert!(matches!(error, MergeError::OldBesidePageless { .. }), "{error}");
    assert!(!dir.path().join("out").exists());
}
