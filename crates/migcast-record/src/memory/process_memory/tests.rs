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
