//! A segment's files: their names, tables, and the commit mark that binds them together.
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use crate::format::VERSION_FIRST;
use crate::index::{BUCKETS, bucket_start};
use crate::seal;
use crate::table::{Column, Kind, Packing, Table};

/// Longest segment, unless a single window is longer.
pub(crate) const SEGMENT_NS_MAX: u64 = 60_000_000_000;

/// A segment is closed before it holds more events than this, unless a single window has more: it bounds memory.
pub(crate) const SEGMENT_EVENTS_MAX: usize = 8 << 20;

/// A segment is closed before it holds more windows than this.
pub(crate) const SEGMENT_WINDOWS_MAX: usize = 1 << 20;

/// `windows/`: one row per window.
pub(crate) const WINDOWS: Table = Table {
    name: "windows",
    columns: &[
        Column::new("start", Kind::Time, Packing::Delta),
        Column::new("end", Kind::Time, Packing::Delta),
        Column::new("state", Kind::Word, Packing::Dictionary),
        Column::new("written", Kind::U32, Packing::Delta),
        Column::new("zero", Kind::U32, Packing::Delta),
        Column::new("cost_us", Kind::U32, Packing::Delta),
    ],
};

/// `pages/`: one row per page written in a window, by window and page.
pub(crate) const PAGES: Table = Table {
    name: "pages",
    columns: &[Column::new("window", Kind::U32, Packing::Dictionary), Column::new("page", Kind::U64, Packing::Delta)],
};

/// `zero/`: runs of zero pages at the segment's start, then changes by window and page.
pub(crate) const ZERO: Table = Table {
    name: "zero",
    columns: &[
        Column::new("window", Kind::U32, Packing::Delta),
        Column::new("page", Kind::U64, Packing::Delta),
        Column::new("pages", Kind::U32, Packing::Dictionary),
        Column::new("zero", Kind::Bool, Packing::Plain),
    ],
};

/// `bands/`: what happened in the bands of the memory, by cells of recorded windows.
pub(crate) const BANDS_TABLE: Table = Table {
    name: "bands",
    columns: &[
        Column::new("window", Kind::U32, Packing::Delta),
        Column::new("band", Kind::U16, Packing::Dictionary),
        Column::new("written", Kind::U32, Packing::Dictionary),
        Column::new("left_zero", Kind::U32, Packing::Dictionary),
        Column::new("zero", Kind::U32, Packing::Dictionary),
    ],
};

/// `wws/`: events per window, band and bucket.
pub(crate) const WWS: Table = Table {
    name: "wws",
    columns: &[
        Column::new("window", Kind::U32, Packing::Delta),
        Column::new("band", Kind::U16, Packing::Dictionary),
        Column::new("bucket", Kind::U16, Packing::Dictionary),
        Column::new("events", Kind::U32, Packing::Dictionary),
    ],
};

/// The tables in the order their files are written. `wws` last: its name in the directory is the commit mark.
pub(crate) const TABLES: [&Table; 5] = [&WINDOWS, &PAGES, &ZERO, &BANDS_TABLE, &WWS];

/// The tables of a history of this version, likewise.
pub(crate) fn tables(version: u32) -> &'static [&'static Table] {
    const FIRST: [&Table; 4] = [&WINDOWS, &PAGES, &ZERO, &WWS];
    const NOW: [&Table; 5] = TABLES;
    if version == VERSION_FIRST { &FIRST } else { &NOW }
}

/// Metadata key: the guest's id. In every file.
pub(crate) const KEY_GUEST: &str = "migcast.guest_id";
/// Metadata key: the format version. In every file.
pub(crate) const KEY_VERSION: &str = "migcast.version";
/// Metadata key: the segment's number. In every file.
pub(crate) const KEY_SEGMENT: &str = "migcast.segment";
/// Metadata key of `zero/`: how many of the first rows are the map at the segment's start.
pub(crate) const KEY_START_RUNS: &str = "migcast.start_runs";
/// Metadata key of `wws/`: the commit record.
pub(crate) const KEY_COMMIT: &str = "migcast.commit";
/// Metadata key of `wws/`: how busy the vCPUs were, where that is known.
pub(crate) const KEY_VCPU_TIME: &str = "migcast.vcpu_time";
/// Metadata key of `wws/`: the number of bands.
pub(crate) const KEY_BANDS: &str = "migcast.bands";
/// Metadata key of `wws/`: the smallest gap of each bucket from bucket 1 on, separated by commas.
pub(crate) const KEY_EDGES: &str = "migcast.bucket_starts";

/// Metadata key of `wws/`: what the index needs beside rows, see [`crate::index::Beside`].
pub(crate) const KEY_INDEX: &str = "migcast.index";

/// What a closed segment consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// The segment's first window, counted from the start of the history.
    pub(crate) first_window: u32,
    /// How many windows it has, ≥ 1.
    pub(crate) windows: u32,
    /// Start of the first and end of the last, nanoseconds since the Unix epoch.
    pub(crate) start_unix_ns: i64,
    pub(crate) end_unix_ns: i64,
    /// The other files, in the order of [`tables`].
    pub(crate) files: Vec<FileMark>,
}

/// By what a file is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// 16 hexadecimal digits.
    pub(crate) xxh3_64: String,
}

impl FileMark {
    pub(crate) fn of(table: &Table, bytes: &[u8]) -> FileMark {
        FileMark { name: table.name.into(), bytes: bytes.len() as u64, xxh3_64: seal::hash(XxHash3_64::oneshot(bytes)) }
    }
}

/// The value of [`KEY_EDGES`].
pub(crate) fn edges() -> String {
    (1..BUCKETS).map(|bucket| bucket_start(bucket).to_string()).collect::<Vec<_>>().join(",")
}

/// `DIR/TABLE/NNNNNN.parquet`.
pub(crate) fn path(dir: &Path, table: &Table, segment: u32) -> PathBuf {
    dir.join(table.name).join(format!("{segment:06}.parquet"))
}

/// The segment number in a file name, if it is one that [`path`] makes.
pub(crate) fn number(file_name: &str) -> Option<u32> {
    let digits = file_name.strip_suffix(".parquet")?;
    let number: u32 = digits.parse().ok()?;
    (format!("{number:06}") == digits).then_some(number)
}
