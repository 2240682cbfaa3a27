//! Histories as each version of the format wrote them, kept for ever: every later program must read them the same.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use migcast_history::export::{pages_csv, windows_csv};
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use support::{Recording, manifest};

fn room(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format").join(version)
}

/// What the history says, as text: both exports, the zero map before each window in runs, and the index.
fn text(history: &History) -> String {
    let mut text = Vec::new();
    windows_csv(history, &mut text).unwrap();
    pages_csv(history, &mut text).unwrap();
    let mut text = String::from_utf8(text).unwrap();
    text += "window,zero ranks before it\n";
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window().unwrap() {
        let runs: Vec<String> = view.zero_at_start.iter().map(|run| format!("{}-{}", run.start, run.end)).collect();
        text += &format!("{},{}\n", view.index, runs.join(" "));
    }
    text += "window,band,bucket,events\n";
    for row in history.segments().iter().flat_map(|segment| history.index(segment).unwrap()) {
        text += &format!("{},{},{},{}\n", row.window, row.band, row.bucket, row.events);
    }
    text
}

/// Checks that the history of a version is whole and says what it said when it was written. Returns that.
fn read_as_written(room: &Path) -> String {
    let history = History::open(&room.join("history")).unwrap();
    assert!(history.problems().is_empty() && history.verify().is_empty());
    assert_eq!(history.segments().len(), 2);
    let content = fs::read_to_string(room.join("content.txt")).unwrap();
    assert_eq!(text(&history), content);
    assert_eq!(history.wws_index(0..u32::MAX).unwrap().windows(), history.timeline().unwrap().recorded().count());
    content
}

/// Its index is made from its pages.
#[test]
fn version_1_is_read_as_it_was_written() {
    read_as_written(&room("v1"));
}

#[test]
fn version_3_is_read_as_it_was_written() {
    read_as_written(&room("v3"));
}

/// Its pages are written in windows on end, too.
#[test]
fn version_4_is_read_as_it_was_written() {
    let content = read_as_written(&room("v4"));
    assert!(content.lines().any(|row| row.split(',').nth(1) == Some("65")), "some runs go on");
}

/// Events of its bands are by cell; see `windows_of_octave` in the model.
#[test]
fn version_5_is_read_as_it_was_written() {
    let room = room("v5");
    if std::env::var_os("MIGCAST_WRITE_FORMAT_V5").is_some() && !room.exists() {
        let sample = Sample { one_in: 3, seed: 42 };
        let mut made = Recording::made_up_every(manifest(&[400, 0, 90], sample), 1, 45, 25, 2_500_000_000);
        made.write_on_end(7);
        made.write(&room.join("history")).unwrap();
        fs::write(room.join("content.txt"), text(&History::open(&room.join("history")).unwrap())).unwrap();
    }
    read_as_written(&room);
}
