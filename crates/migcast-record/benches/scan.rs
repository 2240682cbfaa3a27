//! What a scan costs against reading the same memory and nothing else, in one run: `cargo xtask bench scan`.
//!
//! ```text
//! read    this process adds up the memory through its own mapping: no kernel, no hash. The machine's bandwidth.
//! copy    the kernel copies it (pread, process_vm_readv), 1 MiB at a time, and nobody looks at the copy
//! scan    what the recorder does with another process's memory: ask, read, hash, compare
//! ```
//! One thread, and its CPU time, because others may be using the machine. All pages hold random bytes, and there is more
//! memory than cache. The three take turns in each round; shares are medians of what they are within a round.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use migcast_history::format::Block;
use migcast_history::sample::{Sample, Tracked};
use migcast_record::{PAGE_SIZE, Placement, ProcessMemory, Scanner};
use rustix::fs::MemfdFlags;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use rustix::time::{ClockId, clock_gettime};

const BYTES: usize = 1 << 30;
const ROUNDS: usize = 9;
/// Smaller and larger pieces were copied more slowly: what a call costs counts, and so does the cache.
const COPY_BYTES: usize = 1 << 20;
/// The sample whose cost per page is told beside that of a full scan.
const ONE_IN: u32 = 16;

fn main() {
    println!(
        "1 GiB of random bytes, one thread's CPU time, medians of {ROUNDS} rounds; GB/s, and ns for a tracked page"
    );
    println!(
        "{:26} {:>6} {:>6} {:>6} {:>10} {:>10} {:>6} {:>6}",
        "memory", "read", "copy", "scan", "scan/read", "copy/read", "all", "1/16"
    );
    let file = File::from(rustix::fs::memfd_create("bench", MemfdFlags::CLOEXEC).expect("a memfd can be made"));
    file.set_len(BYTES as u64).expect("a memfd can be as large as memory");
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let shared = unsafe {
        rustix::mm::mmap(std::ptr::null_mut(), BYTES, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)
    };
    let shared = Held::filled(shared.expect("there is 1 GiB of memory"));
    measure("shared (memfd)", &shared, &mut |from, to| file.read_exact_at(to, from as u64).expect("it is all there"));
    drop(shared);
    for (name, advice) in
        [("private, pages of 4 KiB", Advice::LinuxNoHugepage), ("private, huge pages", Advice::LinuxHugepage)]
    {
        let private = Held::private(advice);
        measure(name, &private, &mut |from, to| copy_private(private.address as usize + from, to));
    }
}

/// Memory of this process.
struct Held {
    address: *mut u8,
}

impl Held {
    fn private(advice: Advice) -> Held {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let address = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), BYTES, prot, MapFlags::PRIVATE) };
        let address = address.expect("there is 1 GiB of memory");
        // SAFETY: the mapping was just made, and nobody refers to it yet.
        if let Err(error) = unsafe { rustix::mm::madvise(address, BYTES, advice) } {
            eprintln!("pages are as large as the machine likes: {error}");
        }
        Held::filled(address)
    }

    /// Takes over a mapping of [`BYTES`] bytes, and fills it.
    fn filled(address: *mut libc::c_void) -> Held {
        let held = Held { address: address.cast() };
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        // SAFETY: the mapping is writable, that long, and nobody else refers to it.
        let words = unsafe { std::slice::from_raw_parts_mut(address.cast::<u64>(), BYTES / 8) };
        for word in words {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state;
        }
        held
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping lives as long as this value, and nobody writes to it any more.
        unsafe { std::slice::from_raw_parts(self.address, BYTES) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: nobody refers to the mapping any more.
        unsafe { rustix::mm::munmap(self.address.cast(), BYTES) }.expect("it was mapped");
    }
}

/// Prints a row. `copy` fills a buffer with what lies at a byte of the memory.
fn measure(name: &str, held: &Held, copy: &mut dyn FnMut(usize, &mut [u8])) {
    let block = Block { name: name.into(), length_bytes: BYTES as u64, guest_physical_address: None };
    let placement = Placement { block: block.clone(), address: Some(held.address as u64) };
    let mut memory = ProcessMemory::open(std::process::id(), &[placement]).expect("a process may look at itself");
    let [mut all, mut some] = [Sample::full(), Sample { one_in: ONE_IN, seed: 1 }].map(|sample| {
        let tracked = Tracked::new(std::slice::from_ref(&block), PAGE_SIZE, sample).expect("1 GiB can be tracked");
        Scanner::new(tracked)
    });
    let mut scan = |scanner: &mut Scanner| {
        let scan = scanner.scan(&mut memory).expect("it can be read");
        assert_eq!((scan.written.len(), scan.unreadable), (0, 0), "nobody writes, and all can be read");
    };
    // The first look at a page costs more.
    scan(&mut all);
    let mut store = vec![0; COPY_BYTES + PAGE_SIZE as usize];
    let start = store.as_ptr().align_offset(PAGE_SIZE as usize);
    let buffer = &mut store[start..][..COPY_BYTES];
    let mut seconds: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        seconds[0].push(time(|| {
            black_box(sum(held.bytes()));
        }));
        seconds[1].push(time(|| {
            for from in (0..BYTES).step_by(COPY_BYTES) {
                copy(from, buffer);
                black_box(&*buffer);
            }
        }));
        seconds[2].push(time(|| scan(&mut all)));
        seconds[3].push(time(|| scan(&mut some)));
    }
    let shares = [1, 2]
        .map(|what| median(seconds[0].iter().zip(&seconds[what]).map(|(read, other)| 100.0 * read / other).collect()));
    let [read, copied, scanned, sampled] = seconds.map(median);
    let speed = |seconds: f64| BYTES as f64 / seconds / 1e9;
    let cost = |seconds: f64, pages: u32| seconds * 1e9 / f64::from(pages);
    println!(
        "{name:26} {:6.1} {:6.1} {:6.1} {:9.0}% {:9.0}% {:6.0} {:6.0}",
        speed(read),
        speed(copied),
        speed(scanned),
        shares[1],
        shares[0],
        cost(scanned, all.tracked()),
        cost(sampled, some.tracked())
    );
}

/// Eight sums side by side, which the compiler makes vectors of.
fn sum(bytes: &[u8]) -> u64 {
    let mut sums = [0_u64; 8];
    for line in bytes.chunks_exact(64) {
        for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(word.try_into().expect("chunks of eight bytes")));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

fn copy_private(from: usize, to: &mut [u8]) {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: the local vector is the buffer; the remote address is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) };
    assert_eq!(usize::try_from(read), Ok(to.len()), "it is all there");
}

fn time(work: impl FnOnce()) -> f64 {
    let used = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let before = used();
    work();
    used() - before
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
