//! The quantities of live migration as types.
//!
//! Operators work inside one unit. Going from one unit to another is a named method that says how it rounds.
//! Raw numbers live at the edge of the program, in names that end in their unit.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// `(value × factor + plus) ÷ divisor`, rounded down, exactly. Where it fits 64 bits, as it nearly always does, the
/// processor divides by itself: a simulation does little else.
#[inline]
pub(crate) fn multiply_and_divide(value: u64, factor: u64, plus: u64, divisor: u64) -> u128 {
    match value.checked_mul(factor).and_then(|product| product.checked_add(plus)) {
        Some(dividend) => u128::from(dividend / divisor),
        None => (u128::from(value) * u128::from(factor) + u128::from(plus)) / u128::from(divisor),
    }
}

/// Gives a one-field integer unit its constructor, its raw value and the operators that stay inside the unit.
macro_rules! integer_unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);

            /// Wraps a raw number of this unit.
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw number, for the edge of the program.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// `self - other`, or zero where `other` is larger.
            pub const fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }

            /// True for zero.
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self {
                Self(self.0 + other.0)
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                self.0 += other.0;
            }
        }

        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self {
                Self(self.0 - other.0)
            }
        }

        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                self.0 -= other.0;
            }
        }

        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                iter.fold(Self::ZERO, Add::add)
            }
        }
    };
}

integer_unit! {
    /// A number of pages.
    PageCount
}
integer_unit! {
    /// A number of bytes.
    ByteCount
}
integer_unit! {
    /// A transfer rate in bytes per second.
    BytesPerSec
}

impl PageCount {
    /// The memory these pages occupy.
    pub const fn bytes(self, page_size: ByteCount) -> ByteCount {
        ByteCount(self.0 * page_size.0)
    }

    /// `self × numerator ÷ denominator`, rounded to the nearest page. `denominator` must not be zero.
    pub fn scale(self, numerator: u64, denominator: u64) -> PageCount {
        let scaled = multiply_and_divide(self.0, numerator, denominator / 2, denominator);
        PageCount(u64::try_from(scaled).expect("scaled page count fits 64 bits"))
    }

    /// These pages in a span of time. An empty span gives zero.
    pub fn per(self, span: Duration) -> PagesPerSec {
        if span.is_zero() { PagesPerSec::ZERO } else { PagesPerSec(self.0 as f64 / span.as_secs_f64()) }
    }
}

impl ByteCount {
    /// 2^10 bytes.
    pub const KIB: ByteCount = ByteCount(1 << 10);
    /// 2^20 bytes.
    pub const MIB: ByteCount = ByteCount(1 << 20);
    /// 2^30 bytes.
    pub const GIB: ByteCount = ByteCount(1 << 30);

    /// Pages that hold these bytes; a part of a page counts as one.
    pub const fn pages_ceil(self, page_size: ByteCount) -> PageCount {
        PageCount(self.0.div_ceil(page_size.0))
    }

    /// Time these bytes take at `rate`, rounded up to the nanosecond. A zero rate gives [`Duration::MAX`]
    /// unless there is nothing to send.
    #[inline]
    pub fn transfer_time_ceil(self, rate: BytesPerSec) -> Duration {
        self.transfer_nanos_ceil(rate).map_or(Duration::MAX, Duration::from_nanos)
    }

    /// When the last of these bytes has gone at `rate`, the first of which goes at `from`; rounded up likewise.
    #[inline]
    pub fn gone_by(self, from: SimTime, rate: BytesPerSec) -> SimTime {
        SimTime(self.transfer_nanos_ceil(rate).map_or(u64::MAX, |nanos| from.0.saturating_add(nanos)))
    }

    #[inline]
    fn transfer_nanos_ceil(self, rate: BytesPerSec) -> Option<u64> {
        if self.is_zero() {
            return Some(0);
        }
        if rate.is_zero() {
            return None;
        }
        u64::try_from(multiply_and_divide(self.0, NANOS_PER_SEC, rate.0 - 1, rate.0)).ok()
    }

    /// These bytes in a span of time, rounded down. An empty span gives zero.
    pub fn per(self, span: Duration) -> BytesPerSec {
        let nanos = span.as_nanos();
        if nanos == 0 {
            return BytesPerSec::ZERO;
        }
        BytesPerSec(u64::try_from(u128::from(self.0) * u128::from(NANOS_PER_SEC) / nanos).unwrap_or(u64::MAX))
    }
}

impl BytesPerSec {
    /// A rate given in bits per second, rounded down to whole bytes.
    pub const fn from_bits(bits_per_second: u64) -> BytesPerSec {
        BytesPerSec(bits_per_second / 8)
    }

    /// The rate in bits per second.
    pub const fn bits(self) -> u64 {
        self.0.saturating_mul(8)
    }

    /// Bytes that pass in `span`, rounded down.
    #[inline]
    pub fn bytes_in(self, span: Duration) -> ByteCount {
        let bytes = match u64::try_from(span.as_nanos()) {
            Ok(nanos) => multiply_and_divide(self.0, nanos, 0, NANOS_PER_SEC),
            Err(_) => u128::from(self.0).saturating_mul(span.as_nanos()) / u128::from(NANOS_PER_SEC),
        };
        ByteCount(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Bytes that pass from one moment to another, rounded down; none where that is earlier.
    #[inline]
    pub fn bytes_between(self, from: SimTime, to: SimTime) -> ByteCount {
        let bytes = multiply_and_divide(self.0, to.0.saturating_sub(from.0), 0, NANOS_PER_SEC);
        ByteCount(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// The rate times a factor ≥ 0, rounded down.
    pub fn scale(self, factor: f64) -> BytesPerSec {
        BytesPerSec((self.0 as f64 * factor) as u64)
    }
}

/// A page's number: its index in the guest's memory blocks laid end to end, in the hypervisor's scan order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(u64);

impl PageIndex {
    /// Wraps a raw page number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw page number, for the edge of the program.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A rate of page writes: distinct pages, or writes where the text says so, per second. Finite and ≥ 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct PagesPerSec(f64);

impl PagesPerSec {
    /// No writes.
    pub const ZERO: PagesPerSec = PagesPerSec(0.0);

    /// Wraps a raw rate. Panics on a negative or non-finite rate: the edge checks its input.
    pub fn new(raw: f64) -> Self {
        assert!(raw.is_finite() && raw >= 0.0, "a page rate is finite and not negative, not {raw}");
        Self(raw)
    }

    /// The raw rate in pages per second.
    pub const fn get(self) -> f64 {
        self.0
    }

    /// The rate as bytes per second, rounded down.
    pub fn bytes(self, page_size: ByteCount) -> BytesPerSec {
        BytesPerSec((self.0 * page_size.0 as f64) as u64)
    }
}

/// A point on the wall clock of a simulation: nanoseconds since the migration was requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimTime(u64);

/// A point on the guest's own clock: nanoseconds the guest has run since the migration was requested. It stands
/// still while the guest is stopped and runs slower than [`SimTime`] while the guest is slowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestTime(u64);

macro_rules! time_point {
    ($name:ident) => {
        impl $name {
            /// The migration's request.
            pub const ZERO: $name = $name(0);
            /// Later than anything that is simulated.
            pub const MAX: $name = $name(u64::MAX);

            /// A point this many nanoseconds after the request.
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// Nanoseconds since the request.
            pub const fn as_nanos(self) -> u64 {
                self.0
            }

            /// Whole milliseconds since the request, rounded down.
            pub const fn as_millis(self) -> u64 {
                self.0 / 1_000_000
            }

            /// Time from `earlier` to here, or zero where `earlier` is later.
            pub const fn since(self, earlier: Self) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Duration> for $name {
            type Output = Self;
            fn add(self, span: Duration) -> Self {
                let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
                Self(self.0.saturating_add(nanos))
            }
        }

        impl AddAssign<Duration> for $name {
            fn add_assign(&mut self, span: Duration) {
                *self = *self + span;
            }
        }
    };
}
time_point!(SimTime);
time_point!(GuestTime);

impl fmt::Display for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_time_rounds_up_and_bytes_round_down() {
        let rate = BytesPerSec::new(3);
        assert_eq!(ByteCount::new(1).transfer_time_ceil(rate), Duration::from_nanos(333_333_334));
        assert_eq!(rate.bytes_in(Duration::from_nanos(333_333_333)), ByteCount::ZERO);
    }

    #[test]
    fn on_the_clock_they_round_likewise() {
        let (rate, began) = (BytesPerSec::new(3), SimTime::from_nanos(7));
        let gone = ByteCount::new(1).gone_by(began, rate);
        assert_eq!(gone, SimTime::from_nanos(333_333_341));
        assert_eq!(rate.bytes_between(began, gone), ByteCount::new(1));
        assert_eq!(rate.bytes_between(gone, began), ByteCount::ZERO);
        assert_eq!(ByteCount::new(1).gone_by(began, BytesPerSec::ZERO), SimTime::MAX);
    }

    #[test]
    fn nothing_takes_no_time_even_without_a_link() {
        assert_eq!(ByteCount::ZERO.transfer_time_ceil(BytesPerSec::ZERO), Duration::ZERO);
        assert_eq!(ByteCount::new(1).transfer_time_ceil(BytesPerSec::ZERO), Duration::MAX);
    }

    #[test]
    fn bits_and_bytes_of_a_link() {
        assert_eq!(BytesPerSec::from_bits(1_000_000_000).get(), 125_000_000);
        assert_eq!(BytesPerSec::from_bits(1_000_000_000).bits(), 1_000_000_000);
    }

    #[test]
    fn time_since_a_later_point_is_zero() {
        let early = SimTime::from_nanos(5);
        let late = early + Duration::from_nanos(7);
        assert_eq!(late.since(early), Duration::from_nanos(7));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
