//! `manifest.json`: what a history is about. Written once, before the first segment.
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::quote::{JsonError, quoted};
use crate::sample::SampleError;

/// Version of a history of windows: the one that is written, and the newest that is read.
pub const VERSION: u32 = 5;

/// Version of a history of windows whose index tells only by 1,024 windows how soon the pages of a band are written again.
pub const VERSION_OF_STRETCHES: u32 = 4;

/// Version of a history of windows whose index does not tell by window how long its pages had been written on end.
pub const VERSION_WITHOUT_RUNS: u32 = 3;

/// The first version of a history of windows, whose index is of each window and band and needs the pages beside it.
pub const VERSION_FIRST: u32 = 1;

/// Version of a history of rates. A number of its own, so that programs which know windows only refuse it by its version.
pub const VERSION_RATES: u32 = 2;

/// The manifest's file name in the history's directory.
pub const MANIFEST: &str = "manifest.json";

/// Everything before the version in [`Manifest::format`].
const FORMAT: &str = "migcast.history/";

/// A manifest is a few kilobytes; more than this is another file.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Blocks a manifest may list. QEMU's default machine has 9; a guest full of hot-plugged memory some hundreds.
const BLOCKS_MAX: usize = 65_536;

/// Memory a guest may have, in bytes: 2^48 pages of 4 KiB.
const MEMORY_BYTES_MAX: u64 = 1 << 60;

/// Pages are kept by whole segments.
pub const KEEP_SECONDS_MIN: f64 = 60.0;

/// An index of less than an hour tells little. In seconds.
pub const KEEP_INDEX_SECONDS_MIN: f64 = 3600.0;

/// Page sizes a manifest may state, in bytes: the smallest and the largest of any processor in use.
const PAGE_SIZES: std::ops::RangeInclusive<u64> = 512..=(1 << 30);

/// The manifest of a history (`format` = "migcast.history/5", or "migcast.history/2" for one of rates).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// "migcast.history/5", or "migcast.history/1", "/3" or "/4" of old; "migcast.history/2" where [`Self::written_means`] is a rate.
    pub format: String,
    /// When the recording began, UTC.
    pub created: jiff::Timestamp,
    /// The program that recorded, e.g. "migcast 0.1.0".
    pub recorder: String,
    /// How: "qemu", "process", "xen", "import".
    pub method: String,
    /// What "written" means.
    pub written_means: WrittenMeans,
    /// The resource: "ram" or a disk's name.
    pub resource: String,
    /// Guest name, for people.
    pub guest_name: String,
    /// Guest id (UUID of the guest where it has one, else made at recording time).
    pub guest_id: uuid::Uuid,
    /// "qemu", "xen", …, or "unknown".
    pub hypervisor: String,
    /// Its version, e.g. "10.0.2"; empty if unknown.
    pub hypervisor_version: String,
    /// "tcg", "kvm", …, or "unknown".
    pub accelerator: String,
    /// Page size in bytes: a power of two, 4096 unless said otherwise.
    pub page_size_bytes: u64,
    /// Memory blocks in the hypervisor's scan order. A page is its index in these laid end to end.
    pub blocks: Vec<Block>,
    /// Nominal window length in seconds.
    pub window_seconds: f64,
    /// Which pages were tracked.
    pub sample: crate::sample::Sample,
    /// For how long pages and zero maps are kept, where not for ever; of what is older there may be the index alone. In
    /// seconds before the end of the last window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_pages_seconds: Option<f64>,
    /// For how long anything is kept, where not for ever; segments that are older go altogether. In seconds, likewise, and
    /// no less than pages are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_index_seconds: Option<f64>,
}

/// What makes a page count as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrittenMeans {
    /// Its content changed between two looks; a store of the same value is not seen.
    Content,
    /// The hypervisor's dirty log marked it.
    DirtyLog,
    /// Nobody knows which pages: how many in a span of time is all there is. See [`crate::rates`].
    Rate,
}

impl WrittenMeans {
    /// Whether written can mean this in a history of this version.
    const fn is_known_in(self, version: u32) -> bool {
        matches!(self, WrittenMeans::Rate) == (version == VERSION_RATES)
    }
}

/// One block of guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The hypervisor's name of it, e.g. "pc.ram".
    pub name: String,
    /// Length in bytes, a multiple of the page size.
    pub length_bytes: u64,
    /// Guest-physical address, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_physical_address: Option<u64>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no manifest where one must be.
    #[error("{}: not a migcast history (no {MANIFEST} in it)", dir.display())]
    Missing {
        /// The directory looked in.
        dir: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any manifest.
    #[error("{}: {bytes} bytes, but a manifest has at most {MANIFEST_BYTES_MAX}", path.display())]
    TooLarge {
        /// The manifest.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file is not JSON, or lacks a field.
    #[error("{}: not a history manifest", path.display())]
    Json {
        /// The manifest.
        path: PathBuf,
        /// Where the text goes wrong.
        source: JsonError,
    },
    /// Another program's file.
    #[error("{}: format is {format:?}, not \"{FORMAT}N\"", path.display())]
    Foreign {
        /// The manifest.
        path: PathBuf,
        /// What it says it is.
        format: String,
    },
    /// A later program's file.
    #[error("{}: history format {version} is newer than this program reads (up to {VERSION}); use a newer migcast", path.display())]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// The version it states.
        version: u32,
    },
    /// A field is out of its range.
    #[error("{}: {field} is {value}, allowed: {allowed}", path.display())]
    Field {
        /// The manifest (or, when writing, where it would lie).
        path: PathBuf,
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// The tracked pages cannot be laid out.
    #[error("{}", path.display())]
    Sample {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with the blocks or the sample.
        source: SampleError,
    },
}

impl Manifest {
    /// The value `format` must have in the manifest of a history of windows.
    pub fn format_now() -> String {
        format!("{FORMAT}{VERSION}")
    }

    /// The value `format` must have in the manifest of a history of rates.
    pub fn format_of_rates() -> String {
        format!("{FORMAT}{VERSION_RATES}")
    }

    /// The version in `format`. The manifest must have been validated.
    pub(crate) fn version(&self) -> u32 {
        check_format(&self.format, Path::new(MANIFEST)).unwrap_or(VERSION)
    }

    /// Memory of the guest in bytes: its blocks together. The manifest must have been validated.
    pub fn memory_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.length_bytes).sum()
    }

    /// Reads and validates `dir/manifest.json`.
    pub fn read(dir: &Path) -> Result<Manifest, ManifestError> {
        let path = dir.join(MANIFEST);
        let text = read_bounded(dir, &path)?;
        Self::parse(&text, &path)
    }

    /// Parses and validates a manifest's text; `path` is only for what an error says.
    pub fn parse(text: &[u8], path: &Path) -> Result<Manifest, ManifestError> {
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        let json = |source: serde_json::Error| ManifestError::Json { path: path.into(), source: source.into() };
        // The version first: a newer manifest may have fields this program cannot parse.
        let Format { format } = serde_json::from_slice(text).map_err(json)?;
        check_format(&format, path)?;
        let manifest: Manifest = serde_json::from_slice(text).map_err(json)?;
        manifest.validate(path)?;
        Ok(manifest)
    }

    /// Checks every field; `path` is only for what an error says.
    pub fn validate(&self, path: &Path) -> Result<(), ManifestError> {
        let version = check_format(&self.format, path)?;
        let field =
            |field, value: String, allowed| Err(ManifestError::Field { path: path.into(), field, value, allowed });
        if !self.written_means.is_known_in(version) {
            let allowed = "content or dirty-log in formats 1, 3 and 4, rate in format 2";
            return field("written_means", format!("{:?} in format {version}", self.written_means), allowed);
        }
        let page_size = self.page_size_bytes;
        if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&page_size) {
            return field("page_size_bytes", page_size.to_string(), "a power of two, 512 to 1073741824");
        }
        let window = self.window_seconds;
        if !(window.is_finite() && window > 0.0 && window <= 86_400.0) {
            return field("window_seconds", window.to_string(), "more than 0, at most 86400");
        }
        if let Some(keep) = self.keep_pages_seconds.filter(|keep| !(keep.is_finite() && *keep >= KEEP_SECONDS_MIN)) {
            return field("keep_pages_seconds", keep.to_string(), "60 or more: a segment");
        }
        if let Some(keep) = self.keep_index_seconds {
            let least = self.keep_pages_seconds.unwrap_or(0.0).max(KEEP_INDEX_SECONDS_MIN);
            if !(keep.is_finite() && keep >= least) {
                let allowed = "3600 or more, and no less than keep_pages_seconds";
                return field("keep_index_seconds", keep.to_string(), allowed);
            }
        }
        if self.blocks.is_empty() || self.blocks.len() > BLOCKS_MAX {
            return field("blocks", format!("a list of {}", self.blocks.len()), "1 to 65536 blocks");
        }
        let mut names = BTreeSet::new();
        for block in &self.blocks {
            if !names.insert(&block.name) {
                return field("blocks", format!("two blocks named \"{}\"", quoted(&block.name)), "each name once");
            }
            if !block.length_bytes.is_multiple_of(page_size) {
                return field("length_bytes", block.length_bytes.to_string(), "a multiple of page_size_bytes");
            }
        }
        crate::sample::Tracked::of(self).map_err(|source| ManifestError::Sample { path: path.into(), source })?;
        // Few pages can still be too many bytes, where pages are large.
        let memory: u128 = self.blocks.iter().map(|block| u128::from(block.length_bytes)).sum();
        if memory > u128::from(MEMORY_BYTES_MAX) {
            return field("blocks", format!("{memory} bytes together"), "up to 2^60 bytes");
        }
        Ok(())
    }
}

/// The version in a manifest's `format`.
fn check_format(format: &str, path: &Path) -> Result<u32, ManifestError> {
    let known = [VERSION_FIRST, VERSION_RATES, VERSION_WITHOUT_RUNS, VERSION_OF_STRETCHES, VERSION];
    match format.strip_prefix(FORMAT).map(str::parse::<u32>) {
        Some(Ok(version)) if version > VERSION => Err(ManifestError::Newer { path: path.into(), version }),
        Some(Ok(version)) if known.contains(&version) && format == format!("{FORMAT}{version}") => Ok(version),
        _ => Err(ManifestError::Foreign { path: path.into(), format: format.chars().take(80).collect() }),
    }
}

fn read_bounded(dir: &Path, path: &Path) -> Result<Vec<u8>, ManifestError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound if dir.is_dir() => ManifestError::Missing { dir: dir.into() },
        _ => ManifestError::Io { path: path.into(), source },
    };
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > MANIFEST_BYTES_MAX {
        return Err(ManifestError::TooLarge { path: path.into(), bytes });
    }
    let mut text = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "format": "migcast.history/5", "created": "2026-01-01T00:00:00Z", "recorder": "migcast 0.1.0",
            "method": "qemu", "written_means": "content", "resource": "ram", "guest_name": "g",
            "guest_id": "67e55044-10b1-426f-9247-bb680e5fe0c8", "hypervisor": "qemu", "hypervisor_version": "10.0.2",
            "accelerator": "tcg", "page_size_bytes": 4096, "window_seconds": 0.1,
            "blocks": [{"name": "pc.ram", "length_bytes": 1 << 20, "guest_physical_address": 0}],
            "sample": {"one_in": 1, "seed": 0},
        })
    }

    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut value = manifest();
        change(&mut value);
        let error = Manifest::parse(value.to_string().as_bytes(), Path::new("m")).unwrap_err();
        format!("{error}{}", std::error::Error::source(&error).map_or(String::new(), |s| format!(": {s}")))
    }

    #[test]
    fn a_good_manifest_is_read() {
        let read = Manifest::parse(manifest().to_string().as_bytes(), Path::new("m")).unwrap();
        assert_eq!(read.memory_bytes(), 1 << 20);
    }

    #[test]
    fn each_bad_field_is_named_in_one_line() {
        let cases: [(&str, serde_json::Value, &str); 12] = [
            ("format", "migcast.history/6".into(), "m: history format 6 is newer"),
            ("format", "migcast.history/2".into(), "m: written_means is Content in format 2, allowed: content or"),
            ("written_means", "rate".into(), "m: written_means is Rate in format 5, allowed: content or"),
            ("format", "migcast.history/01".into(), "m: format is \"migcast.history/01\""),
            ("format", "tar".into(), "m: format is \"tar\""),
            ("page_size_bytes", 1000.into(), "m: page_size_bytes is 1000, allowed: a power of two"),
            ("window_seconds", 0.0.into(), "m: window_seconds is 0, allowed"),
            ("keep_pages_seconds", 3.5.into(), "m: keep_pages_seconds is 3.5, allowed: 60 or more"),
            ("keep_index_seconds", 3599.0.into(), "m: keep_index_seconds is 3599, allowed: 3600 or more"),
            ("blocks", serde_json::json!([]), "m: blocks is a list of 0"),
            ("blocks", serde_json::json!([{"name": "a", "length_bytes": 5}]), "m: length_bytes is 5"),
            ("sample", serde_json::json!({"one_in": 0, "seed": 1}), "m: sample.one_in is 0"),
        ];
        for (field, value, expected) in cases {
            let line = refusal(|manifest| manifest[field] = value);
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_history_of_rates_has_a_version_of_its_own() {
        let mut value = manifest();
        value["format"] = "migcast.history/2".into();
        value["written_means"] = "rate".into();
        let read = Manifest::parse(value.to_string().as_bytes(), Path::new("m")).unwrap();
        assert_eq!((read.written_means, read.format), (WrittenMeans::Rate, Manifest::format_of_rates()));
    }

    #[test]
    fn memory_beyond_any_machine_is_refused() {
        let line = refusal(|m| m["blocks"][0]["length_bytes"] = (1u64 << 62).into());
        assert!(line.contains("memory"), "{line}");
    }
}
