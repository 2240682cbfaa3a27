//! Quantities as people of the field write them: read every unit, print the usual one.
//!
//! Decimal and binary prefixes mean what they say, bits are bits and bytes are bytes, and a number without a unit is
//! refused.

use std::time::Duration;

use crate::units::{ByteCount, BytesPerSec, PagesPerSec};

/// Why a quantity could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {kind}: write {allowed}", shown(text))]
pub struct QuantityError {
    /// What was given.
    pub text: String,
    /// What was wanted, with its article.
    pub kind: &'static str,
    /// How to write it.
    pub allowed: &'static str,
}

/// What was given, as part of one line: what would break it is escaped.
fn shown(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escape).collect()
}

const BYTE_UNITS: [(&str, u64); 14] = [
    ("B", 1),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

const BIT_UNITS: [(&str, u64); 5] =
    [("bit", 1), ("kbit", 1_000), ("Mbit", 1_000_000), ("Gbit", 1_000_000_000), ("Tbit", 1_000_000_000_000)];

/// Splits `1.5GiB` or `1.5 GiB` into the digits of a number ≥ 0 and its unit.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    Some((&text[..unit_at], text[unit_at..].trim()))
}

fn real(digits: &str) -> Option<f64> {
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

fn lookup(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// A number of units of `factor` ÷ `divisor`, rounded to a whole below 2^63.
fn scaled(digits: &str, factor: u64, divisor: u64) -> Option<u64> {
    let value = match digits.parse::<u64>() {
        // Not by way of a float, which is exact up to 2^53 only.
        Ok(whole) => (u128::from(whole) * u128::from(factor) + u128::from(divisor / 2)) / u128::from(divisor),
        Err(_) => (real(digits)? / divisor as f64 * factor as f64).round() as u128,
    };
    u64::try_from(value).ok().filter(|value| *value < 1 << 63)
}

/// Reads an amount of memory or data: `1GiB`, `512MiB`, `1.5GB`, `64Mi`.
pub fn parse_bytes(text: &str) -> Result<ByteCount, QuantityError> {
    let parsed = split(text).and_then(|(digits, unit)| scaled(digits, lookup(&BYTE_UNITS, unit)?, 1));
    parsed.map(ByteCount::new).ok_or_else(|| QuantityError {
        text: text.to_owned(),
        kind: "an amount of memory",
        allowed: "a number and B, kB, MB, GB, KiB, MiB, GiB or TiB, such as 512MiB",
    })
}

/// Reads a transfer rate: `1Gbit/s`, `940Mbps`, `125MB/s`, `128MiB/s`, `64Mi` (KubeVirt's bytes per second).
pub fn parse_rate(text: &str) -> Result<BytesPerSec, QuantityError> {
    parse_rate_value(text).map(BytesPerSec::new).ok_or_else(|| QuantityError {
        text: text.to_owned(),
        kind: "a transfer rate",
        allowed: "a number and kbit/s, Mbit/s, Gbit/s, kB/s, MB/s, GB/s, KiB/s, MiB/s or GiB/s, such as 1Gbit/s",
    })
}

fn parse_rate_value(text: &str) -> Option<u64> {
    let (digits, unit) = split(text)?;
    let bits = unit.strip_suffix("ps").and_then(|unit| unit.strip_suffix('b')).map(|prefix| format!("{prefix}bit"));
    let bits = bits.as_deref().or_else(|| unit.strip_suffix("/s")).unwrap_or(unit);
    if let Some(factor) = lookup(&BIT_UNITS, bits) {
        return scaled(digits, factor, 8);
    }
    // KubeVirt writes bytes per second as a bare quantity, always with a binary suffix.
    let bytes = unit.strip_suffix("/s").or_else(|| unit.ends_with('i').then_some(unit))?;
    scaled(digits, lookup(&BYTE_UNITS, bytes)?, 1)
}

/// Reads a dirty rate: `2000pages/s`, or bytes per second as hypervisors report it (`80MiB/s`).
pub fn parse_page_rate(text: &str, page_size: ByteCount) -> Result<PagesPerSec, QuantityError> {
    let pages =
        split(text).filter(|(_, unit)| ["pages/s", "page/s"].contains(unit)).and_then(|(digits, _)| real(digits));
    let bytes = || parse_rate_value(text).map(|bytes| bytes as f64 / page_size.get() as f64);
    pages.or_else(bytes).map(PagesPerSec::new).ok_or_else(|| QuantityError {
        text: text.to_owned(),
        kind: "a dirty rate",
        allowed: "a number and pages/s or MiB/s, such as 2000pages/s",
    })
}

/// Reads a span of time: `300ms`, `30s`, `5m`, `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    humantime::parse_duration(text).map_err(|_| QuantityError {
        text: text.to_owned(),
        kind: "a span of time",
        allowed: "a number and ms, s, m, h or d, such as 300ms or 1h30m",
    })
}

/// An amount of memory for people, in binary units with three digits: `1.25 GiB`.
pub fn show_bytes(bytes: ByteCount) -> String {
    show_scaled(bytes.get() as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// A transfer rate for people, in bits: `941 Mbit/s`.
pub fn show_rate(rate: BytesPerSec) -> String {
    show_scaled(rate.get() as f64 * 8.0, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// A dirty rate for people: `2,000 pages/s`, rounded to the page.
pub fn show_page_rate(rate: PagesPerSec) -> String {
    format!("{} pages/s", show_count(rate.get().round() as u64))
}

/// A number with thousands separated: `262,144`.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A span of time for people, three digits: `281 ms`, `4.23 s`, `2 min 5 s`.
pub fn show_duration(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds < 0.9995 {
        return if seconds < 0.000_999_5 {
            format!("{:.0} µs", seconds * 1e6)
        } else {
            three_digits(seconds * 1e3) + " ms"
        };
    }
    if seconds < 119.5 {
        return three_digits(seconds) + " s";
    }
    let whole = seconds.round() as u64;
    match whole {
        ..7_200 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
    }
}

fn show_scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // What would be shown as "1000" or more of a unit moves on to the next.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} {}", units[0]) } else { format!("{} {}", three_digits(value), units[unit]) }
}

fn three_digits(value: f64) -> String {
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let shown = format!("{value:.decimals$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

/// An amount exactly, in the largest unit that divides it: reading it back gives the same amount.
pub fn write_bytes(bytes: ByteCount) -> String {
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, factor)| !bytes.is_zero() && bytes.get().is_multiple_of(*factor));
    let (name, factor) = unit.unwrap_or(("B", 1));
    format!("{}{name}", bytes.get() / factor)
}

/// A rate exactly, in bytes per second: reading it back gives the same rate.
pub fn write_rate(rate: BytesPerSec) -> String {
    format!("{}/s", write_bytes(ByteCount::new(rate.get())))
}

/// A span of time exactly: reading it back gives the same span.
pub fn write_duration(span: Duration) -> String {
    humantime::format_duration(span).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_unit_of_the_field_is_read() {
        for (text, bytes_per_second) in [
            ("1Gbit/s", 125_000_000),
            ("1 Gbit/s", 125_000_000),
            ("1Gbps", 125_000_000),
            ("400Mbit", 50_000_000),
            ("8kbit/s", 1_000),
            ("125MB/s", 125_000_000),
            ("128MiB/s", 128 << 20),
            ("64Mi", 64 << 20),
            ("0.5GiB/s", 512 << 20),
        ] {
            assert_eq!(parse_rate(text).map(BytesPerSec::get), Ok(bytes_per_second), "{text}");
        }
        assert_eq!(parse_bytes("1.5GiB").unwrap().get(), 3 << 29);
        assert_eq!(parse_bytes("2GB").unwrap().get(), 2_000_000_000);
        assert_eq!(parse_page_rate("2000pages/s", ByteCount::new(4096)).unwrap().get(), 2000.0);
        assert_eq!(parse_page_rate("80MiB/s", ByteCount::new(4096)).unwrap().get(), 20_480.0);
        assert_eq!(parse_duration("1h30m").unwrap(), Duration::from_secs(5_400));
    }

    #[test]
    fn what_could_be_mistaken_is_refused() {
        for text in
            ["", "1", "1000", "1G", "1Gb", "-1Gbit/s", "1e3MB/s", "Gbit/s", "1..5MiB/s", "1MB", "nan", "99999999TiB/s"]
        {
            let error = parse_rate(text).unwrap_err().to_string();
            assert!(error.contains("is not a transfer rate: write a number and"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        assert!(parse_bytes("512").is_err());
        assert!(parse_bytes("1GiB/s").is_err());
        assert!(parse_page_rate("2000", ByteCount::new(4096)).is_err());
        assert!(parse_duration("300").is_err());
    }

    #[test]
    fn people_see_three_digits() {
        assert_eq!(show_bytes(ByteCount::new(512 << 20)), "512 MiB");
        assert_eq!(show_bytes(ByteCount::new(1_342_177_280)), "1.25 GiB");
        assert_eq!(show_bytes(ByteCount::new((1 << 30) - 1)), "1 GiB");
        assert_eq!(show_bytes(ByteCount::new(17)), "17 B");
        assert_eq!(show_rate(BytesPerSec::new(125_000_000)), "1 Gbit/s");
        assert_eq!(show_rate(BytesPerSec::new(117_600_000)), "941 Mbit/s");
        assert_eq!(show_duration(Duration::from_micros(281_400)), "281 ms");
        assert_eq!(show_duration(Duration::from_micros(4_231_000)), "4.23 s");
        assert_eq!(show_duration(Duration::from_secs(125)), "2 min 5 s");
        assert_eq!(show_duration(Duration::from_nanos(999_900_000)), "1 s");
        assert_eq!(show_count(262_144), "262,144");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes in 0u64..1 << 63, millis in 0u64..10_000_000_000) {
            prop_assert_eq!(parse_bytes(&write_bytes(ByteCount::new(bytes))), Ok(ByteCount::new(bytes)));
            prop_assert_eq!(parse_rate(&write_rate(BytesPerSec::new(bytes))), Ok(BytesPerSec::new(bytes)));
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&write_duration(span)), Ok(span));
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".{0,12}") {
            let _ = (parse_bytes(&text), parse_rate(&text), parse_duration(&text));
            let _ = parse_page_rate(&text, ByteCount::new(4096));
        }
    }
}
