//! Shared memory (memfd, tmpfs, hugetlbfs, a file): read through the file, which never allocates a hole.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use super::{BATCH_PAGES, Look, Mapping, PAGE_SIZE, Sink, runs};

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
            if same && let Ok(file) = open_for_reading(&path) {
                return SharedFile::new(file, swap).map(Some);
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
        let mut shared = SharedFile { file, size, kind, residency: None };
        shared.heed_swap(swap)?;
        Ok(shared)
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
    pub(super) fn look(&mut self, pages: &[u64], origin: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
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

    /// Where data begin at or after `start`; `start` itself where the file system cannot tell.
    fn next_data(&self, start: u64) -> u64 {
        match rustix::fs::seek(&self.file, SeekFrom::Data(start)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => u64::MAX,
            Err(_) => start,
        }
    }

    fn read_run(&mut self, run: std::ops::Range<usize>, start: u64, buffer: &mut [u8], sink: &mut Sink<'_>) {
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

/// Which pages of a file are in memory: an own mapping of it that is never touched, only asked about.
#[derive(Debug)]
struct Residency {
    address: *mut libc::c_void,
    length: usize,
}

impl Residency {
    fn map(file: impl AsFd, size: u64) -> io::Result<Residency> {
        let length = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let (prot, flags) = (rustix::mm::ProtFlags::READ, rustix::mm::MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice, never dereferenced.
        let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, prot, flags, file, 0)? };
        Ok(Residency { address, length })
    }

    /// Fills one byte per page from `offset` (a multiple of the page size): bit 0 says whether it is in memory.
    fn query(&self, offset: u64, resident: &mut [u8]) -> io::Result<()> {
        let bytes = resident.len() * PAGE_SIZE as usize;
        let start =
            usize::try_from(offset).ok().filter(|start| start.checked_add(bytes).is_some_and(|end| end <= self.length));
        let Some(start) = start else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: the span was checked to lie inside the mapping, and the vector has a byte for each of its pages.
        let done = unsafe { libc::mincore(self.address.byte_add(start), bytes, resident.as_mut_ptr()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Residency {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, and nothing else knows its address.
        if let Err(error) = unsafe { rustix::mm::munmap(self.address, self.length) } {
            tracing::debug!("munmap: {error}");
        }
    }
}

/// Reads only, and never waits: the file belongs to somebody else.
fn open_for_reading(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
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
    use super::*;

    fn sparse_memfd(pages: u64) -> File {
        let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(pages * PAGE_SIZE).unwrap();
        file
    }

    fn looks(shared: &mut SharedFile, pages: &[u64]) -> Vec<&'static str> {
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

    #[test]
    fn holes_are_seen_and_stay_holes() {
        let file = sparse_memfd(1000);
        file.write_all_at(&[7; 4096], 500 * PAGE_SIZE).unwrap();
        let blocks = file.metadata().unwrap().blocks();
        for swap in [false, true] {
            let mut shared = SharedFile::new(file.try_clone().unwrap(), swap).unwrap();
            assert_eq!(shared.asks_residency(), swap);
            let all: Vec<u64> = (0..1000).collect();
            let found = looks(&mut shared, &all);
            assert_eq!(found.len(), 1000);
            assert_eq!(found.iter().filter(|&&look| look == "content").count(), 1);
            assert_eq!(found[500], "content");
            assert!(found.iter().all(|&look| matches!(look, "content" | "hole" | "zero")));
            assert_eq!(looks(&mut shared, &[3, 500, 999]), ["hole", "content", "hole"]);
            assert_eq!(file.metadata().unwrap().blocks(), blocks);
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
        let mut shared = SharedFile::new(file.try_clone().unwrap(), false).unwrap();
        file.set_len(5 * PAGE_SIZE).unwrap();
        let found = looks(&mut shared, &[0, 4, 5, 9]);
        assert_eq!(found[..2], ["content", "content"]);
        assert!(found[2..].iter().all(|&look| look != "content"));
    }
}
