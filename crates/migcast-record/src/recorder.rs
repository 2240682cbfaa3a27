//! The recording: windows on a fixed schedule, within a CPU limit, until something ends it.
//!
//! ```text
//! scan   ▓0        ▓1        ▓2        ▓3          ▓ = hash and compare, a few ms
//! window  ├── 1 ───┼── 2 ────┼── 3 ────┤           a window lies between the middles of two scans
//! look         ?                   ?               about once a second: running? migrating? memory as before?
//! ```

use std::ops::ControlFlow;
use std::time::Duration;

use migcast_history::sample::Sample;
use migcast_history::windows::State;
use migcast_history::writer::{WriteError, Writer};

use crate::budget::Budget;
use crate::clock::Clock;
use crate::guest::{Absence, Sight, Watch};
use crate::memory::MemoryError;
use crate::pending::{Finished, Pending, Sink};
use crate::recording::Settings;
use crate::summary::{Listener, Progress, Stop, Summary};
use crate::vcpus::Meter;
use crate::write_log::WriteLog;

/// Shortest and longest time between two looks at the guest's state.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Part of the CPU limit that looks may use; dearer ones (a libvirt client) come less often.
const LOOK_SHARE: f64 = 0.2;
/// Longest wait for the set-up to be paid for.
const SAVE_UP_MAX: Duration = Duration::from_secs(5);
/// How long a guest's process may outlive its monitor before that counts as a monitor that went away.
const END_GRACE: Duration = Duration::from_millis(500);
/// How long preparations go on before somebody may end them.
const PREPARE_SPAN: Duration = Duration::from_millis(200);

/// A recording in progress.
pub(crate) struct Recorder<'a> {
    log: &'a mut dyn WriteLog,
    watch: &'a mut dyn Watch,
    settings: &'a Settings,
    budget: Budget,
    pending: Pending,
    clock: &'a mut dyn Clock,
    listener: &'a mut dyn Listener,
    schedule: Schedule,
    vcpus: Meter,
    counts: Counts,
}

/// Where on the clock the recording is.
#[derive(Debug, Default)]
struct Schedule {
    /// Middle of the baseline scan: the start of the first window and of the grid.
    origin: Duration,
    /// Grid point of the last scan.
    slot: u64,
    /// Middle of the last scan: where the next window starts.
    boundary: Duration,
    look_due: Duration,
    /// CPU time used at the origin, and when the last window was over.
    spent_origin: Duration,
    spent_boundary: Duration,
    scan_cost: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    overruns: u64,
    stretched: u64,
    unreadable: u64,
    /// Looks in a row that nobody answered.
    busy: u64,
    busy_warned: bool,
    stretching_warned: bool,
}

/// What preparations ended with.
#[derive(Debug)]
pub(crate) enum Prepared {
    Ready,
    /// The guest stood still before they were over.
    Standing,
    Stopped(Stop),
}

/// What a wait ended with.
enum Waited {
    Due,
    Away(Absence),
}

impl<'a> Recorder<'a> {
    /// Nothing has been seen yet. `began` and `spent` are the time and the CPU time at which its costs begin to count.
    pub(crate) fn new(
        log: &'a mut dyn WriteLog,
        watch: &'a mut dyn Watch,
        settings: &'a Settings,
        (began, spent): (Duration, Duration),
        clock: &'a mut dyn Clock,
        listener: &'a mut dyn Listener,
    ) -> Recorder<'a> {
        Recorder {
            log,
            watch,
            settings,
            budget: Budget::new(settings.cpu_limit, began, spent),
            pending: Pending::default(),
            clock,
            listener,
            schedule: Schedule::default(),
            vcpus: Meter::default(),
            counts: Counts::default(),
        }
    }

    /// Page numbers of the tracked pages that are zero, ascending.
    pub(crate) fn zero_pages(&self) -> Vec<u64> {
        self.log.zero_pages()
    }

    /// Does what comes before the first reading, and what that cost is nobody's: a hypervisor's log begins with a pass over
    /// all memory.
    pub(crate) fn prepare(&mut self) -> Result<Prepared, MemoryError> {
        let mut is_free = true;
        loop {
            if let Some(stop) = self.stop_asked() {
                return Ok(Prepared::Stopped(stop));
            }
            match self.log.prepare(PREPARE_SPAN) {
                Ok(true) => break,
                Ok(false) => is_free = false,
                Err(MemoryError::Standing) => return Ok(Prepared::Standing),
                Err(MemoryError::Ended { .. }) => return Ok(Prepared::Stopped(Stop::GuestEnded)),
                Err(MemoryError::Migrating) => return Ok(Prepared::Stopped(Stop::MigrationBegan)),
                Err(error) => return Err(error),
            }
        }
        if !is_free {
            self.budget = Budget::new(self.settings.cpu_limit, self.clock.now(), self.clock.cpu());
        }
        Ok(Prepared::Ready)
    }

    /// Waits until the trials are paid for and so are the baseline and the first window's scan, lest that window be
    /// longer than the rest.
    pub(crate) fn save_up(&mut self, scan_cost: Duration) -> Option<Stop> {
        self.budget.settle(self.clock.now(), self.clock.cpu());
        let due = self.budget.affordable_at(2 * scan_cost).min(self.clock.now() + SAVE_UP_MAX);
        while !scan_cost.is_zero() && self.clock.now() < due {
            let stop = self.stop_asked();
            if stop.is_some() {
                return stop;
            }
            self.clock.wait(due);
        }
        None
    }

    /// The first scan, before any window.
    pub(crate) fn baseline(&mut self) -> Result<(), MemoryError> {
        let start = self.clock.now();
        let cpu = self.clock.cpu();
        let scan = self.log.read()?;
        self.clock.charge(scan.cpu_elsewhere);
        let end = self.clock.now();
        self.schedule.scan_cost = self.clock.cpu().saturating_sub(cpu);
        self.schedule.origin = start + (end - start) / 2;
        self.schedule.boundary = self.schedule.origin;
        self.schedule.look_due = end + LOOK_INTERVAL;
        self.schedule.spent_origin = self.clock.cpu();
        self.schedule.spent_boundary = self.schedule.spent_origin;
        self.vcpus.begin(self.clock.now(), self.watch.vcpus());
        Ok(())
    }

    /// Records window after window.
    pub(crate) fn windows(&mut self, sink: &mut dyn Sink) -> Stop {
        let end = self.settings.duration.map_or(Duration::MAX, |span| self.schedule.origin.saturating_add(span));
        loop {
            let (slot, due) = self.next_scan();
            let mut step = match self.wait(due.min(end), sink) {
                ControlFlow::Continue(Waited::Away(absence)) => ControlFlow::Continue(Some(absence)),
                ControlFlow::Continue(Waited::Due) if due > end => ControlFlow::Break(Stop::Duration),
                ControlFlow::Continue(Waited::Due) => self.window(slot, State::Recorded),
                ControlFlow::Break(stop) => ControlFlow::Break(stop),
            };
            while let ControlFlow::Continue(Some(absence)) = step {
                step = self.sit_out(absence, sink, end);
            }
            if let ControlFlow::Break(stop) = step {
                return stop;
            }
        }
    }

    /// The next grid point that is not past and whose scan is paid for.
    fn next_scan(&mut self) -> (u64, Duration) {
        let now = self.clock.now();
        self.budget.settle(now, self.clock.cpu());
        let in_time = self.slot_from(now).max(self.schedule.slot + 1);
        let paid = self.slot_from(self.budget.affordable_at(self.schedule.scan_cost));
        if in_time > self.schedule.slot + 1 {
            self.counts.overruns += 1;
        }
        if paid > in_time {
            self.counts.stretched += 1;
            self.warn_of_stretching();
        }
        let slot = in_time.max(paid);
        let offset = u64::try_from(self.settings.window.as_nanos()).unwrap_or(u64::MAX).saturating_mul(slot);
        (slot, self.schedule.origin.saturating_add(Duration::from_nanos(offset)))
    }

    /// The first grid point at or after `at`.
    fn slot_from(&self, at: Duration) -> u64 {
        let passed = at.saturating_sub(self.schedule.origin).as_nanos();
        u64::try_from(passed.div_ceil(self.settings.window.as_nanos().max(1))).unwrap_or(u64::MAX)
    }

    /// Says once where windows cannot be as short as asked for. A single long one (closing a segment costs, too) is
    /// only counted.
    fn warn_of_stretching(&mut self) {
        let (window, scan) = (self.settings.window.as_secs_f64(), self.schedule.scan_cost.as_secs_f64());
        // Windows end on a grid of the length that was asked for.
        let affordable = (scan / self.settings.cpu_limit / window).ceil() * window;
        if affordable <= window || std::mem::replace(&mut self.counts.stretching_warned, true) {
            return;
        }
        let (what, cure) = if self.log.can_sample() {
            let what = format!("a scan of {} pages", self.log.tracked());
            (what, "a new recording with --sample auto, or a higher --cpu-limit,")
        } else {
            ("a reading of the log".to_owned(), "a higher --cpu-limit")
        };
        self.listener.warn(&format!(
            "{what} costs {:.1} ms of CPU: to keep the limit of {:.1} % of one core windows become {affordable:.2} s long \
             instead of {window} s; {cure} keeps them short",
            scan * 1e3,
            self.settings.cpu_limit * 100.0,
        ));
    }

    /// Sleeps until `due`, looking at the guest's state when that is due.
    fn wait(&mut self, due: Duration, sink: &mut dyn Sink) -> ControlFlow<Stop, Waited> {
        loop {
            if let Some(stop) = self.stop_asked() {
                return ControlFlow::Break(stop);
            }
            let now = self.clock.now();
            let look_due = self.schedule.look_due;
            // The scan goes first, so that looks do not make windows uneven; but looks must not starve.
            if now >= due && now < look_due + LOOK_INTERVAL {
                return ControlFlow::Continue(Waited::Due);
            } else if now < look_due {
                self.clock.wait(due.min(look_due));
            } else if let Some(absence) = self.look(sink)?.absence() {
                return ControlFlow::Continue(Waited::Away(absence));
            }
        }
    }

    fn stop_asked(&mut self) -> Option<Stop> {
        if let Some(interrupt) = self.listener.interrupted() {
            return Some(Stop::Interrupt(interrupt));
        }
        self.watch.ended().then_some(Stop::GuestEnded)
    }

    /// Scans and finishes the window that ends with this scan, unless the guest stands still.
    fn window(&mut self, slot: u64, state: State) -> ControlFlow<Stop, Option<Absence>> {
        let (start, cpu) = (self.clock.now(), self.clock.cpu());
        let scan = match self.log.read() {
            Ok(scan) => scan,
            Err(MemoryError::Ended { .. }) => return ControlFlow::Break(Stop::GuestEnded),
            Err(MemoryError::Migrating) => return ControlFlow::Break(Stop::MigrationBegan),
            Err(MemoryError::Standing) => return ControlFlow::Continue(Some(Absence::of_standing("paused"))),
            Err(error) => return ControlFlow::Break(Stop::Memory(error)),
        };
        self.clock.charge(scan.cpu_elsewhere);
        let (end, spent) = (self.clock.now(), self.clock.cpu());
        let middle = start + (end - start) / 2;
        self.counts.unreadable += scan.unreadable;
        let length = middle.saturating_sub(self.schedule.boundary).as_secs_f64();
        let weight = self.log.memory_pages() as f64 / f64::from(self.log.tracked());
        let progress_written = scan.written.len() as f64 * weight / length;
        self.pending.add(Finished {
            start: self.schedule.boundary,
            end: middle,
            state,
            written: if state == State::Recorded { scan.written } else { Vec::new() },
            zero_changes: scan.zero_changes,
            cost: spent.saturating_sub(self.schedule.spent_boundary),
        });
        self.schedule.scan_cost = spent.saturating_sub(cpu);
        self.schedule.spent_boundary = spent;
        self.schedule.boundary = middle;
        self.schedule.slot = slot;
        self.report(progress_written);
        ControlFlow::Continue(None)
    }

    fn report(&mut self, written_per_second: f64) {
        let progress = Progress {
            elapsed: self.schedule.boundary.saturating_sub(self.schedule.origin),
            windows: self.pending.count(),
            written_per_second,
            cost: self.cost(),
            bytes_on_disk: self.pending.bytes_on_disk,
        };
        self.listener.progress(&progress);
    }

    /// CPU time per time passed since the first window began.
    fn cost(&self) -> f64 {
        let passed = self.clock.now().saturating_sub(self.schedule.origin).as_secs_f64();
        let spent = self.clock.cpu().saturating_sub(self.schedule.spent_origin).as_secs_f64();
        if passed > 0.0 { spent / passed } else { 0.0 }
    }

    /// Looks at the guest and settles the windows held back since the last look.
    fn look(&mut self, sink: &mut dyn Sink) -> ControlFlow<Stop, Sight> {
        let cpu = self.clock.cpu();
        let sight = self.look_once()?;
        self.counts.busy = if let Sight::Busy(_) = sight { self.counts.busy + 1 } else { 0 };
        let found = match &sight {
            // A guest that is ending may look so once, but not twice; held back for ever, windows would never be kept.
            Sight::Busy(_) if self.counts.busy < 2 => None,
            Sight::Busy(why) => {
                self.warn_of_busy(why);
                Some(State::Recorded)
            }
            sight => Some(sight.absence().map_or(State::Recorded, |absence| absence.state)),
        };
        if let Some(Err(error)) = found.map(|found| self.settle(found, sink)) {
            return ControlFlow::Break(Stop::Write(error));
        }
        let cost = self.clock.cpu().saturating_sub(cpu).as_secs_f64();
        let spread = Duration::try_from_secs_f64(cost / (self.settings.cpu_limit * LOOK_SHARE));
        let interval = spread.unwrap_or(LOOK_INTERVAL_MAX).clamp(LOOK_INTERVAL, LOOK_INTERVAL_MAX);
        self.schedule.look_due = self.clock.now() + interval;
        ControlFlow::Continue(sight)
    }

    /// Hands on what is held back, with what the vCPUs used since windows were last handed on.
    fn settle(&mut self, found: State, sink: &mut dyn Sink) -> Result<(), WriteError> {
        self.pending.settle(found, sink, self.clock)?;
        if found != State::Recorded {
            self.vcpus.stop();
        } else if let Some(time) = self.vcpus.next(self.clock.now(), self.watch.vcpus()) {
            sink.add_vcpu_time(time);
        }
        Ok(())
    }

    /// Says once that windows count as recorded though nobody could be asked about them.
    fn warn_of_busy(&mut self, why: &str) {
        if !std::mem::replace(&mut self.counts.busy_warned, true) {
            self.listener.warn(&format!("{why}; recorded all the same, but a migration or a pause may go unnoticed"));
        }
    }

    /// One look at the guest's state and, if it runs undisturbed, at its mappings.
    fn look_once(&mut self) -> ControlFlow<Stop, Sight> {
        match self.watch.look() {
            Sight::MonitorGone(why) => ControlFlow::Break(gone(self.watch, self.clock, why)),
            Sight::LayoutChanged(what) => ControlFlow::Break(Stop::LayoutChanged(what)),
            Sight::Taken => ControlFlow::Break(Stop::MigrationBegan),
            sight @ (Sight::Migrating | Sight::Standing(_)) => ControlFlow::Continue(sight),
            sight @ (Sight::Clear | Sight::Busy(_)) => {
                refresh(self.log.refresh(), self.listener).map_or(ControlFlow::Continue(sight), ControlFlow::Break)
            }
        }
    }

    /// Keeps away while the guest migrates or does not run; then takes a fresh baseline, and the time between becomes
    /// a window in which nothing is known (two, where a guest that stood still migrates, or the other way round).
    fn sit_out(
        &mut self,
        mut absence: Absence,
        sink: &mut dyn Sink,
        end: Duration,
    ) -> ControlFlow<Stop, Option<Absence>> {
        let warnings = self.log.stand_by();
        warnings.iter().for_each(|warning| self.listener.warn(warning));
        self.listener.warn(&format!("{}: recording waits", absence.why));
        loop {
            let now = self.clock.now();
            let stop = self.stop_asked().or_else(|| (now >= end).then_some(Stop::Duration));
            if let Some(stop) = stop {
                self.leave_out(absence.state);
                return ControlFlow::Break(stop);
            }
            if now < self.schedule.look_due {
                self.clock.wait(self.schedule.look_due.min(end));
                continue;
            }
            let seen = self.look(sink);
            self.vcpus.stop();
            match seen {
                ControlFlow::Break(stop) => {
                    self.leave_out(absence.state);
                    return ControlFlow::Break(stop);
                }
                ControlFlow::Continue(Sight::Busy(_)) => {}
                ControlFlow::Continue(sight) => match sight.absence() {
                    None => break,
                    Some(still) if still.state == absence.state => {}
                    Some(other) => {
                        self.leave_out(absence.state);
                        self.listener.warn(&format!("{}: recording waits", other.why));
                        absence = other;
                    }
                },
            }
        }
        match self.prepare() {
            Ok(Prepared::Ready) => {}
            Ok(Prepared::Standing) => return ControlFlow::Continue(Some(absence)),
            Ok(Prepared::Stopped(stop)) => {
                self.leave_out(absence.state);
                return ControlFlow::Break(stop);
            }
            Err(error) => return ControlFlow::Break(Stop::Memory(error)),
        }
        self.vcpus.begin(self.clock.now(), self.watch.vcpus());
        let slot = self.slot_from(self.clock.now());
        self.window(slot, absence.state)
    }

    /// The time since the last window becomes one in which nothing is known.
    fn leave_out(&mut self, state: State) {
        let (now, spent) = (self.clock.now(), self.clock.cpu());
        if now > self.schedule.boundary {
            self.pending.add(Finished {
                start: self.schedule.boundary,
                end: now,
                state,
                written: Vec::new(),
                zero_changes: Vec::new(),
                cost: spent.saturating_sub(self.schedule.spent_boundary),
            });
            self.schedule.boundary = now;
            self.schedule.spent_boundary = spent;
        }
    }

    /// Writes what is held back and closes the history.
    pub(crate) fn close(mut self, stop: Stop, sample: Sample, mut writer: Writer) -> Summary {
        let cost = self.cost();
        // Closing a history takes a while, and the host may need a dead guest's memory.
        let notes = self.log.release();
        notes.iter().for_each(|note| self.listener.note(note));
        let mut stop = stop;
        let held = self.settle_last(&stop, &mut writer);
        let closed = writer.bytes_on_disk();
        let finished = held.and_then(|()| writer.finish().map(|()| self.pending.closed = self.pending.pushed));
        if let Err(error) = finished {
            stop = Stop::Write(error);
        }
        let mut summary = self.summary(stop, sample, closed);
        summary.cost = cost;
        summary
    }

    /// Settles the windows since the last look. A guest that ended, or whose monitor went away, may have been migrating
    /// away: what it wrote then was written under migration, and at last it stood still.
    fn settle_last(&mut self, stop: &Stop, sink: &mut dyn Sink) -> Result<(), WriteError> {
        let found = match stop {
            Stop::MonitorGone(_) | Stop::LayoutChanged(_) | Stop::Write(_) => State::Gap,
            _ => match self.watch.look() {
                Sight::Clear => State::Recorded,
                Sight::Taken => State::Migrating,
                Sight::Busy(why) if !matches!(stop, Stop::GuestEnded) => {
                    self.warn_of_busy(&why);
                    State::Recorded
                }
                sight => sight.absence().map_or(State::Gap, |absence| absence.state),
            },
        };
        self.settle(found, sink)
    }

    fn summary(&self, stop: Stop, sample: Sample, bytes_on_disk: u64) -> Summary {
        Summary {
            stop,
            windows: self.pending.closed,
            windows_lost: self.pending.count().saturating_sub(self.pending.closed),
            recorded: self.pending.recorded,
            migrating: self.pending.migrating,
            gaps: self.pending.gaps,
            sample,
            tracked_pages: u64::from(self.log.tracked()),
            memory_pages: self.log.memory_pages(),
            overruns: self.counts.overruns,
            stretched: self.counts.stretched,
            unreadable: self.counts.unreadable,
            cost: self.cost(),
            bytes_on_disk,
        }
    }
}

/// Notices changes of the guest's mappings. `Some` where nothing more can be read.
pub(crate) fn refresh(found: Result<Vec<String>, MemoryError>, listener: &mut dyn Listener) -> Option<Stop> {
    match found {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| listener.warn(warning));
            None
        }
        Err(MemoryError::Ended { .. }) => Some(Stop::GuestEnded),
        Err(error) => Some(Stop::Memory(error)),
    }
}

/// A guest that ends takes its monitor away a moment before its process is gone.
pub(crate) fn gone(watch: &mut dyn Watch, clock: &mut dyn Clock, why: String) -> Stop {
    let deadline = clock.now() + END_GRACE;
    while clock.now() < deadline && !watch.ended() {
        clock.wait(deadline);
    }
    if watch.ended() { Stop::GuestEnded } else { Stop::MonitorGone(why) }
}

#[cfg(test)]
mod tests;
