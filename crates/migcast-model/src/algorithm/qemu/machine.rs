//! The migration thread, stepped.

use std::time::Duration;

use super::rules::{RateAccounting, Rules, Window};
use super::settings::Settings;
use crate::due::{DueSet, PageBytes, SendLimit, Sent};
use crate::guest::Guest;
use crate::link::{Link, SendQueue};
use crate::migration::{Event, Migration, Progress};
use crate::outcome::{Completed, DowntimeParts, Iteration, StopReason};
use crate::platform::Platform;
use crate::units::{ByteCount, BytesPerSec, GuestTime, PageCount, SimTime};

/// MAX_WAIT: a step ends when it has lasted longer, in whole milliseconds, at a look at the clock.
const STEP_MAX_MS: u128 = 50;
/// ram_save_iterate looks at the clock after its 1st page and every 64th from there on.
const PAGES_PER_TIME_CHECK: u64 = 64;
/// Pages with data per flush of the stream: MAX_IOV_SIZE 64, a header and a page each.
const DATA_PAGES_PER_FLUSH: u64 = 32;
/// IO_BUF_SIZE: headers alone (zero pages) flush the stream when they fill this.
const FLUSH_BUFFER: ByteCount = ByteCount::new(32_768);
/// Around the pages of a step: section type 1, id 4, end marker 8, footer 5.
const SECTION_BYTES: ByteCount = ByteCount::new(18);
/// Header of a page: offset and flags. The block's name, sent when the block changes, is left out: under 100 bytes a pass.
const PAGE_HEADER: u64 = 8;
/// A zero page: header and one byte.
const ZERO_PAGE_BYTES: ByteCount = ByteCount::new(PAGE_HEADER + 1);

/// One QEMU pre-copy migration over any set of due pages.
#[derive(Debug)]
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
    unflushed: Unflushed,
    syncs: u64,
    sent: Sent,
    sent_bytes: ByteCount,
    iterations: Vec<Iteration>,
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
    Completing { decided: SimTime, stopped: SimTime, reason: StopReason },
    /// Done.
    Done,
}

/// What the stream's buffer holds that the rate limit of 8.1 and later has not seen yet.
#[derive(Clone, Copy, Debug, Default)]
struct Unflushed {
    data_pages: u64,
    bytes: ByteCount,
}

impl<D: DueSet> Qemu<D> {
    /// A migration requested at time zero over `link` (of which only the sender's buffer is taken here; the rate is
    /// granted at each step).
    pub fn new(rules: Rules, settings: Settings, guest: Guest, link: &Link, platform: Platform, due: D) -> Self {
        Qemu {
            rules,
            window: Window::open(SimTime::ZERO, settings.max_bandwidth),
            settings,
            platform,
            guest,
            due,
            queue: SendQueue::new(link.sender_buffer),
            now: SimTime::ZERO,
            guest_now: GuestTime::ZERO,
            phase: Phase::Requested,
            threshold: ByteCount::ZERO,
            unflushed: Unflushed::default(),
            syncs: 0,
            sent: Sent::default(),
            sent_bytes: ByteCount::ZERO,
            iterations: Vec::new(),
        }
    }

    /// Time passes while the guest runs.
    fn run_for(&mut self, span: Duration) {
        self.run_until(self.now + span);
    }

    fn run_until(&mut self, end: SimTime) {
        self.guest_now += self.guest_time(end.since(self.now));
        self.now = end;
    }

    /// How far the guest comes in a span of wall time.
    fn guest_time(&self, span: Duration) -> Duration {
        Duration::from_nanos((span.as_nanos() as f64 * self.platform.guest_speed) as u64)
    }

    /// migration_thread up to its loop: the window opens before set-up, so the first bandwidth estimate includes it.
    fn set_up(&mut self) {
        self.run_for(self.platform.connect);
        self.window = Window::open(self.now, self.settings.max_bandwidth);
        self.run_for(self.platform.setup);
        self.due.start(self.guest_now);
        self.begin_iteration();
    }

    /// migration_bitmap_sync while the guest runs.
    fn sync_live(&mut self) {
        self.run_for(self.platform.log_reading(&self.guest));
        self.due.sync(self.guest_now);
        self.begin_iteration();
    }

    fn begin_iteration(&mut self) {
        self.syncs += 1;
        if let Some(ended) = self.iterations.last_mut() {
            ended.end = self.now;
        }
        self.iterations.push(Iteration {
            start: self.now,
            end: self.now,
            sent: Sent::default(),
            skipped: PageCount::ZERO,
            sent_bytes: ByteCount::ZERO,
            due_at_start: self.due.due(),
        });
    }

    fn remaining(&self) -> ByteCount {
        self.due.due().bytes(self.guest.page_size)
    }

    /// migration_iteration_run. Says whether the dirty log was read.
    fn decide(&mut self) -> bool {
        let syncs = self.rules.needs_sync(self.remaining(), self.threshold);
        if syncs {
            self.sync_live();
        }
        self.phase = match self.rules.stops(self.remaining(), self.threshold) {
            Some(reason) => Phase::Stopping { decided: self.now, reason },
            None => Phase::Stepping { began: self.now, pages: PageCount::ZERO },
        };
        syncs
    }

    /// Sends up to the next look at the clock, the next flush or the end of the budget; ends the step if it is over.
    fn step(&mut self, began: SimTime, pages: PageCount, granted: BytesPerSec) {
        // Looks so far: after pages 1, 65, 129, …; the next one is due after as many again.
        let looks = pages.get().div_ceil(PAGES_PER_TIME_CHECK);
        let until_look = PageCount::new(looks * PAGES_PER_TIME_CHECK + 1) - pages;
        let limit = match self.rules.rate_accounting {
            RateAccounting::Queued => SendLimit { bytes: self.window.left(), ..SendLimit::pages(until_look) },
            RateAccounting::Flushed => SendLimit {
                data_pages: PageCount::new(DATA_PAGES_PER_FLUSH - self.unflushed.data_pages),
                ..SendLimit::pages(until_look)
            },
        };
        let sent = self.send_pages(limit, granted);
        let pages = pages + sent.pages();
        self.account(sent);
        // In a sampled history one tracked page stands for several, and the count may step over the page of a look.
        let looks_at_clock = pages.get().div_ceil(PAGES_PER_TIME_CHECK) != looks;
        let lasted_ms = self.now.since(began).as_millis();
        let turned_round = sent.pages().is_zero();
        if self.window.is_exceeded() || turned_round || (looks_at_clock && lasted_ms > STEP_MAX_MS) {
            self.end_step(granted);
        } else {
            self.phase = Phase::Stepping { began, pages };
        }
    }

    /// Sends due pages while the guest runs or stands, as long as that takes.
    fn send_pages(&mut self, limit: SendLimit, granted: BytesPerSec) -> Sent {
        let page = self.page_bytes();
        let sent = self.due.send(self.guest_now, limit, page);
        let cpu = self.platform.page_work(sent);
        let end = self.put(sent.bytes(page), cpu, granted);
        self.sent.data += sent.data;
        self.sent.zero += sent.zero;
        let iteration = self.iteration();
        iteration.sent.data += sent.data;
        iteration.sent.zero += sent.zero;
        match self.phase {
            Phase::Completing { .. } => self.now = end,
            _ => self.run_until(end),
        }
        sent
    }

    /// Hands bytes to the link from now on; returns when they are accepted.
    fn put(&mut self, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) -> SimTime {
        self.sent_bytes += bytes;
        self.iteration().sent_bytes += bytes;
        self.window.transferred += bytes;
        self.queue.accept(self.now, bytes, cpu, granted)
    }

    fn iteration(&mut self) -> &mut Iteration {
        self.iterations.last_mut().expect("the first sync began the first iteration")
    }

    fn page_bytes(&self) -> PageBytes {
        page_bytes(self.guest.page_size)
    }

    /// Counts against the window's budget what the version counts.
    fn account(&mut self, sent: Sent) {
        let bytes = sent.bytes(self.page_bytes());
        match self.rules.rate_accounting {
            RateAccounting::Queued => self.window.used += bytes,
            RateAccounting::Flushed => {
                self.unflushed.data_pages += sent.data.get();
                self.unflushed.bytes += bytes;
                let data = PageCount::new(self.unflushed.data_pages).bytes(self.guest.page_size);
                let headers_only = self.unflushed.bytes.saturating_sub(data);
                if self.unflushed.data_pages >= DATA_PAGES_PER_FLUSH || headers_only >= FLUSH_BUFFER {
                    self.flush();
                }
            }
        }
    }

    fn flush(&mut self) {
        self.window.used += std::mem::take(&mut self.unflushed).bytes;
    }

    /// The section's end and migration_rate_limit.
    fn end_step(&mut self, granted: BytesPerSec) {
        let end = self.put(SECTION_BYTES, Duration::ZERO, granted);
        self.run_until(end);
        self.flush();
        self.window.used += SECTION_BYTES;
        self.update_counters();
        self.phase = if self.window.is_exceeded() { Phase::Asleep } else { Phase::Deciding };
    }

    /// migration_update_counters: a window of 100 ms or more gives a bandwidth, that a threshold, and a new window.
    fn update_counters(&mut self) {
        if let Some(spent) = self.window.closes(self.now) {
            self.threshold = self.rules.threshold(&self.settings, self.window.transferred, spent);
            self.window = Window::open(self.now, self.settings.max_bandwidth);
        }
    }

    fn wake(&mut self) {
        self.run_until(self.now.max(self.window.wake()));
        self.update_counters();
        self.phase = Phase::Deciding;
    }

    /// migration_completion up to the guest's last instruction; then the last reading of the dirty log.
    fn stop(&mut self, decided: SimTime, reason: StopReason) {
        self.run_for(self.platform.stop);
        let stopped = self.now;
        self.now += self.platform.log_reading(&self.guest);
        self.due.sync(self.guest_now);
        self.begin_iteration();
        self.phase = Phase::Completing { decided, stopped, reason };
    }

    /// Everything after the last page.
    fn complete(&mut self, decided: SimTime, stopped: SimTime, reason: StopReason, granted: BytesPerSec) -> Completed {
        let pages_done = self.now;
        let state = self.platform.device_state + SECTION_BYTES;
        self.now = self.put(state, self.platform.device_state_cost, granted);
        let written = self.now;
        let delivered = self.queue.delivered(granted).max(written);
        let resumed = delivered + self.platform.resume;
        self.iteration().end = written;
        self.phase = Phase::Done;
        Completed {
            migration_time: resumed.since(SimTime::ZERO),
            migration_time_reported: whole_millis(SimTime::ZERO, written),
            downtime: DowntimeParts {
                pages: pages_done.since(stopped),
                device_state: written.since(pages_done),
                drain: delivered.since(written),
                resume: resumed.since(delivered),
            },
            downtime_reported: whole_millis(decided, written),
            sent_bytes: self.sent_bytes,
            sent: self.sent,
            throttled: Duration::ZERO,
            post_copy: Duration::ZERO,
            iteration_count: self.syncs,
            iterations: std::mem::take(&mut self.iterations),
            stop_reason: reason,
        }
    }
}

/// Bytes of a page in QEMU's stream, header included (ram.c, save_page_header).
pub fn page_bytes(page_size: ByteCount) -> PageBytes {
    PageBytes { data: ByteCount::new(PAGE_HEADER) + page_size, zero: ZERO_PAGE_BYTES }
}

impl<D: DueSet> Migration for Qemu<D> {
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        while self.now < until {
            match self.phase {
                Phase::Requested => {
                    self.set_up();
                    self.phase = Phase::Deciding;
                    return Event::IterationEnded;
                }
                Phase::Deciding => {
                    if self.decide() {
                        return Event::IterationEnded;
                    }
                }
                Phase::Stepping { began, pages } => self.step(began, pages, granted),
                Phase::Asleep => self.wake(),
                Phase::Stopping { decided, reason } => {
                    self.stop(decided, reason);
                    return Event::Stopped;
                }
                Phase::Completing { decided, stopped, reason } => {
                    let sent = self.send_pages(SendLimit::pages(PageCount::new(PAGES_PER_TIME_CHECK)), granted);
                    if sent.pages().is_zero() {
                        return Event::Completed(Box::new(self.complete(decided, stopped, reason, granted)));
                    }
                }
                Phase::Done => unreachable!("a completed migration is not advanced"),
            }
        }
        Event::Paused
    }

    fn progress(&self) -> Progress {
        Progress { now: self.now, sent: self.sent_bytes, iterations: self.syncs, due: self.due.due() }
    }
}

/// A span as QEMU reports it: the difference of two clocks in whole milliseconds.
fn whole_millis(from: SimTime, to: SimTime) -> Duration {
    Duration::from_millis(to.as_millis() - from.as_millis())
}
