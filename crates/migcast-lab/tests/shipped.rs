//! The recordings that come with the repository are whole, small and say how they were made.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_history::reader::History;
use migcast_lab::guest::Guest;
use migcast_lab::xen::guest as xen;

/// All of them together; a clone should stay quick.
const BYTES_MAX: u64 = 12_000_000;

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/histories");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut histories: Vec<_> = entries.filter(|path| path.join("manifest.json").exists()).collect();
    histories.sort();
    histories
}

/// The guest of a recording that was made on Xen.
fn on_xen(name: &str) -> Option<&'static xen::Guest> {
    name.strip_suffix("-xen").map(|name| xen::Guest::named(name).unwrap())
}

fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| if entry.path().is_dir() { bytes_below(&entry.path()) } else { entry.metadata().unwrap().len() })
        .sum()
}

#[test]
fn every_recording_is_whole_and_a_minute_long() {
    let histories = shipped();
    assert!(histories.len() >= 7, "{histories:?}");
    for dir in histories {
        let history = History::open(&dir).unwrap();
        assert!(history.problems().is_empty() && history.verify().is_empty(), "{}", dir.display());
        let name = dir.file_name().unwrap().to_str().unwrap();
        let checked = on_xen(name).is_none() && Guest::named(name).unwrap().pattern().is_some();
        assert!(!checked || history.manifest().sample.one_in == 1, "{}: a sample of the microbenchmark", dir.display());
        let recorded = history.timeline().unwrap().recorded_duration();
        assert!(recorded >= Duration::from_secs(59), "{}: {recorded:?}", dir.display());
    }
}

#[test]
fn every_recording_says_how_it_was_made() {
    for dir in shipped() {
        let name = dir.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(dir.join("MADE.md")).unwrap();
        let (about, command) = match on_xen(name) {
            Some(guest) => (guest.about, format!("migcast-lab xen verify --guest {} ", guest.name)),
            None => (
                Guest::named(name).unwrap().about,
                format!("migcast-lab record {name} --out testdata/histories/{name} "),
            ),
        };
        assert!(text.contains(&command), "{text}");
        // A guest that was changed since has to be recorded anew.
        assert!(text.contains(about), "{name}: MADE.md describes another guest than the catalogue");
    }
}

#[test]
fn together_they_stay_small() {
    let bytes: u64 = shipped().iter().map(|dir| bytes_below(dir)).sum();
    assert!(bytes <= BYTES_MAX, "{bytes} bytes, allowed are {BYTES_MAX}");
}
