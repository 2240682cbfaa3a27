//! Which pages of a process are in memory, by its page tables: the `PAGEMAP_SCAN` call of Linux 6.7, or the entries
//! of `/proc/PID/pagemap` on older kernels and where few pages are wanted.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::PAGE_SIZE;

/// What the page tables say of a page; of a part of a huge page (hugetlbfs, too) what they say of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing is mapped there.
    None,
    /// It is in memory.
    Present,
    /// It is the kernel's page of zeros.
    ZeroPage,
    /// It is swapped out (or on its way to another place).
    Swapped,
}

// Categories and call of Linux's fs.h (6.7 and later).
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// `_IOWR('f', 16, struct pm_scan_arg)`: direction 3, 96 bytes.
const PAGEMAP_SCAN: libc::c_ulong = (3 << 30) | (96 << 16) | ((b'f' as libc::c_ulong) << 8) | 16;

#[repr(C)]
#[derive(Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ScanRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// Regions fetched by one call.
const REGIONS: usize = 512;
/// Above this many pages walked per page wanted, asking for single entries is cheaper than scanning the range: a walk
/// took about 5 ns per page, an entry 1.2 µs.
const SPARSE: u64 = 256;

/// The page tables of a process.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: File,
    /// Whether the kernel knows `PAGEMAP_SCAN`.
    scans: bool,
}

impl Pagemap {
    /// Opens the page map of a process.
    pub(super) fn open(pid: u32) -> io::Result<Pagemap> {
        Ok(Pagemap { file: File::open(format!("/proc/{pid}/pagemap"))?, scans: true })
    }

    /// Fills `presence` for the pages at `addresses`, ascending multiples of the page size.
    pub(super) fn query(&mut self, addresses: &[u64], presence: &mut [Presence]) -> io::Result<()> {
        let (Some(&first), Some(&last)) = (addresses.first(), addresses.last()) else { return Ok(()) };
        let span = (last - first) / PAGE_SIZE + 1;
        if self.scans && span <= SPARSE * addresses.len() as u64 {
            match self.scan(first..last + PAGE_SIZE, addresses, presence) {
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {
                    tracing::debug!("no PAGEMAP_SCAN here ({error}), reading pagemap entries");
                    self.scans = false;
                }
                Err(error) => return Err(error),
                // The scan walks even tables that are being torn down, and would report holes. The entry read fails
                // once that has begun, so what was scanned before it is sound.
                Ok(()) => return self.entries(&addresses[..1], &mut [Presence::None]),
            }
        }
        self.entries(addresses, presence)
    }

    fn scan(&self, range: std::ops::Range<u64>, addresses: &[u64], presence: &mut [Presence]) -> io::Result<()> {
        presence.fill(Presence::None);
        let mut regions = [ScanRegion::default(); REGIONS];
        let mut start = range.start;
        let mut at = 0;
        while start < range.end {
            let (found, walk_end) = self.scan_call(start..range.end, &mut regions)?;
            for region in &regions[..found] {
                at += addresses[at..].partition_point(|&address| address < region.start);
                while addresses.get(at).is_some_and(|&address| address < region.end) {
                    presence[at] = presence_of(region.categories);
                    at += 1;
                }
            }
            if walk_end <= start {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "PAGEMAP_SCAN did not advance"));
            }
            start = walk_end;
        }
        Ok(())
    }

    /// One call: the regions found, and how far the walk came.
    fn scan_call(&self, range: std::ops::Range<u64>, regions: &mut [ScanRegion]) -> io::Result<(usize, u64)> {
        let wanted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        let mut argument = ScanArgument {
            size: size_of::<ScanArgument>() as u64,
            start: range.start,
            end: range.end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            category_anyof_mask: wanted,
            return_mask: wanted | PAGE_IS_PFNZERO,
            ..ScanArgument::default()
        };
        // SAFETY: the argument is the struct this call takes, with its own size in it; `vec` points to `vec_len`
        // regions that live until the call returns. Without flags the call changes nothing in the process.
        let found = unsafe { libc::ioctl(self.file.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut argument) };
        usize::try_from(found).map(|found| (found, argument.walk_end)).map_err(|_| io::Error::last_os_error())
    }

    /// Reads single entries, neighbours together.
    fn entries(&self, addresses: &[u64], presence: &mut [Presence]) -> io::Result<()> {
        let mut buffer = [0_u8; super::BATCH_PAGES * 8];
        let pages: Vec<u64> = addresses.iter().map(|address| address / PAGE_SIZE).collect();
        for run in super::runs(&pages) {
            let bytes = &mut buffer[..run.len() * 8];
            self.file.read_exact_at(bytes, pages[run.start] * 8)?;
            for (entry, presence) in bytes.chunks_exact(8).zip(&mut presence[run]) {
                let entry = u64::from_ne_bytes(entry.try_into().expect("chunks of eight bytes"));
                *presence = match (entry >> 63 & 1, entry >> 62 & 1) {
                    (1, _) => Presence::Present,
                    (0, 1) => Presence::Swapped,
                    _ => Presence::None,
                };
            }
        }
        Ok(())
    }
}

fn presence_of(categories: u64) -> Presence {
    if categories & PAGE_IS_PFNZERO != 0 {
        Presence::ZeroPage
    } else if categories & PAGE_IS_PRESENT != 0 {
        Presence::Present
    } else {
        Presence::Swapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An anonymous mapping with every third page written.
    fn sparse(pages: usize) -> (*mut u8, u64) {
        let (prot, flags) = (rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE, rustix::mm::MapFlags::PRIVATE);
        // SAFETY: a fresh anonymous mapping, leaked until the test process ends.
        let address = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), pages * PAGE_SIZE as usize, prot, flags).unwrap()
        };
        // SAFETY: the mapping was just made with this length; 4 KiB pages keep its holes visible.
        unsafe {
            rustix::mm::madvise(address, pages * PAGE_SIZE as usize, rustix::mm::Advice::LinuxNoHugepage).unwrap();
            for page in (0..pages).step_by(3) {
                address.cast::<u8>().add(page * PAGE_SIZE as usize).write(1);
            }
        }
        (address.cast(), address as u64)
    }

    #[test]
    fn both_ways_agree_with_what_was_written() {
        let (_, base) = sparse(3000);
        let addresses: Vec<u64> = (0..3000).map(|page| base + page * PAGE_SIZE).collect();
        let mut pagemap = Pagemap::open(std::process::id()).unwrap();
        for scans in [true, false] {
            pagemap.scans = scans;
            let mut presence = vec![Presence::Swapped; 3000];
            pagemap.query(&addresses, &mut presence).unwrap();
            for (page, &found) in presence.iter().enumerate() {
                let expected = if page % 3 == 0 { Presence::Present } else { Presence::None };
                assert_eq!(found, expected, "page {page}, scan {scans}");
            }
        }
    }

    #[test]
    fn far_apart_pages_are_asked_one_by_one() {
        let (_, base) = sparse(3000);
        let addresses = [base, base + 1000 * PAGE_SIZE, base + 2001 * PAGE_SIZE];
        let mut presence = [Presence::Swapped; 3];
        Pagemap::open(std::process::id()).unwrap().query(&addresses, &mut presence).unwrap();
        assert_eq!(presence, [Presence::Present, Presence::None, Presence::Present]);
    }
}
