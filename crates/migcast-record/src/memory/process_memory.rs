//! The memory of a running process: blocks of it, laid over whatever mappings hold them now.

use std::io;
use std::ops::Range;

use migcast_history::format::Block;

use super::buffer::PageBuffer;
use super::private::{Beneath, PrivateReader};
use super::shared::{SharedFile, machine_has_swap};
use super::{BATCH_PAGES, Eye, Look, Mapping, Memory, MemoryError, PAGE_SIZE, Sink, of_process};
use crate::guest::Life;

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
    life: Life,
    blocks: Vec<PlacedBlock>,
    segments: Vec<Segment>,
    /// The mappings the segments were made from.
    mappings: Vec<Mapping>,
    /// One at least; more where several threads look.
    desks: Vec<Desk>,
    /// Whether the blocks were all writable memory of the process at the start.
    whole: bool,
    /// Untracked bytes last warned of.
    untracked_warned: u64,
    /// Whether this machine has swap: asked again at each refresh.
    has_swap: fn() -> bool,
}

/// What one thread needs to read with.
#[derive(Debug)]
struct Desk {
    private: PrivateReader,
    buffer: PageBuffer,
}

impl Desk {
    fn open(pid: u32) -> Result<Desk, MemoryError> {
        let private = PrivateReader::open(pid).map_err(|source| MemoryError::of(pid, "the page map", source))?;
        Ok(Desk { private, buffer: PageBuffer::new(BATCH_PAGES) })
    }
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
        ProcessMemory::open_with(pid, placements, machine_has_swap)
    }

    fn open_with(pid: u32, placements: &[Placement], has_swap: fn() -> bool) -> Result<ProcessMemory, MemoryError> {
        let (life, desk) = (Life::of(pid)?, Desk::open(pid)?);
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
            life,
            blocks,
            segments: Vec::new(),
            mappings: Vec::new(),
            desks: vec![desk],
            whole: false,
            untracked_warned: 0,
            has_swap,
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
        let swap = (self.has_swap)();
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
                        let (reader, shift) = self.reader_for(mapping, swap)?;
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
    fn reader_for(&self, mapping: &Mapping, swap: bool) -> Result<(Reader, u64), MemoryError> {
        let shift = mapping.offset.wrapping_sub(mapping.addresses.start);
        if mapping.file.is_none() {
            return Ok((Reader::Private(Beneath::Zero), 0));
        }
        let opened = SharedFile::open(self.pid, mapping, swap)
            .map_err(|source| MemoryError::of(self.pid, "a mapped file", source))?;
        Ok(match (opened, mapping.shared) {
            (Some(file), true) => (Reader::Shared(file), shift),
            // What has not been copied yet still lies in the file; addresses stay those of the process.
            (Some(file), false) => (Reader::Private(Beneath::File { file, shift }), 0),
            // A file nobody lets us open: the pages this process has touched can be read as its own.
            (None, _) => (Reader::Private(Beneath::Zero), 0),
        })
    }

    /// Tells the open files whether this machine has swap now.
    fn heed_swap(&mut self) -> Result<(), MemoryError> {
        let swap = (self.has_swap)();
        for segment in &mut self.segments {
            if let Reader::Shared(file) | Reader::Private(Beneath::File { file, .. }) = &mut segment.reader {
                file.heed_swap(swap).map_err(|source| MemoryError::of(self.pid, "a mapped file", source))?;
            }
        }
        Ok(())
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

/// All of a process's memory, and one desk to read it at.
struct Reading<'a> {
    pid: u32,
    life: &'a Life,
    segments: &'a [Segment],
    desk: &'a mut Desk,
}

impl Eye for Reading<'_> {
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
        // Shared memory stays readable for as long as somebody reads it, and so does not go away.
        if self.life.ended() {
            return Err(MemoryError::Ended { pid: self.pid });
        }
        let Desk { private, buffer } = &mut *self.desk;
        let mut at = 0;
        while let Some(&page) = pages.get(at) {
            let index = self.segments.partition_point(|segment| segment.pages.end <= page);
            let segment = self.segments.get(index).expect("pages asked for lie in the blocks");
            let count = pages[at..].partition_point(|&page| page < segment.pages.end);
            let wanted = &pages[at..at + count];
            let sink = &mut |index: usize, look: Look<'_>| sink(at + index, look);
            match &segment.reader {
                Reader::Shared(file) => file.look(wanted, segment.origin, buffer, sink),
                Reader::Private(beneath) => private
                    .look(wanted, segment.origin, beneath, buffer, sink)
                    .map_err(|source| ended_or(self.pid, source))?,
                Reader::Vanished => (0..count).for_each(|index| sink(index, Look::Hole)),
                Reader::Unknown => (0..count).for_each(|index| sink(index, Look::Unreadable)),
            }
            at += count;
        }
        Ok(())
    }
}

impl Memory for ProcessMemory {
    fn look(&mut self, pages: &[u64], sink: &mut Sink<'_>) -> Result<(), MemoryError> {
        let desk = &mut self.desks[0];
        Reading { pid: self.pid, life: &self.life, segments: &self.segments, desk }.look(pages, sink)
    }

    fn eyes(&mut self, count: usize) -> Result<Vec<Box<dyn Eye + Send + '_>>, MemoryError> {
        while self.desks.len() < count {
            self.desks.push(Desk::open(self.pid)?);
        }
        let (pid, life, segments) = (self.pid, &self.life, &self.segments[..]);
        let eye = |desk| Box::new(Reading { pid, life, segments, desk }) as Box<dyn Eye + Send + '_>;
        Ok(self.desks[..count].iter_mut().map(eye).collect())
    }

    fn release(&mut self) {
        for segment in &mut self.segments {
            segment.reader = Reader::Unknown;
        }
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        self.heed_swap()?;
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

    fn prepare(&mut self, pages: &[u64]) {
        for segment in &self.segments {
            if let Reader::Shared(file) = &segment.reader {
                let first = pages.partition_point(|&page| page < segment.pages.start);
                let end = pages.partition_point(|&page| page < segment.pages.end);
                file.prepare(&pages[first..end], segment.origin);
            }
        }
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
mod tests;
