//! What kind of quantity is varied: how it is read, written, shown, and named in base units.

use std::time::Duration;

use migcast_model::guest::Guest;
use migcast_model::quantity::{
    self, show_bytes, show_count, show_duration, show_page_rate, show_rate, write_bytes, write_duration, write_rate,
};
use migcast_model::units::{ByteCount, BytesPerSec, PagesPerSec};

/// A kind of quantity, or names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// Pages per second.
    PageRate,
    /// Bits per second.
    Rate,
    /// Bytes.
    Bytes,
    /// Seconds.
    Time,
    /// Percent.
    Percent,
    /// Pages.
    Pages,
    /// A number of what the key names.
    Count,
    /// No number: one of several names.
    Name,
}

impl Dimension {
    /// The number a text means, in the base unit; `None` if it means none of this kind.
    pub(crate) fn read(self, text: &str) -> Option<f64> {
        match self {
            Dimension::PageRate => quantity::parse_page_rate(text, Guest::PAGE_SIZE).ok().map(PagesPerSec::get),
            Dimension::Rate => quantity::parse_rate(text).ok().map(|rate| rate.bits() as f64),
            Dimension::Bytes => quantity::parse_bytes(text).ok().map(|bytes| bytes.get() as f64),
            Dimension::Time => quantity::parse_duration(text).ok().map(|span| span.as_secs_f64()),
            Dimension::Percent => whole(text.strip_suffix('%')?),
            Dimension::Pages => whole(text.strip_suffix("pages")?),
            Dimension::Count => whole(text),
            Dimension::Name => None,
        }
    }

    /// A number in the base unit as users write it, rounded to what the kind is counted in: 1/1000 page per second, a byte,
    /// a nanosecond, one.
    pub(crate) fn write(self, number: f64) -> String {
        let rounded = number.round() as u64;
        match self {
            Dimension::PageRate => format!("{}pages/s", (number * 1e3).round() / 1e3),
            Dimension::Rate => write_rate(BytesPerSec::new((number / 8.0).round() as u64)),
            Dimension::Bytes => write_bytes(ByteCount::new(rounded)),
            Dimension::Time => write_duration(Duration::from_nanos((number * 1e9).round() as u64)),
            Dimension::Percent => format!("{rounded}%"),
            Dimension::Pages => format!("{rounded}pages"),
            Dimension::Count | Dimension::Name => rounded.to_string(),
        }
    }

    /// A number in the base unit for people.
    pub(crate) fn show(self, number: f64) -> String {
        let rounded = number.round() as u64;
        match self {
            Dimension::PageRate => show_page_rate(PagesPerSec::new(number)),
            Dimension::Rate => show_rate(BytesPerSec::new((number / 8.0).round() as u64)),
            Dimension::Bytes => show_bytes(ByteCount::new(rounded)),
            Dimension::Time if number == 0.0 => "0 s".to_owned(),
            Dimension::Time => show_duration(Duration::from_secs_f64(number)),
            Dimension::Percent => format!("{rounded} %"),
            Dimension::Pages => format!("{} pages", show_count(rounded)),
            Dimension::Count | Dimension::Name => show_count(rounded),
        }
    }

    /// Whether the base unit is counted in whole numbers.
    pub(crate) fn is_whole(self) -> bool {
        !matches!(self, Dimension::PageRate | Dimension::Time)
    }

    /// The key of a number in JSON and CSV: `downtime-limit` is `downtime_limit_seconds`.
    pub(crate) fn base_key(self, key: &str) -> String {
        let key = key.replace('-', "_");
        match self {
            Dimension::PageRate => key + "_pages_per_second",
            Dimension::Rate => key + "_bits_per_second",
            Dimension::Bytes => key + "_bytes",
            Dimension::Time => key + "_seconds",
            Dimension::Percent => key + "_percent",
            Dimension::Pages => key + "_pages",
            Dimension::Count | Dimension::Name => key,
        }
    }

    /// A unit in which numbers up to `most` (in the base unit) are easily read on an axis: its name, and how much of the
    /// base unit it is.
    pub(crate) fn axis_unit(self, most: f64) -> (&'static str, f64) {
        let units: &[(&str, f64)] = match self {
            Dimension::PageRate => &[("pages/s", 1.0)],
            Dimension::Rate => &[("bit/s", 1.0), ("kbit/s", 1e3), ("Mbit/s", 1e6), ("Gbit/s", 1e9)],
            Dimension::Bytes => &[("B", 1.0), ("KiB", 1024.0), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0)],
            Dimension::Time => &[("ms", 1e-3), ("s", 1.0)],
            Dimension::Percent => &[("%", 1.0)],
            Dimension::Pages => &[("pages", 1.0)],
            Dimension::Count | Dimension::Name => &[("", 1.0)],
        };
        let fitting = units.iter().rev().find(|(_, unit)| most >= 2.0 * unit);
        *fitting.unwrap_or(&units[0])
    }
}

/// A whole number ≥ 0.
fn whole(text: &str) -> Option<f64> {
    text.trim_end().parse::<u32>().ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Dimension; 7] = [
        Dimension::PageRate,
        Dimension::Rate,
        Dimension::Bytes,
        Dimension::Time,
        Dimension::Percent,
        Dimension::Pages,
        Dimension::Count,
    ];

    #[test]
    fn what_is_written_is_read_back() {
        for dimension in ALL {
            for number in [0.0, 8.0, 80_000.0, 1_000_000_000.0] {
                assert_eq!(dimension.read(&dimension.write(number)), Some(number), "{dimension:?}");
            }
        }
        assert_eq!(Dimension::Time.write(0.1 + 0.2), "300ms");
        assert_eq!(Dimension::PageRate.write(248.831_999_9), "248.832pages/s");
    }

    #[test]
    fn keys_end_in_the_base_unit() {
        assert_eq!(Dimension::Time.base_key("downtime-limit"), "downtime_limit_seconds");
        assert_eq!(Dimension::Rate.base_key("link"), "link_bits_per_second");
        assert_eq!(Dimension::Name.base_key("dirty-log"), "dirty_log");
    }

    #[test]
    fn an_axis_has_a_unit_that_suits_its_end() {
        assert_eq!(Dimension::Time.axis_unit(1.5), ("ms", 1e-3));
        assert_eq!(Dimension::Time.axis_unit(40.0), ("s", 1.0));
        assert_eq!(Dimension::Rate.axis_unit(1e9), ("Mbit/s", 1e6));
        assert_eq!(Dimension::Rate.axis_unit(1e10), ("Gbit/s", 1e9));
        assert_eq!(Dimension::Bytes.axis_unit(0.0), ("B", 1.0));
    }
}
