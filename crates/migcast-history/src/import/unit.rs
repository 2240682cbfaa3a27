//! Units of dirty rates.
use std::str::FromStr;

/// What a number of a rate counts, each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// Pages.
    Pages,
    /// So many bytes, ≥ 1.
    Bytes(u64),
}

/// Why a text is no [`RateUnit`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no unit of a dirty rate: {}", UNITS.map(|(name, _)| name).join(", "))]
pub struct UnitError {
    /// The text.
    pub text: String,
}

/// Decimal and binary prefixes mean what they say.
const UNITS: [(&str, RateUnit); 8] = [
    ("pages/s", RateUnit::Pages),
    ("B/s", RateUnit::Bytes(1)),
    ("bytes/s", RateUnit::Bytes(1)),
    ("KiB/s", RateUnit::Bytes(1 << 10)),
    ("MiB/s", RateUnit::Bytes(1 << 20)),
    ("GiB/s", RateUnit::Bytes(1 << 30)),
    ("MB/s", RateUnit::Bytes(1_000_000)),
    ("GB/s", RateUnit::Bytes(1_000_000_000)),
];

impl FromStr for RateUnit {
    type Err = UnitError;

    /// Reads "pages/s", "MiB/s", "MB/s", "bytes/s" and their like, just so: "mb/s" could be bits.
    fn from_str(text: &str) -> Result<RateUnit, UnitError> {
        let unit = UNITS.iter().find(|(name, _)| *name == text).map(|(_, unit)| *unit);
        unit.ok_or_else(|| UnitError { text: crate::quote::quoted(text) })
    }
}

impl RateUnit {
    /// The unit in the name of a column: `dirty rate (MiB/s)`, `rate_mib_per_second`, `pages_per_s`. Words of one
    /// meaning only count in any case; `mb`, which could be bits, does not.
    pub fn in_name(name: &str) -> Option<RateUnit> {
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
        let is = |word: &str, names: &[&str]| names.contains(&word.to_ascii_lowercase().as_str());
        let per_second = |words: &[&str]| match words {
            [first, second, ..] if is(first, &["per"]) => is(second, &["s", "sec", "second"]),
            [first, ..] => is(first, &["s", "sec", "second"]),
            [] => false,
        };
        let unit = |word: &str| match word {
            "MB" => Some(RateUnit::Bytes(1_000_000)),
            "GB" => Some(RateUnit::Bytes(1_000_000_000)),
            "B" => Some(RateUnit::Bytes(1)),
            _ if is(word, &["pages", "page"]) => Some(RateUnit::Pages),
            _ if is(word, &["bytes", "byte"]) => Some(RateUnit::Bytes(1)),
            _ if is(word, &["kib", "kibibytes"]) => Some(RateUnit::Bytes(1 << 10)),
            _ if is(word, &["mib", "mebibytes"]) => Some(RateUnit::Bytes(1 << 20)),
            _ if is(word, &["gib", "gibibytes"]) => Some(RateUnit::Bytes(1 << 30)),
            _ if is(word, &["megabytes"]) => Some(RateUnit::Bytes(1_000_000)),
            _ => None,
        };
        let found = |index: usize| unit(words[index]).filter(|_| per_second(&words[index + 1..]));
        (0..words.len()).find_map(found)
    }

    /// A number of this unit in pages.
    pub(super) fn pages(self, number: f64, page_size_bytes: u64) -> f64 {
        match self {
            RateUnit::Pages => number,
            RateUnit::Bytes(bytes) => number * bytes as f64 / page_size_bytes as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_names_of_columns() {
        let cases = [
            ("dirty rate (MiB/s)", Some(RateUnit::Bytes(1 << 20))),
            ("rate_mib_per_second", Some(RateUnit::Bytes(1 << 20))),
            ("dirty_pages_per_s", Some(RateUnit::Pages)),
            ("kubevirt_vmi_dirty_rate_bytes_per_second", Some(RateUnit::Bytes(1))),
            ("rate MB/s", Some(RateUnit::Bytes(1_000_000))),
            ("rate_mb_s", None),
            ("pages", None),
            ("rate", None),
            ("", None),
        ];
        for (name, unit) in cases {
            assert_eq!(RateUnit::in_name(name), unit, "{name}");
        }
    }

    #[test]
    fn a_unit_that_could_be_bits_is_refused() {
        assert_eq!("MB/s".parse(), Ok(RateUnit::Bytes(1_000_000)));
        let line = "mb/s".parse::<RateUnit>().unwrap_err().to_string();
        assert!(line.starts_with("\"mb/s\" is no unit of a dirty rate: pages/s, B/s"), "{line}");
    }
}
