//! Reading shared memory through an own mapping that cannot fill a hole.
//!
//! Reading through a mapping spares the kernel's copy, which costs three times as much as hashing. But touching a hole of
//! a plain mapping allocates the page, and the guest may make a hole (a balloon) at any moment. So the mapping is
//! registered with userfaultfd: there the kernel raises SIGBUS in place of filling a hole, and [`super::fault`] makes a
//! copy that ends early of it. The guest's own mapping is another one and knows nothing of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::SealFlags;
use rustix::mm::UserfaultfdFlags;

use super::fault::{self, Caught};
use super::residency::Residency;

// Linux's userfaultfd.h.
const UFFD_USER_MODE_ONLY: u32 = 1;
const UFFD_API: u64 = 0xAA;
const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
/// `_IOWR(0xAA, 0x3F, struct uffdio_api)`: direction 3, 24 bytes.
const UFFDIO_API: libc::c_ulong = (3 << 30) | (24 << 16) | (0xAA << 8) | 0x3F;
/// `_IOWR(0xAA, 0x00, struct uffdio_register)`: direction 3, 32 bytes.
const UFFDIO_REGISTER: libc::c_ulong = (3 << 30) | (32 << 16) | (0xAA << 8);
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// A read-only mapping of a file in tmpfs whose holes stay holes.
///
/// Dropped in this order: the mapping never outlives what guards it.
#[derive(Debug)]
pub(super) struct GuardedMap {
    map: Residency,
    /// Holds the registration.
    _guard: OwnedFd,
    caught: Caught,
}

impl GuardedMap {
    /// Maps `size` bytes of a file that is open for writing, too: the kernel asks for that where somebody wants to hear
    /// of holes. Nothing is written.
    ///
    /// # Errors
    /// The kernel is older than 5.11, userfaultfd is not allowed here, the file's seals may still change, or it is not in
    /// tmpfs.
    pub(super) fn map(file: &File, size: u64) -> io::Result<GuardedMap> {
        // While a mapping like this one exists nobody can seal the file against writing, and its owner may want to.
        if !rustix::fs::fcntl_get_seals(file)?.contains(SealFlags::SEAL) {
            return Err(io::Error::other("the file may still be sealed"));
        }
        let caught = Caught::hold()?;
        let map = Residency::map(file, size)?;
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::from_bits_retain(UFFD_USER_MODE_ONLY);
        // SAFETY: nothing is registered yet, and only the mapping just made will be.
        let guard = unsafe { rustix::mm::userfaultfd(flags)? };
        let mut api = Api { api: UFFD_API, features: UFFD_FEATURE_SIGBUS | UFFD_FEATURE_MISSING_SHMEM, ioctls: 0 };
        // SAFETY: the argument is the struct this call takes.
        done(unsafe { libc::ioctl(guard.as_raw_fd(), UFFDIO_API as _, &raw mut api) })?;
        let (start, length) = map.span();
        let mode = UFFDIO_REGISTER_MODE_MISSING;
        let mut register = Register { start: start as u64, length: length as u64, mode, ioctls: 0 };
        // SAFETY: the argument is the struct this call takes; the range is the mapping, which only this value uses, and
        // which is never touched but by a copy that bears a SIGBUS.
        done(unsafe { libc::ioctl(guard.as_raw_fd(), UFFDIO_REGISTER as _, &raw mut register) })?;
        Ok(GuardedMap { map, _guard: guard, caught })
    }

    /// Which pages from `offset` on are in memory, as [`Residency::query`] tells.
    pub(super) fn query(&self, offset: u64, resident: &mut [u8]) -> io::Result<()> {
        self.map.query(offset, resident)
    }

    /// Lets the processor fetch a page that will be copied next. Whatever lies there, or does not: nothing is filled.
    pub(super) fn fetch(&self, offset: u64) {
        let (start, length) = self.map.span();
        if let Some(from) = usize::try_from(offset).ok().filter(|&from| from < length) {
            fault::fetch(start.wrapping_add(from));
        }
    }

    /// Copies what lies at `offset` of the file into `to`. False where there is a hole, nothing any more, or memory that
    /// is broken.
    pub(super) fn copy(&self, offset: u64, to: &mut [u8]) -> bool {
        let (start, length) = self.map.span();
        let offset = usize::try_from(offset).ok();
        let offset = offset.filter(|from| from.checked_add(to.len()).is_some_and(|end| end <= length));
        // SAFETY: the span was checked to lie inside the mapping, which is readable and unknown to Rust.
        offset.is_some_and(|offset| unsafe { self.caught.copy(start.add(offset), to) })
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::super::PAGE_SIZE;
    use super::*;

    const PAGE: usize = PAGE_SIZE as usize;

    /// As QEMU makes its memory: 10 pages whose seals are final.
    fn sealed_memfd() -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("test", flags).unwrap());
        file.set_len(10 * PAGE_SIZE).unwrap();
        file
    }

    fn blocks(file: &File) -> u64 {
        file.metadata().unwrap().blocks()
    }

    /// Nothing to check on machines that do not allow userfaultfd (some containers).
    fn map(file: &File) -> Option<GuardedMap> {
        GuardedMap::map(file, 10 * PAGE_SIZE).inspect_err(|error| eprintln!("no guarded mappings here: {error}")).ok()
    }

    fn punch(file: &File, page: u64) {
        let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(file, mode, page * PAGE_SIZE, PAGE_SIZE).unwrap();
    }

    #[test]
    fn a_hole_is_told_and_stays_one() {
        let file = sealed_memfd();
        file.write_all_at(&[7; PAGE], 3 * PAGE_SIZE).unwrap();
        let before = blocks(&file);
        let Some(map) = map(&file) else { return };
        let mut page = [0; PAGE];
        for _ in 0..2 {
            assert!(map.copy(3 * PAGE_SIZE, &mut page) && page == [7; PAGE]);
            assert!(!map.copy(4 * PAGE_SIZE, &mut page));
            [5, 9, 10, u64::MAX / PAGE_SIZE].into_iter().for_each(|page| map.fetch(page * PAGE_SIZE));
        }
        // One that was read before is gone as well once the guest gives it back.
        punch(&file, 3);
        assert!(!map.copy(3 * PAGE_SIZE, &mut page));
        assert_eq!((before, blocks(&file)), (8, 0));
    }

    #[test]
    fn a_file_that_shrinks_ends_the_copy_and_not_the_program() {
        let file = sealed_memfd();
        file.write_all_at(&[7; 10 * PAGE], 0).unwrap();
        let Some(map) = map(&file) else { return };
        file.set_len(5 * PAGE_SIZE).unwrap();
        let mut page = [0; PAGE];
        assert!(map.copy(4 * PAGE_SIZE, &mut page));
        assert!(!map.copy(5 * PAGE_SIZE, &mut page));
        assert!(!map.copy(10 * PAGE_SIZE, &mut page), "beyond what was mapped");
    }

    /// A guest that takes memory, and gives it back or loses it, while two threads look. Where a look brought one page
    /// back, the file would hold it.
    #[test]
    fn what_is_given_back_at_any_moment_stays_given_back() {
        let file = sealed_memfd();
        let Some(map) = map(&file) else { return };
        let (over, contents, holes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let look = || {
            let mut page = [0; PAGE];
            while !over.load(Ordering::Relaxed) {
                for number in 0..10 {
                    let there = map.copy(number * PAGE_SIZE, &mut page);
                    if there { &contents } else { &holes }.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let brought_back = std::thread::scope(|scope| {
            scope.spawn(look);
            scope.spawn(look);
            let both_seen = || [&contents, &holes].iter().all(|seen| seen.load(Ordering::Relaxed) > 100);
            let rounds = (0..100_000).take_while(|&round| round < 2_000 || !both_seen());
            let brought_back = rounds.filter(|round| {
                file.write_all_at(&[7; 10 * PAGE], 0).unwrap();
                if round % 2 == 0 {
                    (0..10).for_each(|page| punch(&file, page));
                } else {
                    file.set_len(0).unwrap();
                    file.set_len(10 * PAGE_SIZE).unwrap();
                }
                blocks(&file) != 0
            });
            let brought_back = brought_back.count();
            over.store(true, Ordering::Relaxed);
            brought_back
        });
        assert_eq!((brought_back, blocks(&file)), (0, 0));
        assert!(contents.into_inner() > 0 && holes.into_inner() > 0);
    }

    /// The kernel's letters: um, guarded by userfaultfd; dc, no child gets it; dd, no dump has it; rr, a look counts as
    /// no use.
    #[test]
    fn the_mapping_is_guarded_and_nobody_elses() {
        let file = sealed_memfd();
        let Some(map) = map(&file) else { return };
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", map.map.span().0 as usize);
        let entry: Vec<&str> = smaps.lines().skip_while(|line| !line.starts_with(&start)).collect();
        let access = entry[0].split_whitespace().nth(1);
        assert_eq!(access, Some("r--s"));
        let flags = entry.iter().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(["um", "dc", "dd", "rr"].iter().all(|flag| flags.contains(flag)), "{flags}");
        drop(map);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!maps.lines().any(|line| line.starts_with(&start) && line.contains("r--s")), "{maps}");
    }

    /// As in a container: the kernel refuses this thread one call.
    #[test]
    fn where_userfaultfd_is_refused_there_is_no_mapping() {
        // Where there is none anyway, there is nothing to refuse.
        let Some(_) = map(&sealed_memfd()) else { return };
        let load = |offset| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k: offset };
        let number = u32::try_from(libc::SYS_userfaultfd).unwrap();
        let give = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
        let mut program = [
            load(0),
            libc::sock_filter { code: 0x15, jt: 0, jf: 1, k: number },
            give(libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap()),
            give(libc::SECCOMP_RET_ALLOW),
        ];
        let refused = std::thread::spawn(move || {
            let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
            // SAFETY: binds this thread alone; the program is that long and lives through the call.
            unsafe {
                assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
                let mode = libc::SECCOMP_MODE_FILTER;
                assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter, 0, 0), 0);
            }
            GuardedMap::map(&sealed_memfd(), 10 * PAGE_SIZE).unwrap_err().raw_os_error()
        });
        assert_eq!(refused.join().unwrap(), Some(libc::EPERM));
    }

    #[test]
    fn a_file_that_may_yet_be_sealed_is_left_alone() {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("test", flags).unwrap());
        file.set_len(10 * PAGE_SIZE).unwrap();
        assert!(GuardedMap::map(&file, 10 * PAGE_SIZE).is_err());
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL).unwrap();
        assert_eq!(map(&file).is_some(), map(&sealed_memfd()).is_some());
    }
}
