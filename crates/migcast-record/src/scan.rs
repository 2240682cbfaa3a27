//! One scan: hash the tracked pages, compare with the scan before, say what changed.

mod together;

use std::ops::Range;
use std::time::Duration;

use migcast_history::sample::Tracked;
use migcast_history::writer::ZeroChange;
use twox_hash::XxHash3_64;

use crate::memory::{Eye, Look, Memory, MemoryError, PAGE_SIZE, Sink};

/// Pages asked for at once.
const CHUNK: u32 = 1024;
/// Pages that a thread takes on at once, some chunks of them: a few milliseconds' work.
const PIECE: u32 = 4 * CHUNK;
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
    /// CPU time that threads other than the calling one used.
    pub cpu_elsewhere: Duration,
}

/// The last seen content of every tracked page, as a hash: 8 bytes per page.
///
/// A changed page goes unseen if it hashes as before: one in 2^64. A guest that changes a million pages in a second loses
/// one in 600,000 years.
#[derive(Debug)]
pub struct Scanner {
    order: Order,
    hashes: Vec<u64>,
    threads: usize,
}

/// Which pages are tracked, and what zero hashes to.
#[derive(Debug)]
struct Order {
    tracked: Tracked,
    full: bool,
    zero_hash: u64,
}

impl Scanner {
    /// Nothing has been seen yet. Scans on the calling thread alone.
    pub fn new(tracked: Tracked) -> Scanner {
        let hashes = vec![UNKNOWN; tracked.count() as usize];
        let full = u64::from(tracked.count()) == tracked.memory();
        let zero_hash = hash(&[0; PAGE_SIZE as usize]);
        Scanner { order: Order { tracked, full, zero_hash }, hashes, threads: 1 }
    }

    /// Scans on up to this many threads, the calling one among them: fewer where there is little to look at, and one
    /// where the memory has one eye only ([`Memory::eyes`]). What is found is the same.
    pub fn with_threads(self, threads: usize) -> Scanner {
        Scanner { threads, ..self }
    }

    /// How many pages are tracked.
    pub fn tracked(&self) -> u32 {
        self.order.tracked.count()
    }

    /// How many pages the guest has.
    pub fn memory_pages(&self) -> u64 {
        self.order.tracked.memory()
    }

    /// Looks at every tracked page once.
    ///
    /// # Errors
    /// As [`Memory::look`].
    pub fn scan(&mut self, memory: &mut dyn Memory) -> Result<Scan, MemoryError> {
        let threads = self.threads.min(self.hashes.len().div_ceil(PIECE as usize));
        if threads > 1 {
            let eyes = memory.eyes(threads)?;
            if !eyes.is_empty() {
                return together::scan(&self.order, &mut self.hashes, eyes);
            }
        }
        self.order.look(0, &mut self.hashes, &mut OneEye(memory))
    }

    /// Does what only the first look at a page costs ([`Memory::prepare`]).
    pub(crate) fn prepare(&self, memory: &mut dyn Memory) {
        let mut pages = Vec::with_capacity(CHUNK as usize);
        for first in (0..self.tracked()).step_by(CHUNK as usize) {
            let end = self.tracked().min(first.saturating_add(CHUNK));
            self.order.list(first..end, &mut pages);
            memory.prepare(&pages);
        }
    }

    /// Page numbers of the tracked pages that are zero, ascending.
    pub(crate) fn zero_pages(&self) -> Vec<u64> {
        (0..self.tracked())
            .zip(&self.hashes)
            .filter(|&(_, &hash)| hash == self.order.zero_hash)
            .map(|(rank, _)| self.order.tracked.page_of_rank(rank))
            .collect()
    }
}

impl Order {
    /// Looks at the pages from the rank `first` on, whose hashes these are.
    fn look(&self, first: u32, hashes: &mut [u64], eye: &mut dyn Eye) -> Result<Scan, MemoryError> {
        let mut scan = Scan::default();
        let mut pages = Vec::with_capacity(CHUNK as usize);
        let mut rank = first;
        for hashes in hashes.chunks_mut(CHUNK as usize) {
            let end = rank + hashes.len() as u32;
            self.list(rank..end, &mut pages);
            eye.look(&pages, &mut |index, look| {
                note(&mut hashes[index], look, pages[index], self.zero_hash, &mut scan);
            })?;
            rank = end;
        }
        Ok(scan)
    }

    /// Lists the pages of these ranks.
    fn list(&self, ranks: Range<u32>, pages: &mut Vec<u64>) {
        pages.clear();
        if self.full {
            pages.extend(u64::from(ranks.start)..u64::from(ranks.end));
        } else {
            pages.extend(ranks.map(|rank| self.tracked.page_of_rank(rank)));
        }
    }
}

/// The eye of a memory that is looked at by one thread.
struct OneEye<'a>(&'a mut dyn Memory);

impl Eye for OneEye<'_> {
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
        self.0.look(pages, sink)
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
    use std::sync::atomic::{AtomicU64, Ordering};

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
            let expected: Vec<u64> =
                (0..scanner.tracked()).map(|rank| scanner.order.tracked.page_of_rank(rank)).collect();
            assert_eq!(scan.written, expected);
        }
    }

    /// Shows pages that differ from one another, every seventh another one in the second scan. The last eye of an unlucky
    /// one sees the guest end.
    struct ManyEyed {
        scan: u64,
        looks: AtomicU64,
        unlucky: bool,
        /// Eyes asked for last.
        eyes: usize,
    }

    struct OneOfMany<'a>(&'a ManyEyed, bool);

    impl Eye for OneOfMany<'_> {
        fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
            self.0.looks.fetch_add(1, Ordering::Relaxed);
            if self.1 {
                return Err(MemoryError::Ended { pid: 1 });
            }
            let mut bytes = [0; PAGE_SIZE as usize];
            for (index, &page) in pages.iter().enumerate() {
                let number = if page % 7 == 0 { page * self.0.scan } else { page };
                bytes[..8].copy_from_slice(&number.to_ne_bytes());
                let seen = [Look::Unreadable, Look::Absent, Look::Hole];
                sink(
                    index,
                    usize::try_from(page % 97).ok().and_then(|n| seen.get(n).copied()).unwrap_or(Look::Content(&bytes)),
                );
            }
            Ok(())
        }
    }

    impl Memory for ManyEyed {
        fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
            OneOfMany(self, false).look(pages, sink)
        }

        fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
            Ok(Vec::new())
        }

        fn eyes(&mut self, count: usize) -> Result<Vec<Box<dyn Eye + Send + '_>>, MemoryError> {
            self.eyes = count;
            let all = &*self;
            let eye = |number| Box::new(OneOfMany(all, all.unlucky && number + 1 == count)) as Box<dyn Eye + Send + '_>;
            Ok((0..count).map(eye).collect())
        }
    }

    fn many_eyed(unlucky: bool) -> ManyEyed {
        ManyEyed { scan: 1, looks: AtomicU64::new(0), unlucky, eyes: 0 }
    }

    #[test]
    fn several_threads_find_what_one_finds() {
        // Pieces that are not full, too.
        for (pages, one_in) in [(u64::from(PIECE) * 5 + 77, 1), (u64::from(PIECE) * 9, 3)] {
            let found = |threads| {
                let mut scanner = scanner(pages, one_in).with_threads(threads);
                let mut memory = many_eyed(false);
                let first = scanner.scan(&mut memory).unwrap();
                memory.scan = 2;
                let second = scanner.scan(&mut memory).unwrap();
                let elsewhere = first.cpu_elsewhere + second.cpu_elsewhere;
                let [first, second] = [first, second].map(|scan| Scan { cpu_elsewhere: Duration::ZERO, ..scan });
                ((first, second, scanner.zero_pages(), memory.looks.into_inner()), elsewhere)
            };
            let (alone, elsewhere) = found(1);
            assert!(alone.1.written.len() > 100 && alone.1.unreadable > 0 && elsewhere.is_zero());
            for threads in [2, 5] {
                let (together, elsewhere) = found(threads);
                assert!(together == alone, "{threads} threads");
                assert!(!elsewhere.is_zero(), "their CPU time counts");
            }
        }
    }

    #[test]
    fn what_one_thread_meets_ends_the_scan() {
        let scan = |unlucky| scanner(u64::from(PIECE) * 64, 1).with_threads(2).scan(&mut many_eyed(unlucky));
        assert!(scan(false).is_ok());
        // Whether the unlucky one gets a piece at all is the scheduler's to say, but not a hundred times over.
        let ended = (0..100).any(|_| matches!(scan(true), Err(MemoryError::Ended { .. })));
        assert!(ended);
    }

    #[test]
    fn little_memory_is_left_to_one_thread() {
        for (pages, eyes) in [(u64::from(PIECE), 0), (u64::from(PIECE) + 1, 2), (u64::from(PIECE) * 20, 8)] {
            let mut memory = many_eyed(false);
            scanner(pages, 1).with_threads(8).scan(&mut memory).unwrap();
            assert_eq!(memory.eyes, eyes);
        }
    }
}
