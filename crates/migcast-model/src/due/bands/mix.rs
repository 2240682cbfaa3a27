//! Pages by kind, in parts of pages.

use crate::due::{PageBytes, Sent};
use crate::units::PageCount;

/// Shares of kinds of pages that differ by less are one.
const ALIKE: f64 = 1e-6;
/// Less than this of a page is the rounding of sums.
pub(super) const NOTHING: f64 = 1e-6;

/// The nearest whole number of pages ≥ 0, fewer than 2^53. `f64::round` is a call, and numbers without a sign take several
/// instructions where those with one take one.
pub(super) fn nearest(pages: f64) -> u64 {
    ((pages + 0.5) as i64).max(0).cast_unsigned()
}

/// The next whole number of pages ≥ 0, likewise.
pub(super) fn whole_up(pages: f64) -> u64 {
    let below = pages as i64;
    (below + i64::from((below as f64) < pages)).max(0).cast_unsigned()
}

/// Pages by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mix {
    pub(super) data: f64,
    pub(super) zero: f64,
    pub(super) encoded: f64,
}

impl Mix {
    pub(super) fn pages(self) -> f64 {
        self.data + self.zero + self.encoded
    }

    /// Whether these are of the same kinds in the same shares as the others, if there are any.
    pub(super) fn is_mixed_as(&self, others: &Mix) -> bool {
        let (pages, of_others) = (self.pages(), others.pages());
        let is_alike = |some: f64, other: f64| (some * of_others - other * pages).abs() <= ALIKE * pages * of_others;
        is_alike(self.zero, others.zero) && is_alike(self.encoded, others.encoded)
    }

    pub(super) fn times(self, factor: f64) -> Mix {
        Mix { data: self.data * factor, zero: self.zero * factor, encoded: self.encoded * factor }
    }

    pub(super) fn add(&mut self, more: Mix) {
        self.data += more.data;
        self.zero += more.zero;
        self.encoded += more.encoded;
    }

    pub(super) fn bytes(self, page: PageBytes) -> f64 {
        let PageBytes { data, zero, encoded } = page;
        self.data * data.get() as f64 + self.zero * zero.get() as f64 + self.encoded * encoded.get() as f64
    }

    /// The first of these pages that takes the bytes past a limit, counted from 1.
    pub(super) fn pages_past(self, bytes: f64, page: PageBytes) -> f64 {
        let each = self.bytes(page) / self.pages();
        if each > 0.0 { (bytes / each).floor() + 1.0 } else { f64::INFINITY }
    }

    /// The same in whole pages, one kind's rounding made up for by another's.
    pub(super) fn whole(self) -> Sent {
        let pages = nearest(self.pages());
        let zero = nearest(self.zero).min(pages);
        let encoded = nearest(self.encoded).min(pages - zero);
        Sent {
            data: PageCount::new(pages - zero - encoded),
            zero: PageCount::new(zero),
            encoded: PageCount::new(encoded),
        }
    }
}

/// What was sent, told in whole pages without ever drifting from its parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rounded {
    parts: Mix,
    whole: Sent,
}

impl Rounded {
    /// These, in whole pages by kind, at most so many.
    pub(super) fn take(&mut self, parts: Mix, most: u64) -> Sent {
        self.parts.add(parts);
        let more =
            |sum: f64, told: PageCount, most: PageCount| PageCount::new(nearest(sum)).saturating_sub(told).min(most);
        if self.parts.zero == 0.0 && self.parts.encoded == 0.0 {
            let data = more(self.parts.data, self.whole.data, PageCount::new(most));
            self.whole.data += data;
            return Sent { data, ..Sent::default() };
        }
        let pages = more(self.parts.pages(), self.whole.pages(), PageCount::new(most));
        let zero = more(self.parts.zero, self.whole.zero, pages);
        let encoded = more(self.parts.encoded, self.whole.encoded, pages - zero);
        let sent = Sent { data: pages - zero - encoded, zero, encoded };
        self.whole += sent;
        sent
    }
}
