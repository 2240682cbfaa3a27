//! Segments with chance changes and right seals: what is behind the seals must stand by itself.
use std::fs;
use std::path::{Path, PathBuf};

use crate::reader::History;
use crate::seal;
use crate::segment::{self, FileMark, TABLES, WWS};
use crate::table::Table;

/// The corpus: a history that is kept for ever.
fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v1/history")
}

/// splitmix64.
fn chance(state: &mut u64) -> usize {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 1) as usize
}

/// Changes a few bytes in one of the ways that find the weak places of decoders.
fn mutate(bytes: &mut [u8], state: &mut u64) {
    for _ in 0..1 + chance(state) % 3 {
        let at = chance(state) % bytes.len();
        match chance(state) % 5 {
            0 => bytes[at] ^= 1 << (chance(state) % 8),
            1 => bytes[at] = chance(state) as u8,
            2 => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][chance(state) % 5],
            3 => {
                let end = (at + 1 + chance(state) % 8).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
            _ => {
                let from = chance(state) % bytes.len();
                let length = (1 + chance(state) % 16).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
}

/// Seals changed bytes anew, if the place for it is still there.
fn reseal(bytes: &mut [u8]) -> bool {
    let Some(place) = seal::place(bytes) else { return false };
    bytes[place].copy_from_slice(seal::OPEN.as_bytes());
    seal::seal(bytes);
    true
}

/// Puts a changed file into a history and has the commit mark vouch for it.
fn put(dir: &Path, table: &Table, old: &[u8], new: &[u8]) {
    fs::write(segment::path(dir, table, 0), new).unwrap();
    if table.name == WWS.name {
        return;
    }
    let mut wws = fs::read(segment::path(&corpus(), &WWS, 0)).unwrap();
    let [old, new] = [old, new].map(|bytes| FileMark::of(table, bytes).xxh3_64);
    let at = wws.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
    wws[at..at + new.len()].copy_from_slice(new.as_bytes());
    assert!(reseal(&mut wws));
    fs::write(segment::path(dir, &WWS, 0), wws).unwrap();
}

#[test]
fn no_sealed_nonsense_is_more_than_a_damaged_segment() {
    let dir = tempfile::tempdir().unwrap();
    for table in TABLES {
        fs::create_dir(dir.path().join(table.name)).unwrap();
        fs::copy(segment::path(&corpus(), table, 0), segment::path(dir.path(), table, 0)).unwrap();
    }
    fs::copy(corpus().join("manifest.json"), dir.path().join("manifest.json")).unwrap();
    let (mut state, mut read, mut refused) = (1, 0, 0);
    for round in 0..1_600 {
        let table = TABLES[round % 4];
        let old = fs::read(segment::path(&corpus(), table, 0)).unwrap();
        let mut new = old.clone();
        mutate(&mut new, &mut state);
        if !reseal(&mut new) {
            continue;
        }
        put(dir.path(), table, &old, &new);
        let history = History::open(dir.path()).unwrap().without_damaged();
        for problem in history.problems() {
            assert!(!problem.to_string().contains('\n'), "{problem}");
        }
        if history.segments().is_empty() {
            refused += 1
        } else {
            read += 1
        }
        for table in TABLES {
            fs::copy(segment::path(&corpus(), table, 0), segment::path(dir.path(), table, 0)).unwrap();
        }
    }
    // Bytes that mean nothing to the reader (statistics, say) may change; but most do mean something.
    assert!(refused > read && read > 0, "{refused} refused, {read} read");
    println!("{refused} refused, {read} read");
}
