//! Where the first pass leads, kept for the next migration of the same scenario.
//!
//! Until the log is read for the first time nothing that a guest writes has a part in its migration: where the same pages
//! are zero from every starting point, scan, clock, buffer and window go the same way. A forecast has thousands of starting
//! points, and the first pass of a large guest most of the steps: one migration takes them and leaves where it stands when
//! it is about to read the log; the others go on from there.
//!
//! ```text
//!  one     ├─ set-up ─┼────── steps ──────┤ the log is read ─►
//!                                         │ Standing
//!  others  ├─ set-up ─┤                   └─► the log is read ─►
//! ```

use std::sync::{Arc, OnceLock};

use super::Qemu;
use crate::algorithm::qemu::rules::Window;
use crate::algorithm::qemu::stream::Stream;
use crate::due::{DueSet, FirstScan, Sent};
use crate::link::SendQueue;
use crate::outcome::Iteration;
use crate::units::{ByteCount, BytesPerSec, GuestTime, SimTime};

/// What first passes of one scenario have in common, whatever their starting points.
#[derive(Debug, Default)]
pub struct FirstPass(OnceLock<Standing>);

/// A machine that is about to read the log for the first time, as far as the first pass has changed it.
#[derive(Clone, Debug)]
struct Standing {
    granted: BytesPerSec,
    now: SimTime,
    guest_now: GuestTime,
    queue: SendQueue,
    window: Window,
    threshold: ByteCount,
    stream: Stream,
    sent: Sent,
    sent_bytes: ByteCount,
    iterations: Vec<Iteration>,
    scan: FirstScan,
}

impl<D> Qemu<D> {
    /// The same, whose first pass shares its work with those of other migrations. All of them are of one scenario and
    /// granted one rate.
    #[must_use]
    pub fn sharing(self, first_pass: Option<Arc<FirstPass>>) -> Self {
        Qemu { first_pass, ..self }
    }

    /// What somebody has told this one the others do not know.
    pub(super) fn goes_its_own_way(&mut self) {
        self.first_pass = None;
    }
}

impl<D: DueSet> Qemu<D> {
    /// From the first look around on: to where another one stood behind the first pass, if that is before `until`.
    pub(super) fn skip_first_pass(&mut self, granted: BytesPerSec, until: SimTime) {
        if !self.sent_bytes.is_zero() || self.syncs != 1 {
            return;
        }
        let Some(standing) = self.first_pass.as_ref().and_then(|first_pass| first_pass.0.get()) else { return };
        if standing.granted != granted || standing.now >= until || !self.due.go_on_from(&standing.scan) {
            return;
        }
        let Standing { granted: _, now, guest_now, queue, window, threshold, stream, sent, sent_bytes, .. } = *standing;
        self.iterations.clone_from(&standing.iterations);
        (self.now, self.guest_now, self.queue, self.window) = (now, guest_now, queue, window);
        (self.threshold, self.stream, self.sent, self.sent_bytes) = (threshold, stream, sent, sent_bytes);
    }

    /// About to read the log: if it is for the first time, the others may go on from here.
    pub(super) fn leave_first_pass(&mut self, granted: BytesPerSec) {
        let Some(first_pass) = self.first_pass.take().filter(|_| self.syncs == 1) else { return };
        if first_pass.0.get().is_some() {
            return;
        }
        if let Some(scan) = self.due.first_scan() {
            let Qemu { now, guest_now, queue, window, threshold, stream, sent, sent_bytes, .. } = *self;
            let iterations = self.iterations.clone();
            // Who comes second stood at the same place.
            first_pass.0.get_or_init(|| Standing {
                granted,
                now,
                guest_now,
                queue,
                window,
                threshold,
                stream,
                sent,
                sent_bytes,
                iterations,
                scan,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::algorithm::qemu::{Settings, Version};
    use crate::dirty::{WwsIndex, WwsIndexBuilder, ZeroChange};
    use crate::due::{Bands, DirtyLog, Tracking};
    use crate::guest::Guest;
    use crate::link::Link;
    use crate::migration::{Command, Event, Migration};
    use crate::platform::Platform;
    use crate::units::PageCount;

    const PAGES: PageCount = PageCount::new(1 << 18);

    /// A guest that writes a thousand pages in the first of a hundred windows and fewer in each after it; of as many it clears one.
    fn index(zero: bool) -> WwsIndex {
        let mut index = WwsIndexBuilder::new(PAGES, PAGES);
        for window in 0..100u32 {
            let written: Vec<u32> = (window * 1_000..(window + 1) * 1_000 - 5 * window).collect();
            let cleared = ZeroChange { rank: window * 1_000, zero: true };
            index.window(Duration::from_millis(100), &written, if zero { std::slice::from_ref(&cleared) } else { &[] });
        }
        index.build().expect("it has windows")
    }

    fn machine<'a>(index: &'a WwsIndex, start: u64, first_pass: &Arc<FirstPass>) -> Qemu<Box<dyn DueSet + 'a>> {
        let tracking = Tracking { log: DirtyLog::KvmManual, by_position: true, ..Tracking::default() };
        let due: Box<dyn DueSet> = Box::new(Bands::tracking(index, Duration::from_secs(start), tracking));
        let guest = Guest::new("g", PAGES.bytes(Guest::PAGE_SIZE));
        let link = Link::ethernet(RATE);
        Qemu::new(Version::NEWEST.rules(), Settings::default(), guest, &link, Platform::default(), due)
            .sharing(Some(Arc::clone(first_pass)))
    }

    const RATE: BytesPerSec = BytesPerSec::new(125_000_000);

    /// Runs it up to the first reading of the log; how many steps that took is of no interest.
    fn to_first_reading<D: DueSet + Clone>(machine: &mut Qemu<D>) {
        assert_eq!(machine.advance(RATE, SimTime::MAX), Event::IterationEnded, "set up");
        assert_eq!(machine.advance(RATE, SimTime::MAX), Event::IterationEnded, "the log was read");
    }

    #[test]
    fn the_first_leaves_where_it_stands_and_the_next_goes_on_from_there() {
        let (index, first_pass) = (index(false), Arc::default());
        let (mut one, mut other) = (machine(&index, 0, &first_pass), machine(&index, 5, &first_pass));
        to_first_reading(&mut one);
        let standing = first_pass.0.get().expect("it was left").clone();
        assert!(standing.now > SimTime::ZERO + Duration::from_secs(8), "{:?}", standing.now);
        assert_eq!(other.advance(RATE, SimTime::MAX), Event::IterationEnded);
        other.skip_first_pass(RATE, SimTime::MAX);
        assert_eq!((other.now, other.sent, other.syncs), (standing.now, standing.sent, 1), "not a step was taken");
        assert_eq!(other.advance(RATE, SimTime::MAX), Event::IterationEnded);
        assert!(other.progress().due != one.progress().due, "each reads what was written behind its own start");
    }

    #[test]
    fn who_is_watched_told_something_or_granted_another_rate_goes_its_own_way() {
        let (index, first_pass) = (index(false), Arc::default());
        to_first_reading(&mut machine(&index, 0, &first_pass));
        let end = first_pass.0.get().expect("it was left").now;
        let skips = |granted, until, command: Option<Command>| {
            let mut other = machine(&index, 5, &first_pass);
            other.advance(RATE, SimTime::MAX);
            command.into_iter().for_each(|command| other.command(command));
            other.skip_first_pass(granted, until);
            other.now == end
        };
        assert!(skips(RATE, SimTime::MAX, None));
        assert!(!skips(RATE, end, None), "somebody looks before");
        assert!(!skips(BytesPerSec::new(RATE.get() / 2), SimTime::MAX, None));
        assert!(!skips(RATE, SimTime::MAX, Some(Command::DowntimeLimit(Duration::from_secs(1)))));
    }

    #[test]
    fn zero_pages_that_come_and_go_are_not_the_same_for_all() {
        let (of_its_time, first_pass) = (index(true), Arc::default());
        to_first_reading(&mut machine(&of_its_time, 0, &first_pass));
        assert!(first_pass.0.get().is_none());
        let of_the_end = of_its_time.from_last_zero_map();
        to_first_reading(&mut machine(&of_the_end, 0, &first_pass));
        assert!(first_pass.0.get().is_some(), "those of the end are");
    }
}
