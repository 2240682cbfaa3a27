//! Due pages as counts in bands of the memory: what the bitmap does page by page, at the cost of a few sums.
//!
//! ```text
//!  scan order  ─────────────────────────────────────────────────────────────►
//!  cells       │ band 0 │ band 1 │ …  │ band k ┆ band k │ …            │ band 63 │
//!  passed      ├──── since the last sync ──────┤ ▲ position
//!  due         │ W(last sync, ·]               │ W(an earlier sync, ·]          │      ← at the next sync
//! ```
//! Of a cell it is known since when its writes are due: since the sync before the scan last passed it. At a sync the
//! pages written since then are due, whichever they are. A cell is a band, or a part of one where the scan stood inside
//! it at a sync. Within a cell zero and other pages lie evenly mixed, and so do pages written again; but in the first pass, in
//! which all pages are due, they lie where the zero map of the source's end says, if it is known.

use std::time::Duration;

use super::{Batch, DueSet, PageBytes, Rewritten, ScanOrder, SendLimit, Sent, Tracking};
use crate::dirty::{BANDS, ByBand, CountedSource, PerBand, SpanCounts, ZeroPlaces};
use crate::units::{GuestTime, PageCount};

/// How long what is known of zero pages may be used, in guest time.
const ZERO_KNOWN_FOR: Duration = Duration::from_millis(250);
/// Shares of kinds of pages that differ by less are one.
const ALIKE: f64 = 1e-6;
/// Less than this of a page is the rounding of sums.
const NOTHING: f64 = 1e-6;

/// The nearest whole number of pages ≥ 0. Half an instruction where `f64::round` is a call.
fn nearest(pages: f64) -> u64 {
    (pages + 0.5) as u64
}

/// Due pages, dirty log and scan position of one migration over a [`CountedSource`].
#[derive(Clone, Debug)]
pub struct Bands<C> {
    counts: C,
    /// Pages of a band. One band is told apart where nothing depends on the scan's position.
    band_pages: f64,
    bands: usize,
    /// Pages among which the place of the scan makes no difference, at most.
    alike_most: f64,
    cells: Vec<Cell>,
    /// What the last reading of the log asked; kept for its room alone.
    spans: Spans,
    /// The cell in which the scan stands.
    at: usize,
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
}

/// Where a scan stands whose log has not been read yet: nothing of what was written has come into it.
#[derive(Clone, Debug)]
pub struct FirstScan {
    cells: Vec<Cell>,
    at: usize,
    due: u64,
    synced: GuestTime,
    asked: GuestTime,
    zero_counted: GuestTime,
    chunks: Option<Chunks>,
    cache: Option<Encoding>,
    sent: Rounded,
}

/// A stretch of the memory of which one thing is known.
#[derive(Clone, Copy, Debug)]
struct Cell {
    band: usize,
    /// Its share of the band.
    share: f64,
    /// Pages due when the scan came, or would come.
    whole: f64,
    /// Of those the ones that are left, by kind.
    due: Mix,
    /// Since when its writes are due; `None` as long as all of it is.
    since: Option<GuestTime>,
    /// Whether the scan has passed it since the last sync.
    passed: bool,
    /// Since when its writes have been sent, and kept in the cache; `None` as long as none has.
    kept_since: Option<GuestTime>,
}

impl Cell {
    /// Whether all of it is due still, and since the beginning: so far as the scan has not passed it.
    fn is_of_first_pass(&self) -> bool {
        self.since.is_none() && !self.passed
    }

    /// The page of the memory at which its next due page lies, in a pass in which all are due: its end is the band's.
    fn place(&self, band_pages: f64) -> f64 {
        (self.band as f64 + 1.0) * band_pages - self.due.pages()
    }

    /// Its next pages, at most those that are due, in a pass in which all are due.
    fn ahead(&self, pages: f64, band_pages: f64, places: &ZeroPlaces) -> Mix {
        Cell::mix(self.place(band_pages), pages.min(self.due.pages()), places)
    }

    /// The pages behind its next `gone` ones that are alike or evenly mixed.
    fn alike_behind(&self, gone: f64, band_pages: f64, places: &ZeroPlaces) -> Mix {
        let at = self.place(band_pages) + gone;
        let left = (self.due.pages() - gone).max(0.0);
        Cell::mix(at, (places.alike_until(at) - at).clamp(0.0, left), places)
    }

    /// What the pages of the memory from `at` on are.
    fn mix(at: f64, pages: f64, places: &ZeroPlaces) -> Mix {
        let zero = match places.between(at, at + pages) {
            zero if zero < NOTHING => 0.0,
            zero if zero > pages - NOTHING => pages,
            zero => zero,
        };
        Mix { data: pages - zero, zero, encoded: 0.0 }
    }
}

/// What was written in some spans that end together, each asked for once.
#[derive(Clone, Debug, Default)]
struct Spans {
    asked: Vec<Span>,
    /// The distinct pages written in those of them that were asked by band.
    by_band: Vec<ByBand>,
}

/// What was written since some moment.
#[derive(Clone, Copy, Debug)]
struct Span {
    since: GuestTime,
    /// Of the pages written the share that was left zero.
    left_zero: f64,
    told: Told,
}

/// Distinct pages written in a span.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// So many, in the one band there is.
    Whole(f64),
    /// By band, at this place of [`Spans::by_band`].
    ByBand(usize),
    /// The band of the one cell that asks is asked for alone.
    Alone,
}

/// Pages by kind, in parts of pages.
#[derive(Clone, Copy, Debug, Default)]
struct Mix {
    data: f64,
    zero: f64,
    encoded: f64,
}

impl Mix {
    fn pages(self) -> f64 {
        self.data + self.zero + self.encoded
    }

    /// Whether these are of the same kinds in the same shares as the others, if there are any.
    fn is_mixed_as(&self, others: &Mix) -> bool {
        let (pages, of_others) = (self.pages(), others.pages());
        let is_alike = |some: f64, other: f64| (some * of_others - other * pages).abs() <= ALIKE * pages * of_others;
        is_alike(self.zero, others.zero) && is_alike(self.encoded, others.encoded)
    }

    fn times(self, factor: f64) -> Mix {
        Mix { data: self.data * factor, zero: self.zero * factor, encoded: self.encoded * factor }
    }

    fn add(&mut self, more: Mix) {
        self.data += more.data;
        self.zero += more.zero;
        self.encoded += more.encoded;
    }

    fn take(&mut self, part: Mix) {
        self.data = (self.data - part.data).max(0.0);
        self.zero = (self.zero - part.zero).max(0.0);
        self.encoded = (self.encoded - part.encoded).max(0.0);
    }

    fn bytes(self, page: PageBytes) -> f64 {
        let PageBytes { data, zero, encoded } = page;
        self.data * data.get() as f64 + self.zero * zero.get() as f64 + self.encoded * encoded.get() as f64
    }

    /// The first of these pages that takes the bytes past a limit, counted from 1.
    fn pages_past(self, bytes: f64, page: PageBytes) -> f64 {
        let each = self.bytes(page) / self.pages();
        if each > 0.0 { (bytes / each).floor() + 1.0 } else { f64::INFINITY }
    }
}

/// What was sent, told in whole pages without ever drifting from its parts.
#[derive(Clone, Copy, Debug, Default)]
struct Rounded {
    parts: Mix,
    whole: Sent,
}

impl Rounded {
    /// These, in whole pages by kind, at most so many.
    fn take(&mut self, parts: Mix, most: u64) -> Sent {
        self.parts.add(parts);
        let more =
            |sum: f64, told: PageCount, most: PageCount| PageCount::new(nearest(sum)).saturating_sub(told).min(most);
        let pages = more(self.parts.pages(), self.whole.pages(), PageCount::new(most));
        let zero = more(self.parts.zero, self.whole.zero, pages);
        let encoded = more(self.parts.encoded, self.whole.encoded, pages - zero);
        let sent = Sent { data: pages - zero - encoded, zero, encoded };
        self.whole += sent;
        sent
    }
}

/// A log that is cleared chunk by chunk, as the first page of each is sent.
#[derive(Clone, Debug)]
struct Chunks {
    /// Bands of a chunk; one where a chunk is shorter, too: a band takes the scan little time.
    bands: usize,
    /// When each band's chunk was cleared since the last sync.
    cleared: Vec<Option<GuestTime>>,
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
}

impl<C: SpanCounts> Bands<C> {
    /// Nothing due yet; the migration is requested `start` into the source.
    pub fn tracking<'a, S: CountedSource<Counts<'a> = C>>(source: &'a S, start: Duration, tracking: Tracking) -> Self {
        let Tracking { log, order, cache, by_position } = tracking;
        let memory = source.memory();
        // A scan out of order meets every part of the memory all the time.
        let bands = if by_position && order == ScanOrder::Linear { BANDS } else { 1 };
        let band_pages = memory.get() as f64 / bands as f64;
        let chunks = log.chunk().map(|chunk| Chunks {
            bands: ((chunk.get() as f64 / band_pages).round() as usize).max(1),
            cleared: vec![None; bands],
        });
        Bands {
            counts: source.counts(start),
            band_pages,
            bands,
            alike_most: if by_position { memory.get() as f64 / BANDS as f64 } else { f64::INFINITY },
            cells: Vec::with_capacity(if bands == 1 { 1 } else { bands + 8 }),
            spans: Spans::default(),
            at: 0,
            due: 0,
            synced: GuestTime::ZERO,
            asked: GuestTime::ZERO,
            zero_counted: GuestTime::ZERO,
            has_first_pass: true,
            chunks,
            cache: cache.map(|pages| Encoding { pages: pages.get() as f64, is_active: false }),
            sent: Rounded::default(),
            others: Rounded::default(),
        }
    }

    /// Distinct pages written in (since, until], by band.
    fn written_in(&self, since: GuestTime, until: GuestTime) -> PerBand {
        if self.bands == 1 {
            let mut all = [0.0; BANDS];
            all[0] = self.counts.written(since, until);
            all
        } else {
            self.counts.written_per_band(since, until)
        }
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
        if self.cells.iter().all(|cell| cell.since.is_some() || cell.passed) {
            self.has_first_pass = false;
            return;
        }
        if let Some(places) = self.counts.zero_places() {
            for cell in self.cells.iter_mut().filter(|cell| cell.is_of_first_pass()) {
                cell.due = cell.ahead(cell.due.pages(), self.band_pages, places);
            }
            return;
        }
        let zero = self.zero_in_bands(at);
        for cell in self.cells.iter_mut().filter(|cell| cell.is_of_first_pass()) {
            let pages = cell.due.pages();
            let share = (zero[cell.band] / self.band_pages).clamp(0.0, 1.0);
            cell.due = Mix { data: pages * (1.0 - share), zero: pages * share, encoded: 0.0 };
        }
    }

    fn count_zero_anew(&mut self, at: GuestTime) {
        if at.since(self.zero_counted) > ZERO_KNOWN_FOR && self.counts.zero_places().is_none() {
            self.count_zero(at);
        }
    }

    /// The next pages of a cell that are alike, or evenly mixed: all that are due, where nobody has seen which are zero.
    fn alike_in(&self, cell: &Cell) -> Mix {
        self.alike_behind(cell, 0.0)
    }

    /// The same behind its next `gone` pages.
    fn alike_behind(&self, cell: &Cell, gone: f64) -> Mix {
        match self.counts.zero_places().filter(|_| cell.is_of_first_pass()) {
            Some(places) => cell.alike_behind(gone, self.band_pages, places),
            None if gone == 0.0 => cell.due,
            None => Mix::default(),
        }
    }

    /// Cuts the cell in which the scan stands where it stands, so that no cell is half passed.
    fn cut(&mut self) {
        let cell = self.cells[self.at];
        let left = if cell.whole > 0.0 { cell.due.pages() / cell.whole } else { 1.0 };
        if left >= 1.0 || cell.passed {
            return;
        }
        let (share, kept_since) = (cell.share * (1.0 - left), self.kept_since(&cell));
        let behind = Cell { share, whole: 0.0, due: Mix::default(), passed: true, kept_since, ..cell };
        self.cells[self.at] = Cell { share: cell.share * left, whole: cell.due.pages(), ..cell };
        self.cells.insert(self.at, behind);
        self.at += 1;
    }

    /// Joins neighbours that a later sync need not tell apart.
    fn join(&mut self) {
        let mut index = 1;
        while index < self.cells.len() {
            let (before, cell) = (&self.cells[index - 1], &self.cells[index]);
            // The scan's position is a border.
            let is_alike = before.since == cell.since && before.kept_since == cell.kept_since;
            if before.band == cell.band && is_alike && index != self.at {
                let cell = *cell;
                let joined = &mut self.cells[index - 1];
                joined.share += cell.share;
                joined.whole += cell.whole;
                joined.due.add(cell.due);
                self.cells.remove(index);
                self.at -= usize::from(index < self.at);
            } else {
                index += 1;
            }
        }
    }

    /// Since when the writes of a cell are due at `now`.
    fn due_since(&self, cell: &Cell, now: GuestTime, shared: &mut Shared) -> Option<GuestTime> {
        if !cell.passed {
            return cell.since;
        }
        let cleared = self.chunks.as_ref().and_then(|chunks| chunks.cleared[cell.band]);
        Some(cleared.map_or(self.synced, |cleared| self.remembered_since(cell.since, cleared, now, shared)))
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

    /// Whether two cells remember since the same moment.
    fn is_alike(&self, one: &Cell, other: &Cell) -> bool {
        let cleared = |cell: &Cell| self.chunks.as_ref().and_then(|chunks| chunks.cleared[cell.band]);
        let is_kept_alike = one.kept_since == other.kept_since;
        one.since == other.since && one.passed == other.passed && cleared(one) == cleared(other) && is_kept_alike
    }

    /// What was written in (since, until], for so many cells.
    fn ask(&self, spans: &mut Spans, (since, until): (GuestTime, GuestTime), cells: usize) -> Span {
        if let Some(known) = spans.asked.iter().rfind(|span| span.since == since) {
            return *known;
        }
        let left_zero = self.counts.left_zero(since, until);
        let told = if self.bands == 1 {
            Told::Whole(self.counts.written(since, until))
        } else if cells == 1 {
            return Span { since, left_zero, told: Told::Alone };
        } else {
            spans.by_band.push(self.counts.written_by_band(since, until));
            Told::ByBand(spans.by_band.len() - 1)
        };
        let span = Span { since, left_zero, told };
        spans.asked.push(span);
        span
    }

    /// Sets what is due to what was written since each cell remembers, and starts anew from `now`.
    fn renew(&mut self, now: GuestTime, mut since: impl FnMut(&Self, &Cell) -> Option<GuestTime>) {
        let (mut cells, mut spans) = (std::mem::take(&mut self.cells), std::mem::take(&mut self.spans));
        spans.asked.clear();
        spans.by_band.clear();
        let mut total = 0.0;
        for alike in cells.chunk_by_mut(|one, next| self.is_alike(one, next)) {
            let since = since(self, &alike[0]);
            if let Some(since) = since {
                let Span { left_zero: zero, told, .. } = self.ask(&mut spans, (since, now), alike.len());
                let encoded = self.encoded_share(alike[0].kept_since, since, now);
                for cell in &mut *alike {
                    let written = match told {
                        Told::Whole(pages) => pages,
                        Told::ByBand(place) => spans.by_band[place].pages(cell.band),
                        Told::Alone => self.counts.written_in_band(since, now, cell.band),
                    };
                    let pages = written.min(self.band_pages) * cell.share;
                    let data = pages * (1.0 - zero);
                    cell.due = Mix { data: data * (1.0 - encoded), zero: pages * zero, encoded: data * encoded };
                }
            }
            for cell in alike {
                (cell.since, cell.passed) = (since, false);
                total += cell.due.pages();
            }
        }
        self.due = nearest(total);
        // What the cells hold adds up to whole pages.
        let scale = if total > 0.0 { self.due as f64 / total } else { 0.0 };
        for cell in &mut cells {
            cell.due = cell.due.times(scale);
            cell.whole = cell.due.pages();
        }
        (self.cells, self.spans) = (cells, spans);
        self.synced = now;
        if let Some(chunks) = &mut self.chunks {
            chunks.cleared.fill(None);
        }
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

    /// The scan leaves the cell in which it stands.
    fn pass(&mut self) {
        let kept_since = self.kept_since(&self.cells[self.at]);
        let cell = &mut self.cells[self.at];
        (cell.passed, cell.due, cell.kept_since) = (true, Mix::default(), kept_since);
        self.at += 1;
    }

    /// Since when the writes of a cell that the scan has passed are kept in the cache.
    fn kept_since(&self, cell: &Cell) -> Option<GuestTime> {
        let sent = self.cache.filter(|cache| cache.is_active).map(|_| cell.since.unwrap_or(self.synced));
        cell.kept_since.or(sent)
    }

    /// The scan goes on to the next cell, around the end if it must.
    fn go_on(&mut self) {
        self.pass();
        if self.at == self.cells.len() {
            self.at = 0;
            if let Some(cache) = &mut self.cache {
                cache.is_active = true;
            }
        }
    }

    fn clear_chunk(&mut self, at: GuestTime, band: usize) {
        // A chunk's bands are cleared together.
        if let Some(chunks) = self.chunks.as_mut().filter(|chunks| chunks.cleared[band].is_none()) {
            let first = band / chunks.bands * chunks.bands;
            let end = (first + chunks.bands).min(chunks.cleared.len());
            chunks.cleared[first..end].fill(Some(at));
        }
    }

    /// Whether nothing is due any more in the cell in which the scan stands.
    fn is_passed(&self) -> bool {
        self.cells[self.at].due.pages() < NOTHING
    }

    /// Takes `pages` of the cell in which the scan stands, or what it has.
    fn take_from_cell(&mut self, at: GuestTime, pages: f64) -> Mix {
        let places = self.counts.zero_places();
        let cell = &mut self.cells[self.at];
        let (band, has) = (cell.band, cell.due.pages());
        let part = if pages >= has {
            std::mem::take(&mut cell.due)
        } else {
            let part = match places.filter(|_| cell.is_of_first_pass()) {
                Some(places) => cell.ahead(pages, self.band_pages, places),
                None => cell.due.times(pages / has),
            };
            cell.due.take(part);
            part
        };
        self.clear_chunk(at, band);
        part
    }

    /// Of the due pages the share that was written again since the log was read, by band.
    fn written_again(&self, at: GuestTime) -> PerBand {
        let after = self.written_in(self.synced, at);
        let Some(since) = self.cells.first().and_then(|cell| cell.since) else {
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
        if self.due == 0 {
            self.cells.iter_mut().for_each(|cell| cell.due = Mix::default());
        }
        sent
    }
}

impl<C: SpanCounts + Clone> DueSet for Bands<C> {
    fn due(&self) -> PageCount {
        PageCount::new(self.due)
    }

    fn start(&mut self, at: GuestTime) {
        let cell = |band| Cell {
            band,
            share: 1.0,
            whole: self.band_pages,
            due: Mix { data: self.band_pages, ..Mix::default() },
            since: None,
            passed: false,
            kept_since: None,
        };
        self.cells.clear();
        self.cells.extend((0..self.bands).map(cell));
        self.due = nearest(self.band_pages * self.bands as f64);
        (self.at, self.synced, self.asked, self.has_first_pass) = (0, at, at, true);
        if let Some(chunks) = &mut self.chunks {
            chunks.cleared.fill(None);
        }
        self.count_zero(at);
    }

    fn sync(&mut self, at: GuestTime) -> PageCount {
        let before = self.due;
        self.cut();
        let mut shared = Shared::default();
        self.renew(at, |bands, cell| bands.due_since(cell, at, &mut shared));
        self.join();
        self.count_zero(at);
        PageCount::new(self.due.saturating_sub(before))
    }

    fn send(&mut self, at: GuestTime, limit: SendLimit, page: PageBytes) -> Sent {
        self.count_zero_anew(at);
        let mut most = limit.pages.get().min(self.due) as f64;
        let (mut bytes, mut data) = (limit.bytes.get() as f64, limit.data_pages.get() as f64);
        let longest = page.data.max(page.zero).max(page.encoded).get() as f64;
        let (mut parts, mut empty) = (Mix::default(), 0);
        while parts.pages() < most - NOTHING {
            if self.is_passed() {
                empty += 1;
                if empty > self.cells.len() {
                    // All that is left is what sums have lost.
                    parts.data += most - parts.pages();
                    break;
                }
                self.go_on();
                continue;
            }
            let due = self.alike_in(&self.cells[self.at]);
            // More than a page from its limits a cell is sent whole, so that nothing has to be divided.
            let is_far = bytes > (due.pages() + 1.0) * longest && data > due.data + 1.0;
            if !is_far && (bytes <= due.bytes(page) + longest || data <= due.data + 1.0) {
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
        for cell in &mut self.cells {
            cell.due.data += std::mem::take(&mut cell.due.encoded);
        }
    }

    fn written(&mut self, at: GuestTime) -> PageCount {
        let written = self.counts.written(self.asked, at);
        self.asked = at;
        PageCount::new(nearest(written))
    }

    fn replace(&mut self, at: GuestTime) -> PageCount {
        let mut shared = Shared::default();
        self.renew(at, |bands, cell| match cell.passed {
            true => bands.due_since(cell, at, &mut shared),
            false => Some(bands.synced),
        });
        self.at = 0;
        PageCount::new(self.due)
    }

    fn batch(&mut self, at: GuestTime, places: PageCount, rewritten: Rewritten) -> Batch {
        self.count_zero_anew(at);
        let mut batch = Batch::default();
        let again = (rewritten != Rewritten::Sent).then(|| self.written_again(at));
        let (mut room, mut sent, mut others) = (places.get() as f64, Mix::default(), 0.0);
        while room > NOTHING && self.at < self.cells.len() {
            if self.is_passed() {
                self.pass();
                continue;
            }
            let cell = &self.cells[self.at];
            let again = again.as_ref().map_or(0.0, |again| again[cell.band]);
            // Pages that are skipped take no place.
            let placed = if rewritten == Rewritten::Skipped { 1.0 - again } else { 1.0 };
            let part = self.take_from_cell(at, if placed > 0.0 { room / placed } else { f64::INFINITY });
            room -= part.pages() * placed;
            others += part.pages() * again;
            sent.add(part.times(1.0 - again));
        }
        let others = self.others.take(Mix { data: others, ..Mix::default() }, self.due).data;
        *if rewritten == Rewritten::Skipped { &mut batch.skipped } else { &mut batch.announced } = others;
        self.due -= others.get();
        batch.sent = self.count_out(sent);
        batch.ended = self.at == self.cells.len() || self.due == 0;
        batch
    }

    fn ahead(&self, pages: PageCount) -> Option<Sent> {
        if self.cache.is_none() && !self.counts.has_zero() {
            return Some(Sent { data: pages.min(PageCount::new(self.due)), ..Sent::default() });
        }
        let (mut left, mut ahead) = ((pages.get().min(self.due)) as f64, Mix::default());
        let (passed, next) = self.cells.split_at(self.at);
        'cells: for cell in next.iter().chain(passed) {
            let mut gone = 0.0;
            while gone < cell.due.pages() - NOTHING && left > 0.0 {
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
        let whole = |pages: f64| PageCount::new(nearest(pages));
        let pages = whole(ahead.pages());
        let (zero, encoded) = (whole(ahead.zero).min(pages), whole(ahead.encoded));
        let encoded = encoded.min(pages - zero);
        Some(Sent { data: pages - zero - encoded, zero, encoded })
    }

    fn all_data(&self) -> PageCount {
        let cleared = |band: usize| self.chunks.as_ref().is_none_or(|chunks| chunks.cleared[band].is_some());
        let first = self.cells[self.at];
        let mut pages = 0.0;
        for cell in &self.cells[self.at..] {
            // When a chunk is cleared depends on when its first page is sent.
            let is_known = cleared(cell.band) || (cell.band == first.band && self.chunks.is_some());
            let due = self.alike_in(cell);
            if !is_known || due.zero > NOTHING || due.encoded > NOTHING {
                break;
            }
            pages += due.data;
            if due.data < cell.due.pages() - NOTHING {
                break;
            }
        }
        PageCount::new(pages as u64)
    }

    fn alike(&self) -> Option<PageCount> {
        let mut cells = self.cells[self.at..].iter().map(|cell| cell.due.pages());
        let in_cell = cells.find(|pages| *pages >= NOTHING).unwrap_or(0.0);
        // Where the scan's place matters and all of the memory is one cell, as much as a band would have.
        Some(PageCount::new(in_cell.min(self.alike_most).ceil() as u64))
    }

    fn first_scan(&self) -> Option<FirstScan> {
        let Bands { at, due, synced, asked, zero_counted, cache, sent, .. } = *self;
        let (cells, chunks) = (&self.cells, &self.chunks);
        self.counts.zero_is_fixed().then(|| FirstScan {
            cells: cells.clone(),
            at,
            due,
            synced,
            asked,
            zero_counted,
            chunks: chunks.clone(),
            cache,
            sent,
        })
    }

    fn go_on_from(&mut self, scan: &FirstScan) -> bool {
        let FirstScan { at, due, synced, asked, zero_counted, cache, sent, .. } = *scan;
        self.cells.clone_from(&scan.cells);
        self.chunks.clone_from(&scan.chunks);
        (self.at, self.due, self.synced, self.asked) = (at, due, synced, asked);
        (self.zero_counted, self.cache, self.sent) = (zero_counted, cache, sent);
        true
    }
}
