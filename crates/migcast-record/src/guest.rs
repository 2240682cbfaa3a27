//! A guest as the recorder meets it: who it is, where its memory lies, and how one sees what becomes of it.

use std::os::fd::{AsFd, OwnedFd};

use migcast_history::format::Block;
use migcast_history::windows::State;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::memory::{Memory, MemoryError};
use crate::vcpus::VcpuClock;
use crate::write_log::WriteLog;

/// Who is recorded. Goes into the history's manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How it is recorded: "qemu" or "process".
    pub method: &'static str,
    /// Its name, for people.
    pub name: String,
    /// Its id; `None` where it has none of its own.
    pub id: Option<uuid::Uuid>,
    /// "qemu", or "unknown".
    pub hypervisor: String,
    /// Its version, e.g. "10.0.2"; empty if unknown.
    pub hypervisor_version: String,
    /// "tcg", "kvm" or "unknown".
    pub accelerator: String,
    /// Memory blocks in the hypervisor's scan order.
    pub blocks: Vec<Block>,
}

/// What a look at the guest's state found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Running, not migrating, memory laid out as before.
    Clear,
    /// Migrating, or waiting to be migrated in or to be ended after it has been migrated away.
    Migrating,
    /// Migrating, and what told of its writes is the migration's: nobody may look on.
    Taken,
    /// It does not run, so it writes nothing, which says nothing about what it writes when it runs. How it is, e.g.
    /// "paused (io-error)".
    Standing(String),
    /// Nobody answered this time, e.g. because another client holds the monitor.
    Busy(String),
    /// The monitor is gone: why.
    MonitorGone(String),
    /// Memory was added, removed or moved: what.
    LayoutChanged(String),
}

impl Sight {
    /// Why nothing can be recorded of a guest that is seen so; `None` where it can.
    pub(crate) fn absence(&self) -> Option<Absence> {
        match self {
            Sight::Migrating => Some(Absence { state: State::Migrating, why: "the guest is migrating".to_owned() }),
            Sight::Standing(how) => Some(Absence::of_standing(how)),
            Sight::Clear | Sight::Taken | Sight::Busy(_) | Sight::MonitorGone(_) | Sight::LayoutChanged(_) => None,
        }
    }
}

/// Why nothing can be recorded for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    /// What the windows of that time are.
    pub(crate) state: State,
    /// For people, e.g. "the guest is migrating".
    pub(crate) why: String,
}

impl Absence {
    /// Of a guest that does not run, e.g. because it is "paused".
    pub(crate) fn of_standing(how: &str) -> Absence {
        Absence { state: State::Gap, why: format!("the guest is {how}") }
    }
}

/// Watches a guest.
pub trait Watch {
    /// Looks at its state, briefly. Called about once a second, and once more when the recording ends, even by the
    /// guest's end: then [`Sight::Clear`] says that nothing can have become of it unseen.
    fn look(&mut self) -> Sight;
    /// What its vCPUs have used, where that is known. Cheap; called after each look.
    fn vcpus(&mut self) -> Option<Vec<VcpuClock>> {
        None
    }
    /// Whether its process has ended. Cheap.
    fn ended(&mut self) -> bool;
    /// A descriptor that becomes readable when its process ends, where there is one: a wait need not be waited out.
    fn descriptor(&self) -> Option<OwnedFd> {
        None
    }
}

/// How one sees what a guest writes.
pub enum Writes {
    /// Its memory can be read: its contents are compared.
    Contents(Box<dyn Memory>),
    /// Its hypervisor keeps a log.
    Log(Box<dyn WriteLog>),
}

impl Writes {
    /// Notices changes of the guest's memory.
    ///
    /// # Errors
    /// [`MemoryError`] where nothing more can be learnt.
    pub(crate) fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        match self {
            Writes::Contents(memory) => memory.refresh(),
            Writes::Log(log) => log.refresh(),
        }
    }
}

/// A guest that is ready to be recorded.
pub struct Guest {
    /// Who it is.
    pub identity: Identity,
    /// How its writes are seen.
    pub writes: Writes,
    /// What becomes of it.
    pub watch: Box<dyn Watch>,
    /// What people should know before the recording starts.
    pub warnings: Vec<String>,
}

/// The life of a process.
#[derive(Debug)]
pub struct Life {
    pidfd: OwnedFd,
}

impl Life {
    /// Holds on to a process, so that its id cannot come to mean another one.
    ///
    /// # Errors
    /// [`MemoryError::Ended`] where there is no such process.
    pub fn of(pid: u32) -> Result<Life, MemoryError> {
        let id = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or(MemoryError::Ended { pid })?;
        let pidfd = rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty())
            .map_err(|errno| MemoryError::of(pid, "the state", errno.into()))?;
        Ok(Life { pidfd })
    }

    /// A descriptor that becomes readable when the process ends; `None` where this process has too many open.
    pub fn descriptor(&self) -> Option<OwnedFd> {
        self.pidfd.try_clone().ok()
    }

    /// Whether the process has ended.
    pub fn ended(&self) -> bool {
        let mut watched = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        matches!(poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_ends() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let life = Life::of(child.id()).unwrap();
        assert!(!life.ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(life.ended());
        assert!(matches!(Life::of(child.id()), Err(MemoryError::Ended { .. })));
        assert!(matches!(Life::of(0), Err(MemoryError::Ended { .. })));
    }
}
