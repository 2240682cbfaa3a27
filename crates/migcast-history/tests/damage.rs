//! Whatever happens to its files, a history says so in one line and never panics.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use migcast_history::damage::{Problem, ReadError};
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use support::{Chance, Recording, line, manifest};
use tempfile::TempDir;

const TABLES: [&str; 5] = ["windows", "pages", "zero", "bands", "wws"];

/// A history of three segments.
fn history() -> (TempDir, Recording) {
    let made = Recording::made_up_every(manifest(&[200, 60], Sample::full()), 11, 90, 12, 2_000_000_000);
    let dir = tempfile::tempdir().unwrap();
    made.write(dir.path()).unwrap();
    assert_eq!(History::open(dir.path()).unwrap().segments().len(), 3);
    (dir, made)
}

fn file(dir: &Path, table: &str, segment: u32) -> PathBuf {
    dir.join(table).join(format!("{segment:06}.parquet"))
}

fn assert_one_line(text: &str, must_have: &str) {
    assert!(!text.contains('\n') && text.contains(must_have), "{text:?} lacks {must_have:?}");
}

/// Segment 1 must be found damaged, and the others be readable.
fn expect_segment_1_left_out(dir: &Path, what: &str) {
    let history = History::open(dir).unwrap().without_damaged();
    let numbers: Vec<u32> = history.segments().iter().map(|segment| segment.number()).collect();
    assert_eq!(numbers, [0, 2], "{what}");
    let problems: Vec<String> = history.problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{what}: {problems:?}");
    assert_one_line(&problems[0], "segment 1 is not used: ");
    assert!(history.page_replay(0..u32::MAX).is_ok());
}

#[test]
fn a_file_cut_anywhere_is_found() {
    let (dir, _) = history();
    for table in TABLES {
        let path = file(dir.path(), table, 1);
        let whole = fs::read(&path).unwrap();
        let step = (whole.len() / 97).max(1);
        for length in (0..whole.len()).step_by(step).chain(whole.len() - 9..whole.len()) {
            fs::write(&path, &whole[..length]).unwrap();
            expect_segment_1_left_out(dir.path(), &format!("{table} cut to {length}"));
        }
        let longer = [&whole[..], b"PAR1"].concat();
        fs::write(&path, longer).unwrap();
        expect_segment_1_left_out(dir.path(), &format!("{table} grown"));
        fs::write(&path, whole).unwrap();
    }
    assert!(History::open(dir.path()).unwrap().verify().is_empty());
}

#[test]
fn a_flipped_bit_is_found() {
    let (dir, _) = history();
    let mut chance = Chance(5);
    for table in TABLES {
        let path = file(dir.path(), table, 1);
        let whole = fs::read(&path).unwrap();
        // The commit mark is the one file no other vouches for: every third byte of it.
        let flips = if table == "wws" { whole.len() / 3 } else { 60 };
        for flip in 0..flips {
            let byte = if table == "wws" { flip * 3 } else { chance.below(whole.len() as u64) as usize };
            let mut changed = whole.clone();
            changed[byte] ^= 1 << chance.below(8);
            fs::write(&path, &changed).unwrap();
            expect_segment_1_left_out(dir.path(), &format!("bit in byte {byte} of {table}"));
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_file_of_chance_bytes_is_found() {
    let (dir, _) = history();
    let mut chance = Chance(6);
    for table in TABLES {
        let path = file(dir.path(), table, 1);
        let whole = fs::read(&path).unwrap();
        for _ in 0..40 {
            // The frame of a Parquet file stays, so that its reader goes on into the noise.
            let mut noise: Vec<u8> = (0..whole.len()).map(|_| chance.next() as u8).collect();
            let keep = 8 + chance.below(whole.len() as u64 - 16) as usize;
            noise[..4].copy_from_slice(b"PAR1");
            noise[keep..].copy_from_slice(&whole[keep..]);
            fs::write(&path, &noise).unwrap();
            expect_segment_1_left_out(dir.path(), table);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_missing_file_is_named() {
    let (dir, _) = history();
    for table in ["windows", "pages", "zero"] {
        let path = file(dir.path(), table, 1);
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let history = History::open(dir.path()).unwrap();
        let problem = history.problems()[0].to_string();
        assert_one_line(&problem, &format!("{table}/000001.parquet"));
        assert_one_line(&problem, "the file is missing");
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_segment_without_its_mark_is_missing_and_the_zero_map_stays_right() {
    let (dir, made) = history();
    for table in TABLES {
        fs::remove_file(file(dir.path(), table, 1)).unwrap();
    }
    let history = History::open(dir.path()).unwrap();
    assert_eq!(history.problems().iter().map(ToString::to_string).collect::<Vec<_>>(), ["segment 1 is missing"]);
    let maps = made.zero_maps();
    let mut stream = history.stream(0..u32::MAX);
    let mut map: std::collections::BTreeSet<u64> = made.zero_at_start.iter().copied().collect();
    while let Some(view) = stream.next_window().unwrap() {
        for change in view.zero_changes {
            let page = u64::from(change.rank);
            if change.zero {
                map.insert(page)
            } else {
                map.remove(&page)
            };
        }
        assert_eq!(map, maps[view.index as usize + 1], "window {}", view.index);
    }
}

#[test]
fn segments_of_another_guest_are_refused() {
    let (dir, made) = history();
    let other = tempfile::tempdir().unwrap();
    let mut foreign = made;
    foreign.manifest.guest_id = "00000000-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
    foreign.write(other.path()).unwrap();
    for table in TABLES {
        let path = file(dir.path(), table, 1);
        let own = fs::read(&path).unwrap();
        fs::copy(file(other.path(), table, 1), &path).unwrap();
        let history = History::open(dir.path()).unwrap().without_damaged();
        let problem = history.problems()[0].to_string();
        assert_one_line(&problem, "belongs to guest 00000000-10b1-426f-9247-bb680e5fe0c8, not to 67e55044");
        fs::write(&path, own).unwrap();
    }
}

#[test]
fn a_segment_under_another_number_is_refused() {
    let (dir, _) = history();
    for table in TABLES {
        fs::copy(file(dir.path(), table, 1), file(dir.path(), table, 7)).unwrap();
    }
    let history = History::open(dir.path()).unwrap();
    assert_eq!(history.segments().len(), 3);
    assert_one_line(&history.problems()[0].to_string(), "segment 7 is not used: ");
}

#[test]
fn an_open_segment_is_reported_with_what_is_lost() {
    let (dir, _) = history();
    fs::remove_file(file(dir.path(), "wws", 2)).unwrap();
    let history = History::open(dir.path()).unwrap();
    assert_eq!(history.segments().len(), 2);
    assert!(matches!(history.problems(), [Problem::Lost { segment: 2, after: Some(_) }]));
    assert_one_line(&history.problems()[0].to_string(), "segment 2 was not closed");
}

#[test]
fn damage_met_while_reading_is_one_line_that_names_the_cure() {
    let (dir, _) = history();
    let path = file(dir.path(), "pages", 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = History::open(dir.path()).unwrap().page_replay(0..u32::MAX).unwrap_err();
    assert_one_line(&line(&error), "pages/000001.parquet: damaged; take the files of this number away");
    // Segments that are not asked for are not read.
    assert!(History::open(dir.path()).unwrap().page_replay(0..20).is_ok());
}

#[test]
fn more_pages_than_a_replay_can_number_are_one_line() {
    let (dir, _) = history();
    let huge = manifest(&[(1 << 30) + 1], Sample::full());
    fs::write(dir.path().join("manifest.json"), serde_json::to_vec(&huge).unwrap()).unwrap();
    let error = History::open(dir.path()).unwrap().page_replay(0..1).unwrap_err();
    assert_one_line(&line(&error), "1073741825 tracked pages, a page replay takes up to 1073741824");
}

#[test]
fn every_damaged_manifest_is_one_line() {
    let (dir, _) = history();
    let path = dir.path().join("manifest.json");
    let whole = fs::read(&path).unwrap();
    let mut chance = Chance(8);
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let error = History::open(dir.path()).unwrap_err();
        assert_one_line(&line(&error), "manifest.json: not a history manifest: ");
    }
    for byte in 0..whole.len() {
        let mut changed = whole.clone();
        changed[byte] ^= 1 << chance.below(8);
        fs::write(&path, &changed).unwrap();
        if let Err(error) = History::open(dir.path()) {
            assert_one_line(&line(&error), "manifest.json");
        }
    }
    fs::remove_file(&path).unwrap();
    assert_one_line(&line(&History::open(dir.path()).unwrap_err()), "not a migcast history (no manifest.json in it)");
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(History::open(&nowhere), Err(ReadError::Manifest(_))));
    assert_one_line(&line(&History::open(&nowhere).unwrap_err()), "nowhere");
}

#[test]
fn a_newer_history_is_named_as_such_even_with_unknown_fields() {
    let (dir, _) = history();
    fs::write(dir.path().join("manifest.json"), r#"{"format": "migcast.history/6", "guests": []}"#).unwrap();
    let error = History::open(dir.path()).unwrap_err();
    assert_one_line(&line(&error), "history format 6 is newer than this program reads (up to 5)");
}
