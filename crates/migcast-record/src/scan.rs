//! One scan: hash the tracked pages, compare with the scan before, say what changed.

use migcast_history::sample::Tracked;
use migcast_history::writer::ZeroChange;
use twox_hash::XxHash3_64;

use crate::memory::{Look, Memory, MemoryError, PAGE_SIZE};

/// Pages asked for at once.
const CHUNK: u32 = 1024;
/// In place of a hash: not seen yet. A page that really hashes to it is stored as [`NOT_UNKNOWN`].
const UNKNOWN: u64 = 0;
const NOT_UNKNOWN: u64 = 1;

/// What one scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Page numbers that differ from the scan before, ascending.
    pub(crate) written: Vec<u64>,
    /// Pages that became zero or ceased to be, ascending.
    pub(crate) zero_changes: Vec<ZeroChange>,
    /// Pages that could not be read this time.
    pub(crate) unreadable: u64,
}

/// The last seen content of every tracked page, as a hash: 8 bytes per page.
#[derive(Debug)]
pub(crate) struct Scanner {
    tracked: Tracked,
    full: bool,
    hashes: Vec<u64>,
    zero_hash: u64,
    pages: Vec<u64>,
}

impl Scanner {
    /// Nothing has been seen yet.
    pub(crate) fn new(tracked: Tracked) -> Scanner {
        let hashes = vec![UNKNOWN; tracked.count() as usize];
        let full = u64::from(tracked.count()) == tracked.memory();
        let zero_hash = hash(&[0; PAGE_SIZE as usize]);
        Scanner { tracked, full, hashes, zero_hash, pages: Vec::with_capacity(CHUNK as usize) }
    }

    /// How many pages are tracked.
    pub(crate) fn tracked(&self) -> u32 {
        self.tracked.count()
    }

    /// How many pages the guest has.
    pub(crate) fn memory_pages(&self) -> u64 {
        self.tracked.memory()
    }

    /// Looks at every tracked page once.
    pub(crate) fn scan(&mut self, memory: &mut dyn Memory) -> Result<Scan, MemoryError> {
        let mut scan = Scan::default();
        let mut first = 0;
        while first < self.tracked.count() {
            let end = self.tracked.count().min(first + CHUNK);
            self.pages.clear();
            if self.full {
                self.pages.extend(u64::from(first)..u64::from(end));
            } else {
                self.pages.extend((first..end).map(|rank| self.tracked.page_of_rank(rank)));
            }
            let hashes = &mut self.hashes[first as usize..end as usize];
            let (pages, zero_hash) = (&self.pages, self.zero_hash);
            memory.look(pages, &mut |index, look| {
                note(&mut hashes[index], look, pages[index], zero_hash, &mut scan);
            })?;
            first = end;
        }
        Ok(scan)
    }

    /// Page numbers of the tracked pages that are zero, ascending.
    pub(crate) fn zero_pages(&self) -> Vec<u64> {
        (0..self.tracked.count())
            .zip(&self.hashes)
            .filter(|&(_, &hash)| hash == self.zero_hash)
            .map(|(rank, _)| self.tracked.page_of_rank(rank))
            .collect()
    }
}

/// Takes in one look at one page.
fn note(known: &mut u64, look: Look<'_>, page: u64, zero_hash: u64, scan: &mut Scan) {
    let seen = match look {
        Look::Content(bytes) => hash(bytes),
        Look::Hole => zero_hash,
        Look::Absent => return,
        Look::Unreadable => {
            scan.unreadable += 1;
            return;
        }
    };
    let before = std::mem::replace(known, seen);
    if before == seen {
        return;
    }
    // A page seen for the first time was not necessarily written in this window: it only gets its starting value.
    if before != UNKNOWN {
        scan.written.push(page);
    }
    if (before == zero_hash) != (seen == zero_hash) {
        scan.zero_changes.push(ZeroChange { page, zero: seen == zero_hash });
    }
}

fn hash(bytes: &[u8]) -> u64 {
    match XxHash3_64::oneshot(bytes) {
        UNKNOWN => NOT_UNKNOWN,
        hash => hash,
    }
}
