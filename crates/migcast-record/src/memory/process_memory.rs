//! The memory of a running process: blocks of it, laid over whatever mappings hold them now.

use std::io;
use std::ops::Range;

use migcast_history::format::Block;

use super::private::{Beneath, PrivateReader};
use super::shared::SharedFile;
use super::{BATCH_PAGES, Look, Mapping, Memory, MemoryError, PAGE_SIZE, Sink, of_process};

/// A block of guest memory and where it lies in the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The block.
    pub block: Block,
    /// Its address in the process, a multiple of the page size; `None` where that could not be found out.
    pub address: Option<u64>,
}

/// Blocks of a process's memory, in scan order.
///
/// ```text
/// block      ┌──────── "pc.ram" ────────┐┌ "vga" ┐
/// segments   │ shared     │ private     ││private│   cut where mappings begin and end
/// ```
#[derive(Debug)]
pub struct ProcessMemory {
    pid: u32,
    blocks: Vec<PlacedBlock>,
    segments: Vec<Segment>,
    /// The mappings the segments were made from.
    mappings: Vec<Mapping>,
    private: PrivateReader,
    buffer: Vec<u8>,
    /// Whether the blocks were all writable memory of the process at the start.
    whole: bool,
    /// Untracked bytes last warned of.
    untracked_warned: u64,
}

#[derive(Debug)]
struct PlacedBlock {
    name: String,
    pages: Range<u64>,
    address: Option<u64>,
}

#[derive(Debug)]
struct Segment {
    pages: Range<u64>,
    /// Where page 0 of the guest would lie, in the file or in the process (modulo 2^64).
    origin: u64,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Shared(SharedFile),
    Private(Beneath),
    /// Nothing is mapped there any more.
    Vanished,
    /// Where it lies is not known.
    Unknown,
}

impl ProcessMemory {
    /// Opens the memory of `pid` at `placements`, in scan order.
    ///
    /// # Errors
    /// [`MemoryError`]: no such process, no permission.
    pub fn open(pid: u32, placements: &[Placement]) -> Result<ProcessMemory, MemoryError> {
        let private = PrivateReader::open(pid).map_err(|source| MemoryError::of(pid, "the page map", source))?;
        let mut first = 0;
        let blocks = placements
            .iter()
            .map(|placement| {
                let pages = first..first + placement.block.length_bytes.div_ceil(PAGE_SIZE);
                first = pages.end;
                PlacedBlock { name: placement.block.name.clone(), pages, address: placement.address }
            })
            .collect();
        let mut memory = ProcessMemory {
            pid,
            blocks,
            segments: Vec::new(),
            mappings: Vec::new(),
            private,
            buffer: vec![0; BATCH_PAGES * PAGE_SIZE as usize],
            whole: false,
            untracked_warned: 0,
        };
        let now = memory.read_mappings()?;
        memory.lay_out(now)?;
        Ok(memory)
    }

    /// Opens all memory a process can write.
    ///
    /// # Errors
    /// As [`ProcessMemory::open`].
    pub fn open_whole(pid: u32) -> Result<(ProcessMemory, Vec<Placement>), MemoryError> {
        let mappings = of_process(pid).map_err(|source| MemoryError::of(pid, "the mappings", source))?;
        let placements = placements_of(&mappings);
        let mut memory = ProcessMemory::open(pid, &placements)?;
        memory.whole = true;
        Ok((memory, placements))
    }

    /// Bytes of the blocks that cannot be read, and the name of the first such block.
    pub fn unreadable(&self) -> Option<(u64, String)> {
        let lost = |segment: &&Segment| matches!(segment.reader, Reader::Vanished | Reader::Unknown);
        let pages: u64 = self.segments.iter().filter(lost).map(|s| s.pages.end - s.pages.start).sum();
        let first = self.segments.iter().find(lost)?;
        Some((pages * PAGE_SIZE, self.name_of(first.pages.start).to_owned()))
    }

    /// What people should know before these blocks are recorded.
    pub fn warnings(&self) -> Vec<String> {
        let Some((bytes, name)) = self.unreadable() else { return Vec::new() };
        vec![format!("{} KiB of memory cannot be read (first in {name}): they count as never written", bytes >> 10)]
    }

    fn name_of(&self, page: u64) -> &str {
        self.blocks.iter().find(|block| block.pages.contains(&page)).map_or("", |block| &block.name)
    }

    fn read_mappings(&self) -> Result<Vec<Mapping>, MemoryError> {
        of_process(self.pid).map_err(|source| MemoryError::of(self.pid, "the mappings", source))
    }

    /// Cuts the blocks into segments along `mappings`. Returns the names of blocks that lost a part.
    fn lay_out(&mut self, mappings: Vec<Mapping>) -> Result<Vec<String>, MemoryError> {
        let mut segments = Vec::new();
        let mut lost = Vec::new();
        for block in &self.blocks {
            let Some(address) = block.address else {
                segments.push(Segment { pages: block.pages.clone(), origin: 0, reader: Reader::Unknown });
                continue;
            };
            let origin = address.wrapping_sub(block.pages.start * PAGE_SIZE);
            let mut page = block.pages.start;
            while page < block.pages.end {
                let at = origin.wrapping_add(page * PAGE_SIZE);
                let index = mappings.partition_point(|mapping| mapping.addresses.end <= at);
                let (reader, shift, until) = match mappings.get(index) {
                    Some(mapping) if mapping.addresses.start <= at => {
                        let (reader, shift) = self.reader_for(mapping)?;
                        (reader, shift, mapping.addresses.end)
                    }
                    following => (Reader::Vanished, 0, following.map_or(u64::MAX, |next| next.addresses.start)),
                };
                if matches!(reader, Reader::Vanished) && lost.last() != Some(&block.name) {
                    lost.push(block.name.clone());
                }
                let end = block.pages.end.min(page + (until - at).div_ceil(PAGE_SIZE));
                segments.push(Segment { pages: page..end, origin: origin.wrapping_add(shift), reader });
                page = end;
            }
        }
        self.segments = segments;
        self.mappings = self.overlapping(mappings);
        Ok(lost)
    }

    /// How to read a mapping, and what to add to an address to get the position the reader wants.
    fn reader_for(&self, mapping: &Mapping) -> Result<(Reader, u64), MemoryError> {
        let shift = mapping.offset.wrapping_sub(mapping.addresses.start);
        if mapping.file.is_none() {
            return Ok((Reader::Private(Beneath::Zero), 0));
        }
        let opened =
            SharedFile::open(self.pid, mapping).map_err(|source| MemoryError::of(self.pid, "a mapped file", source))?;
        Ok(match (opened, mapping.shared) {
            (Some(file), true) => (Reader::Shared(file), shift),
            // What has not been copied yet still lies in the file; addresses stay those of the process.
            (Some(file), false) => (Reader::Private(Beneath::File { file, shift }), 0),
            // A file nobody lets us open: the pages this process has touched can be read as its own.
            (None, _) => (Reader::Private(Beneath::Zero), 0),
        })
    }

    /// Where the blocks lie in the process, by address.
    fn ranges(&self) -> Vec<Range<u64>> {
        let range = |block: &PlacedBlock| {
            let address = block.address?;
            Some(address..address + (block.pages.end - block.pages.start) * PAGE_SIZE)
        };
        let mut ranges: Vec<Range<u64>> = self.blocks.iter().filter_map(range).collect();
        ranges.sort_by_key(|range| range.start);
        ranges
    }

    /// The mappings that hold any of the blocks.
    fn overlapping(&self, mut mappings: Vec<Mapping>) -> Vec<Mapping> {
        let ranges = self.ranges();
        mappings.retain(|mapping| overlap(&ranges, &mapping.addresses) > 0);
        mappings
    }

    /// A warning where much memory is not tracked, at most once per doubling.
    fn untracked(&mut self, now: &[Mapping]) -> Option<String> {
        let ranges = self.ranges();
        let memory = || now.iter().filter(|mapping| mapping.is_writable_memory()).map(|mapping| &mapping.addresses);
        let writable: u64 = memory().map(|addresses| addresses.end - addresses.start).sum();
        // The kernel joins a new mapping to a neighbour: only what lies in the blocks is tracked, not what touches them.
        let tracked: u64 = memory().map(|addresses| overlap(&ranges, addresses)).sum();
        let untracked = writable.saturating_sub(tracked);
        if untracked * 100 <= writable || untracked < 2 * self.untracked_warned {
            return None;
        }
        self.untracked_warned = untracked;
        Some(format!(
            "process {} has mapped more memory since the start: {} MiB of its {} MiB ({} %) are not recorded; \
             start a new recording to include them",
            self.pid,
            untracked >> 20,
            writable >> 20,
            untracked * 100 / writable
        ))
    }
}

impl Memory for ProcessMemory {
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
        let mut at = 0;
        while let Some(&page) = pages.get(at) {
            let index = self.segments.partition_point(|segment| segment.pages.end <= page);
            let segment = self.segments.get_mut(index).expect("pages asked for lie in the blocks");
            let count = pages[at..].partition_point(|&page| page < segment.pages.end);
            let wanted = &pages[at..at + count];
            let sink = &mut |index: usize, look: Look<'_>| sink(at + index, look);
            match &mut segment.reader {
                Reader::Shared(file) => file.look(wanted, segment.origin, &mut self.buffer, sink),
                Reader::Private(beneath) => self
                    .private
                    .look(wanted, segment.origin, beneath, &mut self.buffer, sink)
                    .map_err(|source| ended_or(self.pid, source))?,
                Reader::Vanished => (0..count).for_each(|index| sink(index, Look::Hole)),
                Reader::Unknown => (0..count).for_each(|index| sink(index, Look::Unreadable)),
            }
            at += count;
        }
        Ok(())
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        let now = self.read_mappings()?;
        let mut warnings = Vec::new();
        if self.whole {
            warnings.extend(self.untracked(&now));
        }
        if self.overlapping(now.clone()) != self.mappings {
            for name in self.lay_out(now)? {
                warnings.push(format!(
                    "{name} is no longer mapped in part or whole: those pages count as zero from now on"
                ));
            }
        }
        Ok(warnings)
    }
}

/// Bytes of `addresses` that lie in `ranges`, which ascend and do not overlap.
fn overlap(ranges: &[Range<u64>], addresses: &Range<u64>) -> u64 {
    let first = ranges.partition_point(|range| range.end <= addresses.start);
    let inside = ranges[first..].iter().take_while(|range| range.start < addresses.end);
    inside.map(|range| range.end.min(addresses.end) - range.start.max(addresses.start)).sum()
}

/// The page map of a process that is gone reads as empty.
fn ended_or(pid: u32, source: io::Error) -> MemoryError {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return MemoryError::Ended { pid };
    }
    MemoryError::of(pid, "the memory", source)
}

/// All writable memory, in address order, named by what is mapped.
fn placements_of(mappings: &[Mapping]) -> Vec<Placement> {
    mappings
        .iter()
        .filter(|mapping| mapping.is_writable_memory())
        .map(|mapping| {
            let start = mapping.addresses.start;
            // One file is often mapped in several pieces, and names must differ.
            let name = match mapping.name.as_str() {
                "" => format!("anon@{start:x}"),
                "[heap]" => "[heap]".to_owned(),
                path => format!("{path}@{start:x}"),
            };
            let block = Block { name, length_bytes: mapping.addresses.end - start, guest_physical_address: None };
            Placement { block, address: Some(start) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_this_process_and_reads_what_it_wrote() {
        let page = 4096;
        let own = vec![42_u8; 3 * page];
        let address = (own.as_ptr() as u64).next_multiple_of(PAGE_SIZE);
        let block = Block { name: "own".into(), length_bytes: PAGE_SIZE, guest_physical_address: None };
        let placement = Placement { block, address: Some(address) };
        let mut memory = ProcessMemory::open(std::process::id(), &[placement]).unwrap();
        let mut seen = 0;
        memory
            .look(&[0], &mut |index, look| {
                assert_eq!((index, look), (0, Look::Content(&[42; 4096])));
                seen += 1;
            })
            .unwrap();
        assert_eq!(seen, 1);
        assert!(memory.refresh().unwrap().is_empty());
    }

    #[test]
    fn only_what_lies_in_a_block_counts_as_tracked() {
        let ranges = [10..20, 20..30, 50..60];
        assert_eq!(overlap(&ranges, &(0..100)), 30);
        assert_eq!(overlap(&ranges, &(15..55)), 20);
        assert_eq!(overlap(&ranges, &(30..50)), 0);
    }

    #[test]
    fn what_is_not_mapped_is_reported_and_reads_as_zero() {
        let block = |name: &str| Block { name: name.into(), length_bytes: 2 * PAGE_SIZE, guest_physical_address: None };
        let placements = [
            Placement { block: block("nowhere"), address: Some(0x1000) },
            Placement { block: block("unknown"), address: None },
        ];
        let mut memory = ProcessMemory::open(std::process::id(), &placements).unwrap();
        assert_eq!(memory.unreadable(), Some((4 * PAGE_SIZE, "nowhere".to_owned())));
        let mut found = Vec::new();
        memory.look(&[0, 1, 3], &mut |_, look| found.push(format!("{look:?}"))).unwrap();
        assert_eq!(found, ["Hole", "Hole", "Unreadable"]);
    }

    #[test]
    fn a_process_that_is_not_there_has_ended() {
        let error = ProcessMemory::open_whole(u32::MAX - 1).unwrap_err();
        assert!(matches!(error, MemoryError::Ended { .. }), "{error}");
    }

    #[test]
    fn a_private_copy_of_a_sparse_file_is_read_from_both_and_fills_neither() {
        use std::os::unix::fs::{FileExt, MetadataExt};
        let file = std::fs::File::from(rustix::fs::memfd_create("copy", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(100 * PAGE_SIZE).unwrap();
        file.write_all_at(&[5; 4096], 50 * PAGE_SIZE).unwrap();
        let (prot, flags) = (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice, of which one byte is written.
        let address = unsafe {
            let address = rustix::mm::mmap(std::ptr::null_mut(), 100 * 4096, prot, flags, &file, 0).unwrap();
            address.cast::<u8>().add(7 * 4096).write_volatile(9);
            address as u64
        };
        let blocks = file.metadata().unwrap().blocks();
        let block = Block { name: "copy".into(), length_bytes: 100 * PAGE_SIZE, guest_physical_address: None };
        let placement = Placement { block, address: Some(address) };
        let mut memory = ProcessMemory::open(std::process::id(), &[placement]).unwrap();
        let pages: Vec<u64> = (0..100).collect();
        let mut first_bytes = vec![None; 100];
        memory
            .look(&pages, &mut |index, look| {
                first_bytes[index] = match look {
                    Look::Content(bytes) => Some(bytes[0]),
                    Look::Hole => Some(0),
                    Look::Absent | Look::Unreadable => None,
                };
            })
            .unwrap();
        let expected: Vec<Option<u8>> = (0..100)
            .map(|page| match page {
                7 => Some(9),
                50 => Some(5),
                _ => Some(0),
            })
            .collect();
        assert_eq!(first_bytes, expected);
        assert_eq!(file.metadata().unwrap().blocks(), blocks);
    }
}
