//! Recording any process: a VMM of any make, a container's program.

use std::os::fd::OwnedFd;

use crate::guest::{Guest, Identity, Life, Sight, Watch, Writes};
use crate::memory::{MemoryError, ProcessMemory};

/// Why a process cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process.
    #[error("no process has the id {pid}")]
    NotFound {
        /// The id.
        pid: u32,
    },
    /// It has no memory of its own, e.g. a kernel thread.
    #[error("process {pid} has no writable memory (a kernel thread, or one that is ending)")]
    NoMemory {
        /// Its id.
        pid: u32,
    },
    /// Its memory cannot be read.
    #[error(transparent)]
    Memory(MemoryError),
}

/// Prepares to record the process with this id: all memory it can write, in address order.
///
/// # Errors
/// [`ProcessError`]: no such process, nothing to record, no permission.
pub fn open(pid: u32) -> Result<Guest, ProcessError> {
    let found = |error| match error {
        MemoryError::Ended { pid } => ProcessError::NotFound { pid },
        error => ProcessError::Memory(error),
    };
    let life = Life::of(pid).map_err(found)?;
    let opened = ProcessMemory::open_whole(pid);
    // A kernel thread is there, and yet the kernel says of its memory what it says of a process that has ended.
    if matches!(opened, Err(MemoryError::Ended { .. })) && !life.ended() {
        return Err(ProcessError::NoMemory { pid });
    }
    let (memory, placements) = opened.map_err(found)?;
    if placements.is_empty() {
        return Err(ProcessError::NoMemory { pid });
    }
    let identity = Identity {
        method: "process",
        name: name_of(pid),
        id: None,
        hypervisor: "unknown".to_owned(),
        hypervisor_version: String::new(),
        accelerator: "unknown".to_owned(),
        blocks: placements.into_iter().map(|placement| placement.block).collect(),
    };
    let warnings = memory.warnings();
    Ok(Guest { identity, writes: Writes::Contents(Box::new(memory)), watch: Box::new(Alone { life }), warnings })
}

/// The program's name and the id, for people.
fn name_of(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{}-{pid}", name.trim_end()),
        Err(_) => format!("process-{pid}"),
    }
}

/// A process nobody can be asked about: it lives or it has ended.
struct Alone {
    life: Life,
}

impl Watch for Alone {
    fn look(&mut self) -> Sight {
        Sight::Clear
    }

    fn ended(&mut self) -> bool {
        self.life.ended()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        self.life.descriptor()
    }
}
