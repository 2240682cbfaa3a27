//! Reading a guest's memory from outside, without changing it.
//!
//! ```text
//!  pages (scan order)   ┌ block "pc.ram" ──────────────┐┌ "vga.vram" ┐
//!  mappings             │ shared memfd    │ private     ││ private    │
//!  read with            │ an own mapping, │ pagemap, then process_vm_readv
//!                       │ else pread      │
//! ```
//! A page that was never allocated (a hole) is never read through a mapping that would allocate it.

mod buffer;
#[cfg(target_arch = "x86_64")]
mod fault;
#[cfg(not(target_arch = "x86_64"))]
#[path = "fault_elsewhere.rs"]
mod fault;
mod guarded;
mod maps;
mod pagemap;
mod private;
mod process_memory;
mod residency;
mod shared;

pub(crate) use maps::{Mapping, of_process};
pub use process_memory::{Placement, ProcessMemory};

use std::io;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;

/// Pages read in one piece: small enough to stay in a core's own cache until they are hashed.
const BATCH_PAGES: usize = 64;

/// What a look at one page found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<'a> {
    /// Its bytes, [`PAGE_SIZE`] of them.
    Content(&'a [u8]),
    /// Nothing is allocated there, so it reads as zero.
    Hole,
    /// It is swapped out or not in memory, so nobody has written it since it was last seen.
    Absent,
    /// It could not be read this time.
    Unreadable,
}

/// Told of each page in turn: its index in the list of pages asked for, and what was found.
pub type Sink<'a> = dyn FnMut(usize, Look<'_>) + 'a;

/// A guest's memory, as the recorder sees it.
pub trait Memory {
    /// Looks at `pages` (numbers in scan order, ascending) and tells `sink` of each exactly once, in order.
    ///
    /// # Errors
    /// [`MemoryError`] where nothing more can be read at all. A single page that cannot be read is
    /// [`Look::Unreadable`].
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError>;

    /// Notices changes of the guest's mappings; called about once a second. Returns what people should know.
    ///
    /// # Errors
    /// As [`Memory::look`].
    fn refresh(&mut self) -> Result<Vec<String>, MemoryError>;

    /// Does for `pages` what only the first look at a page costs, so that the next look costs what all later ones will.
    fn prepare(&mut self, _pages: &[u64]) {}

    /// Eyes for as many threads to look with at the same time, `count` of them; none where only one can look at a time.
    ///
    /// # Errors
    /// As [`Memory::look`].
    fn eyes(&mut self, _count: usize) -> Result<Vec<Box<dyn Eye + Send + '_>>, MemoryError> {
        Ok(Vec::new())
    }

    /// Lets go of the memory, which nobody will look at any more: the memory of a guest that has ended is free only then.
    fn release(&mut self) {}
}

/// What looks at a guest's memory while others do.
pub trait Eye {
    /// As [`Memory::look`].
    ///
    /// # Errors
    /// As [`Memory::look`].
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError>;
}

/// Why a guest's memory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The process has ended.
    #[error("process {pid} has ended")]
    Ended {
        /// Its id.
        pid: u32,
    },
    /// The kernel does not let this user look.
    #[error(
        "no permission to read the memory of process {pid}: run as its user or as root \
         (and see /proc/sys/kernel/yama/ptrace_scope, which must be 0 for a user who is not root)"
    )]
    Permission {
        /// Its id.
        pid: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Its hypervisor does not tell.
    #[error(transparent)]
    Xen(Box<crate::xen::XenError>),
    /// Likewise, QEMU.
    #[error(transparent)]
    Qemu(Box<crate::qemu::LogError>),
    /// The guest stands still, and its hypervisor tells no more until it runs again.
    #[error("the guest stands still")]
    Standing,
    /// A migration has taken the hypervisor's log, which nobody else may touch now.
    #[error("the guest is being migrated, and its log is the migration's")]
    Migrating,
    /// Anything else the kernel said.
    #[error("cannot read {what} of process {pid}")]
    Io {
        /// Its id.
        pid: u32,
        /// What was read.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl MemoryError {
    /// Sorts what the kernel said about reading `what` of `pid`.
    pub(crate) fn of(pid: u32, what: &'static str, source: io::Error) -> MemoryError {
        match source.raw_os_error() {
            Some(libc::ESRCH | libc::ENOENT) => MemoryError::Ended { pid },
            Some(libc::EPERM | libc::EACCES) => MemoryError::Permission { pid, source },
            _ => MemoryError::Io { pid, what, source },
        }
    }
}

/// Cuts an ascending list of pages into runs of neighbours of at most [`BATCH_PAGES`]: ranges of the list.
fn runs(pages: &[u64]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = *pages.get(start)?;
        let run = start;
        while start < pages.len() && start - run < BATCH_PAGES && pages[start] - first == (start - run) as u64 {
            start += 1;
        }
        Some(run..start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_gaps_and_at_the_batch() {
        assert_eq!(runs(&[3, 4, 5, 9, 11, 12]).collect::<Vec<_>>(), [0..3, 3..4, 4..6]);
        let long: Vec<u64> = (0..BATCH_PAGES as u64 + 1).collect();
        assert_eq!(runs(&long).collect::<Vec<_>>(), [0..BATCH_PAGES, BATCH_PAGES..BATCH_PAGES + 1]);
        assert_eq!(runs(&[]).count(), 0);
    }

    #[test]
    fn an_error_names_the_cure() {
        let error = MemoryError::of(7, "memory", io::Error::from_raw_os_error(libc::EPERM));
        assert!(error.to_string().contains("run as its user or as root"), "{error}");
        assert!(matches!(
            MemoryError::of(7, "x", io::Error::from_raw_os_error(libc::ESRCH)),
            MemoryError::Ended { pid: 7 }
        ));
    }
}
