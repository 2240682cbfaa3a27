//! Private memory: the process's own pages, read with `process_vm_readv` where its page tables say there are any.

use std::io;

use super::pagemap::{Pagemap, Presence};
use super::shared::SharedFile;
use super::{BATCH_PAGES, Look, PAGE_SIZE, Sink};

/// What a page holds that the process has not got in its page tables.
#[derive(Debug)]
pub(super) enum Beneath {
    /// Nothing: it reads as zero.
    Zero,
    /// The page of a file that is mapped privately, from this byte of it on.
    File {
        /// The file.
        file: SharedFile,
        /// What to add to an address to get the byte of the file that is mapped there (modulo 2^64).
        shift: u64,
    },
}

/// What is needed to read a process's own pages.
#[derive(Debug)]
pub(super) struct PrivateReader {
    pid: u32,
    pagemap: Pagemap,
    addresses: Vec<u64>,
    presence: Vec<Presence>,
}

impl PrivateReader {
    /// Opens the page map of a process.
    pub(super) fn open(pid: u32) -> io::Result<PrivateReader> {
        Ok(PrivateReader { pid, pagemap: Pagemap::open(pid)?, addresses: Vec::new(), presence: Vec::new() })
    }

    /// Looks at `pages`, of which page p lies at address `origin + p × PAGE_SIZE` (modulo 2^64).
    pub(super) fn look(
        &mut self,
        pages: &[u64],
        origin: u64,
        beneath: &mut Beneath,
        buffer: &mut [u8],
        sink: &mut Sink<'_>,
    ) -> io::Result<()> {
        self.addresses.clear();
        self.addresses.extend(pages.iter().map(|page| origin.wrapping_add(page * PAGE_SIZE)));
        self.presence.clear();
        self.presence.resize(pages.len(), Presence::None);
        self.pagemap.query(&self.addresses, &mut self.presence)?;
        let mut at = 0;
        while at < pages.len() {
            let here = self.presence[at];
            let count = self.presence[at..].iter().take(BATCH_PAGES).take_while(|&&presence| presence == here).count();
            match (here, &mut *beneath) {
                (Presence::Present, _) => self.read_present(at, count, buffer, sink)?,
                (Presence::Swapped, _) => (at..at + count).for_each(|index| sink(index, Look::Absent)),
                (Presence::None, Beneath::File { file, shift }) => {
                    let sink = &mut |index: usize, look: Look<'_>| sink(at + index, look);
                    file.look(&pages[at..at + count], origin.wrapping_add(*shift), buffer, sink);
                }
                (Presence::ZeroPage, _) | (Presence::None, Beneath::Zero) => {
                    (at..at + count).for_each(|index| sink(index, Look::Hole));
                }
            }
            at += count;
        }
        Ok(())
    }

    /// Reads `count` pages that are in memory, in as few calls as the kernel allows.
    fn read_present(&self, first: usize, count: usize, buffer: &mut [u8], sink: &mut Sink<'_>) -> io::Result<()> {
        let page = PAGE_SIZE as usize;
        let mut done = 0;
        while done < count {
            let wanted = &self.addresses[first + done..first + count];
            let read = read_pages(self.pid, wanted, &mut buffer[..wanted.len() * page])? / page;
            for (index, content) in buffer[..read * page].chunks_exact(page).enumerate() {
                sink(first + done + index, Look::Content(content));
            }
            done += read;
            if done < count && read < wanted.len() {
                // The kernel stops at the first page it cannot read: it went away since the page tables were asked.
                sink(first + done, Look::Unreadable);
                done += 1;
            }
        }
        Ok(())
    }
}

/// Reads whole pages at `addresses` one after another into `buffer`. Returns the bytes read, which may be fewer; an
/// error of a single page counts as nothing read.
fn read_pages(pid: u32, addresses: &[u64], buffer: &mut [u8]) -> io::Result<usize> {
    let mut remote: [libc::iovec; BATCH_PAGES] =
        [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH_PAGES];
    let mut pieces = 0;
    for (index, &address) in addresses.iter().enumerate() {
        if index > 0 && addresses[index - 1] + PAGE_SIZE == address {
            remote[pieces - 1].iov_len += PAGE_SIZE as usize;
        } else {
            remote[pieces] = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: PAGE_SIZE as usize };
            pieces += 1;
        }
    }
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let id = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: the local vector is the buffer, with its length; the remote addresses are the other process's and are
    // checked by the kernel; `pieces` counts initialised entries.
    let read = unsafe { libc::process_vm_readv(id, &raw const local, 1, remote.as_ptr(), pieces as libc::c_ulong, 0) };
    match usize::try_from(read) {
        Ok(read) => Ok(read),
        Err(_) => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EFAULT) => Ok(0),
            error => Err(error),
        },
    }
}
