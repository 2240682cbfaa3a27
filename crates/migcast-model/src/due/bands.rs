//! Due pages as counts in bands of the memory: what the bitmap does page by page, at the cost of a few sums.
//!
//! ```text
//!  scan order  ─────────────────────────────────────────────────────────────►
//!  bands       │ band 0 │ band 1 │ …  │ band k          │ …            │ band 63 │
//!  passed      ├──── since the last sync ──────┤ ▲ position
//!  due         │ W(last sync, ·]               │ W(an earlier sync, ·]          │      ← at the next sync
//! ```
//! Of a region it is known since when its writes are due: since the sync before the scan last passed it. At a sync the
//! pages written since then are due, whichever they are; a [`Scan`] holds how many in each band, and where it stands.
//! Within a region's part of a band zero and other pages lie evenly mixed, and so do pages written again; but in the first
//! pass, in which all pages are due, they lie where the zero map of the source's end says, if it is known.

mod mix;
mod scan;

use std::ops::Range;
use std::time::Duration;

use self::mix::{Mix, NOTHING, Rounded, nearest, whole_up};
use self::scan::{Cell, Piece, Region, Scan};
use super::{Batch, DueSet, PageBytes, Rewritten, ScanOrder, SendLimit, Sent, Tracking};
use crate::dirty::{BANDS, CountedSource, PerBand, SpanCounts, ZeroPlaces};
use crate::units::{GuestTime, PageCount};

/// How long what is known of zero pages may be used, in guest time.
const ZERO_KNOWN_FOR: Duration = Duration::from_millis(250);

/// Due pages, dirty log and scan position of one migration over a [`CountedSource`].
#[derive(Clone, Debug)]
pub struct Bands<C> {
    counts: C,
    /// Pages of a band. One band is told apart where nothing depends on the scan's position.
    band_pages: f64,
    bands: usize,
    /// Pages among which the place of the scan makes no difference, at most.
    alike_most: f64,
    scan: Scan,
    /// Pages due, in whole pages: what the cells hold adds up to it.
    due: u64,
    /// When the log was last read.
    synced: GuestTime,
    /// When somebody last asked how much was written.
    asked: GuestTime,
    /// When zero pages were last counted.
    zero_counted: GuestTime,
    /// Whether there may be pages that have been due from the beginning.
    has_first_pass: bool,
    chunks: Option<Chunks>,
    cache: Option<Encoding>,
    sent: Rounded,
    /// Due pages that were not sent, because they had been written again.
    others: Rounded,
    /// What the last reading of the log found passed; kept for its room alone.
    pieces: Vec<Piece>,
}

/// Where a scan stands whose log has not been read yet: nothing of what was written has come into it.
#[derive(Clone, Debug)]
pub struct FirstScan {
    scan: Scan,
    due: u64,
    synced: GuestTime,
    asked: GuestTime,
    zero_counted: GuestTime,
    chunks: Option<Chunks>,
    cache: Option<Encoding>,
    sent: Rounded,
}

/// A log that is cleared chunk by chunk, as the first page of each is sent.
#[derive(Clone, Debug)]
struct Chunks {
    /// Bands of a chunk; one where a chunk is shorter, too: a band takes the scan little time.
    bands: usize,
    /// When each chunk was cleared since the last sync.
    cleared: Vec<Option<GuestTime>>,
}

impl Chunks {
    /// None cleared yet. A chunk of so many pages.
    fn of(chunk: PageCount, band_pages: f64, bands: usize) -> Chunks {
        let each = ((chunk.get() as f64 / band_pages).round() as usize).max(1);
        Chunks { bands: each, cleared: vec![None; bands.div_ceil(each)] }
    }

    /// Whether it is known when the chunk of a band is cleared, whenever its pages are sent: where the next page lies in
    /// it, when that goes.
    fn is_known_from(&self, band: usize, next: usize) -> bool {
        band / self.bands == next / self.bands || self.cleared[band / self.bands].is_some()
    }

    /// The same of all chunks.
    fn are_known_from(&self, next: usize) -> bool {
        let mut chunks = self.cleared.iter().enumerate();
        chunks.all(|(chunk, cleared)| cleared.is_some() || chunk == next / self.bands)
    }

    /// Of the chunk at a place, in bands from the memory's beginning: where it ends, and when it was cleared.
    fn at(&self, place: f64) -> (f64, Option<GuestTime>) {
        let chunk = place as usize / self.bands;
        (((chunk + 1) * self.bands) as f64, self.cleared[chunk])
    }

    fn clear(&mut self, band: usize, at: GuestTime) {
        self.cleared[band / self.bands].get_or_insert(at);
    }
}

/// Distinct pages written up to one reading of the log since the few moments that its chunks have in common.
#[derive(Clone, Debug, Default)]
struct Shared(Vec<(GuestTime, f64)>);

impl Shared {
    /// Those since a moment, which are counted once.
    fn since(&mut self, since: GuestTime, count: impl Fn(GuestTime) -> f64) -> f64 {
        let known = self.0.iter().find(|(known, _)| *known == since);
        known.map(|(_, written)| *written).unwrap_or_else(|| {
            let written = count(since);
            self.0.push((since, written));
            written
        })
    }
}

/// A cache against which pages are encoded that were sent before.
#[derive(Clone, Copy, Debug)]
struct Encoding {
    /// Pages it holds.
    pages: f64,
    /// Whether the scan went around once: nothing is kept before.
    is_active: bool,
    /// Whether it had before the first page since the log was last read.
    was_active: bool,
}

/// How the log is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// Into the due pages; the scan goes on where it stands.
    Added,
    /// For the due pages: what had not been sent is due only if it was written since. The scan begins anew.
    Instead,
}

impl<C: SpanCounts> Bands<C> {
    /// Nothing due yet; the migration is requested `start` into the source.
    pub fn tracking<'a, S: CountedSource<Counts<'a> = C>>(source: &'a S, start: Duration, tracking: Tracking) -> Self {
        let Tracking { log, order, cache, by_position } = tracking;
        let memory = source.memory();
        // A scan out of order meets every part of the memory all the time.
        let bands = if by_position && order == ScanOrder::Linear { BANDS } else { 1 };
        let band_pages = memory.get() as f64 / bands as f64;
        Bands {
            counts: source.counts(start),
            band_pages,
            bands,
            alike_most: if by_position { memory.get() as f64 / BANDS as f64 } else { f64::INFINITY },
            scan: Scan::with_room(bands),
            due: 0,
            synced: GuestTime::ZERO,
            asked: GuestTime::ZERO,
            zero_counted: GuestTime::ZERO,
            has_first_pass: true,
            chunks: log.chunk().map(|chunk| Chunks::of(chunk, band_pages, bands)),
            cache: cache.map(|pages| Encoding { pages: pages.get() as f64, is_active: false, was_active: false }),
            sent: Rounded::default(),
            others: Rounded::default(),
            pieces: Vec::new(),
        }
    }

    /// Distinct pages written in (since, until], in these bands.
    fn count_written(&self, since: GuestTime, until: GuestTime, bands: Range<usize>, pages: &mut [f64]) {
        if self.bands == 1 {
            pages[0] = self.counts.written(since, until);
        } else {
            self.counts.written_by_band(since, until, bands, pages);
        }
    }

    /// The same in every band.
    fn written_in(&self, since: GuestTime, until: GuestTime) -> PerBand {
        let mut pages = [0.0; BANDS];
        self.count_written(since, until, 0..self.bands, &mut pages[..self.bands]);
        scan::fill_up_to(&mut pages[..self.bands], self.band_pages);
        pages
    }

    fn zero_in_bands(&self, at: GuestTime) -> PerBand {
        let mut zero = self.counts.zero_per_band(at);
        if self.bands == 1 {
            zero[0] = zero.iter().sum();
        }
        zero
    }

    /// Counts the zero pages of what has been due from the beginning.
    fn count_zero(&mut self, at: GuestTime) {
        self.zero_counted = at;
        if !self.has_first_pass || !self.counts.has_zero() {
            return;
        }
        let band_pages = self.band_pages;
        self.has_first_pass = if let Some(places) = self.counts.zero_places() {
            self.scan.set_first(|cell| mixed(cell.page(0.0, band_pages), cell.pages, places))
        } else {
            let zero = self.zero_in_bands(at);
            self.scan.set_first(|cell| {
                let share = (zero[cell.band as usize] / band_pages).clamp(0.0, 1.0);
                Mix { data: cell.pages * (1.0 - share), zero: cell.pages * share, encoded: 0.0 }
            })
        };
    }

    fn count_zero_anew(&mut self, at: GuestTime) {
        if at.since(self.zero_counted) > ZERO_KNOWN_FOR && self.counts.zero_places().is_none() {
            self.count_zero(at);
        }
    }

    /// Where the zero pages of a cell lie, if it has been due from the beginning and they have been seen.
    fn places(&self, cell: &Cell) -> Option<&ZeroPlaces> {
        self.counts.zero_places().filter(|_| self.scan.is_first(cell))
    }

    /// The pages behind a cell's first `gone` ones that are alike, or evenly mixed: all that are due, where nobody has seen
    /// which are zero.
    fn alike_behind(&self, cell: &Cell, gone: f64) -> Mix {
        let Some(places) = self.places(cell) else { return cell.behind(gone) };
        let at = cell.page(gone, self.band_pages);
        mixed(at, (places.alike_until(at) - at).clamp(0.0, (cell.pages - gone).max(0.0)), places)
    }

    /// Since when a log seems to remember at `now`, of which at `cleared` what the last sync told was cleared: since then
    /// what was told, since the sync what was not. What was told had been written since `since`.
    fn remembered_since(
        &self,
        since: Option<GuestTime>,
        cleared: GuestTime,
        now: GuestTime,
        shared: &mut Shared,
    ) -> GuestTime {
        let (synced, Some(since)) = (self.synced, since) else { return cleared };
        let written = |from, to| self.counts.written(from, to);
        let (most, least) = (shared.since(synced, |synced| written(synced, now)), written(cleared, now));
        if most <= least {
            return cleared;
        }
        // Told and written again since `cleared`: of that as much as if it had begun at the sync.
        let as_long = synced + now.since(cleared);
        let remembered =
            shared.since(since, |since| written(since, now)) + written(synced, as_long) - written(since, as_long);
        let forgotten = ((most - remembered) / (most - least)).clamp(0.0, 1.0);
        synced + cleared.since(synced).mul_f64(forgotten)
    }

    /// Sets what is due to what was written since each region remembers, and starts anew from `now`.
    fn renew(&mut self, now: GuestTime, reading: Reading) {
        if self.is_all_replaced(reading) {
            self.replace_all(now);
            return;
        }
        self.scan.settle();
        let mut pieces = std::mem::take(&mut self.pieces);
        self.scan.pieces(reading == Reading::Added, &mut pieces);
        let next = self.remember(now, reading, &pieces);
        self.pieces = pieces;
        let at = self.lay_out(now, next);
        self.scan.begin(if reading == Reading::Added { at } else { 0 });
        self.synced = now;
        if let Some(chunks) = &mut self.chunks {
            chunks.cleared.fill(None);
        }
        if let Some(cache) = &mut self.cache {
            cache.was_active = cache.is_active;
        }
    }

    /// Whether all of the memory is one region that remembers since the last reading: of rounds to which the scan's place is
    /// nothing.
    fn is_all_replaced(&self, reading: Reading) -> bool {
        let is_plain = self.bands == 1 && self.chunks.is_none() && self.cache.is_none();
        reading == Reading::Instead && is_plain && self.scan.regions.len() == 1
    }

    /// The same for one that is all replaced: one cell, and nothing else that remembers. A forecast of rounds takes a microsecond or
    /// two, and laying out in general is felt.
    fn replace_all(&mut self, now: GuestTime) {
        let since = self.synced;
        let written = self.counts.written(since, now);
        self.due = nearest(if written < self.band_pages { written } else { self.band_pages });
        let (pages, zero) = (self.due as f64, self.counts.left_zero(since, now));
        let due = Mix { data: pages * (1.0 - zero), zero: pages * zero, encoded: 0.0 };
        self.scan.hold_one(since, Cell { band: 0, region: 0, from: 0.0, share: 1.0, due, pages });
        self.synced = now;
    }

    /// Makes the regions anew: since when the writes of each are due at `now`. Returns at which of them the scan stands.
    fn remember(&mut self, now: GuestTime, reading: Reading, pieces: &[Piece]) -> usize {
        let (mut shared, mut next) = (Shared::default(), None);
        let mut regions = std::mem::take(&mut self.scan.regions);
        regions.clear();
        for piece in pieces {
            if piece.is_next {
                next = Some(regions.len());
            }
            let Region { from, to, since, .. } = piece.region;
            if !piece.is_passed {
                let since = if reading == Reading::Added { since } else { Some(self.synced) };
                scan::append(&mut regions, Region { since, ..piece.region }, piece.is_next);
                continue;
            }
            let kept_since = self.kept_since(piece);
            let mut begin = from;
            while begin < to {
                let (end, cleared) = self.chunks.as_ref().map_or((to, None), |chunks| chunks.at(begin));
                let end = end.min(to);
                let since =
                    cleared.map_or(self.synced, |cleared| self.remembered_since(since, cleared, now, &mut shared));
                let region = Region { from: begin, to: end, since: Some(since), kept_since };
                scan::append(&mut regions, region, piece.is_next && begin == from);
                begin = end;
            }
        }
        self.scan.regions = regions;
        next.unwrap_or(self.scan.regions.len())
    }

    /// Makes the cells anew, which hold what was written up to `now` since their regions remember. Returns the first of
    /// this region.
    fn lay_out(&mut self, now: GuestTime, next: usize) -> usize {
        let mut cells = std::mem::take(&mut self.scan.cells);
        cells.clear();
        let (mut at, mut one, mut all) = (None, [0.0], None);
        for (index, region) in self.scan.regions.iter().enumerate() {
            if index == next {
                at = Some(cells.len());
            }
            let bands = region.bands();
            // Where there is one band a forecast takes two microseconds, and room for all is felt.
            let written = match self.bands {
                1 => &mut one[..],
                _ => &mut all.get_or_insert([0.0; BANDS])[..bands.len()],
            };
            let kinds = match region.since {
                Some(since) => {
                    self.count_written(since, now, bands, written);
                    scan::fill_up_to(written, self.band_pages);
                    let encoded = self.encoded_share(region.kept_since, since, now);
                    [self.counts.left_zero(since, now), encoded]
                }
                None => {
                    written.fill(self.band_pages);
                    [0.0, 0.0]
                }
            };
            cells.extend(region.cells(index as u32, written, kinds));
        }
        let total = sum(&cells);
        self.due = nearest(total);
        // What the cells hold adds up to whole pages.
        let scale = if total > 0.0 { self.due as f64 / total } else { 0.0 };
        for cell in &mut cells {
            (cell.due, cell.pages) = (cell.due.times(scale), cell.pages * scale);
        }
        let at = at.unwrap_or(cells.len());
        self.scan.cells = cells;
        at
    }

    /// Of the pages written since some moment the share that the cache holds: those written between `kept_since` and then,
    /// too, which have been sent.
    fn encoded_share(&self, kept_since: Option<GuestTime>, since: GuestTime, now: GuestTime) -> f64 {
        let (Some(Encoding { pages, .. }), Some(kept_since)) = (self.cache, kept_since) else { return 0.0 };
        let before = self.counts.written(kept_since, since);
        let after = self.counts.written(since, now);
        if before <= 0.0 || after <= 0.0 {
            return 0.0;
        }
        let both = before + after - self.counts.written(kept_since, now);
        (both / after).clamp(0.0, 1.0) * (pages / before).min(1.0)
    }

    /// Since when the writes of a piece of the memory that the scan has passed are kept in the cache.
    fn kept_since(&self, Piece { region, is_around, .. }: &Piece) -> Option<GuestTime> {
        let was_active = |cache: &Encoding| if *is_around { cache.is_active } else { cache.was_active };
        let sent = self.cache.filter(was_active).map(|_| region.since.unwrap_or(self.synced));
        region.kept_since.or(sent)
    }

    /// The scan goes on from the memory's end to its beginning.
    fn turn(&mut self) {
        if let Some(cache) = &mut self.cache {
            // A pass that begins with it has nothing behind it that was sent before.
            (cache.is_active, cache.was_active) = (true, cache.was_active || self.scan.has_passed_none());
        }
        self.scan.turn();
    }

    /// Takes `pages` of the cell in which the scan stands, or what it has.
    fn take_from_cell(&mut self, at: GuestTime, pages: f64) -> Mix {
        let (cell, gone) = self.scan.cell();
        let pages = pages.min(cell.pages - gone);
        let part = match self.places(cell) {
            Some(places) => mixed(cell.page(gone, self.band_pages), pages, places),
            None => cell.due.times(pages / cell.pages),
        };
        clear(&mut self.chunks, cell, at);
        self.scan.pass(pages);
        part
    }

    /// Of the due pages the share that was written again since the log was read, by band.
    fn written_again(&self, at: GuestTime) -> PerBand {
        let after = self.written_in(self.synced, at);
        let Some(since) = self.scan.regions.first().and_then(|region| region.since) else {
            return after.map(|pages| (pages / self.band_pages).clamp(0.0, 1.0));
        };
        let (before, all) = (self.written_in(since, self.synced), self.written_in(since, at));
        let both: PerBand = std::array::from_fn(|band| {
            (before[band] + after[band] - all[band]).clamp(0.0, before[band].min(after[band]))
        });
        // What the bands say differs by little from much; for the whole memory it is known better.
        let sum = |pages: &PerBand| pages.iter().sum::<f64>();
        let (told, known) = (sum(&both), (sum(&before) + sum(&after) - sum(&all)).max(0.0));
        let scale = if told > 0.0 { known / told } else { 0.0 };
        std::array::from_fn(|band| match before[band] > 0.0 {
            true => (both[band] * scale / before[band]).clamp(0.0, 1.0),
            false => 0.0,
        })
    }

    /// Notes that these were sent, in whole pages.
    fn count_out(&mut self, parts: Mix) -> Sent {
        let sent = self.sent.take(parts, self.due);
        self.due -= sent.pages().get();
        if self.due == 0 && !self.scan.is_at_end() && !self.scan.has_passed_all() {
            self.scan.pass(f64::INFINITY);
        }
        sent
    }
}

/// What cells hold, in four lanes of which each is summed up by itself.
fn sum(cells: &[Cell]) -> f64 {
    let (fours, rest) = cells.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for four in fours {
        lanes = std::array::from_fn(|lane| lanes[lane] + four[lane].pages);
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|cell| cell.pages).sum::<f64>()
}

/// The scan sends a page of this cell.
#[inline]
fn clear(chunks: &mut Option<Chunks>, cell: &Cell, at: GuestTime) {
    if let Some(chunks) = chunks {
        chunks.clear(cell.band as usize, at);
    }
}

/// What so many pages of the memory from `at` on are.
fn mixed(at: f64, pages: f64, places: &ZeroPlaces) -> Mix {
    let zero = match places.between(at, at + pages) {
        zero if zero < NOTHING => 0.0,
        zero if zero > pages - NOTHING => pages,
        zero => zero,
    };
    Mix { data: pages - zero, zero, encoded: 0.0 }
}

impl<C: SpanCounts + Clone> DueSet for Bands<C> {
    fn due(&self) -> PageCount {
        PageCount::new(self.due)
    }

    fn start(&mut self, at: GuestTime) {
        (self.synced, self.asked, self.has_first_pass) = (at, at, true);
        self.scan.regions.clear();
        self.scan.regions.push(Region { from: 0.0, to: self.bands as f64, since: None, kept_since: None });
        self.lay_out(at, 0);
        self.scan.begin(0);
        if let Some(chunks) = &mut self.chunks {
            chunks.cleared.fill(None);
        }
        self.count_zero(at);
    }

    fn sync(&mut self, at: GuestTime) -> PageCount {
        let before = self.due;
        self.renew(at, Reading::Added);
        self.count_zero(at);
        PageCount::new(self.due.saturating_sub(before))
    }

    fn send(&mut self, at: GuestTime, limit: SendLimit, page: PageBytes) -> Sent {
        self.count_zero_anew(at);
        let mut most = limit.pages.get().min(self.due) as f64;
        let (mut bytes, mut data) = (limit.bytes.get() as f64, limit.data_pages.get() as f64);
        let longest = page.data.max(page.zero).max(page.encoded).get() as f64;
        let (mut parts, per_longest) = (Mix::default(), 1.0 / longest);
        while parts.pages() < most - NOTHING {
            // More than a page from every limit cells are passed whole, and nothing has to be divided.
            let far = (most - parts.pages()).min(bytes * per_longest - 1.0).min(data - 1.0);
            let whole = self.scan.pass_whole(far, |cell| clear(&mut self.chunks, cell, at));
            bytes -= whole.bytes(page);
            data -= whole.data;
            parts.add(whole);
            if parts.pages() >= most - NOTHING {
                break;
            }
            if self.scan.has_passed_all() {
                // All that is left is what sums have lost.
                parts.data += most - parts.pages();
                break;
            }
            if self.scan.is_at_end() {
                self.turn();
                continue;
            }
            let (cell, gone) = self.scan.cell();
            if cell.pages - gone < NOTHING {
                self.scan.leave();
                continue;
            }
            let due = self.alike_behind(cell, gone);
            if bytes <= due.bytes(page) + longest || data <= due.data + 1.0 {
                let has = due.pages();
                let with_data = if due.data > 0.0 { data * has / due.data } else { f64::INFINITY };
                let wanted = due.pages_past(bytes, page).min(with_data);
                if wanted <= has {
                    // The limit is met in this cell; the page that meets it is sent whole.
                    most = most.min((parts.pages() + wanted - NOTHING).ceil().max(1.0));
                    (bytes, data) = (f64::INFINITY, f64::INFINITY);
                }
            }
            let part = self.take_from_cell(at, (most - parts.pages()).min(due.pages()));
            bytes -= part.bytes(page);
            data -= part.data;
            parts.add(part);
        }
        self.count_out(parts)
    }

    fn stop_encoding(&mut self) {
        self.cache = None;
        self.scan.encode_nothing();
    }

    fn written(&mut self, at: GuestTime) -> PageCount {
        let written = self.counts.written(self.asked, at);
        self.asked = at;
        PageCount::new(nearest(written))
    }

    fn replace(&mut self, at: GuestTime) -> PageCount {
        self.renew(at, Reading::Instead);
        PageCount::new(self.due)
    }

    fn batch(&mut self, at: GuestTime, places: PageCount, rewritten: Rewritten) -> Batch {
        self.count_zero_anew(at);
        let mut batch = Batch::default();
        let again = (rewritten != Rewritten::Sent).then(|| self.written_again(at));
        let (mut room, mut sent, mut others) = (places.get() as f64, Mix::default(), 0.0);
        while room > NOTHING && !self.scan.is_at_end() {
            let (cell, gone) = self.scan.cell();
            if cell.pages - gone < NOTHING {
                self.scan.leave();
                continue;
            }
            let again = again.as_ref().map_or(0.0, |again| again[cell.band as usize]);
            // Pages that are skipped take no place.
            let placed = if rewritten == Rewritten::Skipped { 1.0 - again } else { 1.0 };
            let part = self.take_from_cell(at, if placed > 0.0 { room / placed } else { f64::INFINITY });
            room -= part.pages() * placed;
            others += part.pages() * again;
            sent.add(part.times(1.0 - again));
        }
        if rewritten != Rewritten::Sent {
            let others = self.others.take(Mix { data: others, ..Mix::default() }, self.due).data;
            *if rewritten == Rewritten::Skipped { &mut batch.skipped } else { &mut batch.announced } = others;
            self.due -= others.get();
        }
        batch.sent = self.count_out(sent);
        batch.ended = self.scan.is_at_end() || self.due == 0;
        batch
    }

    fn ahead(&self, pages: PageCount) -> Option<Sent> {
        if self.cache.is_none() && !self.counts.has_zero() {
            return Some(Sent { data: pages.min(PageCount::new(self.due)), ..Sent::default() });
        }
        let (mut left, mut ahead) = ((pages.get().min(self.due)) as f64, Mix::default());
        'cells: for (cell, mut gone) in self.scan.ahead_around() {
            while gone < cell.pages - NOTHING && left > 0.0 {
                let due = self.alike_behind(cell, gone);
                // Less than a page does not go alone.
                if ahead.pages() >= 1.0 && !due.is_mixed_as(&ahead) {
                    break 'cells;
                }
                let has = due.pages();
                ahead.add(if has <= left { due } else { due.times(left / has) });
                (gone, left) = (gone + has, left - has);
            }
        }
        Some(ahead.whole())
    }

    fn all_data(&self) -> PageCount {
        if self.due == 0 || self.scan.is_at_end() {
            return PageCount::ZERO;
        }
        let first = self.scan.cell().0.band as usize;
        let are_known = self.chunks.as_ref().is_none_or(|chunks| chunks.are_known_from(first));
        if are_known && self.cache.is_none() && !self.counts.has_zero() {
            return PageCount::new(self.due);
        }
        let mut pages = 0.0;
        for (cell, gone) in self.scan.ahead() {
            let is_known = |chunks: &Chunks| chunks.is_known_from(cell.band as usize, first);
            let due = self.alike_behind(cell, gone);
            if !self.chunks.as_ref().is_none_or(is_known) || due.zero > NOTHING || due.encoded > NOTHING {
                break;
            }
            pages += due.data;
            if due.data < cell.pages - gone - NOTHING {
                break;
            }
        }
        PageCount::new(pages as u64)
    }

    fn alike(&self) -> Option<PageCount> {
        let mut cells = self.scan.ahead().map(|(cell, gone)| cell.pages - gone);
        let in_cell = cells.find(|pages| *pages >= NOTHING && self.due > 0).unwrap_or(0.0);
        // Where the scan's place matters and all of the memory is one cell, as much as a band would have.
        Some(PageCount::new(whole_up(if in_cell < self.alike_most { in_cell } else { self.alike_most })))
    }

    fn first_scan(&self) -> Option<FirstScan> {
        let Bands { due, synced, asked, zero_counted, cache, sent, .. } = *self;
        let (scan, chunks) = (&self.scan, &self.chunks);
        self.counts.zero_is_fixed().then(|| FirstScan {
            scan: scan.clone(),
            due,
            synced,
            asked,
            zero_counted,
            chunks: chunks.clone(),
            cache,
            sent,
        })
    }

    fn go_on_from(&mut self, first: &FirstScan) -> bool {
        let FirstScan { due, synced, asked, zero_counted, cache, sent, .. } = *first;
        self.scan.stand_as(&first.scan);
        self.chunks.clone_from(&first.chunks);
        (self.due, self.synced, self.asked) = (due, synced, asked);
        (self.zero_counted, self.cache, self.sent) = (zero_counted, cache, sent);
        true
    }
}
