//! Observed migrations (`migcast.observed/1`): what really happened, one JSON object a line.
//!
//! Written by the laboratory and by whoever watches real migrations; read by `migcast calibrate`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::quote::{JsonError, quoted};

/// The format's name.
pub const FORMAT: &str = "migcast.observed/1";

/// One migration that really took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// [`FORMAT`].
    pub format: String,
    /// When it was requested, UTC.
    pub requested: jiff::Timestamp,
    /// The guest.
    pub guest: String,
    /// The history it was forecast from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<PathBuf>,
    /// "qemu", "xen", …
    pub hypervisor: String,
    /// Its version.
    pub hypervisor_version: String,
    /// "tcg", "kvm", …
    pub accelerator: String,
    /// Line rate of the link, bits per second.
    pub link_bits_per_second: u64,
    /// Settings that differ from the hypervisor's defaults, as `migcast predict --set` takes them.
    pub settings: Vec<String>,
    /// True if the guest ended up on the target; false if the migration was given up while still copying.
    pub completed: bool,
    /// From the request until the guest ran on the target, or until it was given up.
    pub migration_time_seconds: f64,
    /// The hypervisor's own figure (QEMU: total-time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_time_reported_seconds: Option<f64>,
    /// The guest's downtime: last instruction on the source to first on the target (QEMU: STOP to RESUME).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_seconds: Option<f64>,
    /// The hypervisor's own figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downtime_reported_seconds: Option<f64>,
    /// When memory began to be copied, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_seconds: Option<f64>,
    /// When the guest ran its last instruction on the source, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_seconds: Option<f64>,
    /// When the source was done, seconds since the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_done_seconds: Option<f64>,
    /// The hypervisor's own set-up time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_seconds: Option<f64>,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Pages sent with data, repeats included.
    pub data_pages: u64,
    /// Pages sent as zeros.
    pub zero_pages: u64,
    /// Iterations as the hypervisor counts them (QEMU: dirty-sync-count).
    pub iterations: u64,
    /// Bytes in the source's TCP send queue when the guest stopped, if it was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_queue_at_stop_bytes: Option<u64>,
    /// When each iteration after the first began, seconds since the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iteration_starts_seconds: Vec<f64>,
    /// One-minute load average of the machine at the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_average: Option<f64>,
}

/// Why observed migrations could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObservedError {
    /// The file cannot be read.
    #[error("observed migrations {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is no observed migration.
    #[error("observed migrations {}, line {line}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Why.
        source: JsonError,
    },
    /// A line of another format or version.
    #[error("observed migrations {}, line {line}: format is `{found}`, this program reads `{FORMAT}`", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What it says.
        found: String,
    },
}

/// Reads all observed migrations of a file; empty lines are passed over.
pub fn read(path: &Path) -> Result<Vec<Observed>, ObservedError> {
    let text = fs::read(path).map_err(|source| ObservedError::Unreadable { path: path.to_owned(), source })?;
    parse(&text, path)
}

/// Reads observed migrations from a file's text; `path` is only for what an error says.
pub fn parse(text: &[u8], path: &Path) -> Result<Vec<Observed>, ObservedError> {
    let at = || path.to_owned();
    let mut all = Vec::new();
    for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let observed: Observed = serde_json::from_slice(text).map_err(|source| ObservedError::Malformed {
            path: at(),
            line,
            source: source.into(),
        })?;
        if observed.format != FORMAT {
            return Err(ObservedError::Foreign { path: at(), line, found: quoted(&observed.format) });
        }
        all.push(observed);
    }
    Ok(all)
}

/// Appends one observed migration to a file, as one write, so that a killed writer leaves whole lines.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, observed: &Observed) -> io::Result<()> {
    let mut line = serde_json::to_vec(observed)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(&line)?;
    file.sync_data()
}
