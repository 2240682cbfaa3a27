//! The pages that are due: what a pre-copy algorithm still has to send.
//!
//! An algorithm asks for counts and sends in scan order; it never sees a page. So the same algorithm runs over a bitmap
//! (page by page, the oracle) and over anything that can answer the same questions by counting.

mod bands;
mod bitmap;
mod cache;

pub use bands::{Bands, FirstScan};
pub use bitmap::Bitmap;

use std::ops::AddAssign;
use std::time::Duration;

use dyn_clone::DynClone;

use crate::dirty::{CountedRates, Deviating, DirtySource, PageSource, WwsIndex};
use crate::units::{ByteCount, GuestTime, PageCount};

/// Pages per chunk that KVM's log is cleared in: 2^18, 1 GiB (QEMU migration.h, CLEAR_BITMAP_SHIFT_DEFAULT). Chunks are
/// counted from page 0, which is exact for the first and largest block.
const CLEAR_CHUNK: PageCount = PageCount::new(1 << 18);
/// Pages per bitmap that Propolis offers: 4096 bytes of bits, 128 MiB.
const OFFER_CHUNK: PageCount = PageCount::new(4096 * 8);

/// When the hypervisor's dirty log forgets what it has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirtyLog {
    /// KVM with manual protection: a sync clears nothing; sending the first page of a 1 GiB chunk after a sync clears
    /// what that sync told of the chunk. Writes in between are absorbed. QEMU's default on KVM.
    #[default]
    KvmManual,
    /// KVM without manual protection: a sync clears what it tells.
    Kvm,
    /// KVM's dirty ring, collected into a bitmap that a sync clears.
    Ring,
    /// QEMU's own bitmap under TCG, which a sync clears (QEMU ≥ 9.0; older versions lose writes).
    Tcg,
    /// bhyve's, as Propolis uses it: what is known of a chunk of 128 MiB is cleared when its first page is sent.
    Offered,
}

impl DirtyLog {
    /// Pages of a chunk that the log is cleared in, as the first page of each is sent; `None` where a sync clears all.
    pub fn chunk(self) -> Option<PageCount> {
        match self {
            DirtyLog::KvmManual => Some(CLEAR_CHUNK),
            DirtyLog::Offered => Some(OFFER_CHUNK),
            DirtyLog::Kvm | DirtyLog::Ring | DirtyLog::Tcg => None,
        }
    }
}

/// In which order a scan visits the pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScanOrder {
    /// By page number.
    #[default]
    Linear,
    /// By page number with its bits rotated left by ten, so that neighbours are visited far apart: a fixed permutation of the
    /// pages (Xen 3.0.2 to 3.2, xc_linux_save.c, `permute`).
    Rotated,
}

/// What is kept about the pages beside which are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracking {
    /// The dirty log.
    pub log: DirtyLog,
    /// The order of a scan.
    pub order: ScanOrder,
    /// Pages of a cache of what was sent, against which repeats are encoded (QEMU's XBZRLE); `None` without one.
    pub cache: Option<PageCount>,
    /// Whether it matters where the scan stands when the log is read or looked into: QEMU reads it before a pass has
    /// ended, old Xen looks into it all the time. Where it does not, counts for the whole memory are enough.
    pub by_position: bool,
}

/// Bytes a page takes in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageBytes {
    /// A page with data, its header included.
    pub data: ByteCount,
    /// A page of zeros.
    pub zero: ByteCount,
    /// A page that is encoded against what was sent of it before.
    pub encoded: ByteCount,
}

/// Where to stop sending: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendLimit {
    /// Pages of any kind.
    pub pages: PageCount,
    /// Pages with data.
    pub data_pages: PageCount,
    /// The page that takes the bytes *past* this is the last one sent.
    pub bytes: ByteCount,
}

impl SendLimit {
    /// At most so many pages of either kind.
    pub fn pages(pages: PageCount) -> SendLimit {
        SendLimit { pages, data_pages: PageCount::new(u64::MAX), bytes: ByteCount::new(u64::MAX) }
    }
}

/// What one call sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Pages with data.
    pub data: PageCount,
    /// Pages of zeros.
    pub zero: PageCount,
    /// Pages encoded against what was sent of them before.
    pub encoded: PageCount,
}

impl Sent {
    /// Pages of any kind.
    pub fn pages(self) -> PageCount {
        self.data + self.zero + self.encoded
    }

    /// Their bytes in the stream.
    pub fn bytes(self, page: PageBytes) -> ByteCount {
        self.data.bytes(page.data) + self.zero.bytes(page.zero) + self.encoded.bytes(page.encoded)
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, more: Sent) {
        self.data += more.data;
        self.zero += more.zero;
        self.encoded += more.encoded;
    }
}

/// What becomes of a due page that is found written again when its batch is put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// It is sent all the same, and will be due again.
    Sent,
    /// It is left to the next reading of the log.
    Skipped,
    /// It takes its place in the batch without data, and will be due again.
    Announced,
}

/// What one batch of a pass over the memory did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Pages sent.
    pub sent: Sent,
    /// Pages that took a place without data.
    pub announced: PageCount,
    /// Pages passed over.
    pub skipped: PageCount,
    /// Whether the pass has reached the end of the memory.
    pub ended: bool,
}

impl Batch {
    /// Places taken in the batch.
    pub fn places(&self) -> PageCount {
        self.sent.pages() + self.announced
    }
}

/// The due pages of one migration, with the scan position and the dirty log that feeds them.
pub trait DueSet: DynClone {
    /// Pages due now.
    fn due(&self) -> PageCount;

    /// Turns the dirty log on at guest time `at`, empty; every page of the guest becomes due.
    fn start(&mut self, at: GuestTime);

    /// Reads the dirty log at guest time `at` into the due pages. Returns how many were not due before.
    fn sync(&mut self, at: GuestTime) -> PageCount;

    /// Sends due pages at guest time `at`, from the scan position on and around the end, within `limit`; the position
    /// stays behind the last page sent. Sends nothing only if nothing is due or a limit is zero.
    fn send(&mut self, at: GuestTime, limit: SendLimit, page: PageBytes) -> Sent;

    /// No page is encoded any more.
    fn stop_encoding(&mut self);

    /// Distinct pages written since the last call, or since the start: what a ring that is emptied that often counts.
    fn written(&mut self, at: GuestTime) -> PageCount;

    /// Takes the dirty log at guest time `at` for the due pages, and clears it: what was due and not sent is due no longer
    /// unless it was written. The scan starts over at the first page. Returns how many are due.
    fn replace(&mut self, at: GuestTime) -> PageCount;

    /// Sends the next batch of a pass at guest time `at`: up to `places` due pages from the scan position on, which stays
    /// behind them. Unless pages written again are [`Rewritten::Sent`], the log is peeked into first, once, and not
    /// cleared. A batch holds no page more than `places`; one that is not full has reached the end of the memory.
    fn batch(&mut self, at: GuestTime, places: PageCount, rewritten: Rewritten) -> Batch;

    /// What the next due pages are that are alike, or evenly mixed, up to so many, where the set counts and need not be asked
    /// page by page; `None` where every page has its turn.
    fn ahead(&self, _pages: PageCount) -> Option<Sent> {
        None
    }

    /// How many of the next due pages are known to have data and to be sent alike, whenever that is; none where every page
    /// has its turn.
    fn all_data(&self) -> PageCount {
        PageCount::ZERO
    }

    /// The next due pages among which this set makes no difference: a log looked into once while they are sent tells what
    /// it would tell before each. `None` where every page has its turn.
    fn alike(&self) -> Option<PageCount> {
        None
    }

    /// Where the scan stands before the log is read for the first time, if it would stand there from every starting point
    /// of its source. `None` where pages are told apart, or are zero now and not then.
    fn first_scan(&self) -> Option<FirstScan> {
        None
    }

    /// Goes on from where another set over the same source stood. Says whether it can.
    fn go_on_from(&mut self, _scan: &FirstScan) -> bool {
        false
    }
}

/// A dirty source over which a migration can be simulated: it feeds a set of due pages.
pub trait DueSource: DirtySource {
    /// A due set for a migration that is requested `start` into the source.
    fn due_set(&self, start: Duration, tracking: Tracking) -> Box<dyn DueSet + '_>;
}

/// Page by page.
impl<S: PageSource> DueSource for S {
    fn due_set(&self, start: Duration, tracking: Tracking) -> Box<dyn DueSet + '_> {
        Box::new(Bitmap::tracking(self, start, tracking))
    }
}

/// By counting.
impl DueSource for WwsIndex {
    fn due_set(&self, start: Duration, tracking: Tracking) -> Box<dyn DueSet + '_> {
        Box::new(Bands::tracking(self, start, tracking))
    }
}

impl DueSource for CountedRates {
    fn due_set(&self, start: Duration, tracking: Tracking) -> Box<dyn DueSet + '_> {
        Box::new(Bands::tracking(self, start, tracking))
    }
}

impl DueSource for Deviating<'_> {
    fn due_set(&self, start: Duration, tracking: Tracking) -> Box<dyn DueSet + '_> {
        Box::new(Bands::tracking(self, start, tracking))
    }
}

dyn_clone::clone_trait_object!(DueSet);

impl<D: DueSet + ?Sized> DueSet for Box<D>
where
    Box<D>: Clone,
{
    fn due(&self) -> PageCount {
        (**self).due()
    }

    fn start(&mut self, at: GuestTime) {
        (**self).start(at);
    }

    fn sync(&mut self, at: GuestTime) -> PageCount {
        (**self).sync(at)
    }

    fn send(&mut self, at: GuestTime, limit: SendLimit, page: PageBytes) -> Sent {
        (**self).send(at, limit, page)
    }

    fn stop_encoding(&mut self) {
        (**self).stop_encoding();
    }

    fn written(&mut self, at: GuestTime) -> PageCount {
        (**self).written(at)
    }

    fn replace(&mut self, at: GuestTime) -> PageCount {
        (**self).replace(at)
    }

    fn batch(&mut self, at: GuestTime, places: PageCount, rewritten: Rewritten) -> Batch {
        (**self).batch(at, places, rewritten)
    }

    fn ahead(&self, pages: PageCount) -> Option<Sent> {
        (**self).ahead(pages)
    }

    fn all_data(&self) -> PageCount {
        (**self).all_data()
    }

    fn alike(&self) -> Option<PageCount> {
        (**self).alike()
    }

    fn first_scan(&self) -> Option<FirstScan> {
        (**self).first_scan()
    }

    fn go_on_from(&mut self, scan: &FirstScan) -> bool {
        (**self).go_on_from(scan)
    }
}
