//! What can be wrong with a history that is read.
use std::io;
use std::path::PathBuf;

use migcast_model::dirty::PageReplay;

use crate::format::{ManifestError, VERSION};
pub use crate::table::TableError;

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The manifest is missing, foreign, newer or damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A segment's file belongs to another history.
    #[error("{}: belongs to guest {found}, not to {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The guest id in it.
        found: String,
        /// The guest id in the manifest.
        expected: String,
    },
    /// A segment's file was written by a later program.
    #[error("{}: segment format {version:?} is newer than this program reads (up to {VERSION}); use a newer migcast", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version it states.
        version: String,
    },
    /// A segment's file is not what was committed.
    #[error("{}: damaged; take the files of this number away to use the rest", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// The file of a rate series is not what was written.
    #[error("{}: damaged; import the rates again", path.display())]
    DamagedRates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        damage: Damage,
    },
    /// It holds rates, and pages are asked for.
    #[error("{}: a rate series knows how much was written, not which pages; this needs a recorded history", dir.display())]
    OnlyRates {
        /// The history.
        dir: PathBuf,
    },
    /// The pages of a segment are no longer kept.
    #[error("{}: which pages were written in segment {segment} is no longer kept; `migcast history info` says since when they are", dir.display())]
    NoPages {
        /// The history.
        dir: PathBuf,
        /// The segment.
        segment: u32,
    },
    /// There is no closed segment.
    #[error("{}: holds no closed segment yet, so no window can be read", dir.display())]
    Empty {
        /// The history.
        dir: PathBuf,
    },
    /// More pages are tracked than a replay can number.
    #[error("{}: {tracked} tracked pages, a page replay takes up to {}; record one page in more", dir.display(), PageReplay::TRACKED_MAX)]
    TooManyTracked {
        /// The history.
        dir: PathBuf,
        /// Its tracked pages.
        tracked: u32,
    },
    /// A range of windows in which nothing was recorded.
    #[error("{}: nothing was recorded in windows {start} to {end}", dir.display())]
    NothingRecorded {
        /// The history.
        dir: PathBuf,
        /// First window asked for.
        start: u32,
        /// The one after the last.
        end: u32,
    },
}

/// What is wrong with a segment's file.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// It is not there.
    #[error("the file is missing")]
    Missing,
    /// It was cut or has grown.
    #[error("{found} bytes, not the {expected} that were committed")]
    Length {
        /// Its length.
        found: u64,
        /// What the commit mark says.
        expected: u64,
    },
    /// Its bytes have changed.
    #[error("its bytes are not those that were committed")]
    Checksum,
    /// The table cannot be decoded.
    #[error(transparent)]
    Table(#[from] TableError),
    /// A value of the file's metadata is missing or out of range.
    #[error("metadata {key} is {value:?}, allowed: {allowed}")]
    Metadata {
        /// The key.
        key: &'static str,
        /// Its value, cut to 80 characters.
        value: String,
        /// What would be right.
        allowed: &'static str,
    },
    /// A row breaks a rule of the table.
    #[error("row {row}: {rule}")]
    Row {
        /// The row, counted from 0.
        row: u64,
        /// The rule.
        rule: &'static str,
    },
}

/// Something that is missing from a history whose rest can be read. Its `Display` is one line for people.
#[derive(Debug)]
pub enum Problem {
    /// A segment was not closed.
    Lost {
        /// Its number.
        segment: u32,
        /// The end of the last window before it, if there is one.
        after: Option<jiff::Timestamp>,
    },
    /// Closed segments that are no longer there, though later ones are.
    Missing {
        /// The first of them.
        first: u32,
        /// The last of them.
        last: u32,
    },
    /// A closed segment that cannot be read.
    Damaged {
        /// Its number.
        segment: u32,
        /// Why.
        error: ReadError,
    },
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Lost { segment, after } => {
                write!(f, "segment {segment} was not closed (the recorder died or is still at work); its windows, ")?;
                match after {
                    Some(after) => write!(f, "after {after:.3}, are lost"),
                    None => write!(f, "the first ones, are lost"),
                }
            }
            Problem::Missing { first, last } if first == last => write!(f, "segment {first} is missing"),
            Problem::Missing { first, last } => write!(f, "segments {first} to {last} are missing"),
            Problem::Damaged { segment, error } => {
                write!(f, "segment {segment} is not used: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}
