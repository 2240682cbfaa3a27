//! A history of rates: how many distinct pages a guest wrote in spans of time, not which.
//!
//! ```text
//! measured for a second, in force until the next measurement (or until it is too old):
//!
//!   ├─┤············├─┤············├─┤····            ├─┤··
//!   └─ a rate ────┘└─ a rate ────┘└─ a rate ┘  gap   └─ a rate
//! ```
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::data_type::Int64Type;

use crate::damage::{Damage, ReadError};
use crate::disk;
use crate::format::{MANIFEST, Manifest, ManifestError, VERSION_RATES, WrittenMeans};
use crate::quote::quoted;
use crate::seal;
use crate::segment::{KEY_GUEST, KEY_SEGMENT, KEY_VERSION};
use crate::summary::Slice;
use crate::table::{Column, Encoded, Kind, Packing, Table, Values, encode};
use crate::writer::WriteError;

/// Rates a series may have: 48 days at one a second, four years at one in half a minute.
pub const RATES_MAX: usize = 4 << 20;

/// Longest span a rate may have been measured over.
pub const SPAN_MAX: Duration = Duration::from_secs(86_400);

/// No file of rates is longer, in bytes: a row takes 32 before it is packed.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// `rates/`: one row per rate, in order.
const RATES: Table = Table {
    name: "rates",
    columns: &[
        Column::new("start", Kind::Time, Packing::Delta),
        Column::new("end", Kind::Time, Packing::Delta),
        Column::new("written", Kind::U64, Packing::Delta),
        Column::new("span_ns", Kind::U64, Packing::Delta),
    ],
};

/// How much was written at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// From when on it is in force, nanoseconds since the Unix epoch: the start of its measurement.
    pub start_unix_ns: i64,
    /// Until when, likewise; later than the start and not after the start of the next.
    pub end_unix_ns: i64,
    /// Distinct pages written within [`Self::span`]; at most the guest's.
    pub written: u64,
    /// How long it was measured; more than 0, at most [`SPAN_MAX`]. Neither shorter nor longer than the time in force.
    pub span: Duration,
}

impl Rate {
    /// Distinct pages by second of the measurement.
    pub fn pages_per_second(&self) -> f64 {
        self.written as f64 / self.span.as_secs_f64()
    }

    /// How long it is in force.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.end_unix_ns.abs_diff(self.start_unix_ns))
    }

    /// The rule of the table this one breaks, given the one before it.
    fn broken_rule(&self, before: Option<&Rate>, memory: u64) -> Option<&'static str> {
        if self.start_unix_ns >= self.end_unix_ns {
            return Some("a rate must end later than it starts");
        }
        if before.is_some_and(|before| self.start_unix_ns < before.end_unix_ns) {
            return Some("a rate must not start before the one before it ends");
        }
        if self.span.is_zero() || self.span > SPAN_MAX {
            return Some("span_ns must be 1 to a day");
        }
        (self.written > memory).then_some("written must be at most the guest's pages")
    }
}

/// A history of rates on disk, and in memory; at least one rate.
#[derive(Clone, Debug)]
pub struct RateSeries {
    dir: PathBuf,
    manifest: Manifest,
    rates: Vec<Rate>,
    bytes_on_disk: u64,
}

impl RateSeries {
    /// Writes a series to `dir`, which must not exist or be empty. The manifest is written last: without it there is no
    /// history.
    ///
    /// # Panics
    /// If there are no rates, or more than [`RATES_MAX`].
    pub fn create(dir: &Path, manifest: Manifest, rates: Vec<Rate>) -> Result<RateSeries, WriteError> {
        assert!((1..=RATES_MAX).contains(&rates.len()), "{} rates", rates.len());
        let path = dir.join(MANIFEST);
        manifest.validate(&path)?;
        if manifest.written_means != WrittenMeans::Rate {
            let value = format!("{:?}", manifest.written_means);
            return Err(ManifestError::Field { path, field: "written_means", value, allowed: "rate" }.into());
        }
        let pages = manifest.memory_bytes() / manifest.page_size_bytes;
        if let Some((rate, rule)) = first_broken(&rates, pages) {
            return Err(WriteError::Rate { rate, rule });
        }
        let table = dir.join(RATES.name);
        let io = |path: &Path, source| WriteError::Io { path: path.into(), source };
        fs::create_dir_all(dir).map_err(|source| io(dir, source))?;
        if fs::read_dir(dir).map_err(|source| io(dir, source))?.next().is_some() {
            return Err(WriteError::NotEmpty { dir: dir.into() });
        }
        fs::create_dir(&table).map_err(|source| io(&table, source))?;
        let bytes = encode(&RATES, &columns(&rates), metadata(&manifest)).map_err(|source| WriteError::Encode {
            table: RATES.name,
            segment: 0,
            source,
        })?;
        disk::write_file(&file(dir), &bytes)?;
        disk::sync_dir(&table)?;
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| ManifestError::Json { path: path.clone(), source: source.into() })?;
        disk::write_file(&path, &text)?;
        disk::sync_dir(dir)?;
        Ok(RateSeries { dir: dir.into(), manifest, rates, bytes_on_disk: bytes.len() as u64 })
    }

    /// Opens a history of rates and reads it.
    ///
    /// # Errors
    /// A manifest that is missing, foreign, newer or damaged, or one of windows; rates that are missing or damaged.
    pub fn open(dir: &Path) -> Result<RateSeries, ReadError> {
        Self::open_with(dir, Manifest::read(dir)?)
    }

    /// Opens the history whose manifest was read.
    pub(crate) fn open_with(dir: &Path, manifest: Manifest) -> Result<RateSeries, ReadError> {
        if manifest.written_means != WrittenMeans::Rate {
            let value = format!("{:?}", manifest.written_means);
            let path = dir.join(MANIFEST);
            return Err(ManifestError::Field { path, field: "written_means", value, allowed: "rate" }.into());
        }
        let path = file(dir);
        let damaged = |damage: Damage| ReadError::DamagedRates { path: path.clone(), damage };
        let bytes = read(&path)?;
        let bytes_on_disk = bytes.len() as u64;
        if !seal::is_whole(&bytes) {
            return Err(damaged(Damage::Checksum));
        }
        let table = Encoded::open(&RATES, bytes.into(), RATES_MAX as u64).map_err(|error| damaged(error.into()))?;
        check_identity(&table, &manifest, &path)?;
        let pages = manifest.memory_bytes() / manifest.page_size_bytes;
        let rates = rows(&table).map_err(damaged)?;
        if let Some((row, rule)) = first_broken(&rates, pages) {
            return Err(damaged(Damage::Row { row: row as u64, rule }));
        }
        if rates.is_empty() {
            return Err(damaged(Damage::Row { row: 0, rule: "there must be a rate" }));
        }
        Ok(RateSeries { dir: dir.into(), manifest, rates, bytes_on_disk })
    }

    /// What the history is about.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The rates, in order.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// Length of its table in bytes.
    pub fn bytes_on_disk(&self) -> u64 {
        self.bytes_on_disk
    }

    /// Start of the first, nanoseconds since the Unix epoch.
    pub fn start_unix_ns(&self) -> i64 {
        self.rates.first().map_or(0, |rate| rate.start_unix_ns)
    }

    /// End of the last, likewise.
    pub fn end_unix_ns(&self) -> i64 {
        self.rates.last().map_or(0, |rate| rate.end_unix_ns)
    }

    /// Wall-clock time from the first start to the last end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_unix_ns().abs_diff(self.start_unix_ns()))
    }

    /// Time for which there is a rate.
    pub fn known_duration(&self) -> Duration {
        self.rates.iter().map(Rate::length).sum()
    }

    /// Mean over the time for which there is a rate, in pages per second.
    pub fn mean_pages_per_second(&self) -> f64 {
        let pages: f64 = self.rates.iter().map(|rate| rate.pages_per_second() * rate.length().as_secs_f64()).sum();
        pages / self.known_duration().as_secs_f64()
    }

    /// The rate in force at a moment, nanoseconds since the Unix epoch; in a gap the next one, `None` outside of the
    /// series.
    pub fn at(&self, unix_ns: i64) -> Option<&Rate> {
        let next = self.rates.partition_point(|rate| rate.end_unix_ns <= unix_ns);
        self.rates.get(next).filter(|_| unix_ns >= self.start_unix_ns())
    }

    /// The dirty rate over time: `count` (≥ 1) equal slices of the series, each with the mean of what was in force in it.
    pub fn slices(&self, count: u32) -> Vec<Slice> {
        let length = self.duration() / count.max(1);
        let (start, step) = (self.start_unix_ns(), i64::try_from(length.as_nanos()).unwrap_or(i64::MAX).max(1));
        let mut next = 0;
        let slice = |index: u32| {
            let begin = start.saturating_add(step.saturating_mul(index.into()));
            let end = begin.saturating_add(step);
            let (mut pages, mut seconds) = (0.0, 0.0);
            while let Some(rate) = self.rates.get(next).filter(|rate| rate.start_unix_ns < end) {
                let inside =
                    rate.end_unix_ns.min(end).saturating_sub(rate.start_unix_ns.max(begin)).max(0) as f64 / 1e9;
                pages += rate.pages_per_second() * inside;
                seconds += inside;
                if rate.end_unix_ns > end {
                    break;
                }
                next += 1;
            }
            let pages_per_second = (seconds > 0.0).then(|| pages / seconds);
            Slice { offset: length * index, length, pages_per_second }
        };
        (0..count).map(slice).collect()
    }

    /// `count` rates in force at moments that are evenly spread over the time for which there is one, with how much of
    /// that time lies before the moment.
    pub fn spread(&self, count: u32) -> Vec<(Duration, &Rate)> {
        let step = self.known_duration().as_nanos() / (2 * u128::from(count.max(1)));
        let mut ends = self.rates.iter().scan(0, |before, rate| {
            *before += rate.length().as_nanos();
            Some((*before, rate))
        });
        let mut current = ends.next();
        let moment = |index: u32| {
            let at = step * (2 * u128::from(index) + 1);
            while let Some((end, _)) = current
                && end <= at
            {
                current = ends.next();
            }
            let before = u64::try_from(at).map_or(Duration::MAX, Duration::from_nanos);
            current.map(|(_, rate)| (before, rate))
        };
        (0..count).map_while(moment).collect()
    }
}

/// The first rate that breaks a rule, and the rule.
pub(crate) fn first_broken(rates: &[Rate], pages: u64) -> Option<(usize, &'static str)> {
    let before = |index: usize| index.checked_sub(1).map(|index| &rates[index]);
    rates.iter().enumerate().find_map(|(index, rate)| Some((index, rate.broken_rule(before(index), pages)?)))
}

fn file(dir: &Path) -> PathBuf {
    crate::segment::path(dir, &RATES, 0)
}

fn metadata(manifest: &Manifest) -> Vec<(String, String)> {
    vec![
        (KEY_VERSION.into(), VERSION_RATES.to_string()),
        (KEY_GUEST.into(), manifest.guest_id.to_string()),
        (KEY_SEGMENT.into(), "0".into()),
    ]
}

/// The table's columns.
pub(crate) fn columns(rates: &[Rate]) -> [Values; 4] {
    let nanoseconds = |span: Duration| i64::try_from(span.as_nanos()).expect("a span is at most a day");
    [
        Values::U64(rates.iter().map(|rate| rate.start_unix_ns).collect()),
        Values::U64(rates.iter().map(|rate| rate.end_unix_ns).collect()),
        Values::U64(rates.iter().map(|rate| rate.written.cast_signed()).collect()),
        Values::U64(rates.iter().map(|rate| nanoseconds(rate.span)).collect()),
    ]
}

fn rows(table: &Encoded) -> Result<Vec<Rate>, Damage> {
    let [start, end, written, span] = [0, 1, 2, 3].map(|column| table.column::<Int64Type>(column).read_all());
    let (start, end, written, span) = (start?, end?, written?, span?);
    if [end.len(), written.len(), span.len()].iter().any(|length| *length != start.len()) {
        return Err(Damage::Row { row: start.len() as u64, rule: "columns must be of one length" });
    }
    let row = |row: usize| Rate {
        start_unix_ns: start[row],
        end_unix_ns: end[row],
        written: written[row].cast_unsigned(),
        span: Duration::from_nanos(span[row].cast_unsigned()),
    };
    Ok((0..start.len()).map(row).collect())
}

fn check_identity(table: &Encoded, manifest: &Manifest, path: &Path) -> Result<(), ReadError> {
    let value = |key| table.metadata(key).unwrap_or_default();
    let (found, expected) = (value(KEY_GUEST), manifest.guest_id.to_string());
    if found != expected {
        return Err(ReadError::Foreign { path: path.into(), found: quoted(found), expected });
    }
    let version = value(KEY_VERSION);
    if version == VERSION_RATES.to_string() {
        return Ok(());
    }
    let damage = Damage::Metadata { key: KEY_VERSION, value: version.chars().take(80).collect(), allowed: "2" };
    Err(ReadError::DamagedRates { path: path.into(), damage })
}

fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::DamagedRates { path: path.into(), damage: Damage::Missing },
        _ => ReadError::Io { path: path.into(), source },
    };
    let file = File::open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?.len();
    if found > FILE_BYTES_MAX {
        let damage = Damage::Length { found, expected: FILE_BYTES_MAX };
        return Err(ReadError::DamagedRates { path: path.into(), damage });
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
