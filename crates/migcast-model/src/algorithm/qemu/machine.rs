//! The migration thread, stepped.

mod first_pass;
mod leap;
mod march;
mod writes;

use std::sync::Arc;
use std::time::Duration;

pub use first_pass::FirstPass;

use self::writes::{Cuts, Writer, Written};
use super::dirty_limit::Limiter;
use super::rules::{RateAccounting, Rules, Window};
use super::settings::Settings;
use super::stream::Stream;
use super::throttle::{Period, Slices, SyncTimer};
use crate::due::{DirtyLog, DueSet, SendLimit, Sent};
use crate::guest::Guest;
use crate::link::{Link, SendQueue};
use crate::migration::{Command, Event, Migration, Progress};
use crate::outcome::{Completed, DowntimeParts, ITERATIONS_OFTEN, Iteration, StopReason};
use crate::platform::Platform;
use crate::units::{ByteCount, BytesPerSec, GuestTime, PageCount, SimTime};

/// MAX_WAIT: a step ends when it has lasted longer, in whole milliseconds, at a look at the clock.
const STEP_MAX_MS: u128 = 50;
/// When that is noticed: clocks of whole milliseconds.
const STEP_ENDS_AFTER: Duration = Duration::from_millis(STEP_MAX_MS as u64 + 1);
/// ram_save_iterate looks at the clock after its 1st page and every 64th from there on.
const PAGES_PER_TIME_CHECK: u64 = 64;
/// One QEMU migration over any set of due pages.
#[derive(Clone, Debug)]
pub struct Qemu<D> {
    rules: Rules,
    settings: Settings,
    platform: Platform,
    guest: Guest,
    due: D,
    queue: SendQueue,
    now: SimTime,
    guest_now: GuestTime,
    phase: Phase,
    window: Window,
    threshold: ByteCount,
    stream: Stream,
    /// Since when the guest does not run at the source.
    standing: Option<SimTime>,
    /// Percent of its time the guest sleeps for auto-converge.
    throttle: u64,
    slices: Slices,
    period: Period,
    timer: SyncTimer,
    limiter: Option<Limiter>,
    /// Share of what it would have done that the guest loses by either.
    sleeping: f64,
    throttled: Duration,
    /// migrate-start-postcopy was given.
    wants_postcopy: bool,
    /// The guest runs at the target.
    moved: Option<Moved>,
    is_cancelled: bool,
    /// Its manager has paused the guest, and nobody has been told.
    was_paused: bool,
    syncs: u64,
    sent: Sent,
    sent_bytes: ByteCount,
    iterations: Vec<Iteration>,
    /// When the last window opened that may repeat.
    mark: Option<leap::Mark>,
    /// Shared with others of the same scenario, until the log is read.
    first_pass: Option<Arc<FirstPass>>,
}

/// Where the migration thread is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Requested; the thread has not started.
    Requested,
    /// At the top of the loop: migration_iteration_run decides.
    Deciding,
    /// Inside ram_save_iterate.
    Stepping { began: SimTime, pages: PageCount },
    /// Over the budget, asleep until the window's end.
    Asleep,
    /// Between the decision and the guest's last instruction.
    Stopping { decided: SimTime, reason: StopReason },
    /// The guest is stopped; pages go out without limit.
    Completing { decided: SimTime, stopped: SimTime, switchover: Duration, reason: StopReason },
    /// The guest is stopped, to go on at the target at once.
    Moving { decided: SimTime, stopped: SimTime, switchover: Duration },
    /// The memory of a guest that has moved has all been written.
    Arriving,
    /// Done.
    Done,
}

/// A guest that went on at the target before its memory.
#[derive(Clone, Copy, Debug)]
struct Moved {
    downtime: DowntimeParts,
    downtime_reported: Duration,
    resumed: SimTime,
}

impl<D: DueSet> Qemu<D> {
    /// A migration requested at time zero over `link` (of which only the sender's buffer is taken here; the rate is
    /// granted at each step).
    pub fn new(rules: Rules, settings: Settings, guest: Guest, link: &Link, platform: Platform, due: D) -> Self {
        let stream = Stream::new(&rules, &settings, guest.page_size);
        // Multifd counts pages as their packet is handed to a channel, in every version (multifd_send_pages).
        let multifd = settings.multifd.is_on.then_some(RateAccounting::Flushed);
        let rules = Rules { rate_accounting: multifd.unwrap_or(rules.rate_accounting), ..rules };
        Qemu {
            rules,
            window: Window::open(SimTime::ZERO, settings.max_bandwidth),
            queue: stream.queue(link),
            stream,
            standing: None,
            throttle: 0,
            slices: Slices::default(),
            period: Period::default(),
            timer: SyncTimer::start(SimTime::ZERO),
            limiter: None,
            sleeping: 0.0,
            throttled: Duration::ZERO,
            wants_postcopy: false,
            moved: None,
            is_cancelled: false,
            was_paused: false,
            settings,
            platform,
            guest,
            due,
            now: SimTime::ZERO,
            guest_now: GuestTime::ZERO,
            phase: Phase::Requested,
            threshold: ByteCount::ZERO,
            syncs: 0,
            sent: Sent::default(),
            sent_bytes: ByteCount::ZERO,
            iterations: Vec::with_capacity(ITERATIONS_OFTEN),
            mark: None,
            first_pass: None,
        }
    }

    /// Time passes while the guest runs.
    fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    fn run_until(&mut self, end: SimTime) {
        let wall = end.since(self.now);
        self.now = end;
        if self.standing.is_some() {
            return;
        }
        let run = if self.sleeping > 0.0 {
            let lost = wall.mul_f64(self.sleeping);
            self.throttled += lost;
            wall - lost
        } else {
            wall
        };
        self.guest_now += self.platform.guest_time(run);
    }

    fn cap(&self) -> BytesPerSec {
        if self.moved.is_some() { self.settings.postcopy.max_bandwidth } else { self.settings.max_bandwidth }
    }

    /// migration_thread up to its loop: the window opens before set-up, so the first bandwidth estimate includes it.
    fn set_up(&mut self) {
        self.run_for(self.platform.connect);
        self.window = Window::open(self.now, self.cap());
        self.run_for(self.platform.setup);
        self.due.start(self.guest_now);
        self.begin_iteration();
        self.period = Period::open(self.now, self.sent_bytes);
        self.timer = SyncTimer::start(self.now);
    }

    /// migration_bitmap_sync while the guest runs.
    fn sync_live(&mut self) {
        self.run_for(self.platform.log_reading(&self.guest));
        let dirtied = self.due.sync(self.guest_now).bytes(self.guest.page_size);
        self.begin_iteration();
        self.await_vcpu();
        let threshold = self.settings.auto_converge.trigger_threshold;
        let much = self.period.after_sync(self.now, dirtied, self.sent_bytes, threshold);
        if let Some(much) = much.filter(|_| self.settings.auto_converge.is_on) {
            if self.throttle == 0 {
                self.slices.wake(self.now);
            }
            self.throttle = self.settings.auto_converge.stepped(self.throttle, much);
            self.sleeping = self.settings.auto_converge.lost(self.throttle);
        }
        if much.is_some() && self.settings.dirty_limit.is_on && self.limiter.is_none() {
            self.due.written(self.guest_now);
            self.limiter = Some(Limiter::start(self.settings.dirty_limit, self.now));
        }
    }

    /// Under TCG a reading ends when every vCPU has done a piece of work (system/physmem.c, `tcg_log_global_after_sync`),
    /// which one that is made to sleep does when it wakes.
    fn await_vcpu(&mut self) {
        if self.settings.dirty_log != DirtyLog::Tcg || self.throttle == 0 {
            return;
        }
        let sleeps_on = self.slices.sleeps_on(self.now, self.throttle);
        if !sleeps_on.is_zero() {
            self.run_for(sleeps_on);
            self.slices.wake(self.now);
        }
    }

    /// What timers do beside the migration thread, which they wait for between two steps.
    fn run_timers(&mut self) -> bool {
        if self.standing.is_some() {
            return false;
        }
        if let Some(limiter) = self.limiter.as_mut().filter(|limiter| limiter.is_due(self.now)) {
            let written = self.due.written(self.guest_now);
            limiter.adjust(self.now, written, self.guest.page_size);
            self.sleeping = limiter.share;
        }
        let forces =
            self.rules.has_sync_timer && self.settings.auto_converge.is_on && self.timer.expires(self.now, self.syncs);
        if forces {
            self.sync_live();
        }
        forces
    }

    fn begin_iteration(&mut self) {
        self.syncs += 1;
        Iteration::begin(&mut self.iterations, self.now, self.due.due());
    }

    fn remaining(&self) -> ByteCount {
        self.due.due().bytes(self.guest.page_size)
    }

    /// migration_iteration_run. Says whether the dirty log was read.
    fn decide(&mut self, granted: BytesPerSec) -> bool {
        if self.moved.is_some() {
            self.phase = match self.due.due().is_zero() {
                true => Phase::Arriving,
                false => Phase::Stepping { began: self.now, pages: PageCount::ZERO },
            };
            return false;
        }
        let forced = self.run_timers();
        let every_step = self.rules.postcopy_syncs_every_step && self.settings.postcopy.is_on();
        let syncs = every_step || self.rules.needs_sync(self.remaining(), self.threshold);
        if syncs {
            self.leave_first_pass(granted);
            self.sync_live();
        }
        let completes = self.rules.stops(self.remaining(), self.threshold);
        let postcopy = self.starts_postcopy().then_some(StopReason::PostCopy);
        let reason = if self.rules.postcopy_comes_first { postcopy.or(completes) } else { completes.or(postcopy) };
        self.phase = match reason {
            Some(reason) => Phase::Stopping { decided: self.now, reason },
            None => Phase::Stepping { began: self.now, pages: PageCount::ZERO },
        };
        syncs || forced
    }

    /// Plain memory can all be sent after the move, so nothing has to be waited for.
    fn starts_postcopy(&self) -> bool {
        let settings = &self.settings.postcopy;
        self.wants_postcopy
            || settings.after.is_some_and(|after| self.now >= SimTime::ZERO + after)
            || settings.after_passes.is_some_and(|passes| self.syncs > passes)
    }

    /// Sends up to the next look at the clock, the next flush or the end of the budget; ends the step if it is over.
    fn step(&mut self, began: SimTime, pages: PageCount, granted: BytesPerSec) {
        // Looks so far: after pages 1, 65, 129, …; the next one is due after as many again.
        let looks = pages.get().div_ceil(PAGES_PER_TIME_CHECK);
        let (sent, looks_at_clock) = match self.send_alike(began, pages, granted) {
            Some(sent) => (sent, (pages + sent.pages()).get() % PAGES_PER_TIME_CHECK == 1),
            None => {
                let until_look = PageCount::new(looks * PAGES_PER_TIME_CHECK + 1) - pages;
                let limit = match self.rules.rate_accounting {
                    RateAccounting::Queued => SendLimit { bytes: self.window.left(), ..SendLimit::pages(until_look) },
                    RateAccounting::Flushed => SendLimit::pages(until_look),
                };
                let sent = self.send_pages(self.stream.until_flush(limit), granted);
                (sent, (pages + sent.pages()).get().div_ceil(PAGES_PER_TIME_CHECK) != looks)
            }
        };
        let pages = pages + sent.pages();
        let lasted_ms = self.now.since(began).as_millis();
        let turned_round = sent.pages().is_zero();
        if self.window.is_exceeded() || turned_round || (looks_at_clock && lasted_ms > STEP_MAX_MS) {
            self.end_step(granted);
        } else {
            self.phase = Phase::Stepping { began, pages };
        }
    }

    /// Sends all that is left of the step at once, or of it what is alike, if the due set can tell what lies ahead.
    fn send_alike(&mut self, began: SimTime, pages: PageCount, granted: BytesPerSec) -> Option<Sent> {
        // A set that tells pages apart is asked page by page; nothing is worked out for it.
        self.due.alike()?;
        // No more than the link carries meanwhile; where fewer are meant, the rest has its turn.
        let room = self.queue.room(self.now, STEP_ENDS_AFTER, granted).get() / self.guest.page_size.get();
        let most = PageCount::new(room + PAGES_PER_TIME_CHECK);
        let ahead = self.due.ahead(most).filter(|ahead| !ahead.pages().is_zero())?;
        let Some((per_flush, waiting)) = self.stream.flush() else {
            let until = self.step_of(ahead, pages, began, granted).min(ahead.pages());
            return Some(self.send_pages(SendLimit { bytes: self.window.left(), ..SendLimit::pages(until) }, granted));
        };
        let page = Written::mean(ahead, self.stream.page, &self.platform);
        let cuts = Cuts::of(&page, pages.get(), per_flush, waiting);
        let writer = Writer::new((self.queue, self.now, granted), page, pages.get(), cuts);
        let pages = ahead.pages().min(page.pages_past(self.window.left()));
        let limit = SendLimit { bytes: self.window.left(), ..SendLimit::pages(pages) };
        Some(self.write(writer, limit, began + STEP_ENDS_AFTER))
    }

    /// Sends due pages within a limit, which are alike, as many of them as the writer gets rid of `until` then.
    fn write(&mut self, writer: Writer, limit: SendLimit, until: SimTime) -> Sent {
        let mut written = writer;
        let pages = written.write(limit.pages, until);
        let sent = self.due.send(self.guest_now, SendLimit { pages, ..limit }, self.stream.page);
        if sent.pages() != pages {
            // The budget ended before.
            written = writer;
            written.write(sent.pages(), SimTime::MAX);
        }
        let (queued, flushed) = self.stream.take(sent);
        self.count_sent(sent, queued);
        self.window.transferred += queued;
        self.queue = written.queue();
        self.run_until(written.now());
        self.count(queued, flushed);
        sent
    }

    /// How many pages like `pages` the step takes from now on to its end, after `sent` of any kind.
    fn step_of(&self, pages: Sent, sent: PageCount, began: SimTime, granted: BytesPerSec) -> PageCount {
        let left = STEP_ENDS_AFTER.saturating_sub(self.now.since(began));
        let room = self.queue.room(self.now, left, granted);
        let sum = pages.pages().get().max(1) as f64;
        let bytes = pages.bytes(self.stream.page).get() as f64 / sum;
        let work = self.stream.work(pages, &self.platform).as_nanos() as u64 as f64 / sum;
        // Whichever takes longer, the link or the work, ends the step; the first page for which there is no room in time
        // waits until there is.
        let by_work = if work > 0.0 { left.as_nanos() as u64 as f64 / work } else { f64::INFINITY };
        let until = ((room.get() as f64 / bytes.max(1.0)) as u64 + 1).min((by_work as u64).saturating_add(1));
        let look = (sent.get() + until - 1).next_multiple_of(PAGES_PER_TIME_CHECK) + 1;
        PageCount::new(look - sent.get())
    }

    /// Sends pages of a guest that is stopped, which neither clock nor budget ends.
    fn send_stopped(&mut self, granted: BytesPerSec) -> Sent {
        let ahead = self.due.ahead(self.due.due()).filter(|ahead| !ahead.pages().is_zero());
        let Some(ahead) = ahead else {
            return self.send_pages(SendLimit::pages(PageCount::new(PAGES_PER_TIME_CHECK)), granted);
        };
        if self.stream.flush().is_none() {
            return self.send_pages(SendLimit::pages(ahead.pages()), granted);
        }
        let page = Written::mean(ahead, self.stream.page, &self.platform);
        // Written as many at a time as lie between two looks.
        let writer = Writer::new((self.queue, self.now, granted), page, 1, Cuts::looks());
        self.write(writer, SendLimit::pages(ahead.pages()), SimTime::MAX)
    }

    /// Sends due pages while the guest runs or stands, as long as that takes.
    fn send_pages(&mut self, limit: SendLimit, granted: BytesPerSec) -> Sent {
        let sent = self.due.send(self.guest_now, limit, self.stream.page);
        self.transmit(sent, granted);
        sent
    }

    /// Pages that are due no longer go into the stream, which takes its time.
    fn transmit(&mut self, sent: Sent, granted: BytesPerSec) {
        let (queued, flushed) = self.stream.take(sent);
        // Several threads share the work on pages.
        let end = self.put(queued, self.stream.work(sent, &self.platform), granted);
        self.count_sent(sent, ByteCount::ZERO);
        self.run_until(end);
        self.count(queued, flushed);
    }

    /// Counts against the window's budget what this version counts.
    fn count(&mut self, queued: ByteCount, flushed: ByteCount) {
        self.window.used += match self.rules.rate_accounting {
            RateAccounting::Queued => queued,
            RateAccounting::Flushed => flushed,
        };
    }

    /// Counts pages and bytes that have gone into the stream.
    fn count_sent(&mut self, sent: Sent, bytes: ByteCount) {
        self.sent += sent;
        self.sent_bytes += bytes;
        let iteration = self.iteration();
        iteration.sent += sent;
        iteration.sent_bytes += bytes;
    }

    /// Hands bytes to the link from now on; returns when they are accepted.
    fn put(&mut self, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) -> SimTime {
        self.count_sent(Sent::default(), bytes);
        self.window.transferred += bytes;
        self.queue.accept(self.now, bytes, cpu, granted)
    }

    fn iteration(&mut self) -> &mut Iteration {
        self.iterations.last_mut().expect("the first sync began the first iteration")
    }

    /// The section's end and migration_rate_limit.
    fn end_step(&mut self, granted: BytesPerSec) {
        self.end_section(false, granted);
        self.update_counters(self.now);
        self.phase = if self.window.is_exceeded() { Phase::Asleep } else { Phase::Deciding };
    }

    fn end_section(&mut self, is_last: bool, granted: BytesPerSec) {
        let (queued, flushed) = self.stream.end_section(is_last);
        let end = self.put(queued, Duration::ZERO, granted);
        self.run_until(end);
        self.count(queued, flushed);
    }

    /// migration_update_counters: a window of 100 ms or more gives a bandwidth, that a threshold, and a new window.
    fn update_counters(&mut self, now: SimTime) {
        if let Some(spent) = self.window.closes(now) {
            self.threshold = self.rules.threshold(&self.settings, self.window.transferred, spent);
            self.window = Window::open(now, self.cap());
        }
    }

    fn wake(&mut self) {
        self.run_until(self.now.max(self.window.wake()));
        self.update_counters(self.now);
        self.phase = Phase::Deciding;
    }

    /// migration_completion or postcopy_start up to the guest's last instruction; then the last reading of the dirty log.
    fn stop(&mut self, decided: SimTime, reason: StopReason) {
        let postcopy = reason == StopReason::PostCopy;
        // A guest that was paused moves all the same.
        let reason = if self.standing.is_some() { StopReason::Forced } else { reason };
        if self.standing.is_none() {
            self.run_for(self.platform.stop);
        }
        let stopped = *self.standing.get_or_insert(self.now);
        let switchover = self.settings.pause_before_switchover.unwrap_or_default();
        self.now += switchover + self.platform.log_reading(&self.guest);
        self.due.sync(self.guest_now);
        self.begin_iteration();
        self.phase = if postcopy {
            Phase::Moving { decided, stopped, switchover }
        } else {
            Phase::Completing { decided, stopped, switchover, reason }
        };
    }

    /// Device state, and what the guest waits for after it: the sum of its parts from `stopped` on.
    fn hand_over(&mut self, stopped: SimTime, switchover: Duration, granted: BytesPerSec) -> (DowntimeParts, SimTime) {
        let pages_done = self.now;
        let (ram_end, _) = self.stream.end_section(true);
        let state = self.platform.device_state + ram_end;
        self.now = self.put(state, self.platform.device_state_cost, granted);
        let written = self.now;
        let delivered = self.queue.delivered(granted).max(written);
        let resumed = delivered + self.platform.resume;
        let downtime = DowntimeParts {
            switchover,
            pages: pages_done.since(stopped) - switchover,
            device_state: written.since(pages_done),
            drain: delivered.since(written),
            resume: resumed.since(delivered),
        };
        (downtime, resumed)
    }

    /// postcopy_start: the guest goes on at the target; what is due follows.
    fn move_guest(&mut self, decided: SimTime, stopped: SimTime, switchover: Duration, granted: BytesPerSec) {
        let (downtime, resumed) = self.hand_over(stopped, switchover, granted);
        self.due.stop_encoding();
        let downtime_reported = whole_millis(decided, self.now);
        self.moved = Some(Moved { downtime, downtime_reported, resumed });
        self.window = Window::open(self.now, self.cap());
        self.phase = Phase::Deciding;
    }

    /// The last page of a guest that has moved has been written.
    fn arrive(&mut self, moved: Moved, granted: BytesPerSec) -> Completed {
        self.end_section(true, granted);
        let done = self.queue.delivered(granted).max(self.now).max(moved.resumed);
        let Moved { downtime, downtime_reported, resumed } = moved;
        Completed {
            post_copy: done.since(resumed),
            ..self.completed(done, whole_millis(SimTime::ZERO, done), downtime, downtime_reported, StopReason::PostCopy)
        }
    }

    /// Everything after the last page of a guest that is stopped.
    fn complete(
        &mut self,
        (decided, stopped): (SimTime, SimTime),
        switchover: Duration,
        reason: StopReason,
        granted: BytesPerSec,
    ) -> Completed {
        let (downtime, resumed) = self.hand_over(stopped, switchover, granted);
        let (reported, downtime_reported) = (whole_millis(SimTime::ZERO, self.now), whole_millis(decided, self.now));
        self.completed(resumed, reported, downtime, downtime_reported, reason)
    }

    fn completed(
        &mut self,
        done: SimTime,
        migration_time_reported: Duration,
        downtime: DowntimeParts,
        downtime_reported: Duration,
        stop_reason: StopReason,
    ) -> Completed {
        self.iteration().end = self.now;
        self.phase = Phase::Done;
        Completed {
            migration_time: done.since(SimTime::ZERO),
            migration_time_reported,
            downtime,
            downtime_reported,
            sent_bytes: self.sent_bytes,
            sent: self.sent,
            throttled: self.throttled,
            post_copy: Duration::ZERO,
            iteration_count: self.syncs,
            iterations: std::mem::take(&mut self.iterations),
            stop_reason,
        }
    }
}

impl<D: DueSet + Clone> Migration for Qemu<D> {
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        while self.now < until {
            if self.is_cancelled {
                return Event::Cancelled;
            }
            if std::mem::take(&mut self.was_paused) {
                return Event::Stopped;
            }
            match self.phase {
                Phase::Requested => {
                    self.set_up();
                    self.phase = Phase::Deciding;
                    return Event::IterationEnded;
                }
                Phase::Deciding => {
                    self.skip_first_pass(granted, until);
                    self.leap(granted, until);
                    if self.decide(granted) {
                        return Event::IterationEnded;
                    }
                }
                Phase::Stepping { began, pages } => {
                    if !pages.is_zero() || !self.march(granted, until) {
                        self.step(began, pages, granted);
                    }
                }
                Phase::Asleep => self.wake(),
                Phase::Stopping { decided, reason } => {
                    self.stop(decided, reason);
                    return Event::Stopped;
                }
                Phase::Completing { decided, stopped, switchover, reason } => {
                    if self.send_stopped(granted).pages().is_zero() {
                        let completed = self.complete((decided, stopped), switchover, reason, granted);
                        return Event::Completed(Box::new(completed));
                    }
                }
                Phase::Moving { decided, stopped, switchover } => {
                    self.move_guest(decided, stopped, switchover, granted);
                }
                Phase::Arriving => {
                    let moved = self.moved.expect("only the memory of a guest that has moved arrives");
                    return Event::Completed(Box::new(self.arrive(moved, granted)));
                }
                Phase::Done => unreachable!("a completed migration is not advanced"),
            }
        }
        Event::Paused
    }

    fn progress(&self) -> Progress {
        Progress {
            now: self.now,
            sent: self.sent_bytes,
            iterations: self.syncs,
            due: self.due.due(),
            has_moved: self.moved.is_some(),
        }
    }

    fn command(&mut self, command: Command) {
        self.goes_its_own_way();
        match command {
            Command::DowntimeLimit(limit) => self.settings.downtime_limit = limit.min(Settings::DOWNTIME_LIMIT_MAX),
            // Refused without the capability, which has to be on from the start.
            Command::StartPostcopy => self.wants_postcopy = self.settings.postcopy.is_on(),
            Command::PauseGuest => {
                self.was_paused = self.standing.is_none();
                self.standing.get_or_insert(self.now);
            }
            // A guest that has moved cannot come back.
            Command::Cancel => self.is_cancelled = self.moved.is_none(),
        }
    }
}

/// A span as QEMU reports it: the difference of two clocks in whole milliseconds.
fn whole_millis(from: SimTime, to: SimTime) -> Duration {
    Duration::from_millis(to.as_millis() - from.as_millis())
}
