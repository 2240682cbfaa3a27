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
pub struct Scan {
    /// Page numbers that differ from the scan before, ascending.
    pub written: Vec<u64>,
    /// Pages that became zero or ceased to be, ascending.
    pub zero_changes: Vec<ZeroChange>,
    /// Pages that could not be read this time.
    pub unreadable: u64,
}

/// The last seen content of every tracked page, as a hash: 8 bytes per page.
///
/// A changed page goes unseen if it hashes as before: one in 2^64. A guest that changes a million pages in a second loses
/// one in 600,000 years.
#[derive(Debug)]
pub struct Scanner {
    tracked: Tracked,
    full: bool,
    hashes: Vec<u64>,
    zero_hash: u64,
    pages: Vec<u64>,
}

impl Scanner {
    /// Nothing has been seen yet.
    pub fn new(tracked: Tracked) -> Scanner {
        let hashes = vec![UNKNOWN; tracked.count() as usize];
        let full = u64::from(tracked.count()) == tracked.memory();
        let zero_hash = hash(&[0; PAGE_SIZE as usize]);
        Scanner { tracked, full, hashes, zero_hash, pages: Vec::with_capacity(CHUNK as usize) }
    }

    /// How many pages are tracked.
    pub fn tracked(&self) -> u32 {
        self.tracked.count()
    }

    /// How many pages the guest has.
    pub fn memory_pages(&self) -> u64 {
        self.tracked.memory()
    }

    /// Looks at every tracked page once.
    ///
    /// # Errors
    /// As [`Memory::look`].
    pub fn scan(&mut self, memory: &mut dyn Memory) -> Result<Scan, MemoryError> {
        let mut scan = Scan::default();
        let mut first = 0;
        while first < self.tracked.count() {
            let end = self.list(first);
            let hashes = &mut self.hashes[first as usize..end as usize];
            let (pages, zero_hash) = (&self.pages, self.zero_hash);
            memory.look(pages, &mut |index, look| {
                note(&mut hashes[index], look, pages[index], zero_hash, &mut scan);
            })?;
            first = end;
        }
        Ok(scan)
    }

    /// Does what only the first look at a page costs ([`Memory::prepare`]).
    pub(crate) fn prepare(&mut self, memory: &mut dyn Memory) {
        let mut first = 0;
        while first < self.tracked.count() {
            first = self.list(first);
            memory.prepare(&self.pages);
        }
    }

    /// Lists the pages of a chunk that begins with the rank `first`. Returns the rank behind it.
    fn list(&mut self, first: u32) -> u32 {
        let end = self.tracked.count().min(first.saturating_add(CHUNK));
        self.pages.clear();
        if self.full {
            self.pages.extend(u64::from(first)..u64::from(end));
        } else {
            self.pages.extend((first..end).map(|rank| self.tracked.page_of_rank(rank)));
        }
        end
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

#[cfg(test)]
mod tests {
    use migcast_history::format::Block;
    use migcast_history::sample::Sample;

    use super::*;

    /// Shows the same to whoever looks, page by page.
    struct Shown(Vec<Look<'static>>);

    impl Memory for Shown {
        fn look(&mut self, pages: &[u64], sink: &mut crate::memory::Sink<'_>) -> Result<(), MemoryError> {
            pages.iter().enumerate().for_each(|(index, &page)| {
                sink(index, self.0[usize::try_from(page).expect("a test has few pages") % self.0.len()]);
            });
            Ok(())
        }

        fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
            Ok(Vec::new())
        }
    }

    const ONES: Look<'static> = Look::Content(&[1; PAGE_SIZE as usize]);
    const TWOS: Look<'static> = Look::Content(&[2; PAGE_SIZE as usize]);
    const ZEROS: Look<'static> = Look::Content(&[0; PAGE_SIZE as usize]);

    fn scanner(pages: u64, one_in: u32) -> Scanner {
        let block = Block { name: "ram".into(), length_bytes: pages * PAGE_SIZE, guest_physical_address: None };
        Scanner::new(Tracked::new(&[block], PAGE_SIZE, Sample { one_in, seed: 3 }).unwrap())
    }

    fn change(page: u64, zero: bool) -> ZeroChange {
        ZeroChange { page, zero }
    }

    #[test]
    fn a_hole_and_a_page_of_zeros_are_the_same() {
        let mut scanner = scanner(2, 1);
        scanner.scan(&mut Shown(vec![Look::Hole, ONES])).unwrap();
        assert_eq!(scanner.zero_pages(), [0]);
        let scan = scanner.scan(&mut Shown(vec![ZEROS, Look::Hole])).unwrap();
        assert_eq!((scan.written, scan.zero_changes), (vec![1], vec![change(1, true)]));
    }

    #[test]
    fn what_cannot_be_seen_is_unchanged() {
        let mut scanner = scanner(4, 1);
        scanner.scan(&mut Shown(vec![ONES, ONES, Look::Absent, Look::Unreadable])).unwrap();
        assert!(scanner.zero_pages().is_empty(), "a page that was never seen is not zero");
        let scan = scanner.scan(&mut Shown(vec![Look::Absent, Look::Unreadable, TWOS, Look::Hole])).unwrap();
        // Seen for the first time is not written; where it is zero, that is news.
        assert_eq!((scan.written, scan.zero_changes, scan.unreadable), (vec![], vec![change(3, true)], 1));
        let scan = scanner.scan(&mut Shown(vec![ONES, TWOS, TWOS, Look::Hole])).unwrap();
        assert_eq!((scan.written, scan.zero_changes), (vec![1], vec![]));
    }

    #[test]
    fn pages_beyond_one_chunk_and_of_a_sample_keep_their_numbers() {
        let pages = u64::from(CHUNK) * 2 + 5;
        for one_in in [1, 2] {
            let mut scanner = scanner(pages, one_in);
            scanner.scan(&mut Shown(vec![ONES])).unwrap();
            let scan = scanner.scan(&mut Shown(vec![TWOS])).unwrap();
            let expected: Vec<u64> = (0..scanner.tracked()).map(|rank| scanner.tracked.page_of_rank(rank)).collect();
            assert_eq!(scan.written, expected);
        }
    }
}
