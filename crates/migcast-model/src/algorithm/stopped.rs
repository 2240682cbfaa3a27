//! The two ends of live migration: everything while the guest stands still, and nothing before it has moved.

use std::time::Duration;

use super::qemu::page_bytes;
use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::Field;
use super::{Ends, Request, Scheme};
use crate::due::{DueSet, SendLimit, Sent};
use crate::guest::Guest;
use crate::link::SendQueue;
use crate::migration::{Event, Migration, Progress};
use crate::outcome::{Completed, DowntimeParts, Iteration, StopReason};
use crate::platform::Platform;
use crate::units::{ByteCount, BytesPerSec, GuestTime, PageCount, SimTime};

/// Pages between two looks at the clock.
const BATCH: PageCount = PageCount::new(1024);

/// The guest is stopped first: what a migration costs that is not live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopAndCopy;

impl Scheme for StopAndCopy {
    fn explained(&self) -> String {
        "The guest is stopped, all of its memory and its device state are sent, and it goes on at the target: no migration is \
         shorter or sends less, and none has a longer downtime. What it writes makes no difference. Pages are framed as QEMU \
         frames them: eight bytes and the page, nine bytes for a page of zeros."
            .to_owned()
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        Vec::new()
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(Standing { page_size: request.guest.page_size }, request, due))
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: 0, stopped: 1, rounds: 0 }
    }
}

/// No live round.
#[derive(Clone, Copy, Debug)]
struct Standing {
    page_size: ByteCount,
}

impl Policy for Standing {
    fn frame(&self) -> Frame {
        Frame { batch: BATCH, around: ByteCount::ZERO, page: page_bytes(self.page_size), announced: ByteCount::ZERO }
    }

    fn is_live(&self) -> bool {
        false
    }

    fn after_round(&mut self, _round: &Round) -> Next {
        Next::Stop(StopReason::Fixed)
    }
}

/// The guest moves first, its memory follows: pure post-copy (Hines and Gopalan, VEE 2009), without pre-paging's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PostCopy;

impl Scheme for PostCopy {
    fn explained(&self) -> String {
        "The guest is stopped, only its device state is sent, and it goes on at the target; then its memory follows, each page \
         once. The downtime depends on neither memory nor writes, but until the last page is there an access to a page that is \
         not waits for the link, and the guest is lost if either host or the link fails. Pages are framed as QEMU frames them: \
         eight bytes and the page, nine bytes for a page of zeros."
            .to_owned()
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        Vec::new()
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Following {
            guest: request.guest.clone(),
            platform: request.platform.clone(),
            due,
            queue: SendQueue::new(request.link.sender_buffer),
            now: SimTime::ZERO,
            phase: Phase::Requested,
            sent: Sent::default(),
            sent_bytes: ByteCount::ZERO,
            pages_from: SimTime::ZERO,
        })
    }

    fn may_move_first(&self) -> bool {
        true
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: 1, stopped: 0, rounds: 1 }
    }
}

/// A guest whose memory follows it.
#[derive(Clone, Debug)]
struct Following<D> {
    guest: Guest,
    platform: Platform,
    due: D,
    queue: SendQueue,
    now: SimTime,
    phase: Phase,
    sent: Sent,
    sent_bytes: ByteCount,
    /// When the first page was sent.
    pages_from: SimTime,
}

/// Where it is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Requested,
    Moving { decided: SimTime },
    Following { decided: SimTime, downtime: DowntimeParts, resumed: SimTime },
    Done,
}

impl<D: DueSet> Following<D> {
    /// The guest, without its memory.
    fn move_guest(&mut self, decided: SimTime, granted: BytesPerSec) {
        let stopped = self.now;
        let written = self.put(self.platform.device_state, self.platform.device_state_cost, granted);
        let delivered = self.queue.delivered(granted).max(written);
        let resumed = delivered + self.platform.resume;
        let downtime = DowntimeParts {
            switchover: Duration::ZERO,
            pages: Duration::ZERO,
            device_state: written.since(stopped),
            drain: delivered.since(written),
            resume: self.platform.resume,
        };
        self.now = written;
        self.pages_from = written;
        self.phase = Phase::Following { decided, downtime, resumed };
    }

    /// The next pages; says whether there were any.
    fn send_pages(&mut self, granted: BytesPerSec) -> bool {
        let page = page_bytes(self.guest.page_size);
        let sent = self.due.send(GuestTime::ZERO, SendLimit::pages(BATCH), page);
        let cpu = self.platform.page_work(sent);
        self.now = self.put(sent.bytes(page), cpu, granted);
        self.sent += sent;
        !sent.pages().is_zero()
    }

    fn put(&mut self, bytes: ByteCount, cpu: Duration, granted: BytesPerSec) -> SimTime {
        self.sent_bytes += bytes;
        self.queue.accept(self.now, bytes, cpu, granted)
    }

    fn complete(
        &mut self,
        decided: SimTime,
        downtime: DowntimeParts,
        resumed: SimTime,
        granted: BytesPerSec,
    ) -> Completed {
        let done = self.queue.delivered(granted).max(self.now).max(resumed);
        self.phase = Phase::Done;
        Completed {
            migration_time: done.since(SimTime::ZERO),
            migration_time_reported: done.since(SimTime::ZERO),
            downtime,
            downtime_reported: resumed.since(decided),
            sent_bytes: self.sent_bytes,
            sent: self.sent,
            throttled: Duration::ZERO,
            post_copy: done.since(resumed),
            iteration_count: 1,
            iterations: vec![Iteration {
                start: self.pages_from,
                end: self.now,
                sent: self.sent,
                skipped: PageCount::ZERO,
                sent_bytes: self.sent_bytes,
                due_at_start: self.guest.memory,
            }],
            stop_reason: StopReason::PostCopy,
        }
    }
}

impl<D: DueSet + Clone> Migration for Following<D> {
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        while self.now < until {
            match self.phase {
                Phase::Requested => {
                    let decided = self.now + self.platform.connect + self.platform.setup;
                    self.now = decided + self.platform.stop;
                    self.due.start(GuestTime::ZERO);
                    self.phase = Phase::Moving { decided };
                    return Event::Stopped;
                }
                Phase::Moving { decided } => self.move_guest(decided, granted),
                Phase::Following { decided, downtime, resumed } => {
                    if !self.send_pages(granted) {
                        return Event::Completed(Box::new(self.complete(decided, downtime, resumed, granted)));
                    }
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
            iterations: 1,
            due: self.due.due(),
            has_moved: matches!(self.phase, Phase::Following { .. } | Phase::Done),
        }
    }
}
