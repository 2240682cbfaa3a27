//! The loop against a clock, a memory and a guest that tests move.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use migcast_history::format::Block;
use migcast_history::sample::{Sample, Tracked};
use migcast_history::vcpu::VcpuTime;
use migcast_history::writer::{NewWindow, WriteError};

use super::*;
use crate::clock::fake::FakeTime;
use crate::guest::Identity;
use crate::guest::{Guest, Writes};
use crate::memory::{Eye, Look, Memory, PAGE_SIZE};
use crate::plan::SampleChoice;
use crate::recording::{Recording, record};
use crate::scan::Scanner;
use crate::summary::Interrupt;
use crate::vcpus::VcpuClock;
use crate::write_log::Contents;

const MS: Duration = Duration::from_millis(1);
const PAGES: u64 = 64;

/// A guest that follows a plan: what it writes, and what it shows, from which time on.
#[derive(Clone, Default)]
struct Script {
    time: FakeTime,
    /// Pages and the byte they are filled with.
    writes: BTreeMap<Duration, Vec<(u64, u8)>>,
    sights: BTreeMap<Duration, Sight>,
    ends: Option<Duration>,
    unreadable_from: Option<Duration>,
    /// What one scan takes.
    scan_wall: Duration,
    scan_cpu: Duration,
    look_cpu: Duration,
    /// Its vCPUs' share of the time that they run.
    vcpus: Option<[f64; 2]>,
    refreshes: Rc<Cell<u32>>,
    released: Rc<Cell<bool>>,
    /// Whether the memory had been let go of at the last sight.
    released_at_sight: Rc<Cell<bool>>,
}

impl Memory for Script {
    fn look(&mut self, pages: &[u64], sink: &mut crate::memory::Sink<'_>) -> Result<(), MemoryError> {
        let now = self.time.now();
        if self.unreadable_from.is_some_and(|from| now >= from) {
            return Err(MemoryError::Ended { pid: 1 });
        }
        for (index, &page) in pages.iter().enumerate() {
            let last = self.writes.range(..=now).rev().find_map(|(_, list)| list.iter().find(|(p, _)| *p == page));
            sink(index, last.map_or(Look::Hole, |&(_, byte)| Look::Content(&PAGES_OF_BYTES[usize::from(byte)])));
        }
        self.time.work(self.scan_wall, self.scan_cpu);
        Ok(())
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        self.refreshes.set(self.refreshes.get() + 1);
        Ok(Vec::new())
    }

    fn release(&mut self) {
        self.released.set(true);
    }
}

static PAGES_OF_BYTES: [[u8; PAGE_SIZE as usize]; 4] =
    [[0; PAGE_SIZE as usize], [1; PAGE_SIZE as usize], [2; PAGE_SIZE as usize], [3; PAGE_SIZE as usize]];

impl Watch for Script {
    fn look(&mut self) -> Sight {
        self.time.work(Duration::ZERO, self.look_cpu);
        self.released_at_sight.set(self.released.get());
        self.sights.range(..=self.time.now()).next_back().map_or(Sight::Clear, |(_, sight)| sight.clone())
    }

    fn vcpus(&mut self) -> Option<Vec<VcpuClock>> {
        let clock = |(thread, share)| VcpuClock { thread, used: self.time.now().mul_f64(share) };
        Some((1..).zip(self.vcpus?).map(clock).collect())
    }

    fn ended(&mut self) -> bool {
        self.ends.is_some_and(|end| self.time.now() >= end)
    }
}

/// A window: length, state, pages written, changes of the zero map.
type Seen = (Duration, State, Vec<u64>, Vec<(u64, bool)>);

/// Remembers windows; refuses them from a given number on.
#[derive(Default)]
struct Windows {
    seen: Vec<Seen>,
    full_after: Option<usize>,
    vcpu_time: Option<VcpuTime>,
}

impl Sink for Windows {
    fn push(&mut self, window: NewWindow<'_>) -> Result<(), WriteError> {
        if self.full_after == Some(self.seen.len()) {
            let source = std::io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(WriteError::Io { path: "pages".into(), source });
        }
        let length = u64::try_from(window.end_unix_ns - window.start_unix_ns).unwrap();
        let zero = window.zero_changes.iter().map(|change| (change.page, change.zero)).collect();
        self.seen.push((Duration::from_nanos(length), window.state, window.written.to_vec(), zero));
        Ok(())
    }

    fn add_vcpu_time(&mut self, time: VcpuTime) {
        self.vcpu_time = Some(self.vcpu_time.map_or(time, |before| before.and(time)));
    }

    fn closed_windows(&self) -> u64 {
        0
    }

    fn bytes_on_disk(&self) -> u64 {
        0
    }
}

#[derive(Clone, Default)]
struct Ear {
    warnings: Rc<RefCell<Vec<String>>>,
    stop: Option<(FakeTime, Duration)>,
}

impl Listener for Ear {
    fn interrupted(&mut self) -> Option<Interrupt> {
        self.stop.as_ref().filter(|(time, at)| time.now() >= *at).map(|_| Interrupt::Interrupted)
    }

    fn progress(&mut self, _: &Progress) {}

    fn warn(&mut self, warning: &str) {
        self.warnings.borrow_mut().push(warning.to_owned());
    }
}

struct Outcome {
    stop: Stop,
    windows: Vec<Seen>,
    vcpu_time: Option<VcpuTime>,
    overruns: u64,
    stretched: u64,
    cost: f64,
    warnings: Vec<String>,
}

fn settings(duration: Duration) -> Settings {
    Settings {
        window: 100 * MS,
        duration: Some(duration),
        cpu_limit: 0.05,
        sample: SampleChoice::All,
        keep_pages: None,
        keep_index: None,
        seed: 0,
        program: String::new(),
    }
}

fn block() -> Block {
    Block { name: "ram".into(), length_bytes: PAGES * PAGE_SIZE, guest_physical_address: None }
}

fn guest(script: &Script, block: Block) -> Guest {
    let identity = Identity {
        method: "process",
        name: "fake".into(),
        id: None,
        hypervisor: "unknown".into(),
        hypervisor_version: String::new(),
        accelerator: "unknown".into(),
        blocks: vec![block],
    };
    let writes = Writes::Contents(Box::new(script.clone()));
    Guest { identity, writes, watch: Box::new(script.clone()), warnings: Vec::new() }
}

fn run(script: &Script, duration: Duration, mut ear: Ear, mut sink: Windows) -> Outcome {
    let (settings, block) = (settings(duration), block());
    let tracked = Tracked::new(std::slice::from_ref(&block), PAGE_SIZE, Sample::full()).unwrap();
    let (mut memory, mut watch, mut clock) = (script.clone(), script.clone(), script.time.clone());
    let start = (clock.now(), clock.cpu());
    let mut log = Contents { scanner: Scanner::new(tracked), memory: &mut memory };
    let mut recorder = Recorder::new(&mut log, &mut watch, &settings, start, &mut clock, &mut ear);
    recorder.baseline().unwrap();
    let stop = recorder.windows(&mut sink);
    recorder.settle_last(&stop, &mut sink).unwrap_or(());
    let (overruns, stretched, cost) = (recorder.counts.overruns, recorder.counts.stretched, recorder.cost());
    let warnings = ear.warnings.borrow().clone();
    Outcome { stop, windows: sink.seen, vcpu_time: sink.vcpu_time, overruns, stretched, cost, warnings }
}

impl Outcome {
    /// Runs of windows of one state: how long each is.
    fn states(&self) -> Vec<(State, Duration)> {
        let mut runs: Vec<(State, Duration)> = Vec::new();
        for &(length, state, ..) in &self.windows {
            match runs.last_mut() {
                Some(run) if run.0 == state => run.1 += length,
                _ => runs.push((state, length)),
            }
        }
        runs
    }

    /// Pages written, and changes of the zero map, over all windows.
    fn seen(&self) -> (Vec<u64>, Vec<(u64, bool)>) {
        (
            self.windows.iter().flat_map(|window| window.2.clone()).collect(),
            self.windows.iter().flat_map(|window| window.3.clone()).collect(),
        )
    }
}

fn quiet() -> Script {
    Script::default()
}

/// What is seen from when on; before that the guest runs.
fn seen(sights: &[(u32, Sight)]) -> Script {
    let sights = sights.iter().map(|(at, sight)| (*at * MS, sight.clone())).collect();
    Script { sights, ..quiet() }
}

fn busy() -> Sight {
    Sight::Busy("monitor: busy".into())
}

fn standing() -> Sight {
    Sight::Standing("paused (io-error)".into())
}

fn monitor_gone() -> Sight {
    Sight::MonitorGone("socket: nobody listens there".into())
}

#[test]
fn windows_lie_on_the_grid_and_hold_what_was_written_in_them() {
    let mut script = quiet();
    script.writes.insert(150 * MS, vec![(3, 1), (9, 1)]);
    script.writes.insert(310 * MS, vec![(9, 0)]);
    let outcome = run(&script, 500 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::Duration));
    let written: Vec<&[u64]> = outcome.windows.iter().map(|window| window.2.as_slice()).collect();
    assert_eq!(written, [&[][..], &[3, 9], &[], &[9], &[]]);
    assert_eq!(outcome.windows[1].3, [(3, false), (9, false)]);
    assert_eq!(outcome.windows[3].3, [(9, true)]);
    assert!(outcome.windows.iter().all(|window| window.0 == 100 * MS && window.1 == State::Recorded));
    assert_eq!((outcome.overruns, outcome.stretched), (0, 0));
}

#[test]
fn the_cpu_limit_is_kept_by_longer_windows_and_said() {
    let mut script = quiet();
    (script.scan_wall, script.scan_cpu) = (20 * MS, 20 * MS);
    let outcome = run(&script, Duration::from_secs(20), Ear::default(), Windows::default());
    assert!(outcome.cost <= 0.0501, "{}", outcome.cost);
    // 20 ms at 5 % are paid for in 400 ms.
    assert!(outcome.windows.len() >= 47, "{}", outcome.windows.len());
    assert!(outcome.windows[1..].iter().all(|window| window.0 == 400 * MS), "{:?}", outcome.windows[1]);
    assert!(outcome.stretched > 40);
    let warnings: Vec<&String> = outcome.warnings.iter().filter(|warning| warning.contains("costs 20.0 ms")).collect();
    assert_eq!(warnings.len(), 1, "{:?}", outcome.warnings);
}

#[test]
fn a_scan_that_overruns_makes_its_window_longer() {
    let mut script = quiet();
    (script.scan_wall, script.scan_cpu) = (130 * MS, MS / 10);
    let outcome = run(&script, Duration::from_secs(4), Ear::default(), Windows::default());
    assert!(outcome.overruns > 10, "{}", outcome.overruns);
    assert!(outcome.windows.iter().skip(1).all(|window| window.0 == 200 * MS), "{:?}", outcome.windows);
}

#[test]
fn while_the_guest_migrates_nothing_is_scanned_or_claimed() {
    let mut script = quiet();
    script.sights.insert(2500 * MS, Sight::Migrating);
    script.sights.insert(5200 * MS, Sight::Clear);
    script.writes.insert(2550 * MS, vec![(1, 1)]);
    script.writes.insert(4000 * MS, vec![(2, 1)]);
    script.writes.insert(6150 * MS, vec![(3, 1)]);
    let outcome = run(&script, 7000 * MS, Ear::default(), Windows::default());
    let total: Duration = outcome.windows.iter().map(|window| window.0).sum();
    assert_eq!(total, 7000 * MS);
    let migrating: Vec<_> = outcome.windows.iter().filter(|window| window.1 == State::Migrating).collect();
    assert!(migrating.iter().all(|window| window.2.is_empty()));
    // From the last look that found it calm, at 2 s, to the first that does again, at 6 s.
    let gap: Duration = migrating.iter().map(|window| window.0).sum();
    assert_eq!(gap, 4000 * MS);
    // The zero map stays true across the gap.
    let zero: Vec<_> = migrating.iter().flat_map(|window| window.3.clone()).collect();
    assert_eq!(zero, [(1, false), (2, false)]);
    let after: Vec<u64> = outcome.windows.iter().flat_map(|window| window.2.clone()).collect();
    assert_eq!(after, [3]);
}

#[test]
fn while_the_guest_stands_still_nothing_is_claimed() {
    let mut script = seen(&[(2500, standing()), (5200, Sight::Clear)]);
    script.writes.insert(2450 * MS, vec![(1, 1)]);
    script.writes.insert(4000 * MS, vec![(2, 1)]);
    script.writes.insert(6150 * MS, vec![(3, 1)]);
    let outcome = run(&script, 7000 * MS, Ear::default(), Windows::default());
    // From the last look that found it running, at 2 s, to the first that does again, at 6 s.
    let expected = [(State::Recorded, 2000 * MS), (State::Gap, 4000 * MS), (State::Recorded, 1000 * MS)];
    assert_eq!(outcome.states(), expected);
    assert_eq!(outcome.seen(), (vec![3], vec![(1, false), (2, false), (3, false)]));
    assert_eq!(outcome.warnings, ["the guest is paused (io-error): recording waits"]);
}

#[test]
fn a_guest_that_stands_still_and_then_migrates_is_told_apart() {
    let script = seen(&[(1500, standing()), (3500, Sight::Migrating), (5500, Sight::Clear)]);
    let outcome = run(&script, 7000 * MS, Ear::default(), Windows::default());
    // Looks at 2, 4 and 6 s bring the news.
    let expected = [
        (State::Recorded, 1000 * MS),
        (State::Gap, 3000 * MS),
        (State::Migrating, 2000 * MS),
        (State::Recorded, 1000 * MS),
    ];
    assert_eq!(outcome.states(), expected);
    let warnings = ["the guest is paused (io-error): recording waits", "the guest is migrating: recording waits"];
    assert_eq!(outcome.warnings, warnings);

    // A look that finds it so again relabels nothing.
    let script = seen(&[(1500, Sight::Migrating), (2500, Sight::Clear), (3500, standing())]);
    let outcome = run(&script, 4500 * MS, Ear::default(), Windows::default());
    let expected = [(State::Recorded, 1000 * MS), (State::Migrating, 2000 * MS), (State::Gap, 1500 * MS)];
    assert_eq!(outcome.states(), expected);
}

#[test]
fn a_busy_monitor_is_no_error_and_said_once() {
    let outcome = run(&seen(&[(1500, busy())]), 5000 * MS, Ear::default(), Windows::default());
    assert_eq!(outcome.windows.len(), 50);
    assert!(outcome.windows.iter().all(|window| window.1 == State::Recorded));
    let warning = "monitor: busy; recorded all the same, but a migration or a pause may go unnoticed";
    assert_eq!(outcome.warnings, [warning]);

    // The look after the busy one tells what was the case: nothing was taken on trust.
    let outcome =
        run(&seen(&[(1500, busy()), (2500, Sight::Migrating)]), 5000 * MS, Ear::default(), Windows::default());
    assert_eq!(outcome.states(), [(State::Recorded, 1000 * MS), (State::Migrating, 4000 * MS)]);
    assert_eq!(outcome.warnings, ["the guest is migrating: recording waits"]);

    // But nothing is held back for longer than that.
    let outcome =
        run(&seen(&[(1500, busy()), (3500, Sight::Migrating)]), 5000 * MS, Ear::default(), Windows::default());
    assert_eq!(outcome.states(), [(State::Recorded, 3000 * MS), (State::Migrating, 2000 * MS)]);
}

#[test]
fn windows_that_no_look_confirms_before_the_guests_end_are_a_gap() {
    let ending = |sights: &[(u32, Sight)], ends: Option<u32>| {
        let mut script = seen(sights);
        script.ends = ends.map(|at| at * MS);
        script.writes.insert(450 * MS, vec![(1, 1)]);
        script.writes.insert(1250 * MS, vec![(2, 1)]);
        run(&script, 5000 * MS, Ear::default(), Windows::default())
    };
    // It ended, and its monitor with it: the look at 1 s is the last that confirms.
    let ended = ending(&[(1850, monitor_gone())], Some(1850));
    assert!(matches!(ended.stop, Stop::GuestEnded), "{:?}", ended.stop);
    assert_eq!(ended.states(), [(State::Recorded, 1000 * MS), (State::Gap, 800 * MS)]);
    assert_eq!(ended.seen(), (vec![1], vec![(1, false), (2, false)]), "the zero map is kept");
    // The monitor alone went away.
    let gone = ending(&[(1850, monitor_gone())], None);
    assert!(matches!(gone.stop, Stop::MonitorGone(_)), "{:?}", gone.stop);
    assert_eq!(gone.states(), [(State::Recorded, 1000 * MS), (State::Gap, 1000 * MS)]);
    // It stood still before: nothing is known until the recording ends, after a moment's grace for the process.
    let stopped = ending(&[(1850, standing()), (2850, monitor_gone())], None);
    assert_eq!(stopped.states(), [(State::Recorded, 1000 * MS), (State::Gap, 2500 * MS)]);
    // While it ends, its monitor may hang up without a word.
    for last in [busy(), monitor_gone()] {
        let hung_up = ending(&[(1950, busy()), (2200, last)], Some(2250));
        assert!(matches!(hung_up.stop, Stop::GuestEnded), "{:?}", hung_up.stop);
        assert_eq!(hung_up.states(), [(State::Recorded, 1000 * MS), (State::Gap, 1200 * MS)]);
    }
    // A process without a monitor has nowhere to migrate: nothing became of it unseen.
    let process = ending(&[], Some(1850));
    assert!(matches!(process.stop, Stop::GuestEnded), "{:?}", process.stop);
    assert_eq!(process.states(), [(State::Recorded, 1800 * MS)]);
    assert_eq!(process.seen().0, [1, 2]);
    // Memory that was rearranged was somewhere else for a while.
    let plugged = ending(&[(1850, Sight::LayoutChanged("memory block dimm0 was added".into()))], None);
    assert_eq!(plugged.states(), [(State::Recorded, 1000 * MS), (State::Gap, 1000 * MS)]);
}

#[test]
fn the_last_look_settles_the_last_windows() {
    for (sight, state) in [(Sight::Migrating, State::Migrating), (standing(), State::Gap), (monitor_gone(), State::Gap)]
    {
        let outcome = run(&seen(&[(1500, sight)]), 1800 * MS, Ear::default(), Windows::default());
        assert!(matches!(outcome.stop, Stop::Duration), "{:?}", outcome.stop);
        assert_eq!(outcome.states(), [(State::Recorded, 1000 * MS), (state, 800 * MS)]);
    }
    let outcome = run(&seen(&[(1500, busy())]), 1800 * MS, Ear::default(), Windows::default());
    assert_eq!(outcome.states(), [(State::Recorded, 1800 * MS)]);
    assert_eq!(outcome.warnings.len(), 1, "{:?}", outcome.warnings);
}

#[test]
fn the_summary_says_how_much_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = seen(&[(1500, Sight::Migrating), (2500, Sight::Clear), (4500, standing()), (5500, Sight::Clear)]);
    script.sights.insert(6700 * MS, monitor_gone());
    script.ends = Some(6700 * MS);
    let mut clock = script.time.clone();
    let recording = record(
        guest(&script, block()),
        &settings(Duration::from_secs(60)),
        &dir.path().join("history"),
        &mut clock,
        &mut Ear::default(),
    );
    let Recording::Kept(summary) = recording.unwrap() else { panic!("nothing was kept") };
    // Migrating from 1 to 3 s, standing from 4 to 6 s, and 0.6 s that nobody confirmed.
    let known = (summary.recorded, summary.migrating, summary.gaps);
    assert_eq!(known, (2000 * MS, 2000 * MS, 2600 * MS));
    // Forty of 100 ms before the looks that bring news, six after the last, and one for each absence.
    assert_eq!((summary.windows, summary.windows_lost), (48, 0));
}

#[test]
fn every_end_has_its_name_and_keeps_what_was_recorded() {
    let mut ends = quiet();
    ends.ends = Some(750 * MS);
    let outcome = run(&ends, 5000 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::GuestEnded) && outcome.windows.len() == 7);

    let mut torn = quiet();
    torn.unreadable_from = Some(750 * MS);
    let outcome = run(&torn, 5000 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::GuestEnded) && outcome.windows.len() == 7);

    let mut gone = quiet();
    gone.sights.insert(1500 * MS, Sight::MonitorGone("socket: nobody listens there".into()));
    let outcome = run(&gone, 5000 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::MonitorGone(_)), "{:?}", outcome.stop);
    // A monitor that goes a moment before the process is the guest's end.
    gone.ends = Some(2200 * MS);
    let outcome = run(&gone, 5000 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::GuestEnded), "{:?}", outcome.stop);

    let mut plugged = quiet();
    plugged.sights.insert(1500 * MS, Sight::LayoutChanged("memory block dimm0 was added".into()));
    let outcome = run(&plugged, 5000 * MS, Ear::default(), Windows::default());
    assert!(matches!(outcome.stop, Stop::LayoutChanged(_)));

    let script = quiet();
    let ear = Ear { stop: Some((script.time.clone(), 1020 * MS)), ..Ear::default() };
    let outcome = run(&script, 5000 * MS, ear, Windows::default());
    assert!(matches!(outcome.stop, Stop::Interrupt(Interrupt::Interrupted)));
    assert!(matches!(outcome.windows.len(), 10 | 11), "{}", outcome.windows.len());
}

#[test]
fn a_full_disk_ends_the_recording() {
    let sink = Windows { full_after: Some(12), ..Windows::default() };
    let outcome = run(&quiet(), 5000 * MS, Ear::default(), sink);
    assert!(matches!(outcome.stop, Stop::Write(WriteError::Io { .. })), "{:?}", outcome.stop);
    assert_eq!(outcome.windows.len(), 12);
}

#[test]
fn looks_that_cost_much_come_less_often() {
    let mut script = quiet();
    script.look_cpu = 45 * MS;
    let outcome = run(&script, Duration::from_secs(60), Ear::default(), Windows::default());
    assert!(outcome.cost < 0.0125, "{}", outcome.cost);
    assert_eq!(outcome.stretched, 0);
}

#[test]
fn a_guest_that_is_away_already_is_waited_for() {
    let begin = |script: &Script, ear: &mut Ear, out: &std::path::Path| {
        record(guest(script, block()), &settings(Duration::from_secs(1)), out, &mut script.time.clone(), ear).unwrap()
    };
    let absences = [
        (Sight::Migrating, "the guest is migrating: recording begins when that is over"),
        (standing(), "the guest is paused (io-error): recording begins when that is over"),
    ];
    for (absence, warning) in absences {
        let dir = tempfile::tempdir().unwrap();
        // A monitor that is busy does not say that it is over.
        let mut script = seen(&[(0, absence.clone()), (1500, busy()), (2500, Sight::Clear)]);
        let mut ear = Ear::default();
        let recording = begin(&script, &mut ear, &dir.path().join("history"));
        let Recording::Kept(summary) = recording else { panic!("{recording:?}") };
        assert_eq!((summary.windows, summary.windows_lost), (10, 0));
        assert_eq!(script.time.now(), Duration::from_secs(4), "four looks, then a second of windows");
        assert_eq!(*ear.warnings.borrow(), [warning]);
        assert_eq!(script.refreshes.get(), 1, "memory may have been mapped anew meanwhile");

        // Stopped while it waits, it leaves nothing behind.
        script.sights.insert(2500 * MS, absence);
        let mut ear = Ear { stop: Some((script.time.clone(), Duration::from_secs(9))), ..Ear::default() };
        let out = dir.path().join("other");
        let recording = begin(&script, &mut ear, &out);
        assert!(matches!(recording, Recording::Stopped(Stop::Interrupt(_))), "{recording:?}");
        assert!(!out.exists());
    }
}

#[test]
fn the_vcpus_time_is_that_of_what_was_recorded() {
    let outcome = |sights: &[(u32, Sight)]| {
        let script = Script { vcpus: Some([0.5, 0.125]), ..seen(sights) };
        run(&script, Duration::from_secs(10), Ear::default(), Windows::default())
    };
    let steady = outcome(&[]).vcpu_time.unwrap();
    assert_eq!((steady.vcpus, steady.mean_share()), (2, 0.3125));
    assert!((steady.busy_share() - 0.425).abs() < 1e-9, "{steady:?}");
    assert_eq!(Duration::from_nanos(steady.watched_ns), Duration::from_secs(10));
    // While it is away its threads' time says nothing of it, whoever answers in between.
    for away in [Sight::Migrating, standing()] {
        let absent = outcome(&[(2_500, away), (4_500, busy()), (6_500, Sight::Clear)]);
        let recorded: Duration = absent.windows.iter().filter(|w| w.1 == State::Recorded).map(|w| w.0).sum();
        let watched = Duration::from_nanos(absent.vcpu_time.unwrap().watched_ns);
        assert!(watched > 3_000 * MS && watched <= recorded + 100 * MS, "{watched:?} of {recorded:?}");
    }
    // One look that nobody answers leaves no hole.
    assert_eq!(outcome(&[(2_500, busy()), (3_500, Sight::Clear)]).vcpu_time, Some(steady));
    assert_eq!(run(&quiet(), 2_000 * MS, Ear::default(), Windows::default()).vcpu_time, None);
}

#[test]
fn the_memory_is_let_go_of_before_the_history_is_closed() {
    let script = Script { ends: Some(Duration::from_millis(500)), ..quiet() };
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(Duration::from_secs(1));
    let guest = guest(&script, block());
    record(guest, &settings, &dir.path().join("history"), &mut script.time.clone(), &mut Ear::default()).unwrap();
    assert!(script.released_at_sight.get(), "the last sight is part of closing");
}

/// Holes, seen by several eyes.
struct Holes;

impl Eye for Holes {
    fn look(&mut self, pages: &[u64], sink: &mut crate::memory::Sink<'_>) -> Result<(), MemoryError> {
        (0..pages.len()).for_each(|index| sink(index, Look::Hole));
        Ok(())
    }
}

impl Memory for Holes {
    fn look(&mut self, _: &[u64], _: &mut crate::memory::Sink<'_>) -> Result<(), MemoryError> {
        unreachable!("there are eyes")
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        Ok(Vec::new())
    }

    fn eyes(&mut self, count: usize) -> Result<Vec<Box<dyn Eye + Send + '_>>, MemoryError> {
        Ok((0..count).map(|_| Box::new(Holes) as Box<dyn Eye + Send + '_>).collect())
    }
}

#[test]
fn what_other_threads_cost_counts() {
    let (script, settings) = (quiet(), settings(Duration::from_secs(1)));
    let block = Block { length_bytes: PAGE_SIZE << 16, ..block() };
    let tracked = Tracked::new(std::slice::from_ref(&block), PAGE_SIZE, Sample::full()).unwrap();
    // This clock knows of no cost but what is charged to it.
    let (mut clock, mut ear) = (script.time.clone(), Ear::default());
    let scanner = Scanner::new(tracked).with_threads(2);
    let start = (clock.now(), clock.cpu());
    let (mut log, mut watch) = (Contents { scanner, memory: &mut Holes }, script.clone());
    let mut recorder = Recorder::new(&mut log, &mut watch, &settings, start, &mut clock, &mut ear);
    recorder.baseline().unwrap();
    assert!(!recorder.schedule.scan_cost.is_zero());
    recorder.windows(&mut Windows::default());
    assert!(recorder.cost() > 0.0);
}
