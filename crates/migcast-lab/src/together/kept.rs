//! What is kept of each trial of a policy: `migcast.together/1`, one JSON object a line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use migcast_history::observed::Observed;
use serde::{Deserialize, Serialize};

/// The format's name.
pub const FORMAT: &str = "migcast.together/1";
/// The file of trials within a results folder.
pub const FILE: &str = "together.jsonl";

/// Share of the machine from which on the guests' own load voids a trial: then they slow each other and their migrations.
pub const OWN_SHARE_MAX: f64 = 0.7;
/// Cores' worth of CPU time from which on others disturb a trial.
pub const OTHER_CORES_MAX: f64 = 0.5;

/// All guests migrated once as a policy says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// [`FORMAT`].
    pub format: String,
    /// When the first migration was requested, UTC.
    pub requested: Timestamp,
    /// The policy.
    pub policy: String,
    /// The file with the plan it is of, and so with its forecast, beside this one.
    pub plan: PathBuf,
    /// Which end of the link the guests came from: "here" or "there". The plan calls it `a` either way.
    pub from: String,
    /// Line rate of the link in each direction, bits per second.
    pub link_bits_per_second: u64,
    /// Settings that differ from the hypervisor's defaults, as `migcast plan --set` takes them.
    pub settings: Vec<String>,
    /// Cores the machine has.
    pub machine_cores: u32,
    /// Cores' worth of CPU time that the guests' vCPUs took before anything was migrated.
    pub guests_cpu_cores: f64,
    /// Cores' worth of CPU time that others than the guests' QEMUs and the laboratory took meanwhile; `None`: not told.
    pub other_cpu_cores: Option<f64>,
    /// From the first request to the last end, seconds; `None` if a migration was given up.
    pub makespan_seconds: Option<f64>,
    /// The guests' migrations, in the order in which they began.
    pub moves: Vec<Moved>,
}

/// One guest's migration among the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// When it was requested, seconds since the first request.
    pub begun_seconds: f64,
    /// When the guest ran on the target and the source was done, or it was given up; seconds since the first request.
    pub ended_seconds: f64,
    /// What happened: `migcast.observed/1`, with the guest's name in the fleet. Its `other_cpu_cores` are those of others
    /// than all of the fleet.
    pub observed: Observed,
    /// How far its TCP connection was, once a second; empty where that is not told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpLook>,
}

/// A look at a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpLook {
    /// When, seconds since the first request.
    pub at_seconds: f64,
    /// Bytes that the target's kernel had acknowledged.
    pub acked_bytes: u64,
    /// Segments sent again by then.
    pub retransmitted_segments: u64,
}

impl Trial {
    /// Why it says nothing, if it does not.
    pub fn fault(&self) -> Option<String> {
        let (own, cores) = (self.guests_cpu_cores, f64::from(self.machine_cores));
        if own >= OWN_SHARE_MAX * cores {
            let most = OWN_SHARE_MAX * cores;
            return Some(format!(
                "void, the guests alone used {own:.2} of {cores} cores, allowed is less than {most:.2}"
            ));
        }
        let others = self.other_cpu_cores.filter(|others| *others >= OTHER_CORES_MAX)?;
        Some(format!("left out, {others:.2} cores were used by others"))
    }

    /// The names of its guests, in alphabetical order.
    pub fn guests(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.moves.iter().map(|moved| moved.observed.guest.as_str()).collect();
        names.sort_unstable();
        names
    }
}

/// Reads all trials of a results folder.
///
/// # Errors
/// The file cannot be read, or a line of it is no trial of this version.
pub fn read(folder: &Path) -> Result<Vec<Trial>> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        let at = || format!("{}, line {number}", path.display());
        let trial: Trial = serde_json::from_str(line).with_context(at)?;
        ensure!(trial.format == FORMAT, "{}: the format is '{}', read is '{FORMAT}'", at(), trial.format);
        Ok(trial)
    };
    lines.map(read).collect()
}

/// Appends a trial to the file of a results folder, as one write, so that a killed writer leaves whole lines.
///
/// # Errors
/// The file cannot be written.
pub fn append(folder: &Path, trial: &Trial) -> Result<()> {
    let path = folder.join(FILE);
    let mut line = serde_json::to_vec(trial)?;
    line.push(b'\n');
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(&line).and_then(|()| file.sync_data()))
        .with_context(|| path.display().to_string())
}
