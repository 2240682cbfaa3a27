//! Which pages of a file are in memory.

use std::io;
use std::os::fd::AsFd;

use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::PAGE_SIZE;

/// An own mapping of a file, to ask which of its pages are in memory. Nothing here touches it.
#[derive(Debug)]
pub(super) struct Residency {
    address: *mut libc::c_void,
    length: usize,
}

// SAFETY: the address is only handed to the kernel, or read by copies that do not mind who writes there meanwhile.
unsafe impl Send for Residency {}
// SAFETY: as above.
unsafe impl Sync for Residency {}

impl Residency {
    /// Maps all `size` bytes of a file, read-only, whole pages.
    ///
    /// A guest's memory must not be kept by a child of this process, must not go into a dump of it (which would be a look
    /// at every page, holes included), and reading it says nothing about what its owner will want next.
    pub(super) fn map(file: impl AsFd, size: u64) -> io::Result<Residency> {
        let length = usize::try_from(size).ok().and_then(|size| size.checked_next_multiple_of(PAGE_SIZE as usize));
        let length = length.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a fresh mapping at an address of the kernel's choice, never dereferenced.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let map = Residency { address, length };
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump, Advice::Random] {
            // SAFETY: the range is the mapping just made; none of these changes what is in it.
            unsafe { rustix::mm::madvise(address, length, advice)? };
        }
        Ok(map)
    }

    /// Where the mapping lies and how long it is, in bytes, a multiple of the page size.
    pub(super) fn span(&self) -> (*const u8, usize) {
        (self.address.cast(), self.length)
    }

    /// Fills one byte per page from `offset` (a multiple of the page size): bit 0 says whether it is in memory.
    pub(super) fn query(&self, offset: u64, resident: &mut [u8]) -> io::Result<()> {
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
