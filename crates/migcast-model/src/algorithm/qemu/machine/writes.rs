//! How pages go into the sender's buffer, many at once.
//!
//! The thread gathers pages, hands them to its socket when there are enough for a flush, and looks at the clock between.
//! A write that finds the buffer full sleeps while the link makes room; the work on the pages behind it is done only then.
//! So what a step takes is not the greater of work and link, but what the writer sleeps and what it works awake:
//!
//! ```text
//!  thread   work│w│work│w│work│w│work│w┄┄┄┄┄┄ asleep ┄┄┄┄┄┄│work│w│work│w│work│w┄┄┄┄┄ asleep ┄┄┄┄┄│
//!  buffer   ▁▂▃▃▄▄▅▅▆▆▇▇███▇▇▆▆▅▅▄▄▃▃▃▄▄▅▅▆▆▇▇███▇▇▆▆▅▅▄▄▃▃    a third is free when it wakes
//! ```
//! Pages that are told apart are written one flush, or look, at a time. Of a set that counts the next pages are known to be
//! alike, or evenly mixed: a few products tell how many sleeps are over before a step's end, and which write is the first to
//! find too little room.

use std::time::Duration;

use super::PAGES_PER_TIME_CHECK;
use crate::due::{PageBytes, Sent};
use crate::link::SendQueue;
use crate::platform::Platform;
use crate::units::{ByteCount, BytesPerSec, PageCount, SimTime};

/// Pages between two looks at the clock.
const ROUND: u64 = PAGES_PER_TIME_CHECK;
/// How much of the time from one sleep to the next a sleep may have to be over before the step's end to be counted with
/// others at once.
const SLACK: f64 = 0.1;

/// A page of one kind, or the mean of several evenly mixed, as its sender sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    bytes: f64,
    /// Nanoseconds of the sender's work, and how many pages it does in one.
    work: f64,
    per_work: f64,
    /// Of the pages the share with data.
    data: f64,
}

impl Written {
    /// The mean of these pages, at least one.
    pub(super) fn mean(pages: Sent, page: PageBytes, platform: &Platform) -> Written {
        let sum = pages.pages().get() as f64;
        let work = platform.page_work(pages).as_nanos() as u64 as f64;
        Written {
            bytes: pages.bytes(page).get() as f64 / sum,
            work: work / sum,
            per_work: sum / work,
            data: pages.data.get() as f64 / sum,
        }
    }

    /// The first page that takes their bytes past so many, counted from 1.
    pub(super) fn pages_past(&self, bytes: ByteCount) -> PageCount {
        PageCount::new(((bytes.get() as f64 / self.bytes) as u64).saturating_add(1))
    }
}

/// The first look behind so many pages of a step, at least one, or behind the last of them.
fn next_look(pages: u64) -> u64 {
    (pages - Cuts::LOOK).next_multiple_of(ROUND) + Cuts::LOOK
}

/// The whole part, at least 0. Signed numbers of 64 bits are converted faster than others.
fn whole(number: f64) -> u64 {
    (number as i64).max(0) as u64
}

fn real(number: u64) -> f64 {
    number.cast_signed() as f64
}

/// Where in a round of 64 pages writes begin, by the pages of the step before them: at its look at the clock, and where a
/// flush is due. One bit for each page of the round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cuts(u64);

impl Cuts {
    /// Behind the first page, and behind every 64th from there on.
    const LOOK: u64 = 1;

    /// Looks alone.
    pub(super) fn looks() -> Cuts {
        Cuts(1 << Cuts::LOOK)
    }

    /// Looks and flushes of such pages in a step of which `pages` are written, where `waiting` of the `per_flush` that make
    /// a flush are there. Of mixed pages a round has as many flushes as come closest.
    pub(super) fn of(page: &Written, pages: u64, per_flush: u64, waiting: u64) -> Cuts {
        let next = || 1 << ((pages + ((per_flush - waiting) as f64 / page.data) as u64) % ROUND);
        let flushes = match page.data * ROUND as f64 / per_flush as f64 {
            in_round if in_round >= 1.5 => next() | u64::rotate_left(next(), ROUND as u32 / 2),
            in_round if in_round >= 0.5 => next(),
            _ => 0,
        };
        Cuts(Cuts::looks().0 | flushes)
    }

    /// The first cut behind so many pages of a step.
    fn behind(self, pages: u64) -> u64 {
        let next = pages + 1;
        next + u64::from(self.0.rotate_right((next % ROUND) as u32).trailing_zeros())
    }

    /// Pages of the writes of a round.
    fn lengths(self) -> impl Iterator<Item = u64> {
        let first = u64::from(self.0.trailing_zeros());
        let cuts = std::iter::successors(Some(first), move |at| Some(self.behind(*at)));
        cuts.take(self.0.count_ones() as usize).map(move |at| self.behind(at) - at)
    }
}

/// A thread that writes pages of one kind into its buffer, at the pace of its link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    page: Written,
    cuts: Cuts,
    /// Bytes of the longest write, and of all of a round.
    longest: f64,
    round: f64,
    /// Of a page what is left in the buffer when the next has been worked on, in bytes, and how many of them make one.
    stays: f64,
    per_stays: f64,
    cycle: Option<Cycle>,
    /// Bytes the link carries in a nanosecond.
    rate: f64,
    /// Bytes the buffer holds; those that are free when a writer that found it full is woken; how long it sleeps for them.
    capacity: f64,
    burst: f64,
    sleep: f64,
    began: SimTime,
    queue: SendQueue,
    at: Reached,
}

/// From one sleep to the next, on average.
#[derive(Clone, Copy, Debug)]
struct Cycle {
    /// Bytes that become free, less those the link carries while the write that fell asleep is worked on.
    freed: f64,
    per_freed: f64,
    /// How long it sleeps beside that work, in nanoseconds.
    asleep: f64,
    /// How many there are in a nanosecond, work included.
    per_nano: f64,
}

/// How far a writer has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    /// Nanoseconds since it began.
    spent: f64,
    /// Bytes of the buffer that are free.
    free: f64,
    /// Pages of this step so far.
    pages: u64,
}

impl Writer {
    /// In front of a buffer, where `pages` of a step are written and the link carries `granted`.
    pub(super) fn new(
        (queue, now, granted): (SendQueue, SimTime, BytesPerSec),
        page: Written,
        pages: u64,
        cuts: Cuts,
    ) -> Writer {
        let (rate, burst) = (granted.get() as f64 * 1e-9, queue.burst().get() as f64);
        let (stays, sleep) = (page.bytes - page.work * rate, burst / rate);
        let (most, per_stays) = (cuts.lengths().max().unwrap_or(ROUND) as f64, 1.0 / stays);
        // A write that sleeps more than once, or whose work takes longer, is met by itself.
        let is_steady = stays > 0.0 && most * page.bytes <= burst && most * page.work <= sleep;
        let cycle = is_steady.then(|| {
            // A page of a round is as likely as any other to be in the write that finds the buffer full.
            let meanwhile = cuts.lengths().map(|pages| pages * pages).sum::<u64>() as f64 / ROUND as f64 * page.work;
            let (freed, asleep) = (burst - meanwhile * rate, sleep - meanwhile);
            Cycle { freed, per_freed: 1.0 / freed, asleep, per_nano: 1.0 / (freed * per_stays * page.work + asleep) }
        });
        Writer {
            page,
            cuts,
            longest: most * page.bytes,
            round: ROUND as f64 * page.bytes,
            stays,
            per_stays,
            cycle,
            rate,
            capacity: queue.capacity().get() as f64,
            burst,
            sleep,
            began: now,
            queue,
            at: Reached { spent: 0.0, free: queue.free(now, granted).get() as f64, pages },
        }
    }

    /// What the clock shows.
    pub(super) fn now(&self) -> SimTime {
        SimTime::from_nanos(self.began.as_nanos().saturating_add(whole(self.at.spent + 0.5)))
    }

    /// The buffer as it is now.
    pub(super) fn queue(&self) -> SendQueue {
        self.queue.with_free(ByteCount::new(whole(self.at.free + 0.5)), self.now())
    }

    pub(super) fn reached(&self) -> Reached {
        self.at
    }

    pub(super) fn back_to(&mut self, reached: Reached) {
        self.at = reached;
    }

    /// Writes up to `most` pages, and no more once a look at the clock shows `until` or later. Returns how many.
    pub(super) fn write(&mut self, most: PageCount, until: SimTime) -> PageCount {
        let until = until.as_nanos().saturating_sub(self.began.as_nanos()).min(i64::MAX as u64);
        self.write_until(most, real(until))
    }

    /// The same for a step that begins now. Returns the pages, and whether it has ended.
    pub(super) fn write_step(&mut self, most: PageCount, lasts: Duration) -> (PageCount, bool) {
        let until = self.at.spent + real(lasts.as_nanos() as u64);
        let pages = self.write_until(most, until);
        (pages, self.at.spent >= until - 0.5 && pages.get() % ROUND == Cuts::LOOK)
    }

    /// Writes until so many nanoseconds have passed, to the nearest.
    fn write_until(&mut self, most: PageCount, until: f64) -> PageCount {
        let until = until - 0.5;
        let first = self.at.pages;
        let end = first.saturating_add(most.get());
        self.sleep_ahead(most, until);
        while self.at.pages < end {
            let full = self.found_full(end);
            if self.at.spent + real(full - self.at.pages) * self.page.work >= until {
                let look = self.look_at(until);
                if look <= full {
                    self.write_awake(look);
                    break;
                }
            }
            self.write_awake(full);
            if full < end {
                let next = self.cuts.behind(full).min(end);
                let pages = real(next - full);
                self.write_once(pages * self.page.bytes, pages * self.page.work);
                self.at.pages = next;
                if self.at.spent >= until {
                    let look = next_look(next);
                    if look == next {
                        break;
                    }
                    if look <= end && self.at.free >= self.round {
                        self.write_awake(look);
                        break;
                    }
                }
            }
        }
        PageCount::new(self.at.pages - first)
    }

    /// Counts the sleeps that are over before `most` pages are written and before `until`, all at once.
    ///
    /// What is free always lies between nothing and what a woken writer finds, so that bytes alone tell how often it slept:
    /// once, and then as often as what it found is used up.
    fn sleep_ahead(&mut self, most: PageCount, until: f64) {
        let Some(Cycle { freed, per_freed, asleep, per_nano }) = self.cycle else { return };
        let Reached { spent, free, .. } = self.at;
        let over = (until - spent - asleep - free * self.per_stays * self.page.work) * per_nano + 1.0 - SLACK;
        let written = (real(most.get()) * self.stays - self.longest - free) * per_freed;
        let sleeps = real(whole(over.min(written)));
        self.at.spent += sleeps * asleep;
        self.at.free += sleeps * freed;
    }

    /// Pages of the step before the first write that finds too little room, or `end`.
    fn found_full(&self, end: u64) -> u64 {
        let Reached { free, pages, .. } = self.at;
        let mut at = pages;
        if free >= self.longest {
            // Room for the longest write is left before so many pages.
            let sure = if self.stays > 0.0 { whole((free - self.longest) * self.per_stays) } else { u64::MAX };
            at = at.saturating_add(sure);
            if at >= end {
                return end;
            }
            at = self.cuts.behind(at);
        }
        while at < end {
            let next = self.cuts.behind(at).min(end);
            if real(next - at) * self.page.bytes > free - real(at - pages) * self.stays {
                return at;
            }
            at = next;
        }
        end
    }

    /// Pages of the step before the first look that shows `until` or later if nothing sleeps.
    fn look_at(&self, until: f64) -> u64 {
        let left = until - self.at.spent;
        next_look(self.at.pages + if left > 0.0 { whole(left * self.page.per_work) + 1 } else { 1 })
    }

    /// Writes pages up to so many of the step, all of which find room.
    fn write_awake(&mut self, until: u64) {
        let Reached { spent, free, pages } = self.at;
        let count = real(until - pages);
        let free = (free - count * self.stays).min(if self.stays > 0.0 { f64::INFINITY } else { self.capacity });
        self.at = Reached { spent: spent + count * self.page.work, free, pages: until };
    }

    /// Writes so many bytes that take the sender so long to prepare.
    fn write_once(&mut self, bytes: f64, work: f64) {
        let at = &mut self.at;
        let overflow = bytes - at.free;
        let (freed, sleep) = if overflow <= 0.0 {
            (0.0, 0.0)
        } else if overflow <= self.burst {
            (self.burst, self.sleep)
        } else {
            let freed = if self.burst > 0.0 { (overflow / self.burst).ceil() * self.burst } else { overflow };
            (freed, freed / self.rate)
        };
        if sleep >= work {
            at.spent += sleep;
            at.free += freed - bytes;
        } else {
            at.spent += work;
            at.free = (at.free + work * self.rate - bytes).min(self.capacity);
        }
    }

    /// Writes the end of the step; of the next there is nothing yet.
    pub(super) fn end_step(&mut self, bytes: ByteCount) {
        self.write_once(bytes.get() as f64, 0.0);
        self.at.pages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::qemu::stream::{DATA_PAGES_PER_FLUSH, page_bytes};
    use crate::guest::Guest;

    const STEP: Duration = Duration::from_millis(51);

    /// A step of pages with data, flush by flush and look by look.
    fn one_by_one(mut queue: SendQueue, began: SimTime, granted: BytesPerSec, platform: &Platform) -> (u64, SimTime) {
        let (mut now, mut pages, bytes) = (began, 0_u64, page_bytes(Guest::PAGE_SIZE).data);
        loop {
            let to_look = pages.next_multiple_of(ROUND) + 1 - pages;
            let written = to_look.min(DATA_PAGES_PER_FLUSH - pages % DATA_PAGES_PER_FLUSH);
            let work = platform.page_cost * written as u32;
            now = queue.accept(now, PageCount::new(written).bytes(bytes), work, granted);
            pages += written;
            if pages % ROUND == 1 && now >= began + STEP {
                return (pages, now);
            }
        }
    }

    /// Steps on end at once, each against the same one by one: how many, of those that hold as many pages the greatest
    /// difference in time, of the others the greatest in pages.
    fn compare(granted: BytesPerSec, page_cost: Duration, buffer: ByteCount) -> (u32, Duration, u64) {
        let platform = Platform { page_cost, ..Platform::free() };
        let one = Sent { data: PageCount::new(1), ..Sent::default() };
        let page = Written::mean(one, page_bytes(Guest::PAGE_SIZE), &platform);
        let cuts = Cuts::of(&page, 0, DATA_PAGES_PER_FLUSH, 0);
        let mut writer = Writer::new((SendQueue::new(buffer), SimTime::ZERO, granted), page, 0, cuts);
        let (mut equal, mut late, mut more) = (0, Duration::ZERO, 0);
        for _ in 0..200 {
            let (expected, end) = one_by_one(writer.queue(), writer.now(), granted, &platform);
            let (pages, has_ended) = writer.write_step(PageCount::new(u64::MAX >> 2), STEP);
            assert!(has_ended);
            if pages.get() == expected {
                equal += 1;
                late = late.max(end.since(writer.now()).max(writer.now().since(end)));
            } else {
                more = more.max(pages.get().abs_diff(expected));
            }
            writer.end_step(ByteCount::new(18));
        }
        (equal, late, more)
    }

    #[test]
    fn a_step_at_once_is_the_step_flush_by_flush() {
        let (mut cases, mut equal_in_all) = (0, 0);
        for mbit in [200, 400, 1_000, 2_500, 10_000, 25_000, 100_000] {
            for nanos in [0, 200, 1_500, 4_000] {
                for kib in [0, 300, 1 << 10, 4 << 10, 64 << 10] {
                    let granted = BytesPerSec::from_bits(mbit * 1_000_000).scale(0.94);
                    let (equal, late, more) = compare(granted, Duration::from_nanos(nanos), ByteCount::new(kib << 10));
                    let case = format!("{mbit} Mbit/s, {nanos} ns, {kib} KiB: {equal} equal, {late:?}, {more} pages");
                    assert!(late < Duration::from_millis(1), "{case}");
                    assert!(more <= 2 * ROUND, "{case}");
                    // Sleeps of which the sender's work is a part of no account come out each at its place.
                    assert!(mbit > 1_000 || nanos > 1_500 || equal >= 199, "{case}");
                    (cases, equal_in_all) = (cases + 200, equal_in_all + equal);
                }
            }
        }
        assert!(f64::from(equal_in_all) > 0.97 * f64::from(cases), "{equal_in_all} of {cases} steps");
    }

    #[test]
    fn writes_are_cut_by_looks_and_by_as_many_flushes_as_pages_with_data_make() {
        let page = |data: f64| Written { bytes: 4096.0, work: 0.0, per_work: f64::INFINITY, data };
        let at = |cuts: Cuts| (0..ROUND).filter(|page| cuts.0 >> page & 1 == 1).collect::<Vec<_>>();
        let cuts = |data, pages, waiting| at(Cuts::of(&page(data), pages, DATA_PAGES_PER_FLUSH, waiting));
        assert_eq!(cuts(1.0, 0, 0), [0, 1, 32]);
        assert_eq!(cuts(1.0, 70, 10), [1, 28, 60], "22 pages before the next flush");
        assert_eq!(cuts(0.5, 0, 0), [0, 1], "32 of 64 have data");
        assert_eq!(cuts(0.1, 0, 0), [1]);
        let whole = Cuts::of(&page(1.0), 0, DATA_PAGES_PER_FLUSH, 0);
        let behind: Vec<u64> = std::iter::successors(Some(0), |pages| Some(whole.behind(*pages))).take(6).collect();
        assert_eq!(behind, [0, 1, 32, 64, 65, 96]);
        assert_eq!((whole.lengths().collect::<Vec<_>>(), Cuts::looks().behind(1)), (vec![1, 31, 32], 65));
    }
}
