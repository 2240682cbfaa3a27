//! Steps of pages that are all alike, taken one after the other without asking the due set each time: the clock, the
//! sender's buffer and the window go through every one of them, the pages go out together at the end.
//!
//! It is the machine's loop over [`Phase::Deciding`] and [`Phase::Stepping`] with what cannot happen left out, and comes
//! to the same; a large guest has thousands of steps a pass.

use super::writes::{Cuts, Writer, Written};
use super::{Phase, Qemu, STEP_ENDS_AFTER};
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
        while self.stream.flush().is_none() && matches!(self.phase, Phase::Stepping { .. }) {
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
        let Some((per_flush, _)) = self.stream.flush() else { return PageCount::ZERO };
        let one = Sent { data: PageCount::new(1), ..Sent::default() };
        let (page, bytes_each) = (Written::mean(one, self.stream.page, &self.platform), self.stream.page.data);
        let (mut gone, mut steps, mut now, mut is_over) = (PageCount::ZERO, 0, self.now, false);
        let mut writer = Writer::new((self.queue, now, granted), page, 0, Cuts::of(&page, 0, per_flush, 0));
        while !is_over {
            // The last page of a window's budget ends a step elsewhere.
            let budget = self.window.left().saturating_sub(SECTION_BYTES + ByteCount::new(1));
            let mut most = (alike - gone).get().saturating_sub(1);
            // A division for each step where the budget matters alone.
            if budget < PageCount::new(most).bytes(bytes_each) {
                most = budget.get() / bytes_each.get();
            }
            let began = writer.reached();
            let (pages, has_ended) = writer.write_step(PageCount::new(most), STEP_ENDS_AFTER);
            if !has_ended {
                writer.back_to(began);
                break;
            }
            writer.end_step(SECTION_BYTES);
            now = writer.now();
            (gone, steps) = (gone + pages, steps + 1);
            let bytes = pages.bytes(bytes_each) + SECTION_BYTES;
            self.window.transferred += bytes;
            self.window.used += bytes;
            self.update_counters(now);
            let left = (due - gone).bytes(self.guest.page_size);
            is_over = now >= until || self.rules.needs_sync(left, self.threshold);
        }
        if steps > 0 {
            let bytes = gone.bytes(bytes_each) + ByteCount::new(steps * SECTION_BYTES.get());
            self.count_sent(Sent { data: gone, ..Sent::default() }, bytes);
            self.queue = writer.queue();
            self.run_until(now);
            self.phase = if is_over { Phase::Deciding } else { Phase::Stepping { began: now, pages: PageCount::ZERO } };
        }
        gone
    }

    /// Whether nothing but the threshold is looked at between two steps.
    pub(super) fn steps_only(&self) -> bool {
        let settings = &self.settings;
        let slows = settings.auto_converge.is_on || settings.dirty_limit.is_on;
        let moves = settings.postcopy.is_on() || self.wants_postcopy || self.moved.is_some();
        !slows && !moves && self.standing.is_none() && !self.is_cancelled
    }
}
