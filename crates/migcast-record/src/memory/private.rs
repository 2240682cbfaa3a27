//! Private memory: the process's own pages, read with `process_vm_readv` where its page tables say there are any.

use std::io;

use super::buffer::PageBuffer;
use super::pagemap::{Pagemap, Presence};
use super::shared::SharedFile;
use super::{Look, PAGE_SIZE, Sink};

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

/// Pages asked about and read in one piece. A call costs more than a microsecond; 64 pages a call took 1.15 times as long.
/// The kernel takes hold of all of them before it copies any.
const BATCH: usize = 256;

/// What is needed to read a process's own pages.
///
/// Reading a page that is not in memory would fetch or allocate it. So the page tables are asked anew for every
/// [`BATCH`] pages, and what they say is in memory is read at once: a page would have to go within about a
/// tenth of a millisecond for that to happen.
#[derive(Debug)]
pub(super) struct PrivateReader {
    pid: u32,
    pagemap: Pagemap,
    /// Where the pages of a batch lie, and what the page tables say of them.
    addresses: Vec<u64>,
    presence: Vec<Presence>,
    /// Addresses of those in memory, whether they could be read, and what they held, page by page.
    present: Vec<u64>,
    readable: Vec<bool>,
    contents: PageBuffer,
}

impl PrivateReader {
    /// Opens the page map of a process.
    pub(super) fn open(pid: u32) -> io::Result<PrivateReader> {
        Ok(PrivateReader {
            pid,
            pagemap: Pagemap::open(pid)?,
            addresses: Vec::new(),
            presence: Vec::new(),
            present: Vec::new(),
            readable: Vec::new(),
            contents: PageBuffer::new(BATCH),
        })
    }

    /// Looks at `pages`, of which page p lies at address `origin + p × PAGE_SIZE` (modulo 2^64).
    pub(super) fn look(
        &mut self,
        pages: &[u64],
        origin: u64,
        beneath: &Beneath,
        buffer: &mut [u8],
        sink: &mut Sink<'_>,
    ) -> io::Result<()> {
        for (batch, pages) in pages.chunks(BATCH).enumerate() {
            self.ask(pages, origin)?;
            self.read_present()?;
            let sink = &mut |index: usize, look: Look<'_>| sink(batch * BATCH + index, look);
            self.tell(pages, origin, beneath, buffer, sink);
        }
        Ok(())
    }

    /// Asks the page tables about a batch.
    fn ask(&mut self, pages: &[u64], origin: u64) -> io::Result<()> {
        self.addresses.clear();
        self.addresses.extend(pages.iter().map(|page| origin.wrapping_add(page * PAGE_SIZE)));
        self.presence.clear();
        self.presence.resize(pages.len(), Presence::None);
        self.pagemap.query(&self.addresses, &mut self.presence)
    }

    /// Reads the pages of a batch that are in memory, and no others, in as few calls as the kernel allows.
    fn read_present(&mut self) -> io::Result<()> {
        let page = PAGE_SIZE as usize;
        let in_memory =
            self.addresses.iter().zip(&self.presence).filter(|(_, presence)| **presence == Presence::Present);
        self.present.clear();
        self.present.extend(in_memory.map(|(&address, _)| address));
        self.readable.clear();
        while self.readable.len() < self.present.len() {
            let done = self.readable.len();
            let wanted = &self.present[done..];
            let read = read_pages(self.pid, wanted, &mut self.contents[done * page..][..wanted.len() * page])? / page;
            self.readable.resize(done + read, true);
            if read < wanted.len() {
                // The kernel stops at the first page it cannot read: it went away since the page tables were asked.
                self.readable.push(false);
            }
        }
        Ok(())
    }

    /// Tells of the pages of a batch in their order.
    fn tell(&mut self, pages: &[u64], origin: u64, beneath: &Beneath, buffer: &mut [u8], sink: &mut Sink<'_>) {
        let mut present = self.contents.chunks_exact(PAGE_SIZE as usize).zip(&self.readable);
        let mut at = 0;
        while at < pages.len() {
            let here = self.presence[at];
            let count = self.presence[at..].iter().take_while(|&&presence| presence == here).count();
            let run = at..at + count;
            match (here, beneath) {
                (Presence::Present, _) => run.zip(&mut present).for_each(|(index, (content, &readable))| {
                    sink(index, if readable { Look::Content(content) } else { Look::Unreadable });
                }),
                (Presence::Swapped, _) => run.for_each(|index| sink(index, Look::Absent)),
                (Presence::None, Beneath::File { file, shift }) => {
                    let sink = &mut |index: usize, look: Look<'_>| sink(at + index, look);
                    file.look(&pages[run], origin.wrapping_add(*shift), buffer, sink);
                }
                (Presence::ZeroPage, _) | (Presence::None, Beneath::Zero) => {
                    run.for_each(|index| sink(index, Look::Hole));
                }
            }
            at += count;
        }
    }
}

/// Reads whole pages at `addresses` one after another into `buffer`. Returns the bytes read, which may be fewer; an
/// error of a single page counts as nothing read.
fn read_pages(pid: u32, addresses: &[u64], buffer: &mut [u8]) -> io::Result<usize> {
    let mut remote: [libc::iovec; BATCH] = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
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

#[cfg(test)]
mod tests {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    /// Fresh private memory, leaked until the test process ends.
    struct Own {
        address: *mut u8,
        pages: usize,
    }

    impl Own {
        fn map(pages: usize, flags: MapFlags) -> io::Result<Own> {
            let prot = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a fresh mapping at an address of the kernel's choice.
            let address =
                unsafe { mmap_anonymous(std::ptr::null_mut(), pages * PAGE, prot, flags | MapFlags::PRIVATE)? };
            Ok(Own { address: address.cast(), pages })
        }

        /// In pages of 4 KiB.
        fn small(pages: usize) -> Own {
            let own = Own::map(pages, MapFlags::empty()).unwrap();
            own.advise(0..pages, Advice::LinuxNoHugepage);
            own
        }

        fn advise(&self, pages: std::ops::Range<usize>, advice: Advice) {
            assert!(pages.end <= self.pages);
            // SAFETY: the pages lie in the mapping, and nobody holds a reference into it.
            unsafe { madvise(self.address.add(pages.start * PAGE).cast(), pages.len() * PAGE, advice).unwrap() }
        }

        fn write(&self, page: usize) {
            assert!(page < self.pages);
            // SAFETY: the page lies in the mapping.
            unsafe { self.address.add(page * PAGE).write_volatile(7) }
        }

        /// Looks at these pages; `meanwhile` runs with each page that is told.
        fn look(&self, pages: &[u64], mut meanwhile: impl FnMut(usize)) -> Vec<&'static str> {
            let mut found = Vec::new();
            let mut buffer = vec![0; BATCH * PAGE];
            let mut reader = PrivateReader::open(std::process::id()).unwrap();
            let sink = &mut |index: usize, look: Look<'_>| {
                assert_eq!(index, found.len());
                found.push(match look {
                    Look::Content(bytes) if bytes[0] == 7 => "written",
                    Look::Content(_) => "zeros",
                    Look::Hole => "hole",
                    Look::Absent => "absent",
                    Look::Unreadable => "unreadable",
                });
                meanwhile(index);
            };
            reader.look(pages, self.address as u64, &Beneath::Zero, &mut buffer, sink).unwrap();
            found
        }

        fn presence(&self, page: usize) -> Presence {
            let mut presence = [Presence::Swapped];
            let address = self.address as u64 + page as u64 * PAGE_SIZE;
            Pagemap::open(std::process::id()).unwrap().query(&[address], &mut presence).unwrap();
            presence[0]
        }
    }

    #[test]
    fn pages_and_holes_are_told_in_their_order() {
        let own = Own::small(300);
        (0..300).filter(|page| page % 3 == 0).for_each(|page| own.write(page));
        for pages in [(0..300).collect::<Vec<u64>>(), (0..300).filter(|page| page % 7 < 2).collect()] {
            let expected: Vec<&str> = pages.iter().map(|page| if page % 3 == 0 { "written" } else { "hole" }).collect();
            assert_eq!(own.look(&pages, |_| {}), expected);
        }
    }

    #[test]
    fn a_page_given_back_during_a_look_is_not_brought_back() {
        const PAGES: usize = 3 * BATCH;
        let own = Own::small(PAGES);
        (0..PAGES).for_each(|page| own.write(page));
        let pages: Vec<u64> = (0..PAGES as u64).collect();
        // By the time the first page is told, its batch has been read and nothing else has been asked about.
        let found = own.look(&pages, |index| {
            if index == 0 {
                own.advise(BATCH..PAGES, Advice::LinuxDontNeed);
            }
        });
        assert!(found[..BATCH].iter().all(|&look| look == "written"));
        assert!(found[BATCH..].iter().all(|&look| look == "hole"), "{found:?}");
        assert!((BATCH..PAGES).all(|page| own.presence(page) == Presence::None));
    }

    #[test]
    fn a_page_that_cannot_be_read_does_not_hide_its_neighbours() {
        let own = Own::small(20);
        (0..20).for_each(|page| own.write(page));
        // SAFETY: the page lies in the mapping, and nobody holds a reference into it.
        unsafe { rustix::mm::mprotect(own.address.add(5 * PAGE).cast(), PAGE, rustix::mm::MprotectFlags::empty()) }
            .unwrap();
        let found = own.look(&(0..20).collect::<Vec<u64>>(), |_| {});
        let expected: Vec<&str> = (0..20).map(|page| if page == 5 { "unreadable" } else { "written" }).collect();
        assert_eq!(found, expected);
    }

    /// A huge page that is not there is never read: that would take one from the pool. Machines without huge pages
    /// (`/proc/sys/vm/nr_hugepages`, `nr_overcommit_hugepages`) have nothing to check here.
    #[test]
    fn huge_pages_that_are_not_there_are_not_taken() {
        const HUGE: usize = 512;
        let Ok(own) = Own::map(3 * HUGE, MapFlags::HUGETLB | MapFlags::HUGE_2MB) else {
            eprintln!("no huge pages on this machine");
            return;
        };
        own.write(0);
        own.write(2 * HUGE);
        let pages: Vec<u64> = (0..3 * HUGE as u64).collect();
        let found = own.look(&pages, |index| {
            if index == 0 {
                own.advise(2 * HUGE..3 * HUGE, Advice::LinuxDontNeed);
            }
        });
        assert_eq!((found[0], found[1], found[HUGE - 1]), ("written", "zeros", "zeros"));
        assert!(found[HUGE..].iter().all(|&look| look == "hole"), "{found:?}");
        let presence: Vec<Presence> = (0..3).map(|huge| own.presence(huge * HUGE)).collect();
        assert_eq!(presence, [Presence::Present, Presence::None, Presence::None]);
    }
}
