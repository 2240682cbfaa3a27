//! Shared memory (memfd, tmpfs, hugetlbfs, a file): read so that a hole is never allocated, through a guarded mapping where
//! there can be one, else with `pread`.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use super::guarded::GuardedMap;
use super::residency::Residency;
use super::{BATCH_PAGES, Look, Mapping, PAGE_SIZE, Sink, runs};

/// Most pages asked about at once through a mapping, wanted or not.
const SPAN_PAGES: usize = 1024;

const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

/// Where a file's pages may be when they are not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nowhere: huge pages are never swapped, and mincore knows nothing of them.
    Huge,
    /// In swap, where the machine has any.
    Tmpfs,
    /// On a disk.
    Disk,
}

impl Kind {
    fn leaves_memory(self, swap: bool) -> bool {
        match self {
            Kind::Huge => false,
            Kind::Tmpfs => swap,
            Kind::Disk => true,
        }
    }
}

/// A file whose pages are a guest's memory.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    size: u64,
    kind: Kind,
    /// Present where a page of the file may be out of memory, on disk or in swap, and must not be fetched.
    residency: Option<Residency>,
    /// Present where the file can be read through a mapping.
    guarded: Option<GuardedMap>,
}

impl SharedFile {
    /// Opens the file behind a shared mapping of a process: through `map_files` where that is allowed, else through
    /// one of the process's own descriptors. `None` where neither works. `swap`: whether this machine has any.
    pub(super) fn open(pid: u32, mapping: &Mapping, swap: bool) -> io::Result<Option<SharedFile>> {
        let range = &mapping.addresses;
        let exact = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", range.start, range.end));
        // `map_files` names this very mapping; a descriptor has to be the same file by device and inode. It may be
        // anything else, too: nothing but regular files is opened. The kernel follows these links.
        let candidates = std::iter::once((exact, true)).chain(descriptors(pid).map(|path| (path, false)));
        for (path, exact) in candidates {
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            let same = meta.is_file() && (exact || mapping.file == Some((meta.dev(), meta.ino())));
            if same && let Ok(file) = open(&path, OFlags::RDONLY) {
                let mut shared = SharedFile::new(file, swap)?;
                if mapping.shared {
                    shared.guard(&path);
                }
                return Ok(Some(shared));
            }
        }
        Ok(None)
    }

    fn new(file: File, swap: bool) -> io::Result<SharedFile> {
        let size = file.metadata()?.len();
        let kind = match rustix::fs::fstatfs(&file)?.f_type {
            HUGETLBFS_MAGIC => Kind::Huge,
            TMPFS_MAGIC => Kind::Tmpfs,
            _ => Kind::Disk,
        };
        let mut shared = SharedFile { file, size, kind, residency: None, guarded: None };
        shared.heed_swap(swap)?;
        Ok(shared)
    }

    /// Reads through a mapping from now on, if there can be one. `path`: where the file was opened.
    fn guard(&mut self, path: &Path) {
        if self.kind != Kind::Tmpfs {
            return;
        }
        let guarded = open(path, OFlags::RDWR).and_then(|file| {
            let (meta, own) = (file.metadata()?, self.file.metadata()?);
            if (meta.dev(), meta.ino()) != (own.dev(), own.ino()) {
                return Err(io::Error::other("another file by now"));
            }
            GuardedMap::map(&file, self.size)
        });
        match guarded {
            Ok(guarded) => self.guarded = Some(guarded),
            Err(error) => tracing::debug!("{}: no guarded mapping ({error}), reading with pread", path.display()),
        }
    }

    /// Takes in whether this machine has swap now: it may be turned on at any time.
    pub(super) fn heed_swap(&mut self, swap: bool) -> io::Result<()> {
        if self.kind.leaves_memory(swap) && self.residency.is_none() {
            self.residency = Some(Residency::map(&self.file, self.size)?);
        }
        Ok(())
    }

    /// Whether pages are asked about before they are read.
    #[cfg(test)]
    pub(super) fn asks_residency(&self) -> bool {
        self.residency.is_some()
    }

    /// Looks at `pages`, of which page p lies at byte `origin + p × PAGE_SIZE` of the file (modulo 2^64).
    pub(super) fn look(&self, pages: &[u64], origin: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
        if let Some(guarded) = &self.guarded {
            return self.look_guarded(guarded, pages, origin, buffer, sink);
        }
        // Up to here (in the file) everything is known to be a hole.
        let mut hole_end = 0;
        for run in runs(pages) {
            let start = origin.wrapping_add(pages[run.start] * PAGE_SIZE);
            let end = start + run.len() as u64 * PAGE_SIZE;
            if hole_end <= start {
                hole_end = self.next_data(start);
            }
            if hole_end >= end {
                run.for_each(|index| sink(index, Look::Hole));
                continue;
            }
            self.read_run(run, start, buffer, sink);
        }
    }

    /// As [`Self::look`], through the mapping. Pages are asked about before they are touched: a hole costs a signal, and a
    /// page in swap would be fetched.
    fn look_guarded(&self, map: &GuardedMap, pages: &[u64], origin: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
        let offset_of = |index: usize| origin.wrapping_add(pages[index] * PAGE_SIZE);
        // Where nothing can be swapped out, time between question and answer costs a signal at worst.
        let batch_max = if self.residency.is_some() { BATCH_PAGES } else { SPAN_PAGES };
        let mut resident = [0_u8; SPAN_PAGES];
        // Up to here (in the file) everything is known to be a hole.
        let mut hole_end = 0;
        let mut at = 0;
        while at < pages.len() {
            let start = offset_of(at);
            if hole_end > start {
                sink(at, Look::Hole);
                at += 1;
                continue;
            }
            let near = |&&page: &&u64| page - pages[at] < SPAN_PAGES as u64;
            let batch = at..at + pages[at..].iter().take(batch_max).take_while(near).count();
            let span = (pages[batch.end - 1] - pages[at]) as usize + 1;
            let asked = map.query(start, &mut resident[..span]).is_ok();
            for index in batch.clone() {
                let in_memory = resident[(pages[index] - pages[at]) as usize] & 1 == 1;
                let page = &mut buffer[..PAGE_SIZE as usize];
                let look = match asked {
                    true if in_memory && map.copy(offset_of(index), page) => {
                        // While this one is hashed: of a neighbour the processor thinks by itself, but only once it is read.
                        if index + 1 < batch.end {
                            map.fetch(offset_of(index + 1));
                        }
                        Look::Content(page)
                    }
                    true => self.not_read(offset_of(index), in_memory, &mut hole_end),
                    false => Look::Unreadable,
                };
                sink(index, look);
            }
            at = batch.end;
        }
    }

    /// What a page is that could not be copied, or was not tried because it is not in memory. `hole_end`: see
    /// [`Self::look_guarded`].
    fn not_read(&self, offset: u64, in_memory: bool, hole_end: &mut u64) -> Look<'static> {
        if *hole_end <= offset {
            *hole_end = self.next_data(offset);
        }
        match (*hole_end > offset, in_memory) {
            (true, _) => Look::Hole,
            (false, false) => Look::Absent,
            // Broken memory.
            (false, true) => Look::Unreadable,
        }
    }

    /// Touches what is in memory of `pages`, so that this process has it in its page tables.
    pub(super) fn prepare(&self, pages: &[u64], origin: u64) {
        let Some(map) = &self.guarded else { return };
        for &page in pages {
            let offset = origin.wrapping_add(page * PAGE_SIZE);
            let mut resident = [0];
            if map.query(offset, &mut resident).is_ok() && resident[0] & 1 == 1 {
                // A hole by now is none of our business.
                map.copy(offset, &mut [0]);
            }
        }
    }

    /// Where data begin at or after `start`; `start` itself where the file system cannot tell.
    fn next_data(&self, start: u64) -> u64 {
        match rustix::fs::seek(&self.file, SeekFrom::Data(start)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(_) => start,
        }
    }

    fn read_run(&self, run: std::ops::Range<usize>, start: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
        let mut resident = [1_u8; BATCH_PAGES];
        let asked = match &self.residency {
            Some(residency) => residency.query(start, &mut resident[..run.len()]).is_ok(),
            None => true,
        };
        if !asked || start.saturating_add(run.len() as u64 * PAGE_SIZE) > self.size {
            run.for_each(|index| sink(index, Look::Unreadable));
            return;
        }
        let first = run.start;
        let mut at = 0;
        while at < run.len() {
            let here = resident[at] & 1;
            let length = resident[at..run.len()].iter().take_while(|&&flag| flag & 1 == here).count();
            let offset = start + at as u64 * PAGE_SIZE;
            if here == 1 {
                self.read_resident(first + at, length, offset, buffer, sink);
            } else {
                for page in 0..length {
                    sink(first + at + page, self.not_resident(offset + page as u64 * PAGE_SIZE));
                }
            }
            at += length;
        }
    }

    fn read_resident(&self, first: usize, length: usize, offset: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
        let bytes = length * PAGE_SIZE as usize;
        let read = self.file.read_at(&mut buffer[..bytes], offset).unwrap_or(0);
        for (page, content) in buffer[..bytes].chunks_exact(PAGE_SIZE as usize).enumerate() {
            let whole = (page + 1) * PAGE_SIZE as usize <= read;
            sink(first + page, if whole { Look::Content(content) } else { Look::Unreadable });
        }
    }

    /// A page that is not in memory is a hole, or swapped out.
    fn not_resident(&self, offset: u64) -> Look<'static> {
        if self.next_data(offset) == offset { Look::Absent } else { Look::Hole }
    }
}

/// Never waits: the file belongs to somebody else.
fn open(path: &Path, access: OFlags) -> io::Result<File> {
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?))
}

fn descriptors(pid: u32) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Whether this machine has any swap. Unknown counts as yes.
pub(super) fn machine_has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| text.lines().count() > 1)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    fn sparse_memfd(pages: u64) -> File {
        let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(pages * PAGE_SIZE).unwrap();
        file
    }

    fn looks(shared: &SharedFile, pages: &[u64]) -> Vec<&'static str> {
        let mut found = Vec::new();
        let mut buffer = vec![0; BATCH_PAGES * PAGE_SIZE as usize];
        shared.look(pages, 0, &mut buffer, &mut |index, look| {
            assert_eq!(index, found.len());
            found.push(match look {
                Look::Content(bytes) if bytes.iter().all(|&b| b == 0) => "zero",
                Look::Content(_) => "content",
                Look::Hole => "hole",
                Look::Absent => "absent",
                Look::Unreadable => "unreadable",
            });
        });
        found
    }

    /// Every way of reading a file that this machine has: with `pread`, and through a mapping.
    fn ways(file: &File, swap: bool) -> Vec<SharedFile> {
        let plain = SharedFile::new(file.try_clone().unwrap(), swap).unwrap();
        let mut mapped = SharedFile::new(file.try_clone().unwrap(), swap).unwrap();
        mapped.guard(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())));
        if mapped.guarded.is_none() {
            eprintln!("no guarded mappings on this machine");
            return vec![plain];
        }
        vec![plain, mapped]
    }

    #[test]
    fn holes_are_seen_and_stay_holes() {
        let file = sparse_memfd(10_000);
        file.write_all_at(&[7; 4096], 500 * PAGE_SIZE).unwrap();
        file.write_all_at(&[0; 4096], 502 * PAGE_SIZE).unwrap();
        let blocks = file.metadata().unwrap().blocks();
        for swap in [false, true] {
            for shared in ways(&file, swap) {
                assert_eq!(shared.asks_residency(), swap);
                let all: Vec<u64> = (0..10_000).collect();
                shared.prepare(&all, 0);
                let found = looks(&shared, &all);
                assert_eq!(found.len(), 10_000);
                assert_eq!(found.iter().filter(|&&look| look == "content").count(), 1);
                assert_eq!((found[500], found[502]), ("content", "zero"));
                assert!(found.iter().all(|&look| matches!(look, "content" | "hole" | "zero")));
                assert_eq!(looks(&shared, &[3, 500, 999, 9999]), ["hole", "content", "hole", "hole"]);
                assert_eq!(file.metadata().unwrap().blocks(), blocks);
            }
        }
    }

    /// Mapping huge pages reserves them, and touching a hole would take one from the pool. Machines without huge pages
    /// have nothing to check here.
    #[test]
    fn huge_pages_are_read_without_a_mapping() {
        const HUGE_PAGES: u64 = 512;
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::HUGETLB;
        let file = File::from(rustix::fs::memfd_create("huge", flags).unwrap());
        let mode = rustix::fs::FallocateFlags::empty();
        file.set_len(2 * HUGE_PAGES * PAGE_SIZE).unwrap();
        if rustix::fs::fallocate(&file, mode, 0, HUGE_PAGES * PAGE_SIZE).is_err() {
            eprintln!("no huge pages on this machine");
            return;
        }
        let reserved = || {
            let pools = std::fs::read_to_string("/proc/meminfo").unwrap();
            pools.lines().filter(|line| line.starts_with("HugePages_")).collect::<Vec<_>>().join(", ")
        };
        let (blocks, before) = (file.metadata().unwrap().blocks(), reserved());
        for swap in [false, true] {
            for shared in ways(&file, swap) {
                assert!(shared.guarded.is_none() && !shared.asks_residency());
                // The file system does not tell holes, and reads them as zeros.
                assert_eq!(looks(&shared, &[0, HUGE_PAGES - 1, HUGE_PAGES]), ["zero"; 3]);
                assert_eq!((file.metadata().unwrap().blocks(), reserved()), (blocks, before.clone()));
            }
        }
    }

    #[test]
    fn a_page_given_back_during_a_look_is_not_brought_back() {
        let file = sparse_memfd(200);
        file.write_all_at(&[7; 200 * 4096], 0).unwrap();
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        for shared in ways(&file, false) {
            file.write_all_at(&[7; 200 * 4096], 0).unwrap();
            let (all, mut found) = ((0..200).collect::<Vec<u64>>(), Vec::new());
            shared.look(&all, 0, &mut vec![0; BATCH_PAGES * PAGE_SIZE as usize], &mut |index, look| {
                found.push(matches!(look, Look::Content(bytes) if bytes[0] == 7));
                if index == 0 {
                    // Of the batch that has been asked about, and of one that has not.
                    rustix::fs::fallocate(&file, mode, 60 * PAGE_SIZE, 100 * PAGE_SIZE).unwrap();
                }
            });
            assert!(found[0] && !found[100] && found[199], "{found:?}");
            assert_eq!(file.metadata().unwrap().blocks(), 100 * 8);
        }
    }

    #[test]
    fn residency_is_asked_from_the_moment_there_is_swap() {
        let mut shared = SharedFile::new(sparse_memfd(10), false).unwrap();
        assert!(!shared.asks_residency(), "it costs a call per run of pages");
        shared.heed_swap(true).unwrap();
        assert!(shared.asks_residency());
        // What was swapped out while there was swap may still be there for a moment.
        shared.heed_swap(false).unwrap();
        assert!(shared.asks_residency());
    }

    #[test]
    fn only_files_on_disk_leave_memory_without_swap() {
        let leaving = |swap| [Kind::Huge, Kind::Tmpfs, Kind::Disk].map(|kind| kind.leaves_memory(swap));
        assert_eq!((leaving(false), leaving(true)), ([false, false, true], [false, true, true]));
    }

    #[test]
    fn a_file_that_shrank_is_unreadable_not_fatal() {
        let file = sparse_memfd(10);
        file.write_all_at(&[7; 4096 * 10], 0).unwrap();
        for shared in ways(&file, false) {
            file.set_len(10 * PAGE_SIZE).unwrap();
            file.write_all_at(&[7; 4096 * 10], 0).unwrap();
            file.set_len(5 * PAGE_SIZE).unwrap();
            let found = looks(&shared, &[0, 4, 5, 9]);
            assert_eq!(found[..2], ["content", "content"]);
            assert!(found[2..].iter().all(|&look| look != "content"));
        }
    }
}
