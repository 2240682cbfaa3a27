//! Steps of pages that are all alike, taken one after the other without asking the due set each time: the clock, the
//! sender's buffer and the window go through every one of them, the pages go out together at the end.
//!
//! It is the machine's loop over [`Phase::Deciding`] and [`Phase::Stepping`] with what cannot happen left out, and comes
//! to the same; a large guest has thousands of steps a pass.

use super::{PAGES_PER_TIME_CHECK, Phase, Qemu, STEP_ENDS_AFTER};
use crate::algorithm::qemu::stream::SECTION_BYTES;
use crate::due::{DueSet, SendLimit, Sent};
use crate::units::{ByteCount, BytesPerSec, PageCount, SimTime};

impl<D: DueSet> Qemu<D> {
    /// From the beginning of a step on: steps until the next would be another kind of step, or something is decided. Says
    /// whether there was any.
    pub(super) fn march(&mut self, granted: BytesPerSec, until: SimTime) -> bool {
        if !self.steps_only() {
            return false;
        }
        let (alike, due, guest_began) = (self.due.all_data(), self.due.due(), self.guest_now);
        let mut gone = self.stride(granted, until, (alike, due));
        while matches!(self.phase, Phase::Stepping { .. }) {
            let began = self.now;
            let pages =
                self.step_of(Sent { data: PageCount::new(1), ..Sent::default() }, PageCount::ZERO, began, granted);
            let bytes = pages.bytes(self.stream.page.data);
            // The last page of a window's budget ends a step elsewhere.
            if gone + pages >= alike || self.window.left() <= bytes {
                break;
            }
            let sent = Sent { data: pages, ..Sent::default() };
            self.transmit(sent, granted);
            gone += pages;
            if self.now < began + STEP_ENDS_AFTER {
                self.phase = Phase::Stepping { began, pages };
                break;
            }
            self.end_step(granted);
            let left = (due - gone).bytes(self.guest.page_size);
            if !matches!(self.phase, Phase::Deciding)
                || self.now >= until
                || self.rules.needs_sync(left, self.threshold)
            {
                break;
            }
            // Nothing is decided: the next step begins.
            self.phase = Phase::Stepping { began: self.now, pages: PageCount::ZERO };
        }
        if gone.is_zero() {
            return false;
        }
        let sent = self.due.send(guest_began, SendLimit::pages(gone), self.stream.page);
        debug_assert_eq!(sent, Sent { data: gone, ..Sent::default() }, "they are all alike");
        true
    }

    /// The same for one channel, whose steps leave nothing behind in the stream: buffer, clock and window alone, as long as
    /// each step lasts. Returns the pages that went into the stream.
    fn stride(&mut self, granted: BytesPerSec, until: SimTime, (alike, due): (PageCount, PageCount)) -> PageCount {
        let page = self.stream.page.data.get();
        let (mut gone, mut steps, mut now, mut is_over) = (0, 0, self.now, false);
        let Some(cost) = self.stream.cost_alone(&self.platform) else { return PageCount::ZERO };
        let by_work = (STEP_ENDS_AFTER.as_nanos() as u64).checked_div(cost).unwrap_or(u64::MAX);
        let freed = self.queue.freed_in(STEP_ENDS_AFTER, granted).get();
        while !is_over {
            let room = self.queue.free(now, granted).get().saturating_add(freed);
            let most = (room / page.max(1)).min(by_work);
            let pages = most.next_multiple_of(PAGES_PER_TIME_CHECK) + 1;
            let bytes = ByteCount::new(pages * page);
            if gone + pages >= alike.get() || self.window.left() <= bytes + SECTION_BYTES {
                break;
            }
            let mut queue = self.queue;
            let prepared = SimTime::from_nanos(now.as_nanos() + pages * cost);
            let sent = queue.accept_prepared(now, bytes, prepared, granted);
            if sent < now + STEP_ENDS_AFTER {
                break;
            }
            now = queue.accept_prepared(sent, SECTION_BYTES, sent, granted);
            self.queue = queue;
            (gone, steps) = (gone + pages, steps + 1);
            self.window.transferred += bytes + SECTION_BYTES;
            self.window.used += bytes + SECTION_BYTES;
            self.update_counters(now);
            let left = (due - PageCount::new(gone)).bytes(self.guest.page_size);
            is_over = now >= until || self.rules.needs_sync(left, self.threshold);
        }
        if steps > 0 {
            let (sent, bytes) = (PageCount::new(gone), ByteCount::new(gone * page + steps * SECTION_BYTES.get()));
            self.count_sent(Sent { data: sent, ..Sent::default() }, bytes);
            self.run_until(now);
            self.phase = if is_over { Phase::Deciding } else { Phase::Stepping { began: now, pages: PageCount::ZERO } };
        }
        PageCount::new(gone)
    }

    /// Whether nothing but the threshold is looked at between two steps.
    pub(super) fn steps_only(&self) -> bool {
        let settings = &self.settings;
        let slows = settings.auto_converge.is_on || settings.dirty_limit.is_on;
        let moves = settings.postcopy.is_on() || self.wants_postcopy || self.moved.is_some();
        !slows && !moves && self.standing.is_none() && !self.is_cancelled
    }
}
