//! Due pages as a bitmap, fed page by page: the oracle.

use super::cache::Cache;
use super::{Batch, DirtyLog, DueSet, PageBytes, Rewritten, ScanOrder, SendLimit, Sent, Tracking};
use crate::dirty::{PageCursor, PageSource};
use crate::page_set::PageSet;
use crate::units::{ByteCount, GuestTime, PageCount};

/// Where no limit of bytes holds it is all one how many a page has.
const UNWEIGHED: PageBytes = PageBytes { data: ByteCount::ZERO, zero: ByteCount::ZERO, encoded: ByteCount::ZERO };

/// Due pages, dirty log and scan position of one migration over a [`PageSource`].
///
/// In a sampled history each tracked page stands for several: they are sent one after the other at their tracked page's
/// turn, so that limits hold to the page.
#[derive(Clone, Debug)]
pub struct Bitmap<C> {
    cursor: C,
    memory: PageCount,
    due: PageSet,
    log: PageSet,
    lazy: Option<LazyClear>,
    order: ScanOrder,
    cache: Option<Cache>,
    /// Written since somebody last asked; kept from the first time on.
    recent: Option<PageSet>,
    position: u32,
    /// What the tracked page whose turn it is still stands for; of one kind.
    rest: Sent,
    /// That page.
    at_hand: u32,
    /// Tracked pages sent so far, so that scaling to real pages never drifts.
    tracked_data: u64,
    tracked_zero: u64,
    tracked_encoded: u64,
    /// The same of those skipped or announced.
    tracked_passed: u64,
}

/// What a log that is cleared chunk by chunk still has to forget.
#[derive(Clone, Debug)]
struct LazyClear {
    /// Pages the last reading told.
    told: PageSet,
    /// Chunks of which nothing has been sent since.
    pending: Vec<bool>,
    /// Tracked pages per chunk.
    chunk: u32,
}

impl<C: PageCursor> Bitmap<C> {
    /// Nothing due yet; the migration is requested `start` into the source.
    pub fn new<'a, S: PageSource<Cursor<'a> = C>>(source: &'a S, start: std::time::Duration, log: DirtyLog) -> Self {
        let tracked = u32::try_from(source.tracked().get()).expect("a page source tracks fewer than 2^32 pages");
        let lazy = log.chunk().map(|chunk| {
            let chunk = chunk.scale(u64::from(tracked), source.memory().get()).get();
            let chunk = u32::try_from(chunk).expect("a chunk has fewer pages than 2^32").max(1);
            let chunks = tracked.div_ceil(chunk) as usize;
            LazyClear { told: PageSet::empty(tracked), pending: vec![false; chunks], chunk }
        });
        Bitmap {
            cursor: source.cursor(start),
            memory: source.memory(),
            due: PageSet::empty(tracked),
            log: PageSet::empty(tracked),
            lazy,
            order: ScanOrder::Linear,
            cache: None,
            recent: None,
            position: 0,
            rest: Sent::default(),
            at_hand: 0,
            tracked_data: 0,
            tracked_zero: 0,
            tracked_encoded: 0,
            tracked_passed: 0,
        }
    }

    /// The same with everything that is kept beside.
    pub fn tracking<'a, S: PageSource<Cursor<'a> = C>>(
        source: &'a S,
        start: std::time::Duration,
        tracking: Tracking,
    ) -> Self {
        let Tracking { log, order, cache, by_position: _ } = tracking;
        let mut bitmap = Bitmap::new(source, start, log);
        let tracked = u64::from(bitmap.due.universe());
        // Where the history is sampled a slot stands for several, as a page does.
        let slots = cache.map(|pages| pages.scale(tracked, bitmap.memory.get().max(1)).get());
        // More slots than pages are never used.
        bitmap.cache = slots.map(|slots| Cache::new(slots.min(tracked) as usize));
        bitmap.order = order;
        bitmap
    }

    /// Walks the writes up to here into the log. Each walk costs as much as the source has pages where it writes fast, so
    /// it is done when something depends on it: the log is read or told to forget, or a page may have ceased to be zero.
    fn run_guest(&mut self, at: GuestTime) {
        let log = &mut self.log;
        match &mut self.recent {
            None => self.cursor.advance(at, |rank| log.set(rank, true)),
            Some(recent) => self.cursor.advance(at, |rank| {
                log.set(rank, true);
                recent.set(rank, true);
            }),
        }
    }

    fn scale(&self, tracked: u64) -> PageCount {
        PageCount::new(tracked).scale(self.memory.get(), u64::from(self.due.universe()))
    }

    /// Real pages the `n`-th tracked page of a kind stands for.
    fn nth(&self, n: u64) -> PageCount {
        self.scale(n) - self.scale(n - 1)
    }

    /// Position and rank of the next due page from `position` on.
    fn next_from(&self, position: u32) -> Option<(u32, u32)> {
        match self.order {
            ScanOrder::Linear => self.due.next(position).map(|rank| (rank, rank)),
            ScanOrder::Rotated => {
                let rotation = Rotation::of(self.due.universe());
                let mut visited = (position..self.due.universe()).map(|position| (position, rotation.rank(position)));
                visited.find(|(_, rank)| self.due.contains(*rank))
            }
        }
    }

    /// Rank of the tracked page whose turn is next; the scan goes on behind it.
    fn next_turn(&mut self) -> Option<u32> {
        let next = self.next_from(self.position).or_else(|| {
            self.cache.iter_mut().for_each(Cache::turned_round);
            self.next_from(0)
        });
        let (position, rank) = next?;
        self.position = position + 1;
        Some(rank)
    }

    /// Sends the tracked page of this rank and returns what that is in real pages.
    fn send_one(&mut self, at: GuestTime, rank: u32) -> Sent {
        if self.lazy.as_ref().is_some_and(|lazy| lazy.is_pending(rank)) {
            self.run_guest(at);
            self.lazy.iter_mut().for_each(|lazy| lazy.forget_chunk(&mut self.log, rank));
        }
        self.due.set(rank, false);
        let is_cached = self.cache.as_mut().is_some_and(|cache| cache.holds(rank));
        if self.cursor.is_zero(rank) {
            self.tracked_zero += 1;
            Sent { zero: self.nth(self.tracked_zero), ..Sent::default() }
        } else if is_cached {
            self.tracked_encoded += 1;
            Sent { encoded: self.nth(self.tracked_encoded), ..Sent::default() }
        } else {
            self.tracked_data += 1;
            Sent { data: self.nth(self.tracked_data), ..Sent::default() }
        }
    }

    /// Passes over the tracked page of this rank: what that is in real pages, of whichever kind.
    fn pass_over(&mut self, rank: u32) -> Sent {
        self.due.set(rank, false);
        self.tracked_passed += 1;
        Sent { data: self.nth(self.tracked_passed), ..Sent::default() }
    }
}

/// As much of `rest`, which is of one kind, as the limit lets through: at least a page.
fn split_off(rest: &mut Sent, limit: SendLimit, page: PageBytes) -> Sent {
    // The page that passes the limit is the last.
    let within =
        |each: ByteCount| PageCount::new(limit.bytes.get().checked_div(each.get()).map_or(u64::MAX, |n| n + 1));
    let part = Sent {
        data: rest.data.min(limit.pages).min(limit.data_pages).min(within(page.data)),
        zero: rest.zero.min(limit.pages).min(within(page.zero)),
        encoded: rest.encoded.min(limit.pages).min(within(page.encoded)),
    };
    rest.data -= part.data;
    rest.zero -= part.zero;
    rest.encoded -= part.encoded;
    part
}

impl LazyClear {
    fn is_pending(&self, rank: u32) -> bool {
        self.pending[(rank / self.chunk) as usize]
    }

    fn forget_chunk(&mut self, log: &mut PageSet, rank: u32) {
        let chunk = rank / self.chunk;
        self.pending[chunk as usize] = false;
        let from = chunk * self.chunk;
        log.subtract_range(&self.told, from, from.saturating_add(self.chunk));
    }
}

impl<C: PageCursor + Clone> DueSet for Bitmap<C> {
    fn due(&self) -> PageCount {
        self.scale(u64::from(self.due.len())) + self.rest.pages()
    }

    fn start(&mut self, at: GuestTime) {
        self.cursor.advance(at, |_| {});
        self.log.clear();
        self.due = PageSet::full(self.due.universe());
        if let Some(lazy) = &mut self.lazy {
            // KVM_DIRTY_LOG_INITIALLY_SET: the log starts full, and the first pass clears it chunk by chunk, too.
            lazy.told = PageSet::full(self.due.universe());
            lazy.pending.fill(true);
        }
        self.position = 0;
        self.rest = Sent::default();
    }

    fn sync(&mut self, at: GuestTime) -> PageCount {
        self.run_guest(at);
        self.cache.iter_mut().for_each(Cache::grow_older);
        let before = self.due();
        if self.log.contains(self.at_hand) {
            // All it stands for is due again, what is left of it among them.
            self.rest = Sent::default();
        }
        self.due.union(&self.log);
        match &mut self.lazy {
            Some(lazy) => {
                lazy.told.clone_from(&self.log);
                lazy.pending.fill(true);
            }
            None => self.log.clear(),
        }
        self.due() - before
    }

    fn send(&mut self, at: GuestTime, limit: SendLimit, page: PageBytes) -> Sent {
        if !self.cursor.zero_is_settled() {
            self.run_guest(at);
        }
        let mut sent = Sent::default();
        let mut bytes = ByteCount::ZERO;
        while sent.pages() < limit.pages && sent.data < limit.data_pages && bytes <= limit.bytes {
            if self.rest.pages().is_zero() {
                let Some(rank) = self.next_turn() else { break };
                (self.at_hand, self.rest) = (rank, self.send_one(at, rank));
            }
            let left = SendLimit {
                pages: limit.pages - sent.pages(),
                data_pages: limit.data_pages - sent.data,
                bytes: limit.bytes.saturating_sub(bytes),
            };
            let part = split_off(&mut self.rest, left, page);
            bytes += part.bytes(page);
            sent += part;
        }
        sent
    }

    fn stop_encoding(&mut self) {
        self.cache = None;
    }

    fn written(&mut self, at: GuestTime) -> PageCount {
        self.recent.get_or_insert_with(|| PageSet::empty(self.due.universe()));
        self.run_guest(at);
        let recent = self.recent.as_mut().expect("it was made above");
        let written = u64::from(recent.len());
        recent.clear();
        self.scale(written)
    }

    fn replace(&mut self, at: GuestTime) -> PageCount {
        self.run_guest(at);
        std::mem::swap(&mut self.due, &mut self.log);
        self.log.clear();
        if let Some(lazy) = &mut self.lazy {
            // What was told is cleared with it: such a log is read once more only when the guest stands.
            lazy.pending.fill(false);
        }
        self.position = 0;
        self.rest = Sent::default();
        self.due()
    }

    fn batch(&mut self, at: GuestTime, places: PageCount, rewritten: Rewritten) -> Batch {
        if rewritten != Rewritten::Sent || !self.cursor.zero_is_settled() {
            self.run_guest(at);
        }
        let mut batch = Batch::default();
        while batch.places() < places {
            if self.rest.pages().is_zero() {
                let Some((position, rank)) = self.next_from(self.position) else {
                    self.position = self.due.universe();
                    break;
                };
                self.position = position + 1;
                let again = rewritten != Rewritten::Sent && self.log.contains(rank);
                (self.at_hand, self.rest) = (rank, if again { self.pass_over(rank) } else { self.send_one(at, rank) });
            }
            // The rest of a page whose first part was sent in another batch may have been written since.
            let rewritten = if self.log.contains(self.at_hand) { rewritten } else { Rewritten::Sent };
            let left = SendLimit::pages(places - batch.places());
            match rewritten {
                Rewritten::Sent => batch.sent += split_off(&mut self.rest, left, UNWEIGHED),
                Rewritten::Announced => batch.announced += split_off(&mut self.rest, left, UNWEIGHED).pages(),
                Rewritten::Skipped => batch.skipped += std::mem::take(&mut self.rest).pages(),
            }
        }
        Batch { ended: self.position >= self.due.universe() && self.rest.pages().is_zero(), ..batch }
    }
}

/// The fixed permutation of [`ScanOrder::Rotated`] over so many pages.
#[derive(Clone, Copy, Debug)]
struct Rotation {
    pages: u32,
    /// Bits of a page number.
    bits: u32,
}

impl Rotation {
    const BY: u32 = 10;

    fn of(pages: u32) -> Rotation {
        Rotation { pages, bits: pages.saturating_sub(1).checked_ilog2().map_or(0, |bits| bits + 1) }
    }

    /// The page visited at this position: rotated until it is one of the pages. A memory of 1024 pages or fewer is
    /// visited as it lies.
    fn rank(self, position: u32) -> u32 {
        if self.bits <= Rotation::BY {
            return position;
        }
        let mask = u32::MAX >> (32 - self.bits);
        let rotate = |page: u32| ((page << Rotation::BY) | (page >> (self.bits - Rotation::BY))) & mask;
        let mut rank = rotate(position);
        while rank >= self.pages {
            rank = rotate(rank);
        }
        rank
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::dirty::{ConstantRate, DirtySource, Estimate, PageReplay, PageReplayBuilder, WritePattern};
    use crate::units::PagesPerSec;

    const PAGE: PageBytes =
        PageBytes { data: ByteCount::new(4104), zero: ByteCount::new(9), encoded: ByteCount::new(4104) };

    fn at(millis: u64) -> GuestTime {
        GuestTime::from_nanos(millis * 1_000_000)
    }

    fn all() -> SendLimit {
        SendLimit::pages(PageCount::new(u64::MAX))
    }

    /// One window of 100 ms per list.
    fn replay(pages: u64, windows: &[&[u32]]) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(pages), PageCount::new(pages));
        windows.iter().for_each(|written| builder.window(Duration::from_millis(100), written, &[]));
        builder.build().unwrap()
    }

    #[test]
    fn what_was_written_before_the_log_is_not_in_it() {
        let source = replay(8, &[&[1], &[2], &[], &[]]);
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
        due.start(at(100));
        assert_eq!(due.send(at(100), all(), PAGE).data.get(), 8);
        assert_eq!(due.sync(at(250)).get(), 1);
    }

    #[test]
    fn the_scan_carries_on_where_it_was_and_wraps() {
        let source = replay(8, &[&[0, 1, 6, 7], &[], &[]]);
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
        due.start(at(0));
        due.send(at(0), SendLimit::pages(PageCount::new(7)), PAGE);
        assert_eq!(due.due().get(), 1);
        due.sync(at(200));
        assert_eq!(due.due().get(), 4, "page 7 was still due and is not counted twice");
        due.send(at(200), SendLimit::pages(PageCount::new(2)), PAGE);
        assert_eq!(due.position, 1, "page 7 first, then around to page 0");
    }

    #[test]
    fn the_page_that_passes_the_byte_limit_is_still_sent() {
        let source = replay(8, &[&[]]);
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
        due.start(at(0));
        let limit = SendLimit { bytes: ByteCount::new(2 * 4104), ..all() };
        assert_eq!(due.send(at(0), limit, PAGE).data.get(), 3, "strictly greater ends it");
    }

    #[test]
    fn manual_protection_absorbs_writes_between_sync_and_first_send_of_the_chunk() {
        // Page 3 is written in window 0 and again in window 1, after the sync but before anything is sent.
        let source = replay(8, &[&[3], &[3], &[], &[]]);
        let dirty_after = |log| {
            let mut due = Bitmap::new(&source, Duration::ZERO, log);
            due.start(at(0));
            due.send(at(0), all(), PAGE);
            due.sync(at(100));
            due.send(at(200), all(), PAGE);
            due.sync(at(300)).get()
        };
        assert_eq!(dirty_after(DirtyLog::KvmManual), 0, "absorbed: sent once, after both writes");
        assert_eq!(dirty_after(DirtyLog::Kvm), 1, "cleared at the sync: the second write is seen");
        assert_eq!(dirty_after(DirtyLog::Tcg), 1);
        assert_eq!(dirty_after(DirtyLog::Ring), 1);
    }

    #[test]
    fn manual_protection_clears_a_chunk_at_its_first_page_only() {
        // Two chunks of 2^18 pages. Page 0 (chunk 0) and page 2^18 (chunk 1) are written before the sync and after.
        let far = 1 << 18;
        let source = replay(1 << 19, &[&[0, far], &[0, far], &[], &[], &[]]);
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::KvmManual);
        due.start(at(0));
        due.send(at(0), all(), PAGE);
        due.sync(at(100));
        due.send(at(100), SendLimit::pages(PageCount::new(1)), PAGE);
        assert_eq!(due.sync(at(200)).get(), 1, "page 0 was cleared at 100 ms and written again, page 2^18 still due");
        assert_eq!(due.due().get(), 2);
    }

    #[test]
    fn manual_protection_absorbs_writes_before_the_first_pass_has_reached_their_chunk() {
        // Pages 5 (chunk 0) and 2^18 (chunk 1) are written while the first pass is still in chunk 0.
        let far = 1 << 18;
        let source = replay(1 << 19, &[&[5, far], &[], &[]]);
        let dirty_after = |log| {
            let mut due = Bitmap::new(&source, Duration::ZERO, log);
            due.start(at(0));
            due.send(at(0), SendLimit::pages(PageCount::new(1)), PAGE);
            due.send(at(100), all(), PAGE);
            due.sync(at(200)).get()
        };
        assert_eq!(dirty_after(DirtyLog::KvmManual), 1, "page 5 only: chunk 1 was cleared after its write");
        assert_eq!(dirty_after(DirtyLog::Kvm), 2);
    }

    #[test]
    fn a_sampled_page_stands_for_its_neighbours() {
        let mut builder = PageReplayBuilder::new(PageCount::new(3), PageCount::new(8));
        builder.zero_at_start(std::iter::once(1..2));
        builder.window(Duration::from_millis(100), &[2], &[]);
        let source = builder.build().unwrap();
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
        due.start(at(0));
        assert_eq!(due.due().get(), 8);
        let sent = due.send(at(0), all(), PAGE);
        assert_eq!((sent.data.get(), sent.zero.get()), (5, 3));
        assert_eq!(due.sync(at(100)).get(), 3);
    }

    #[test]
    fn what_a_tracked_page_stands_for_is_sent_page_by_page() {
        let mut builder = PageReplayBuilder::new(PageCount::new(2), PageCount::new(20));
        builder.window(Duration::from_millis(100), &[0], &[]);
        let source = builder.build().unwrap();
        let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
        due.start(at(0));
        let pages = |pages| SendLimit::pages(PageCount::new(pages));
        assert_eq!((due.send(at(0), pages(7), PAGE).data.get(), due.due().get()), (7, 13));
        // Page 0 was written at 50 ms: seven are due again, three still.
        assert_eq!((due.sync(at(60)).get(), due.due().get()), (7, 20));
        let data_pages = SendLimit { data_pages: PageCount::new(6), ..all() };
        assert_eq!((due.send(at(60), data_pages, PAGE).data.get(), due.due().get()), (6, 14));
        let bytes = SendLimit { bytes: ByteCount::new(4 * 4104), ..all() };
        assert_eq!(due.send(at(60), bytes, PAGE).data.get(), 5, "the page that passes them is the last");
        assert_eq!((due.send(at(60), all(), PAGE).data.get(), due.due().get()), (9, 0));
    }

    #[test]
    fn a_batch_ends_within_what_a_tracked_page_stands_for() {
        // Two tracked pages of ten; page 0 is written at 50 ms.
        let mut builder = PageReplayBuilder::new(PageCount::new(2), PageCount::new(20));
        builder.window(Duration::from_millis(100), &[0], &[]);
        let source = builder.build().unwrap();
        let after_four = |rewritten| {
            let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Kvm);
            due.start(at(0));
            let first = due.batch(at(0), PageCount::new(4), rewritten);
            assert_eq!((first.sent.data.get(), first.ended, due.due().get()), (4, false, 16));
            let second = due.batch(at(60), PageCount::new(8), rewritten);
            let third = due.batch(at(60), PageCount::new(8), rewritten);
            assert_eq!(due.replace(at(60)).get(), 10, "all of page 0");
            [second, third].map(|of| (of.sent.data.get(), of.announced.get(), of.skipped.get(), of.ended))
        };
        assert_eq!(after_four(Rewritten::Sent), [(8, 0, 0, false), (8, 0, 0, true)]);
        assert_eq!(after_four(Rewritten::Skipped), [(8, 0, 6, false), (2, 0, 0, true)], "six of ten are left");
        assert_eq!(after_four(Rewritten::Announced), [(2, 6, 0, false), (8, 0, 0, true)]);
    }

    /// A constant rate that counts the walks through its writes.
    struct Counted {
        source: ConstantRate,
        walks: AtomicU32,
    }

    #[derive(Clone)]
    struct CountedCursor<'a> {
        cursor: <ConstantRate as PageSource>::Cursor<'a>,
        walks: &'a AtomicU32,
    }

    impl DirtySource for Counted {
        fn memory(&self) -> PageCount {
            self.source.memory()
        }
        fn length(&self) -> Option<Duration> {
            self.source.length()
        }

        fn write_set(&self, span: Duration) -> Estimate {
            self.source.write_set(span)
        }
        fn zero(&self) -> Estimate {
            self.source.zero()
        }
        fn never_zero(&self) -> PageCount {
            self.source.never_zero()
        }
    }

    impl PageSource for Counted {
        type Cursor<'a> = CountedCursor<'a>;
        fn tracked(&self) -> PageCount {
            self.source.tracked()
        }
        fn cursor(&self, start: Duration) -> CountedCursor<'_> {
            CountedCursor { cursor: self.source.cursor(start), walks: &self.walks }
        }
    }

    impl PageCursor for CountedCursor<'_> {
        fn advance(&mut self, until: GuestTime, written: impl FnMut(u32)) {
            self.walks.fetch_add(1, Ordering::Relaxed);
            self.cursor.advance(until, written);
        }
        fn is_zero(&self, rank: u32) -> bool {
            self.cursor.is_zero(rank)
        }
        fn zero_is_settled(&self) -> bool {
            self.cursor.zero_is_settled()
        }
    }

    /// What a guest that writes fast costs to simulate: a walk at the start, one per reading and per chunk that is told to
    /// forget, however many small batches are sent in between.
    #[test]
    fn writes_are_walked_only_when_something_depends_on_them() {
        let pages = 1 << 19; // two chunks
        let memory = PageCount::new(pages);
        for (log, walks) in [(DirtyLog::Tcg, 2), (DirtyLog::KvmManual, 4)] {
            let rate = PagesPerSec::new(1e6);
            let source = ConstantRate::new(memory, memory, rate, WritePattern::Uniform, 1);
            let source = Counted { source, walks: AtomicU32::new(0) };
            let mut due = Bitmap::new(&source, Duration::ZERO, log);
            due.start(at(0));
            for batch in 0..64 {
                due.send(at(batch), SendLimit::pages(PageCount::new(pages / 64)), PAGE);
            }
            assert!(due.due().is_zero());
            due.sync(at(64));
            assert_eq!(source.walks.load(Ordering::Relaxed), walks, "{log:?}");
        }
    }

    #[test]
    fn writes_to_zero_pages_are_walked_at_once() {
        // Page 3 ceases to be zero in window 0, before it is sent.
        let mut builder = PageReplayBuilder::new(PageCount::new(8), PageCount::new(8));
        builder.zero_at_start(std::iter::once(3..4));
        builder.window(Duration::from_millis(100), &[3], &[crate::dirty::ZeroChange { rank: 3, zero: false }]);
        let source = builder.build().unwrap();
        let zeros = |from| {
            let mut due = Bitmap::new(&source, Duration::ZERO, DirtyLog::Tcg);
            due.start(at(0));
            due.send(at(from), all(), PAGE).zero.get()
        };
        assert_eq!((zeros(0), zeros(99)), (1, 0));
    }
}
