//! Windows that repeat, taken many at once.
//!
//! A large guest's pass is thousands of bandwidth windows of which each is like the one before: the same pages in the same
//! time, until the pages, or whoever watches, have something new. Two windows are simulated step by step; if the second
//! left everything as it found it, so will the next, up to where something could differ.
//!
//! ```text
//!  pass   ├──w₁──┼──w₂──┼────────── n·w₂ ──────────┼─ step by step ─┤ the log is read
//!                       └ leap
//! ```
//! Under a cap windows are alike to the byte, as QEMU sleeps until the buffer is empty and the millisecond full, so that a
//! leap comes to the same as its steps. Where the link is the limit the buffer is at another place of its saw-tooth at
//! each window's end: those windows are marched through. Sets that are asked page by page are never leapt over.

use std::time::Duration;

use super::Qemu;
use crate::algorithm::qemu::rules::Window;
use crate::due::{DueSet, SendLimit, Sent};
use crate::units::{ByteCount, BytesPerSec, PageCount, SimTime};

/// Windows at the end of a leap's reach that are simulated all the same.
const LEFT: u64 = 2;

/// The machine as it was when a window opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: SimTime,
    syncs: u64,
    granted: BytesPerSec,
    queued: ByteCount,
    sent: PageCount,
    sent_bytes: ByteCount,
    /// Pages of the window before it.
    pages: PageCount,
}

impl<D: DueSet> Qemu<D> {
    /// From the top of the loop: if a window has just opened and is like the one before, to the last that will be.
    pub(super) fn leap(&mut self, granted: BytesPerSec, until: SimTime) {
        if !self.window.transferred.is_zero() {
            return;
        }
        let last = self.mark.filter(|last| last.syncs == self.syncs && last.granted == granted);
        let (queued, sent, sent_bytes) = (self.queue.queued(), self.sent.pages(), self.sent_bytes);
        let pages = last.map_or(PageCount::ZERO, |last| sent - last.sent);
        self.mark = Some(Mark { at: self.now, syncs: self.syncs, granted, queued, sent, sent_bytes, pages });
        let Some(last) = last.filter(|last| !last.pages.is_zero() && !pages.is_zero() && self.steps_only()) else {
            return;
        };
        let (span, bytes) = (self.now.since(last.at), sent_bytes - last.sent_bytes);
        if last.pages != pages || last.queued != queued {
            return;
        }
        let beyond_decisions = self.due.due().saturating_sub(self.threshold.pages_ceil(self.guest.page_size));
        let pages_alike = self.data_ahead(beyond_decisions).get() / pages.get();
        let in_time = (until.since(self.now).as_nanos() / span.as_nanos()).try_into().unwrap_or(u64::MAX);
        let windows = pages_alike.min(in_time).saturating_sub(LEFT);
        if windows > 0 {
            let (pages, bytes) = (PageCount::new(pages.get() * windows), ByteCount::new(bytes.get() * windows));
            self.go_on(pages, bytes, Duration::from_nanos(span.as_nanos() as u64 * windows));
        }
    }

    /// Of the next due pages, up to so many, those that all have data.
    fn data_ahead(&self, most: PageCount) -> PageCount {
        match self.due.ahead(most) {
            Some(ahead) if ahead == (Sent { data: ahead.data, ..Sent::default() }) => ahead.data.min(most),
            _ => self.due.all_data().min(most),
        }
    }

    /// So many more pages, in so many bytes, whose windows all leave things as they are now.
    fn go_on(&mut self, pages: PageCount, bytes: ByteCount, lasts: Duration) {
        let (began, mut gone) = (self.now, PageCount::ZERO);
        while gone < pages {
            // When a page is sent matters where its part of the dirty log is cleared then.
            let some = self.due.all_data().min(pages - gone).max(PageCount::new(1));
            let sent = self.due.send(self.guest_now, SendLimit::pages(some), self.stream.page);
            self.count_sent(sent, ByteCount::ZERO);
            gone += some;
            self.run_until(began + lasts.mul_f64(gone.get() as f64 / pages.get() as f64).min(lasts));
        }
        self.run_until(began + lasts);
        self.count_sent(Sent::default(), bytes);
        self.queue.stays_for(lasts);
        self.window = Window::open(self.now, self.cap());
        self.mark = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::qemu::{Settings, Version};
    use crate::dirty::WwsIndexBuilder;
    use crate::due::{Bands, DirtyLog, Tracking};
    use crate::guest::Guest;
    use crate::link::Link;
    use crate::migration::Migration;
    use crate::platform::Platform;

    /// How far a leap of a quiet 16 GiB guest takes a machine that has seen this many windows.
    fn leapt(windows: u64, max_bandwidth: BytesPerSec, until: Duration) -> Duration {
        let pages = PageCount::new(1 << 22);
        let mut index = WwsIndexBuilder::new(PageCount::new(1 << 16), pages);
        (0..10).for_each(|_| index.window(Duration::from_millis(100), &[], &[]));
        let index = index.build().unwrap();
        let tracking = Tracking { log: DirtyLog::Tcg, by_position: true, ..Tracking::default() };
        let due = Bands::tracking(&index, Duration::ZERO, tracking);
        let settings = Settings { max_bandwidth, ..Settings::default() };
        let guest = Guest::new("g", pages.bytes(Guest::PAGE_SIZE));
        let link = Link::ethernet(BytesPerSec::from_bits(10_000_000_000));
        let mut machine = Qemu::new(Version::NEWEST.rules(), settings, guest, &link, Platform::free(), due);
        let granted = link.goodput();
        // Piece by piece, so that none is leapt over before.
        (1..=windows).for_each(|window| {
            let end = SimTime::ZERO + Window::LENGTH * window as u32;
            while machine.now < end {
                machine.advance(granted, end);
            }
        });
        let before = machine.now;
        machine.leap(granted, before + until);
        machine.now.since(before)
    }

    const CAP: BytesPerSec = BytesPerSec::new(100_000_000);

    #[test]
    fn after_two_windows_of_a_kind_a_leap_goes_to_the_pass_s_end() {
        assert_eq!(leapt(1, CAP, Duration::from_secs(1_000)), Duration::ZERO);
        // 16 GiB at 100 MB/s take 172 s; the threshold and two windows are left.
        let span = leapt(2, CAP, Duration::from_secs(1_000));
        assert!(Duration::from_secs(165) < span && span < Duration::from_secs(172), "{span:?}");
        assert_eq!(span.as_nanos() % Window::LENGTH.as_nanos(), 0, "whole windows");
    }

    #[test]
    fn a_leap_ends_before_whoever_watches_looks() {
        assert_eq!(leapt(4, CAP, Duration::from_secs(1)), Duration::from_millis(800));
        assert_eq!(leapt(4, CAP, Duration::from_millis(250)), Duration::ZERO);
    }

    #[test]
    fn on_a_full_link_there_is_no_leap() {
        assert_eq!(leapt(4, BytesPerSec::new(u64::MAX), Duration::from_secs(1_000)), Duration::ZERO);
    }
}
