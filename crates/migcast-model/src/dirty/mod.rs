//! Dirty sources: what a guest writes, as the model sees it.
//!
//! A source speaks *guest time*: it does not know when the guest is stopped or slowed. It can always say how many
//! distinct pages a span holds ([`DirtySource`]); a page-level source can also say which ([`PageSource`]).

mod constant;
mod counted;
mod replay;
mod steps;
mod strata;
pub mod wws;
mod zero_places;

use std::ops::Range;
use std::time::Duration;

pub(crate) use constant::splitmix;
pub use constant::{ConstantCursor, ConstantRate, WritePattern};
pub use counted::{CountedRates, RateCounts};
pub use replay::{PageReplay, PageReplayBuilder, ZeroChange};
pub use steps::RateSteps;
pub use wws::{Deviating, WwsIndex, WwsIndexBuilder};
pub use zero_places::ZeroPlaces;

use crate::units::{GuestTime, PageCount};

/// A counted quantity with the variance of its error (zero where nothing was sampled).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Expected value, in pages.
    pub mean: f64,
    /// Variance of the error, in pages².
    pub variance: f64,
}

impl Estimate {
    /// A value without error.
    pub fn exact(mean: f64) -> Estimate {
        Estimate { mean, variance: 0.0 }
    }
}

/// What a guest writes, as counts.
pub trait DirtySource: Sync {
    /// All pages of the guest.
    fn memory(&self) -> PageCount;

    /// Length of what is known, after which the source starts over; `None` where it never repeats.
    fn length(&self) -> Option<Duration>;

    /// Mean number of distinct pages written in a span of guest time, over all positions of that span: the writable
    /// working set of Clark et al. (NSDI 2005).
    fn write_set(&self, span: Duration) -> Estimate;

    /// Pages that are zero, on average over the source.
    fn zero(&self) -> Estimate;

    /// Pages that are not zero at any moment.
    fn never_zero(&self) -> PageCount;
}

/// Equal ranges of the memory, in scan order, that counts are kept for.
pub const BANDS: usize = 64;

/// One value for each band.
pub type PerBand = [f64; BANDS];

/// A dirty source that says for any span how many distinct pages were written, and in which part of the memory.
pub trait CountedSource: DirtySource {
    /// What it says from one starting point on.
    type Counts<'a>: SpanCounts + Clone
    where
        Self: 'a;

    /// Its counts for a migration that is requested `start` into the source (modulo its length).
    fn counts(&self, start: Duration) -> Self::Counts<'_>;
}

/// Counts of pages from one starting point of a [`CountedSource`] on, in pages of the whole memory. `since` is not later
/// than `until`.
pub trait SpanCounts {
    /// Distinct pages written in (since, until].
    fn written(&self, since: GuestTime, until: GuestTime) -> f64;

    /// The same of each of these bands, into as many places: who wants few bands of many spans asks for those alone.
    fn written_by_band(&self, since: GuestTime, until: GuestTime, bands: Range<usize>, pages: &mut [f64]);

    /// Likewise, of all of them.
    fn written_per_band(&self, since: GuestTime, until: GuestTime) -> PerBand {
        let mut pages = [0.0; BANDS];
        self.written_by_band(since, until, 0..BANDS, &mut pages);
        pages
    }

    /// Whether any page is ever zero.
    fn has_zero(&self) -> bool {
        true
    }

    /// Whether the same pages are zero at any moment, from every starting point.
    fn zero_is_fixed(&self) -> bool {
        !self.has_zero()
    }

    /// Pages that are zero, by band.
    fn zero_per_band(&self, at: GuestTime) -> PerBand;

    /// Where they lie, if they are fixed and it is known.
    fn zero_places(&self) -> Option<&ZeroPlaces> {
        None
    }

    /// Of the pages written in (since, until] the share that is zero after it, 0 to 1.
    fn left_zero(&self, since: GuestTime, until: GuestTime) -> f64;
}

/// A dirty source that knows every page.
pub trait PageSource: DirtySource {
    /// Walks the writes from one starting point.
    type Cursor<'a>: PageCursor + Clone
    where
        Self: 'a;

    /// Pages told apart. Fewer than [`DirtySource::memory`] where the history is sampled: each then stands for several.
    fn tracked(&self) -> PageCount;

    /// A cursor for a migration that is requested `start` into the source (modulo its length).
    fn cursor(&self, start: Duration) -> Self::Cursor<'_>;
}

/// A walk through the writes of a [`PageSource`], forward only.
pub trait PageCursor {
    /// Reports the rank of every page written up to and including `until`, in time order; a page may come twice.
    fn advance(&mut self, until: GuestTime, written: impl FnMut(u32));

    /// Whether the page of this rank is zero at the point reached.
    fn is_zero(&self, rank: u32) -> bool;

    /// True if no write to come changes what is zero: then only the log needs the walk to go on.
    fn zero_is_settled(&self) -> bool {
        false
    }
}
