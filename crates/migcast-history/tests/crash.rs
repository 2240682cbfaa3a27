//! A recorder that is killed, or whose disk fills up, loses the open segment and nothing else.
//!
//! The recorders are this test binary itself, started again with [`ROLE`] in its environment.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use migcast_history::damage::Problem;
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use migcast_history::writer::Writer;
use support::{Chance, Recording, line, manifest, read_back};

/// Tells this binary to be a recorder, and where to write.
const ROLE: &str = "MIGCAST_TEST_RECORD_TO";
/// Limits the length of a file the recorder may write, in bytes.
const FILE_LIMIT: &str = "MIGCAST_TEST_FILE_BYTES_MAX";

/// 35 segments of at most 7 windows.
fn recording() -> Recording {
    Recording::made_up_every(manifest(&[120, 40], Sample::full()), 21, 240, 30, 9_000_000_000)
}

/// Not a test of its own: the recorder, when this binary is started as one. Prints a line before each window.
#[test]
fn recorder() {
    let Some(dir) = std::env::var_os(ROLE) else { return };
    let made = recording();
    if let Ok(limit) = std::env::var(FILE_LIMIT) {
        let limit = Some(limit.parse().unwrap());
        let limit = rustix::process::Rlimit { current: limit, maximum: limit };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    }
    let write = || {
        println!("creating");
        let mut writer = Writer::create(Path::new(&dir), made.manifest.clone(), &made.zero_at_start)?;
        for window in &made.windows {
            println!("window");
            writer.push(window.new_window())?;
        }
        println!("finishing");
        writer.finish()
    };
    if let Err(error) = write() {
        println!("failed: {}", line(&error));
    }
}

fn start_recorder(dir: &Path, file_limit: Option<u64>) -> Child {
    // Past its file limit a process is killed by SIGXFSZ unless it ignores that; a full disk only makes writes fail.
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap '' XFSZ; exec "$@""#, "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["recorder", "--exact", "--nocapture"]).env(ROLE, dir).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(limit) = file_limit {
        command.env(FILE_LIMIT, limit.to_string());
    }
    command.spawn().unwrap()
}

/// Reads the recorder's output up to the end of this line, counted from 0, or to its end. The pipe is handed back: closed,
/// it would end the recorder.
fn read_to_line(child: &mut Child, line: u64) -> impl Sized + use<> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.by_ref().map(Result::unwrap).skip_while(|line| line != "creating").take(line as usize + 1).for_each(drop);
    lines
}

/// A directory in memory where the system has one: hundreds of recordings wait for no disk. What a killed process leaves
/// behind does not depend on it.
fn quick_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Committed segments, by their marks on disk.
fn marks(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("wws")).into_iter().flatten();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".parquet")).collect()
}

/// What was committed is there, whole, and like the recording's beginning.
fn expect_beginning(dir: &Path, made: &Recording, committed: &BTreeSet<String>) -> usize {
    if !dir.join("manifest.json").exists() {
        assert!(committed.is_empty());
        return 0;
    }
    let history = History::open(dir).unwrap();
    assert!(history.verify().is_empty());
    assert!(
        history.problems().iter().all(|problem| matches!(problem, Problem::Lost { .. })),
        "{:?}",
        history.problems()
    );
    assert!(history.problems().len() <= 1, "{:?}", history.problems());
    assert!(history.segments().len() >= committed.len());
    let windows = read_back(&history);
    assert_eq!(windows, made.windows[..windows.len()]);
    history.segments().len()
}

#[test]
fn kill_9_at_200_moments_loses_nothing_committed() {
    let made = recording();
    let mut chance = Chance(99);
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let dir = quick_dir();
        let target = dir.path().join("history");
        let mut child = start_recorder(&target, None);
        // The recorder does not wait: the signal comes at some point of what follows the line.
        let pipe = read_to_line(&mut child, chance.below(made.windows.len() as u64 + 3));
        let committed = marks(&target);
        // It was started here and is not yet reaped, so its number is its own.
        child.kill().unwrap();
        child.wait().unwrap();
        drop(pipe);
        seen.insert(expect_beginning(&target, &made, &committed));
    }
    assert!(seen.len() > 5, "the moments were not spread over the recording: {seen:?}");
}

#[test]
fn a_file_that_cannot_grow_ends_the_recording_and_leaves_the_rest() {
    let made = recording();
    let longest = |dir: &Path| {
        let files = ["windows", "pages", "zero", "wws"].map(|table| fs::read_dir(dir.join(table)).unwrap());
        files.into_iter().flatten().map(|file| file.unwrap().metadata().unwrap().len()).max().unwrap()
    };
    let whole = tempfile::tempdir().unwrap();
    made.write(whole.path()).unwrap();
    let mut stopped = BTreeSet::new();
    for less in [1, 10, 40, 100, 2_000] {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("history");
        let child = start_recorder(&target, Some(longest(whole.path()) - less));
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let failed = text.lines().find_map(|line| line.strip_prefix("failed: ")).unwrap_or_else(|| panic!("{text}"));
        assert!(failed.starts_with("cannot write ") && failed.contains("parquet: File too large"), "{failed}");
        let committed = marks(&target);
        stopped.insert(expect_beginning(&target, &made, &committed));
        let history = History::open(&target).unwrap();
        assert!(matches!(history.problems(), [Problem::Lost { .. }]), "{:?}", history.problems());
    }
    assert!(stopped.len() > 1 && !stopped.contains(&35), "{stopped:?}");
}

#[test]
fn a_writer_that_is_dropped_leaves_what_was_closed() {
    let made = recording();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), made.manifest.clone(), &made.zero_at_start).unwrap();
    made.windows[..20].iter().for_each(|window| writer.push(window.new_window()).unwrap());
    let closed = writer.bytes_on_disk();
    drop(writer);
    assert_eq!(expect_beginning(dir.path(), &made, &marks(dir.path())), 2);
    let history = History::open(dir.path()).unwrap();
    assert_eq!(history.bytes_on_disk(), closed);
    assert!(history.problems()[0].to_string().starts_with("segment 2 was not closed"), "{:?}", history.problems());
}

#[test]
fn windows_that_break_the_rules_are_refused_and_change_nothing() {
    let made = recording();
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(dir.path(), made.manifest.clone(), &made.zero_at_start).unwrap();
    writer.push(made.windows[0].new_window()).unwrap();
    let good = made.windows[1].new_window();
    let end_unix_ns = good.start_unix_ns;
    let refused = [
        (migcast_history::writer::NewWindow { end_unix_ns, ..good }, "window 1: its end must be later"),
        (
            migcast_history::writer::NewWindow { start_unix_ns: support::START_NS, ..good },
            "window 1: it must not start",
        ),
        (migcast_history::writer::NewWindow { written: &[2, 2], ..good }, "window 1: pages must ascend"),
        (migcast_history::writer::NewWindow { written: &[160], ..good }, "window 1: page 160 is not tracked"),
        (
            migcast_history::writer::NewWindow { state: migcast_history::windows::State::Gap, written: &[1], ..good },
            "window 1: only a recorded window",
        ),
    ];
    for (window, expected) in refused {
        let error = writer.push(window).unwrap_err();
        assert!(line(&error).starts_with(expected), "{error}");
    }
    made.windows[1..].iter().for_each(|window| writer.push(window.new_window()).unwrap());
    writer.finish().unwrap();
    assert_eq!(read_back(&History::open(dir.path()).unwrap()), made.windows);
    let error = Writer::create(dir.path(), made.manifest, &[]).unwrap_err();
    assert!(line(&error).contains("not empty"), "{error}");
}
