//! Tests with segments that are whole and sealed, and yet wrong: what a faulty writer or a forger makes.
use std::path::Path;

use crate::damage::{Problem, ReadError};
use crate::format::Manifest;
use crate::index::{BANDS, BandRow, IndexRow};
use crate::reader::History;
use crate::segment::{self, BANDS_TABLE, Commit, FileMark, PAGES, WINDOWS, WWS, ZERO};
use crate::table::{Column, Kind, Packing, Table, Values, encode};
use crate::zero::ZeroRun;

const MANIFEST: &str = r#"{"format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "t",
    "method": "import", "written_means": "content", "resource": "ram", "guest_name": "g",
    "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "",
    "accelerator": "tcg", "page_size_bytes": 4096, "window_seconds": 0.1,
    "blocks": [{"name": "a", "length_bytes": 409600}], "sample": {"one_in": 1, "seed": 0}}"#;

const BESIDE: &str = r#"{"recorded_before": 0, "cell": 8, "zero_at_start": 10, "made_zero": 2,
    "lengthened": []}"#;

/// Changes the commit record, or gives another text for it.
type Spoil = Box<dyn FnOnce(&mut Commit) -> Option<String>>;

/// A segment of three windows to be spoilt.
struct Craft {
    starts: Vec<i64>,
    ends: Vec<i64>,
    states: Vec<&'static str>,
    written: Vec<i32>,
    zero_counts: Vec<i32>,
    pages: Vec<(i32, i64)>,
    zero: Vec<ZeroRun>,
    start_runs: String,
    index: Vec<IndexRow>,
    cells: Vec<BandRow>,
    beside: String,
    pages_table: &'static Table,
    version: String,
    bands: String,
    vcpu_time: Option<String>,
    commit: Spoil,
}

fn run(window: u32, page: u64, pages: u32, zero: bool) -> ZeroRun {
    ZeroRun { window, page, pages, zero }
}

fn event(window: u32, band: u16, bucket: u16, events: u32) -> IndexRow {
    IndexRow { window, band, bucket, events }
}

fn cell(window: u32, band: u16, written: u32) -> BandRow {
    BandRow { window, band, written, left_zero: 0, zero: 0 }
}

impl Craft {
    fn good() -> Craft {
        Craft {
            starts: vec![0, 100, 200],
            ends: vec![100, 200, 300],
            states: vec!["recorded", "gap", "recorded"],
            written: vec![3, 0, 1],
            zero_counts: vec![10, 12, 11],
            pages: vec![(0, 1), (0, 5), (0, 99), (2, 5)],
            zero: vec![run(0, 20, 6, true), run(0, 40, 4, true), run(1, 60, 2, true), run(2, 22, 1, false)],
            start_runs: "2".into(),
            index: vec![event(0, 3, 1, 1), event(2, 64, 1, 1)],
            cells: vec![cell(0, 0, 1), cell(0, 3, 2), cell(0, 63, 1)],
            beside: BESIDE.into(),
            pages_table: &PAGES,
            version: "5".into(),
            bands: BANDS.to_string(),
            vcpu_time: None,
            commit: Box::new(|_| None),
        }
    }

    fn write(self, dir: &Path) {
        std::fs::write(dir.join("manifest.json"), MANIFEST).unwrap();
        let manifest = Manifest::read(dir).unwrap();
        let identity = [
            (segment::KEY_VERSION.to_owned(), self.version.clone()),
            (segment::KEY_GUEST.to_owned(), manifest.guest_id.to_string()),
            (segment::KEY_SEGMENT.to_owned(), "0".to_owned()),
        ];
        let write = |table: &'static Table, values: &[Values], more: Vec<(&str, String)>| {
            let more = more.into_iter().map(|(key, value)| (key.to_owned(), value));
            let bytes = encode(table, values, identity.iter().cloned().chain(more).collect()).unwrap();
            std::fs::create_dir_all(dir.join(table.name)).unwrap();
            std::fs::write(segment::path(dir, table, 0), &bytes).unwrap();
            FileMark::of(table, &bytes)
        };
        let count = self.starts.len();
        let u32s = Values::U32;
        let windows = [
            Values::U64(self.starts),
            Values::U64(self.ends),
            Values::Word(self.states),
            u32s(self.written),
            u32s(self.zero_counts),
            u32s(vec![0; count]),
        ];
        let (window, page): (Vec<i32>, Vec<i64>) = self.pages.into_iter().unzip();
        let mut pages = vec![u32s(window), Values::U64(page.clone())];
        pages.extend((2..self.pages_table.columns.len()).map(|_| Values::U64(page.clone())));
        let zero = &self.zero;
        let zero = [
            u32s(zero.iter().map(|row| row.window.cast_signed()).collect()),
            Values::U64(zero.iter().map(|row| row.page.cast_signed()).collect()),
            u32s(zero.iter().map(|row| row.pages.cast_signed()).collect()),
            Values::Bool(zero.iter().map(|row| row.zero).collect()),
        ];
        let files = [
            write(&WINDOWS, &windows, vec![]),
            write(self.pages_table, &pages, vec![]),
            write(&ZERO, &zero, vec![(segment::KEY_START_RUNS, self.start_runs)]),
            write(&BANDS_TABLE, &BandRow::columns(&self.cells), vec![]),
        ];
        let files = files.into();
        let mut commit = Commit { first_window: 0, windows: 3, start_unix_ns: 0, end_unix_ns: 300, files };
        let text = (self.commit)(&mut commit).unwrap_or_else(|| serde_json::to_string(&commit).unwrap());
        let of = |value: fn(&IndexRow) -> u32| u32s(self.index.iter().map(|row| value(row).cast_signed()).collect());
        let wws = [of(|row| row.window), of(|row| row.band.into()), of(|row| row.bucket.into()), of(|row| row.events)];
        let mut metadata = vec![
            (segment::KEY_BANDS, self.bands),
            (segment::KEY_EDGES, segment::edges()),
            (segment::KEY_INDEX, self.beside),
            (segment::KEY_COMMIT, text),
        ];
        metadata.extend(self.vcpu_time.map(|text| (segment::KEY_VCPU_TIME, text)));
        write(&WWS, &wws, metadata);
    }

    /// The one line about what is wrong.
    fn problem(self) -> String {
        let dir = tempfile::tempdir().unwrap();
        self.write(dir.path());
        let history = History::open(dir.path()).unwrap().without_damaged();
        assert!(history.segments().is_empty(), "nothing was found wrong");
        assert!(matches!(history.page_replay(0..u32::MAX), Err(ReadError::NothingRecorded { .. })));
        let [problem @ Problem::Damaged { .. }] = history.problems() else { panic!("{:?}", history.problems()) };
        problem.to_string()
    }
}

fn expect(expected: &str, spoil: impl FnOnce(&mut Craft)) {
    let mut craft = Craft::good();
    spoil(&mut craft);
    let problem = craft.problem();
    assert!(problem.contains(expected) && !problem.contains('\n'), "{problem:?} lacks {expected:?}");
}

#[test]
fn an_unspoilt_craft_is_read() {
    let dir = tempfile::tempdir().unwrap();
    Craft::good().write(dir.path());
    let history = History::open(dir.path()).unwrap().without_damaged();
    assert!(history.problems().is_empty(), "{:?}", history.problems());
    assert_eq!(history.page_replay(0..3).unwrap().windows(), 2);
}

#[test]
fn windows_are_checked() {
    expect("row 1: a window must end later than it starts", |c| c.ends[1] = 100);
    expect("row 1: a window must not start before", |c| c.starts[1] = 99);
    expect("row 1: state must be recorded, gap or migrating", |c| c.states[1] = "asleep");
    expect("row 1: only a recorded window has written pages", |c| c.written[1] = 1);
    expect("those of the commit mark", |c| c.ends[2] = 301);
    expect("there must be as many pages as the windows say", |c| c.written[2] = 2);
    expect("4 rows, allowed: up to 3", |c| c.written[2] = 0);
    expect("there must be as many pages as the windows say", |c| c.written[2] = -1);
}

#[test]
fn pages_are_checked() {
    expect("row 3: page must be a tracked page of the guest", |c| c.pages[3].1 = 100);
    expect("row 3: page must be a tracked page of the guest", |c| c.pages[3].1 = -1);
    expect("row 1: pages of a window must ascend, each once", |c| c.pages[1].1 = 1);
    expect("row 2: pages of a window must ascend, each once", |c| c.pages[2].1 = 0);
    expect("row 0: rows must be ordered by window", |c| c.pages[0].0 = 1);
    expect("row 3: rows must be ordered by window", |c| c.pages[3].0 = i32::MAX);
}

#[test]
fn the_zero_map_is_checked() {
    expect("a run must lie inside the guest's memory", |c| c.zero[1] = run(0, 97, 4, true));
    expect("a run must lie inside the guest's memory", |c| c.zero[2] = run(1, u64::MAX, u32::MAX, true));
    expect("runs of a window must ascend", |c| c.zero[1] = run(0, 25, 1, true));
    expect("each with a tracked page of its own", |c| c.zero[2] = run(1, 60, 0, true));
    expect("and zero pages only", |c| c.zero[0].zero = false);
    expect("must have the first window's number", |c| c.zero[0].window = 1);
    expect("zero pages must be as many as the window says", |c| c.zero_counts[2] = 12);
    expect("a page ceased to be zero that was not", |c| c.zero[2] = run(1, 0, 99, false));
    expect("rows must be ordered by window", |c| c.zero.push(run(0, 70, 1, true)));
    expect("rows must belong to a window of the segment", |c| c.zero.push(run(3, 1, 1, true)));
    expect("metadata migcast.start_runs is \"5\"", |c| c.start_runs = "5".into());
    expect("metadata migcast.start_runs is \"-1\"", |c| c.start_runs = "-1".into());
}

#[test]
fn the_index_is_checked() {
    let rule = "window, band, bucket and events must be in range and in order";
    expect(rule, |c| c.index[1].band = 66);
    expect(rule, |c| c.index[1].bucket = 240);
    expect(rule, |c| c.index[1].window = 3);
    expect(rule, |c| c.index[1].events = 0);
    expect(rule, |c| c.index.swap(0, 1));
    let rule = "rows must begin where counting begins, with buckets of their band";
    expect(rule, |c| c.index[1].bucket = 0);
    expect(rule, |c| c.index[1].window = 1);
    expect(rule, |c| c.index[0].bucket = 17);
    expect(rule, |c| c.index[1].band = 4);
    expect(rule, |c| c.index[1].band = 65);
    let rule = "window, band and counts must be in range and in order";
    expect(rule, |c| c.cells.swap(0, 1));
    expect(rule, |c| c.cells[2].band = 64);
    expect(rule, |c| c.cells[2].left_zero = 2);
    expect(rule, |c| c.cells[2].zero = 101);
    expect(rule, |c| c.cells[2].window = 2);
    let rule = "writes of the index must be those of the windows";
    expect(rule, |c| c.cells[2].written = 2);
    expect(rule, |c| c.index[1].events = 5);
    expect("metadata migcast.index is \"{}\"", |c| c.beside = "{}".into());
    expect("metadata migcast.index is ", |c| c.beside = BESIDE.replace("8", "9"));
    expect("metadata migcast.index is ", |c| c.beside = BESIDE.replace("[]", "[[0, 0], [1, 1]]"));
}

#[test]
fn the_commit_mark_is_checked() {
    let wrong: [Spoil; 7] = [
        Box::new(|_| Some("{}".into())),
        Box::new(|_| Some("[".repeat(100_000))),
        Box::new(|c| (c.windows = 0, None).1),
        Box::new(|c| (c.windows = u32::MAX, None).1),
        Box::new(|c| (c.first_window = u32::MAX, None).1),
        Box::new(|c| (c.end_unix_ns = 0, None).1),
        Box::new(|c| (c.files.swap(0, 1), None).1),
    ];
    for wrong in wrong {
        expect("metadata migcast.commit is ", |c| c.commit = wrong);
    }
    expect("those of the commit mark", |c| c.commit = Box::new(|c| (c.windows = 2, None).1));
    expect("must have the first window's number", |c| c.commit = Box::new(|c| (c.first_window = 7, None).1));
    expect("bytes, not the 9223372036854775808", |c| c.commit = Box::new(|c| (c.files[1].bytes = 1 << 63, None).1));
    expect("not those that were committed", |c| {
        c.commit = Box::new(|c| (c.files[2].xxh3_64 = "00".into(), None).1);
    });
    expect("metadata migcast.bands is \"65\"", |c| c.bands = "65".into());
}

#[test]
fn times_of_vcpus_that_do_not_fit_together_are_refused() {
    let text = |vcpus: u64, watched: u64, busy: u64, weighted: u64| {
        format!(r#"{{"vcpus":{vcpus},"watched_ns":{watched},"busy_ns":{busy},"weighted_ns":{weighted}}}"#)
    };
    let wrong = ["{}".to_owned(), text(0, 9, 0, 0), text(2, 0, 0, 0), text(2, 9, 19, 9), text(2, 9, 9, 10)];
    for wrong in wrong.into_iter().chain([text(1 << 33, 9, 9, 9), "[".repeat(100_000)]) {
        expect("metadata migcast.vcpu_time is ", |c| c.vcpu_time = Some(wrong));
    }
    let dir = tempfile::tempdir().unwrap();
    Craft { vcpu_time: Some(text(2, 9, 18, 18)), ..Craft::good() }.write(dir.path());
    let time = History::open(dir.path()).unwrap().vcpu_time(0..3).unwrap();
    assert_eq!((time.busy_share(), time.vcpus), (1.0, 2));
}

#[test]
fn a_newer_segment_is_named_as_such() {
    expect("segment format \"6\" is newer than this program reads (up to 5)", |c| c.version = "6".into());
    expect("metadata migcast.version is \"\", allowed: the version of the manifest", |c| c.version = String::new());
    expect("metadata migcast.version is \"1\", allowed: the version of the manifest", |c| c.version = "1".into());
}

#[test]
fn other_columns_are_refused() {
    const fn column(name: &'static str, kind: Kind) -> Column {
        Column { name, kind, packing: Packing::Plain }
    }
    const MORE: Table = Table {
        name: "pages",
        columns: &[column("window", Kind::U32), column("page", Kind::U64), column("more", Kind::U64)],
    };
    const OTHER: Table = Table { name: "pages", columns: &[column("window", Kind::U32), column("rank", Kind::U64)] };
    expect("its columns are window INT32, page INT64, more INT64, not window INT32, page INT64", |c| {
        c.pages_table = &MORE;
    });
    expect("its columns are window INT32, rank INT64, not", |c| c.pages_table = &OTHER);
}
