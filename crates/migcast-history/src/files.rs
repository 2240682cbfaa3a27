//! A segment's files: found to be what was committed, then decoded.
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use migcast_model::dirty::wws::WwsPart;
use parquet::data_type::{ByteArrayType, Int32Type, Int64Type};

use crate::damage::{Damage, ReadError};
use crate::format::{Manifest, VERSION, VERSION_FIRST, VERSION_WITHOUT_RUNS};
use crate::index::{ALL_BANDS, BANDS, BUCKETS, BandRow, Beside, IndexRow, Kept, Misfit, RUNS};
use crate::quote::quoted;
use crate::seal;
use crate::segment::{
    self, BANDS_TABLE, Commit, FileMark, PAGES, SEGMENT_EVENTS_MAX, SEGMENT_WINDOWS_MAX, WINDOWS, WWS, ZERO,
};
use crate::table::{Encoded, Table};
use crate::vcpu::VcpuTime;
use crate::windows::{State, Window};

/// No file of a segment is longer; a commit mark that says otherwise is wrong. In bytes.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// Rows a `wws` file may have: an event for each of the memory, its band and its run, and what one window alone may bring.
const INDEX_ROWS_MAX: u64 = 3 * SEGMENT_EVENTS_MAX as u64 + BANDS as u64 * BUCKETS as u64;

/// The files of one segment.
pub(crate) struct Files<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    number: u32,
    commit: &'a Commit,
}

/// A table together with the name of its file, for what errors say.
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) table: Encoded,
}

impl Opened {
    /// An error about this file.
    pub(crate) fn damaged(&self, damage: impl Into<Damage>) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), damage: damage.into() }
    }
}

/// What the file that commits a segment says of all of it.
pub(crate) struct Committed {
    pub(crate) commit: Commit,
    /// How busy the vCPUs were, where that is known.
    pub(crate) vcpu_time: Option<VcpuTime>,
    /// Length of all its files.
    pub(crate) bytes: u64,
    /// Whether pages and zero map are still kept.
    pub(crate) has_pages: bool,
}

/// Reads a segment's commit mark and looks whether the other files are there in the right length.
pub(crate) fn commit(dir: &Path, manifest: &Manifest, number: u32) -> Result<Committed, ReadError> {
    let path = segment::path(dir, &WWS, number);
    let bytes = read(&path, FILE_BYTES_MAX)?;
    let mut length = bytes.len() as u64;
    let opened = open(&WWS, path, bytes, INDEX_ROWS_MAX)?;
    check_identity(&opened, manifest, number)?;
    let (commit, vcpu_time) = (parse_commit(&opened, manifest)?, parse_vcpu_time(&opened)?);
    let mut has_pages = true;
    for (mark, table) in commit.files.iter().zip(segment::tables(manifest.version())) {
        let path = segment::path(dir, table, number);
        let found = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if may_go(table, manifest) && error.kind() == io::ErrorKind::NotFound => {
                has_pages = false;
                continue;
            }
            Err(error) => return Err(missing(path, error)),
        };
        if found != mark.bytes {
            return Err(mismatch(&path, table, manifest, Damage::Length { found, expected: mark.bytes }));
        }
        length += found;
    }
    Ok(Committed { commit, vcpu_time, bytes: length, has_pages })
}

/// Whether a file of this table may have been taken away when it was old.
fn may_go(table: &Table, manifest: &Manifest) -> bool {
    manifest.keep_pages_seconds.is_some() && [PAGES.name, ZERO.name].contains(&table.name)
}

impl<'a> Files<'a> {
    pub(crate) fn new(dir: &'a Path, manifest: &'a Manifest, number: u32, commit: &'a Commit) -> Files<'a> {
        Files { dir, manifest, number, commit }
    }

    pub(crate) fn first_window(&self) -> u32 {
        self.commit.first_window
    }

    pub(crate) fn end_window(&self) -> u32 {
        self.commit.first_window + self.commit.windows
    }

    /// The rows of `windows/`, checked.
    pub(crate) fn windows(&self) -> Result<Vec<Window>, ReadError> {
        let opened = self.open(&WINDOWS, 0, SEGMENT_WINDOWS_MAX as u64)?;
        let windows = read_windows(&opened.table).map_err(|damage| opened.damaged(damage))?;
        let of_commit = windows.len() == self.commit.windows as usize
            && windows.first().map(|window| window.start_unix_ns) == Some(self.commit.start_unix_ns)
            && windows.last().map(|window| window.end_unix_ns) == Some(self.commit.end_unix_ns);
        if !of_commit {
            let rule = "number and times of windows must be those of the commit mark";
            return Err(opened.damaged(Damage::Row { row: windows.len() as u64, rule }));
        }
        Ok(windows)
    }

    /// `pages/`, which must have `rows` rows.
    pub(crate) fn pages(&self, rows: u64) -> Result<Opened, ReadError> {
        let opened = self.open(&PAGES, 1, rows)?;
        if opened.table.rows() == rows {
            return Ok(opened);
        }
        let rule = "there must be as many pages as the windows say";
        Err(opened.damaged(Damage::Row { row: opened.table.rows(), rule }))
    }

    /// `zero/`, and how many of its first rows are the map at the segment's start.
    pub(crate) fn zero(&self, tracked: u32) -> Result<(Opened, u64), ReadError> {
        let rows_max = u64::from(tracked) * (u64::from(self.commit.windows) + 1);
        let opened = self.open(&ZERO, 2, rows_max)?;
        let text = opened.table.metadata(segment::KEY_START_RUNS).unwrap_or_default();
        match text.parse::<u64>() {
            Ok(runs) if runs <= opened.table.rows() => Ok((opened, runs)),
            _ => {
                let allowed = "a number of rows in the file";
                Err(opened.damaged(metadata(segment::KEY_START_RUNS, text, allowed)))
            }
        }
    }

    /// The rows of `wws/`, checked, and its file.
    pub(crate) fn index(&self, tracked: u32) -> Result<(Vec<IndexRow>, Opened), ReadError> {
        let path = segment::path(self.dir, &WWS, self.number);
        let opened = open(&WWS, path.clone(), read(&path, FILE_BYTES_MAX)?, INDEX_ROWS_MAX)?;
        check_identity(&opened, self.manifest, self.number)?;
        let windows = self.commit.first_window..self.commit.first_window + self.commit.windows;
        let rows = read_index(&opened.table).map_err(|damage| opened.damaged(damage))?;
        let has_pages_beside = self.manifest.version() == VERSION_FIRST;
        let bands = match self.manifest.version() {
            VERSION_FIRST => 0..=BANDS - 1,
            VERSION_WITHOUT_RUNS => 0..=ALL_BANDS,
            _ => 0..=RUNS,
        };
        let events_max = if has_pages_beside { tracked } else { u32::MAX };
        let good = |row: &IndexRow| {
            windows.contains(&row.window)
                && bands.contains(&row.band)
                && row.bucket < BUCKETS
                && (1..=events_max).contains(&row.events)
        };
        let order = |pair: &[IndexRow]| {
            let key = |row: &IndexRow| (row.window, row.band, row.bucket);
            key(&pair[0]) < key(&pair[1])
        };
        if let Some(row) = rows.iter().position(|row| !good(row)).or(rows.windows(2).position(|pair| !order(pair))) {
            let rule = "window, band, bucket and events must be in range and in order";
            return Err(opened.damaged(Damage::Row { row: row as u64, rule }));
        }
        Ok((rows, opened))
    }

    /// The rows of `wws/` and what lies beside them, of a segment without damage.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn index_and_beside(&self) -> (Vec<IndexRow>, Option<Beside>) {
        let (rows, opened) = self.index(u32::MAX).expect("there is no damage");
        let beside = opened.table.metadata(segment::KEY_INDEX);
        (rows, beside.map(|text| serde_json::from_str(text).expect("it is what was written")))
    }

    /// What is kept of the segment for an index; `None` where that needs its pages.
    pub(crate) fn part(&self, tracked: u32) -> Result<Option<WwsPart>, ReadError> {
        let (index, opened) = self.index(tracked)?;
        if self.manifest.version() == VERSION_FIRST {
            return Ok(None);
        }
        let windows = self.windows()?;
        let text = opened.table.metadata(segment::KEY_INDEX).unwrap_or_default();
        let beside = serde_json::from_str::<Beside>(text).map_err(|_| wrong_beside(&opened, text))?;
        let rows_max = u64::from(self.commit.windows) * u64::from(BANDS);
        let bands_file = self.open(&BANDS_TABLE, 3, rows_max)?;
        let bands = read_bands(&bands_file.table).map_err(|damage| bands_file.damaged(damage))?;
        let order = |pair: &[BandRow]| (pair[0].window, pair[0].band) < (pair[1].window, pair[1].band);
        let unordered = bands.windows(2).position(|pair| !order(pair));
        let of_bands = |row: usize| {
            let rule = "window, band and counts must be in range and in order";
            bands_file.damaged(Damage::Row { row: row as u64, rule })
        };
        if let Some(row) = unordered.or(bands.iter().position(|row| row.band >= BANDS)) {
            return Err(of_bands(row));
        }
        let kept = Kept { index, bands, beside };
        let part = kept.part(self.commit.first_window, &windows, tracked).map_err(|misfit| match misfit {
            Misfit::Index { row } => {
                let rule = "rows must begin where counting begins, with buckets of their band";
                opened.damaged(Damage::Row { row, rule })
            }
            Misfit::Bands { row } => of_bands(row as usize),
            Misfit::Beside => wrong_beside(&opened, text),
            Misfit::Sums => {
                let rule = "writes of the index must be those of the windows";
                opened.damaged(Damage::Row { row: opened.table.rows(), rule })
            }
        })?;
        Ok(Some(part))
    }

    /// Reads one of the files that the commit mark vouches for.
    fn open(&self, table: &'static Table, index: usize, rows_max: u64) -> Result<Opened, ReadError> {
        let path = segment::path(self.dir, table, self.number);
        let bytes = read(&path, FILE_BYTES_MAX)?;
        let (mark, found) = (&self.commit.files[index], FileMark::of(table, &bytes));
        if found.bytes != mark.bytes {
            return Err(mismatch(
                &path,
                table,
                self.manifest,
                Damage::Length { found: found.bytes, expected: mark.bytes },
            ));
        }
        if found != *mark {
            return Err(mismatch(&path, table, self.manifest, Damage::Checksum));
        }
        let opened = open(table, path, bytes, rows_max)?;
        check_identity(&opened, self.manifest, self.number)?;
        Ok(opened)
    }
}

fn open(table: &'static Table, path: PathBuf, bytes: Bytes, rows_max: u64) -> Result<Opened, ReadError> {
    if !seal::is_whole(&bytes) {
        return Err(ReadError::Damaged { path, damage: Damage::Checksum });
    }
    match Encoded::open(table, bytes, rows_max) {
        Ok(table) => Ok(Opened { path, table }),
        Err(error) => Err(ReadError::Damaged { path, damage: error.into() }),
    }
}

fn read(path: &Path, bytes_max: u64) -> Result<Bytes, ReadError> {
    let io = |source| missing(path.into(), source);
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?.len();
    if found > bytes_max {
        return Err(ReadError::Damaged { path: path.into(), damage: Damage::Length { found, expected: bytes_max } });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found).unwrap_or_default());
    file.take(bytes_max).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes.into())
}

fn missing(path: PathBuf, source: io::Error) -> ReadError {
    match source.kind() {
        io::ErrorKind::NotFound => ReadError::Damaged { path, damage: Damage::Missing },
        _ => ReadError::Io { path, source },
    }
}

/// A file that is not the committed one: another history's, if it says so, else damaged.
fn mismatch(path: &Path, table: &Table, manifest: &Manifest, damage: Damage) -> ReadError {
    let expected = manifest.guest_id.to_string();
    let bytes = read(path, FILE_BYTES_MAX).ok().filter(|bytes| seal::is_whole(bytes));
    let other = bytes.and_then(|bytes| Encoded::open(table, bytes, u64::MAX).ok());
    let guest = other.as_ref().and_then(|table| table.metadata(segment::KEY_GUEST));
    match guest.and_then(|text| text.parse::<uuid::Uuid>().ok()) {
        Some(found) if found != manifest.guest_id => {
            ReadError::Foreign { path: path.into(), found: found.to_string(), expected }
        }
        _ => ReadError::Damaged { path: path.into(), damage },
    }
}

fn check_identity(opened: &Opened, manifest: &Manifest, number: u32) -> Result<(), ReadError> {
    let value = |key| opened.table.metadata(key).unwrap_or_default();
    let version = value(segment::KEY_VERSION);
    match version.parse::<u32>() {
        Ok(same) if same == manifest.version() => {}
        Ok(newer) if newer > VERSION => {
            return Err(ReadError::Newer { path: opened.path.clone(), version: quoted(version) });
        }
        _ => return Err(opened.damaged(metadata(segment::KEY_VERSION, version, "the version of the manifest"))),
    }
    let (found, expected) = (value(segment::KEY_GUEST), manifest.guest_id.to_string());
    if found != expected {
        let found = quoted(found);
        return Err(ReadError::Foreign { path: opened.path.clone(), found, expected });
    }
    let text = value(segment::KEY_SEGMENT);
    if text != number.to_string() {
        return Err(opened.damaged(metadata(segment::KEY_SEGMENT, text, "the number in the file's name")));
    }
    Ok(())
}

fn parse_commit(opened: &Opened, manifest: &Manifest) -> Result<Commit, ReadError> {
    let value = |key| opened.table.metadata(key).unwrap_or_default();
    for (key, expected) in [(segment::KEY_BANDS, BANDS.to_string()), (segment::KEY_EDGES, segment::edges())] {
        if value(key) != expected {
            return Err(opened.damaged(metadata(key, value(key), "the value of this format")));
        }
    }
    let (text, tables) = (value(segment::KEY_COMMIT), segment::tables(manifest.version()));
    let commit = serde_json::from_str::<Commit>(text).ok().filter(|commit| {
        commit.windows >= 1
            && commit.windows as usize <= SEGMENT_WINDOWS_MAX
            && commit.first_window.checked_add(commit.windows).is_some()
            && commit.start_unix_ns < commit.end_unix_ns
            && commit.files.len() + 1 == tables.len()
            && commit.files.iter().zip(tables).all(|(mark, table)| mark.name == table.name)
    });
    commit.ok_or_else(|| {
        opened.damaged(metadata(segment::KEY_COMMIT, text, "a commit record, see docs/history-format.md"))
    })
}

fn parse_vcpu_time(opened: &Opened) -> Result<Option<VcpuTime>, ReadError> {
    let Some(text) = opened.table.metadata(segment::KEY_VCPU_TIME) else { return Ok(None) };
    match serde_json::from_str::<VcpuTime>(text).ok().filter(VcpuTime::is_valid) {
        Some(time) => Ok(Some(time)),
        None => {
            let allowed = "times that fit together, see docs/history-format.md";
            Err(opened.damaged(metadata(segment::KEY_VCPU_TIME, text, allowed)))
        }
    }
}

fn metadata(key: &'static str, value: &str, allowed: &'static str) -> Damage {
    Damage::Metadata { key, value: value.chars().take(80).collect(), allowed }
}

fn wrong_beside(opened: &Opened, text: &str) -> ReadError {
    opened.damaged(metadata(segment::KEY_INDEX, text, "what an index needs, see docs/history-format.md"))
}

fn read_bands(table: &Encoded) -> Result<Vec<BandRow>, Damage> {
    let columns = [0, 1, 2, 3, 4].map(|column| table.column::<Int32Type>(column).read_all());
    let [window, band, written, left_zero, zero] = columns;
    let (window, band, written, left_zero, zero) = (window?, band?, written?, left_zero?, zero?);
    if [band.len(), written.len(), left_zero.len(), zero.len()].iter().any(|length| *length != window.len()) {
        return Err(Damage::Row { row: window.len() as u64, rule: "columns must be of one length" });
    }
    let row = |row: usize| {
        let out = |_| Damage::Row { row: row as u64, rule: "band must be 16 bits" };
        Ok(BandRow {
            window: window[row].cast_unsigned(),
            band: band[row].try_into().map_err(out)?,
            written: written[row].cast_unsigned(),
            left_zero: left_zero[row].cast_unsigned(),
            zero: zero[row].cast_unsigned(),
        })
    };
    (0..window.len()).map(row).collect()
}

fn read_windows(table: &Encoded) -> Result<Vec<Window>, Damage> {
    let starts = table.column::<Int64Type>(0).read_all()?;
    let ends = table.column::<Int64Type>(1).read_all()?;
    let states = table.column::<ByteArrayType>(2).read_all()?;
    let [written, zero, cost_us] = [3, 4, 5].map(|column| table.column::<Int32Type>(column).read_all());
    let (written, zero, cost_us) = (written?, zero?, cost_us?);
    let rows = starts.len();
    if [ends.len(), states.len(), written.len(), zero.len(), cost_us.len()].iter().any(|length| *length != rows) {
        return Err(Damage::Row { row: rows as u64, rule: "columns must be of one length" });
    }
    let mut windows: Vec<Window> = Vec::with_capacity(rows);
    for row in 0..rows {
        let broken = |rule| Damage::Row { row: row as u64, rule };
        let state = State::from_word(states[row].data());
        let window = Window {
            start_unix_ns: starts[row],
            end_unix_ns: ends[row],
            state: state.ok_or(broken("state must be recorded, gap or migrating"))?,
            written: written[row].cast_unsigned(),
            zero: zero[row].cast_unsigned(),
            cost_us: cost_us[row].cast_unsigned(),
        };
        if window.start_unix_ns >= window.end_unix_ns {
            return Err(broken("a window must end later than it starts"));
        }
        if windows.last().is_some_and(|before| window.start_unix_ns < before.end_unix_ns) {
            return Err(broken("a window must not start before the one before it ends"));
        }
        if window.state != State::Recorded && window.written > 0 {
            return Err(broken("only a recorded window has written pages"));
        }
        windows.push(window);
    }
    Ok(windows)
}

fn read_index(table: &Encoded) -> Result<Vec<IndexRow>, Damage> {
    let [window, band, bucket, events] = [0, 1, 2, 3].map(|column| table.column::<Int32Type>(column).read_all());
    let (window, band, bucket, events) = (window?, band?, bucket?, events?);
    if [band.len(), bucket.len(), events.len()].iter().any(|length| *length != window.len()) {
        return Err(Damage::Row { row: window.len() as u64, rule: "columns must be of one length" });
    }
    let row = |row: usize| {
        let out = |_| Damage::Row { row: row as u64, rule: "band and bucket must be 16 bits" };
        Ok(IndexRow {
            window: window[row].cast_unsigned(),
            band: band[row].try_into().map_err(out)?,
            bucket: bucket[row].try_into().map_err(out)?,
            events: events[row].cast_unsigned(),
        })
    };
    (0..window.len()).map(row).collect()
}
