//! What tells which pages were written: a comparison of contents, or a hypervisor's dirty log.

use std::time::Duration;

use crate::memory::{Memory, MemoryError};
use crate::scan::{Scan, Scanner};

/// Tells which pages were written since it was last asked.
pub trait WriteLog {
    /// Does for at most about `span` what has to be done before the first reading. True when nothing is left to do.
    ///
    /// # Errors
    /// As [`WriteLog::read`].
    fn prepare(&mut self, _span: Duration) -> Result<bool, MemoryError> {
        Ok(true)
    }

    /// The guest stands still, or is not to be looked at for a while: lets go of it until it is prepared again. Returns what
    /// people should know.
    fn stand_by(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What was written since the last reading. The first one has nothing to tell: it is where the recording begins.
    ///
    /// # Errors
    /// [`MemoryError`] where nothing more can be learnt.
    fn read(&mut self) -> Result<Scan, MemoryError>;

    /// Notices changes of the guest's memory; called about once a second. Returns what people should know.
    ///
    /// # Errors
    /// As [`WriteLog::read`].
    fn refresh(&mut self) -> Result<Vec<String>, MemoryError>;

    /// How many pages are tracked.
    fn tracked(&self) -> u32;

    /// How many pages the guest has.
    fn memory_pages(&self) -> u64;

    /// Page numbers of the tracked pages that are zero, ascending; none where that is not known.
    fn zero_pages(&self) -> Vec<u64>;

    /// Whether fewer pages could be tracked, for less.
    fn can_sample(&self) -> bool {
        false
    }

    /// Lets go of the guest: nobody will ask any more. Returns what people may want to know.
    fn release(&mut self) -> Vec<String>;
}

/// Whose a hypervisor's log of written pages is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody's yet.
    None,
    /// Ours.
    Ours,
    /// Ours no more: it is a migration's, whoever saw that first, or it is off.
    Lost,
}

/// A comparison of contents with those of the reading before.
pub(crate) struct Contents<'a> {
    pub(crate) scanner: Scanner,
    pub(crate) memory: &'a mut dyn Memory,
}

impl WriteLog for Contents<'_> {
    fn read(&mut self) -> Result<Scan, MemoryError> {
        self.scanner.scan(self.memory)
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        self.memory.refresh()
    }

    fn tracked(&self) -> u32 {
        self.scanner.tracked()
    }

    fn memory_pages(&self) -> u64 {
        self.scanner.memory_pages()
    }

    fn zero_pages(&self) -> Vec<u64> {
        self.scanner.zero_pages()
    }

    fn can_sample(&self) -> bool {
        true
    }

    fn release(&mut self) -> Vec<String> {
        self.memory.release();
        Vec::new()
    }
}
