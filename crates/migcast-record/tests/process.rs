//! A real process, recorded from outside: exact write sets, and nothing of it changed.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use migcast_history::reader::History;
use migcast_record::{
    Interrupt, Listener, PAGE_SIZE, Progress, Recording, SampleChoice, Settings, Stop, Summary, SystemClock, process,
    record,
};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};

/// Set for the process that is recorded.
const ROLE: &str = "MIGCAST_TEST_WRITER";
/// Pages of each of its two sparse regions: 64 MiB.
const PAGES: usize = 16384;

/// Not a check: the program that the tests below record. It does what its standard input says: "p3" writes page 3 of
/// its private memory, "s3" of its shared memory, "z3" gives private page 3 back (as a balloon does), "h3" shared page 3,
/// "q" unmaps the private memory, "m" maps 64 MiB more; after each line it says "ok".
#[test]
fn writer() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let length = PAGES * PAGE_SIZE as usize;
    let file = rustix::fs::memfd_create("sparse", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, length as u64).unwrap();
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: two fresh mappings at addresses of the kernel's choice.
    let (private, shared) = unsafe {
        let private = mmap_anonymous(std::ptr::null_mut(), length, prot, MapFlags::PRIVATE).unwrap();
        madvise(private, length, Advice::LinuxNoHugepage).unwrap();
        (
            private.cast::<u8>(),
            mmap(std::ptr::null_mut(), length, prot, MapFlags::SHARED, &file, 0).unwrap().cast::<u8>(),
        )
    };
    println!("\nat {:x} {:x} {}", private as usize, shared as usize, file.as_raw_fd());
    for (turn, line) in std::io::stdin().lines().enumerate() {
        for word in line.unwrap().split_whitespace() {
            let (what, page) = word.split_at(1);
            let offset = page.parse::<usize>().unwrap_or(0) * PAGE_SIZE as usize;
            assert!(offset < length);
            // SAFETY: the offset lies in the mappings made above, and nothing else uses them.
            unsafe {
                match what {
                    "p" => private.add(offset).write_volatile(turn as u8 + 1),
                    "s" => shared.add(offset).write_volatile(turn as u8 + 1),
                    "z" => madvise(private.add(offset).cast(), PAGE_SIZE as usize, Advice::LinuxDontNeed).unwrap(),
                    "h" => madvise(shared.add(offset).cast(), PAGE_SIZE as usize, Advice::LinuxRemove).unwrap(),
                    "m" => drop(mmap_anonymous(std::ptr::null_mut(), length, prot, MapFlags::PRIVATE).unwrap()),
                    "q" => rustix::mm::munmap(private.cast(), length).unwrap(),
                    _ => panic!("{word} is no order"),
                }
            }
        }
        println!("ok");
    }
}

/// The recorded process, as its parent sees it. It ends with the test.
struct Writer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    private: u64,
    shared: u64,
    memfd: File,
}

impl Writer {
    fn start() -> Writer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut line = String::new();
        while !line.starts_with("at ") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the writer ended before it began");
        }
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = |field: &str| u64::from_str_radix(field, 16).unwrap();
        let memfd = File::open(format!("/proc/{}/fd/{}", child.id(), fields[3])).unwrap();
        Writer { private: address(fields[1]), shared: address(fields[2]), child, input, output, memfd }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n");
    }

    /// What recording must not change: blocks of the memfd, and RSS, swap and hugetlb memory in KiB.
    fn footprint(&self) -> (u64, Vec<(String, u64)>) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let wanted = ["RssAnon", "RssShmem", "VmSwap", "HugetlbPages", "VmPTE"];
        let values = status.lines().filter_map(|line| {
            let (name, rest) = line.split_once(':')?;
            let value = rest.split_whitespace().next()?.parse().ok()?;
            wanted.contains(&name).then(|| (name.to_owned(), value))
        });
        (self.memfd.metadata().unwrap().blocks(), values.collect())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Tells the writer what to do after each window, so that it is done within the next one.
struct Script<'a> {
    writer: &'a mut Writer,
    lines: &'a [&'a str],
    next: usize,
    warnings: Vec<String>,
    notes: Vec<String>,
    kill_at_end: bool,
}

impl<'a> Script<'a> {
    fn new(writer: &'a mut Writer, lines: &'a [&'a str]) -> Script<'a> {
        Script { writer, lines, next: 0, warnings: Vec::new(), notes: Vec::new(), kill_at_end: false }
    }
}

impl Listener for Script<'_> {
    fn interrupted(&mut self) -> Option<Interrupt> {
        (!self.kill_at_end && self.next > self.lines.len()).then_some(Interrupt::Terminated)
    }

    fn progress(&mut self, _: &Progress) {
        if let Some(line) = self.lines.get(self.next) {
            self.writer.say(line);
        } else if self.kill_at_end {
            self.writer.child.kill().unwrap();
        }
        self.next += 1;
    }

    fn warn(&mut self, warning: &str) {
        self.warnings.push(warning.to_owned());
    }

    fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }
}

fn run(script: &mut Script<'_>, sample: SampleChoice, out: &Path) -> Summary {
    run_within(1.0, script, sample, out)
}

fn run_within(cpu_limit: f64, script: &mut Script<'_>, sample: SampleChoice, out: &Path) -> Summary {
    let guest = process::open(script.writer.child.id()).unwrap();
    let settings = Settings {
        window: Duration::from_millis(50),
        duration: Some(Duration::from_secs(120)),
        cpu_limit,
        sample,
        keep_pages: None,
        keep_index: None,
        seed: 7,
        program: "test".to_owned(),
    };
    let mut clock = SystemClock::start(guest.watch.descriptor());
    match record(guest, &settings, out, &mut clock, script).unwrap() {
        Recording::Kept(summary) => summary,
        Recording::Stopped(stop) => panic!("{stop:?}"),
    }
}

/// Windows of a history as pages of the mapping that begins at this address.
fn written_in(out: &Path, address: u64) -> (Vec<Vec<u64>>, u32) {
    let history = History::open(out).unwrap();
    assert!(history.problems().is_empty(), "{:?}", history.problems());
    let end = format!("@{address:x}");
    let mut first = 0;
    for block in &history.manifest().blocks {
        if block.name.ends_with(&end) {
            break;
        }
        first += block.length_bytes / PAGE_SIZE;
    }
    let pages = first..first + PAGES as u64;
    let mut windows = Vec::new();
    let mut zero = 0;
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window().unwrap() {
        let page = |&rank: &u32| history.tracked().page_of_rank(rank);
        let inside = view.written.iter().map(page).filter(|page| pages.contains(page));
        windows.push(inside.map(|page| page - first).collect());
        zero = view.window.zero;
    }
    (windows, zero)
}

#[test]
fn write_sets_are_exact_and_nothing_is_allocated() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("history");
    let mut writer = Writer::start();
    writer.say("p1 p2 p3 s1 s500 s16383");
    let before = writer.footprint();
    let lines = ["p2 s1", "", "p3 p2 s1 s500", "z1 h16383", "p1 s1", ""];
    let mut script = Script::new(&mut writer, &lines);
    let summary = run(&mut script, SampleChoice::All, &out);
    assert!(matches!(summary.stop, Stop::Interrupt(Interrupt::Terminated)), "{:?}", summary.stop);
    assert_eq!((summary.windows_lost, summary.unreadable), (0, 0));
    assert!(script.warnings.is_empty(), "{:?}", script.warnings);
    let (private, _) = written_in(&out, writer.private);
    assert_eq!(private[1..=6], [vec![2], vec![], vec![2, 3], vec![1], vec![1], vec![]]);
    let (shared, _) = written_in(&out, writer.shared);
    assert_eq!(shared[1..=6], [vec![1], vec![], vec![1, 500], vec![16383], vec![1], vec![]]);
    let after = writer.footprint();
    assert_eq!(before.0 - PAGE_SIZE / 512, after.0, "the memfd holds one page less, which was given back");
    for ((name, before), (_, after)) in before.1.iter().zip(&after.1) {
        // The writer itself reads lines and prints. 128 MiB of holes read carelessly would be 131072 KiB of pages, or,
        // where the kernel maps its zero page, 128 KiB of page tables for each half.
        let allowed = if name == "VmPTE" { 32 } else { 256 };
        assert!(after.abs_diff(*before) <= allowed, "{name} went from {before} to {after} KiB");
    }
}

#[test]
fn several_threads_record_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("history");
    let mut writer = Writer::start();
    writer.say("p1 s1 s500");
    let before = writer.footprint();
    let lines = ["p2 s1", "", "p9000 p2 s16383", "z1 h500", ""];
    run_within(2.0, &mut Script::new(&mut writer, &lines), SampleChoice::All, &out);
    let (private, _) = written_in(&out, writer.private);
    assert_eq!(private[1..=5], [vec![2], vec![], vec![2, 9000], vec![1], vec![]]);
    let (shared, _) = written_in(&out, writer.shared);
    assert_eq!(shared[1..=5], [vec![1], vec![], vec![16383], vec![500], vec![]]);
    assert_eq!(writer.footprint().0, before.0, "one page more was written, and one given back");
}

#[test]
fn what_auto_chose_is_told_once_and_what_was_asked_for_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start();
    let mut told = |sample, name| {
        let mut script = Script::new(&mut writer, &["p1"]);
        let summary = run(&mut script, sample, &dir.path().join(name));
        (script.notes, summary.memory_pages)
    };
    let (notes, pages) = told(SampleChoice::Auto, "auto");
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].starts_with("--sample auto: ") && notes[0].contains(&format!("{pages} pages, because a look")),
        "{notes:?}"
    );
    assert!(told(SampleChoice::OneIn(16), "one in 16").0.is_empty());
}

#[test]
fn a_sample_finds_its_share_of_a_large_write_set() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("history");
    let mut writer = Writer::start();
    let everywhere: Vec<String> = (0..PAGES).map(|page| format!("p{page}")).collect();
    let everywhere = everywhere.join(" ");
    let lines = ["", &everywhere, ""];
    run(&mut Script::new(&mut writer, &lines), SampleChoice::OneIn(16), &out);
    let (windows, _) = written_in(&out, writer.private);
    // One page of each stratum of 16, whichever was drawn.
    assert_eq!(windows[2].len(), PAGES / 16);
    assert!(windows[3].is_empty());
}

#[test]
fn memory_that_is_unmapped_counts_as_zero_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("history");
    let mut writer = Writer::start();
    writer.say("p7");
    let mut lines = vec!["q"];
    lines.resize(40, "");
    let mut script = Script::new(&mut writer, &lines);
    run(&mut script, SampleChoice::All, &out);
    assert!(script.warnings.iter().any(|warning| warning.contains("no longer mapped")), "{:?}", script.warnings);
    let (windows, zero) = written_in(&out, writer.private);
    assert_eq!(windows.concat(), [7]);
    assert!(zero as usize >= 2 * PAGES, "{zero}");
}

#[test]
fn memory_that_is_mapped_later_is_told_with_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start();
    let mut lines = vec!["m"];
    lines.resize(40, "");
    let mut script = Script::new(&mut writer, &lines);
    run(&mut script, SampleChoice::All, &dir.path().join("history"));
    let told: Vec<&String> = script.warnings.iter().filter(|w| w.contains("has mapped more memory")).collect();
    assert_eq!(told.len(), 1, "{:?}", script.warnings);
    assert!(told[0].contains("64 MiB of its "), "{}", told[0]);
}

#[test]
fn the_guests_end_ends_the_recording_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("history");
    let mut writer = Writer::start();
    let mut script = Script::new(&mut writer, &["p5", "p6"]);
    script.kill_at_end = true;
    let summary = run(&mut script, SampleChoice::All, &out);
    assert!(matches!(summary.stop, Stop::GuestEnded), "{:?}", summary.stop);
    assert!(summary.windows >= 3);
    let (windows, _) = written_in(&out, writer.private);
    assert_eq!(windows.concat(), [5, 6], "the end of a process must not look like writing zeros");
}

#[test]
fn nothing_is_traced() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start();
    let status = format!("/proc/{}/status", writer.child.id());
    let lines = ["p1"; 5];
    let mut script = Script::new(&mut writer, &lines);
    run(&mut script, SampleChoice::Auto, &dir.path().join("history"));
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains("TracerPid:\t0"), "{status}");
}

#[test]
fn a_process_that_is_not_there_is_one_line() {
    let error = process::open(4_000_000).err().unwrap();
    assert_eq!(error.to_string(), "no process has the id 4000000");
}

#[test]
fn a_process_without_memory_is_one_line() {
    // Ended, and not yet waited for: it still has its id, and no memory. A kernel thread looks the same.
    let mut child = Command::new("true").stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
    let error = process::open(child.id()).err().unwrap().to_string();
    assert!(error.contains("no process has the id") || error.contains("has no writable memory"), "{error}");
    assert!(!error.contains('\n'));
    child.wait().unwrap();
}
