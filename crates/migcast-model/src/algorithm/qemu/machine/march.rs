//! Steps of pages that are all alike, taken one after the other without asking the due set each time: the clock, the
//! sender's buffer and the window go through every one of them, the pages go out together at the end.
//!
//! It is the machine's loop over [`Phase::Deciding`] and [`Phase::Stepping`] with what cannot happen left out, and comes
//! to the same; a large guest has thousands of steps a pass.

use super::{Phase, Qemu, STEP_MAX_MS};
use crate::due::{DueSet, SendLimit, Sent};
use crate::units::{BytesPerSec, PageCount, SimTime};

impl<D: DueSet> Qemu<D> {
    /// From the beginning of a step on: steps until the next would be another kind of step, or something is decided. Says
    /// whether there was any.
    pub(super) fn march(&mut self, granted: BytesPerSec, until: SimTime) -> bool {
        if !self.steps_only() {
            return false;
        }
        let (alike, due, guest_began) = (self.due.all_data(), self.due.due(), self.guest_now);
        let mut gone = PageCount::ZERO;
        loop {
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
            if self.now.since(began).as_millis() <= STEP_MAX_MS {
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

    /// Whether nothing but the threshold is looked at between two steps.
    fn steps_only(&self) -> bool {
        let settings = &self.settings;
        let slows = settings.auto_converge.is_on || settings.dirty_limit.is_on;
        let moves = settings.postcopy.is_on() || self.wants_postcopy || self.moved.is_some();
        !slows && !moves && self.standing.is_none() && !self.is_cancelled
    }
}
