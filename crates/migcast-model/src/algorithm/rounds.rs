//! Migration in rounds: what Xen, Cloud Hypervisor, Propolis, CRIU and stop-and-copy have in common, stepped.
//!
//! ```text
//!  log on │ round 1: everything │ read │ round 2: what was written │ read │ … │ stop │ the rest, read, what is new │ resume
//! ```
//! A round goes once over the memory in page order. Where they differ they differ in a [`Policy`]: when they read the
//! log, when they stop, what they skip, how pages are framed.

use std::fmt::Debug;
use std::time::Duration;

use super::Request;
use crate::due::{Batch, DueSet, PageBytes, Rewritten, Sent};
use crate::link::SendQueue;
use crate::migration::{Event, Migration, Progress};
use crate::outcome::{Completed, DowntimeParts, ITERATIONS_OFTEN, Iteration, StopReason};
use crate::platform::Platform;
use crate::units::{ByteCount, BytesPerSec, GuestTime, PageCount, SimTime};

/// Batches handed out together that are walked through one by one. By then the sender's buffer has been found in every state
/// that comes round.
const BATCHES_ONE_BY_ONE: u64 = 512;

/// What distinguishes one algorithm of rounds from another.
pub trait Policy: Clone + Debug + Send {
    /// How pages are framed in the stream.
    fn frame(&self) -> Frame;

    /// Whether the guest stands still while the log is read or looked into. That is neither downtime, which is the last
    /// stop alone, nor throttling: it is in the migration time only, and the guest comes no further meanwhile.
    fn reading_pauses(&self) -> bool {
        false
    }

    /// Whether the log is read before the first round, too, though every page is due then.
    fn reads_before_first(&self) -> bool {
        false
    }

    /// Whether a round ends only when the target has all of it, rather than when it has been written.
    fn acknowledged(&self) -> bool {
        false
    }

    /// Whether there is a live round at all.
    fn is_live(&self) -> bool {
        true
    }

    /// What happens in `round`, counted from 1, to a due page that is found written again when its batch is put
    /// together.
    fn rewritten(&self, _round: u64) -> Rewritten {
        Rewritten::Sent
    }

    /// After a live round.
    fn after_round(&mut self, round: &Round) -> Next;

    /// After the log was read for another round: `due` pages were in it.
    fn after_reading(&mut self, _due: PageCount, _elapsed: Duration) -> Next {
        Next::Send
    }
}

/// How pages are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Pages of a batch: what is sent between two looks at the clock or into the log.
    pub batch: PageCount,
    /// Bytes around a batch.
    pub around: ByteCount,
    /// Bytes of a page.
    pub page: PageBytes,
    /// Bytes of a page that is only announced.
    pub announced: ByteCount,
}

impl Frame {
    /// Where a zero page is sent whole it is no less work than another.
    fn weighed(&self, sent: Sent) -> Sent {
        if self.page.zero == self.page.data { Sent { data: sent.pages(), ..Sent::default() } } else { sent }
    }
}

/// A live round that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// Counted from 1.
    pub number: u64,
    /// Pages that were due at its beginning.
    pub due: PageCount,
    /// Places taken in batches.
    pub sent: PageCount,
    /// Pages skipped.
    pub skipped: PageCount,
    /// Bytes it sent and how long that took.
    pub bytes: ByteCount,
    /// See `bytes`.
    pub lasted: Duration,
    /// The same with all rounds before it.
    pub sent_in_all: PageCount,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read the log for another round.
    Read,
    /// Send what is due, in a live round.
    Send,
    /// Stop the guest and send the rest.
    Stop(StopReason),
    /// Cancel the migration: the guest stays where it is.
    Cancel,
}

/// One migration in rounds over any set of due pages.
#[derive(Clone, Debug)]
pub struct Rounds<'a, P, D> {
    policy: P,
    platform: &'a Platform,
    /// Time of one look into the log.
    log_reading: Duration,
    due: D,
    queue: SendQueue,
    now: SimTime,
    guest_now: GuestTime,
    /// When pages began to be sent.
    began: SimTime,
    phase: Phase,
    round: Round,
    round_began: SimTime,
    sent: Sent,
    sent_bytes: ByteCount,
    iterations: Vec<Iteration>,
}

/// Where the migration is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Requested; nothing has happened yet.
    Requested,
    /// In a live round.
    Live,
    /// Between the decision and the guest's last instruction.
    Stopping { decided: SimTime, reason: StopReason },
    /// The guest is stopped; what was due then is sent.
    Rest(Stopped),
    /// The log was read for the last time; what was in it is sent.
    Last(Stopped),
    /// Cancelled.
    Cancelled,
    /// Done.
    Done,
}

#[derive(Clone, Copy, Debug)]
struct Stopped {
    decided: SimTime,
    at: SimTime,
    reason: StopReason,
}

impl<'a, P: Policy, D: DueSet> Rounds<'a, P, D> {
    /// A migration by this policy.
    pub fn new(policy: P, request: &Request<'a>, due: D) -> Self {
        Rounds {
            policy,
            platform: request.platform,
            log_reading: request.platform.log_reading(request.guest),
            due,
            queue: SendQueue::new(request.link.sender_buffer),
            now: SimTime::ZERO,
            guest_now: GuestTime::ZERO,
            began: SimTime::ZERO,
            phase: Phase::Requested,
            round: Round::first(PageCount::ZERO),
            round_began: SimTime::ZERO,
            sent: Sent::default(),
            sent_bytes: ByteCount::ZERO,
            iterations: Vec::with_capacity(ITERATIONS_OFTEN),
        }
    }

    fn run_until(&mut self, end: SimTime) {
        self.guest_now += self.platform.guest_time(end.since(self.now));
        self.now = end;
    }

    fn set_up(&mut self, granted: BytesPerSec) {
        self.run_until(self.now + self.platform.connect + self.platform.setup);
        if self.policy.reads_before_first() {
            self.look_into_log();
        }
        self.due.start(self.guest_now);
        self.began = self.now;
        self.begin_iteration();
        self.round = Round::first(self.due.due());
        self.round_began = self.now;
        self.phase = match self.policy.is_live() {
            true => {
                // A batch of 1,024 frame numbers alone is 8 KiB, which is taken to fit the sender's buffer: the link carries it
                // while the next is walked through.
                let end = self.put(self.platform.first_round_bytes, self.platform.first_round, granted);
                self.run_until(end);
                Phase::Live
            }
            false => Phase::Stopping { decided: self.now, reason: StopReason::Fixed },
        };
    }

    fn look_into_log(&mut self) {
        let end = self.now + self.log_reading;
        if self.policy.reading_pauses() { self.now = end } else { self.run_until(end) }
    }

    fn begin_iteration(&mut self) {
        Iteration::begin(&mut self.iterations, self.now, self.due.due());
    }

    fn iteration(&mut self) -> &mut Iteration {
        self.iterations.last_mut().expect("set-up began the first iteration")
    }

    /// A batch of a live round; at the round's end the policy says what follows.
    fn live_batch(&mut self, granted: BytesPerSec) -> Event {
        let rewritten = self.policy.rewritten(self.round.number);
        if !self.batch(rewritten, granted) {
            return Event::Paused;
        }
        if self.policy.acknowledged() {
            let delivered = self.queue.delivered(granted).max(self.now);
            self.run_until(delivered);
        }
        self.round.lasted = self.now.since(self.round_began);
        let next = self.policy.after_round(&self.round);
        self.follow(next)
    }

    fn follow(&mut self, next: Next) -> Event {
        match next {
            Next::Read => {
                self.look_into_log();
                let due = self.due.replace(self.guest_now);
                self.begin_iteration();
                self.run_until(self.now + self.platform.round);
                let next = self.policy.after_reading(due, self.now.since(self.began));
                assert_ne!(next, Next::Read, "a log that was just read is not read again");
                match self.follow(next) {
                    Event::Paused => Event::IterationEnded,
                    event => event,
                }
            }
            Next::Send => {
                self.round = self.round.next(self.due.due());
                self.round_began = self.now;
                self.phase = Phase::Live;
                Event::Paused
            }
            Next::Stop(reason) => {
                self.phase = Phase::Stopping { decided: self.now, reason };
                Event::Paused
            }
            Next::Cancel => {
                self.phase = Phase::Cancelled;
                Event::Cancelled
            }
        }
    }

    /// Sends a batch. Says whether the pass over the memory is at its end.
    fn batch(&mut self, rewritten: Rewritten, granted: BytesPerSec) -> bool {
        let frame = self.policy.frame();
        let batches = self.batches_at_once(frame.batch, rewritten);
        let looks = rewritten != Rewritten::Sent;
        let mut looked = self.guest_now;
        if looks {
            self.look_into_log();
            // One look half-way from the first batch's to the last one's stands for them.
            let until_last = Sent { data: PageCount::new(frame.batch.get() * (batches - 1)), ..Sent::default() };
            let sending = until_last.bytes(frame.page).transfer_time_ceil(granted);
            looked = self.guest_now + self.platform.guest_time(sending.max(self.platform.page_work(until_last)) / 2);
        }
        let batch = self.due.batch(looked, PageCount::new(frame.batch.get() * batches), rewritten);
        let Batch { sent, skipped, .. } = batch;
        let places = batch.places();
        self.round.sent += places;
        self.round.sent_in_all += places;
        self.round.skipped += skipped;
        self.sent += sent;
        let iteration = self.iteration();
        iteration.sent += sent;
        iteration.skipped += skipped;
        if !places.is_zero() {
            // As many batches as its places fill.
            let filled = places.get().div_ceil(frame.batch.get());
            let around = ByteCount::new(frame.around.get() * filled);
            let bytes = around + sent.bytes(frame.page) + batch.announced.bytes(frame.announced);
            let full = (frame.batch.get() as f64 / places.get() as f64).min(1.0);
            self.put_batches(bytes, self.platform.page_work(frame.weighed(sent)), filled, full, looks, granted);
        }
        batch.ended
    }

    /// Batches that the due set can hand out together; where the log is looked into before each, none that goes beyond the
    /// pages that are alike.
    fn batches_at_once(&self, places: PageCount, rewritten: Rewritten) -> u64 {
        let batches = self.due.alike().map_or(1, |alike| match rewritten {
            Rewritten::Sent => alike.get().div_ceil(places.get()),
            Rewritten::Skipped | Rewritten::Announced => alike.get() / places.get(),
        });
        batches.max(1)
    }

    /// Puts these bytes of so many batches on their way, which take so much work, all but the last `full` a share of them; where
    /// it `looks` into the log before each, the first look is behind.
    fn put_batches(
        &mut self,
        bytes: ByteCount,
        cpu: Duration,
        batches: u64,
        full: f64,
        looks: bool,
        granted: BytesPerSec,
    ) {
        let (mut bytes, mut cpu) = (bytes, cpu);
        let nanos = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        let (share, each) = (ByteCount::new(part(bytes.get(), full)), Duration::from_nanos(part(nanos, full)));
        let one_by_one = batches.min(BATCHES_ONE_BY_ONE);
        let mut half_way = self.now;
        for batch in 0..one_by_one {
            if looks && batch > 0 {
                self.look_into_log();
            }
            let held = self.queue.capacity() - self.queue.free(self.now, granted);
            if !looks && granted.bytes_in(each) <= held {
                // The buffer holds enough each time, as large ones do.
                let end = self.put(bytes, cpu, granted);
                self.sends_until(end);
                return;
            }
            if batch + 1 == batches {
                self.put_batch(bytes, cpu, granted);
                return;
            }
            if batch == one_by_one / 2 {
                half_way = self.now;
            }
            self.put_batch(share, each, granted);
            (bytes, cpu) = (bytes.saturating_sub(share), cpu.saturating_sub(each));
        }
        // The rest takes as long as the second half of those, and leaves the buffer as it is.
        let left = (batches - one_by_one) as f64 / (one_by_one - one_by_one / 2) as f64;
        let took = self.now.since(half_way).mul_f64(left);
        self.count_sent(bytes);
        self.queue.stays_for(took);
        self.sends_until(self.now + took);
    }

    fn put_batch(&mut self, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) {
        let longer = self.one_after_the_other(cpu, bytes, granted);
        let end = self.put(bytes, cpu, granted) + longer;
        // What the buffer holds then is in that already.
        self.queue.stays_for(longer);
        self.sends_until(end);
    }

    /// Sends, and if it does not stand still the guest runs meanwhile.
    fn sends_until(&mut self, end: SimTime) {
        match self.phase {
            Phase::Rest(_) | Phase::Last(_) => self.now = end,
            _ => self.run_until(end),
        }
    }

    /// How much longer a batch takes than its work or its sending, whichever is longer: it is put together before any of it is
    /// written, and meanwhile the link carries no more than the sender's buffer holds.
    fn one_after_the_other(&self, cpu: Duration, bytes: ByteCount, granted: BytesPerSec) -> Duration {
        let free = self.queue.free(self.now, granted);
        let held = self.queue.capacity() - free;
        let sending = bytes.saturating_sub(free).transfer_time_ceil(granted);
        cpu.min(sending).saturating_sub(cpu.min(held.transfer_time_ceil(granted)))
    }

    fn count_sent(&mut self, bytes: ByteCount) {
        self.sent_bytes += bytes;
        self.round.bytes += bytes;
        self.iteration().sent_bytes += bytes;
    }

    fn put(&mut self, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) -> SimTime {
        self.count_sent(bytes);
        self.queue.accept(self.now, bytes, cpu, granted)
    }
}

impl<P: Policy, D: DueSet> Rounds<'_, P, D> {
    fn stop(&mut self, decided: SimTime, reason: StopReason) {
        self.run_until(self.now + self.platform.stop);
        let stopped = Stopped { decided, at: self.now, reason };
        // Without a live round everything is due, and nothing more can be.
        self.phase = if self.policy.is_live() { Phase::Rest(stopped) } else { Phase::Last(stopped) };
    }

    fn read_for_the_last_time(&mut self, stopped: Stopped) {
        self.now += self.log_reading;
        self.due.replace(self.guest_now);
        self.now += self.platform.round;
        self.begin_iteration();
        self.phase = Phase::Last(stopped);
    }

    /// It is in the last reading of the log, but in no history: a guest suspends itself only to be migrated.
    fn send_what_suspending_wrote(&mut self, granted: BytesPerSec) {
        let sent = Sent { data: self.platform.stop_pages, ..Sent::default() };
        self.sent += sent;
        let iteration = self.iteration();
        iteration.sent += sent;
        iteration.due_at_start += sent.data;
        let bytes = sent.bytes(self.policy.frame().page);
        self.now = self.put(bytes, self.platform.page_work(sent), granted);
    }

    /// Everything after the last page.
    fn complete(&mut self, stopped: Stopped, granted: BytesPerSec) -> Completed {
        if self.policy.is_live() && !self.platform.stop_pages.is_zero() {
            self.send_what_suspending_wrote(granted);
        }
        let pages_done = self.now;
        self.now = self.put(self.platform.device_state, self.platform.device_state_cost, granted);
        let written = self.now;
        let delivered = self.queue.delivered(granted).max(written);
        let resumed = delivered + self.platform.resume;
        self.iteration().end = written;
        self.phase = Phase::Done;
        let downtime = DowntimeParts {
            switchover: Duration::ZERO,
            pages: pages_done.since(stopped.at),
            device_state: written.since(pages_done),
            drain: delivered.since(written),
            resume: resumed.since(delivered),
        };
        Completed {
            migration_time: resumed.since(SimTime::ZERO),
            migration_time_reported: resumed.since(SimTime::ZERO),
            downtime,
            downtime_reported: resumed.since(stopped.decided),
            sent_bytes: self.sent_bytes,
            sent: self.sent,
            throttled: Duration::ZERO,
            post_copy: Duration::ZERO,
            iteration_count: self.iterations.len() as u64,
            iterations: std::mem::take(&mut self.iterations),
            stop_reason: stopped.reason,
        }
    }
}

/// A share of what is fewer than 2^63, rounded down. Signed numbers are converted in one step, and `Duration::mul_f64` goes by way
/// of seconds: a round's arithmetic is little more than this.
fn part(whole: u64, share: f64) -> u64 {
    ((whole.cast_signed() as f64 * share) as i64).cast_unsigned()
}

impl Round {
    fn first(due: PageCount) -> Round {
        Round {
            number: 1,
            due,
            sent: PageCount::ZERO,
            skipped: PageCount::ZERO,
            bytes: ByteCount::ZERO,
            lasted: Duration::ZERO,
            sent_in_all: PageCount::ZERO,
        }
    }

    fn next(self, due: PageCount) -> Round {
        Round { number: self.number + 1, sent_in_all: self.sent_in_all, ..Round::first(due) }
    }
}

impl<P: Policy, D: DueSet + Clone> Migration for Rounds<'_, P, D> {
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        while self.now < until {
            match self.phase {
                Phase::Requested => {
                    self.set_up(granted);
                    return Event::IterationEnded;
                }
                Phase::Live => match self.live_batch(granted) {
                    Event::Paused => {}
                    event => return event,
                },
                Phase::Stopping { decided, reason } => {
                    self.stop(decided, reason);
                    return Event::Stopped;
                }
                Phase::Rest(stopped) => {
                    if self.batch(Rewritten::Sent, granted) {
                        self.read_for_the_last_time(stopped);
                    }
                }
                Phase::Last(stopped) => {
                    if self.batch(Rewritten::Sent, granted) {
                        return Event::Completed(Box::new(self.complete(stopped, granted)));
                    }
                }
                Phase::Cancelled | Phase::Done => unreachable!("a migration that has ended is not advanced"),
            }
        }
        Event::Paused
    }

    fn progress(&self) -> Progress {
        Progress {
            now: self.now,
            sent: self.sent_bytes,
            iterations: self.iterations.len() as u64,
            due: self.due.due(),
            has_moved: false,
        }
    }
}
