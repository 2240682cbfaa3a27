//! This very process's memory, read as another's.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::*;

/// 100 pages, all of them holes.
fn sparse_memfd() -> File {
    let file = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    file.set_len(100 * PAGE_SIZE).unwrap();
    file
}

/// Those 100 pages as a block of this process, mapped until it ends.
fn mapped(file: &File, flags: MapFlags) -> Placement {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let address = unsafe { mmap(std::ptr::null_mut(), 100 * 4096, prot, flags, file, 0).unwrap() };
    let block = Block { name: "mapped".into(), length_bytes: 100 * PAGE_SIZE, guest_physical_address: None };
    Placement { block, address: Some(address as u64) }
}

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
    let file = sparse_memfd();
    file.write_all_at(&[5; 4096], 50 * PAGE_SIZE).unwrap();
    let placement = mapped(&file, MapFlags::PRIVATE);
    // SAFETY: the byte lies in a mapping that nobody else knows.
    unsafe { (placement.address.unwrap() as *mut u8).add(7 * 4096).write_volatile(9) };
    let blocks = file.metadata().unwrap().blocks();
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

#[test]
fn swap_that_is_turned_on_later_is_heeded() {
    for flags in [MapFlags::SHARED, MapFlags::PRIVATE] {
        let file = sparse_memfd();
        let placement = mapped(&file, flags);
        let mut memory = ProcessMemory::open_with(std::process::id(), &[placement], || false).unwrap();
        let asks = |memory: &ProcessMemory| match &memory.segments[0].reader {
            Reader::Shared(file) | Reader::Private(Beneath::File { file, .. }) => file.asks_residency(),
            other => panic!("{other:?}"),
        };
        memory.refresh().unwrap();
        assert!(!asks(&memory));
        memory.has_swap = || true;
        memory.refresh().unwrap();
        assert!(asks(&memory));
    }
}

/// Descriptors and mappings of this process that keep this file.
fn holds(file: &File) -> usize {
    let inode = file.metadata().unwrap().ino();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let same = |entry: &std::fs::DirEntry| std::fs::metadata(entry.path()).is_ok_and(|meta| meta.ino() == inode);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode.to_string()));
    descriptors.filter(same).count() + mapped.count()
}

#[test]
fn what_is_let_go_of_is_kept_by_nobody() {
    let file = sparse_memfd();
    let placement = mapped(&file, MapFlags::SHARED);
    let before = holds(&file);
    for swap in [|| false, || true] {
        let mut memory = ProcessMemory::open_with(std::process::id(), std::slice::from_ref(&placement), swap).unwrap();
        assert!(holds(&file) > before);
        memory.release();
        assert_eq!(holds(&file), before);
        let mut found = Vec::new();
        memory.look(&[7], &mut |_, look| found.push(look == Look::Unreadable)).unwrap();
        assert_eq!(found, [true]);
    }
}

/// Shared memory outlives its process for as long as somebody holds it: a scan of much of it must not.
#[test]
fn a_look_at_a_process_that_has_ended_says_so_at_once() {
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let file = sparse_memfd();
    let mut memory = ProcessMemory::open(child.id(), &[]).unwrap();
    let reader = Reader::Shared(shared_file(&file));
    memory.segments.push(Segment { pages: 0..100, origin: 0, reader });
    let mut look = || memory.look(&[0], &mut |_, look| assert_eq!(look, Look::Hole));
    look().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(look(), Err(MemoryError::Ended { .. })));
}

/// A file as opened behind a mapping of this process.
fn shared_file(file: &File) -> SharedFile {
    let meta = file.metadata().unwrap();
    let maps = of_process(std::process::id()).unwrap();
    mapped(file, MapFlags::SHARED);
    let now = of_process(std::process::id()).unwrap();
    let mapping = now.iter().find(|mapping| mapping.file == Some((meta.dev(), meta.ino())) && !maps.contains(mapping));
    SharedFile::open(std::process::id(), mapping.unwrap(), false).unwrap().unwrap()
}

#[test]
fn several_eyes_see_what_one_sees() {
    let file = sparse_memfd();
    file.write_all_at(&[5; 4096], 50 * PAGE_SIZE).unwrap();
    let placements = [MapFlags::SHARED, MapFlags::PRIVATE].map(|flags| mapped(&file, flags));
    // SAFETY: the byte lies in a mapping that nobody else knows.
    unsafe { (placements[1].address.unwrap() as *mut u8).add(7 * 4096).write_volatile(9) };
    let mut memory = ProcessMemory::open(std::process::id(), &placements).unwrap();
    let pages: Vec<u64> = (0..200).collect();
    let mut alone = Vec::new();
    memory.look(&pages, &mut |_, look| alone.push(format!("{look:?}"))).unwrap();
    let content = |byte: u8| alone.iter().filter(|look| look.starts_with(&format!("Content([{byte},"))).count();
    assert_eq!((alone.len(), content(5), content(9)), (200, 2, 1));
    let mut eyes = memory.eyes(3).unwrap();
    assert_eq!(eyes.len(), 3);
    let sees_the_same = |eye: &mut Box<dyn Eye + Send + '_>| {
        let mut seen = Vec::new();
        eye.look(&pages, &mut |_, look| seen.push(format!("{look:?}"))).unwrap();
        seen == alone
    };
    std::thread::scope(|scope| {
        let looks: Vec<_> = eyes.iter_mut().map(|eye| scope.spawn(|| sees_the_same(eye))).collect();
        assert!(looks.into_iter().all(|look| look.join().unwrap()));
    });
}
