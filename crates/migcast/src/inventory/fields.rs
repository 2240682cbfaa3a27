//! The fields of an inventory: text in, a quantity or what is wrong with it out, in one line that begins with what it is.

use std::collections::BTreeSet;
use std::time::Duration;

use migcast_model::quantity;
use migcast_model::units::{ByteCount, BytesPerSec};

pub(super) fn bytes(what: &str, text: &str) -> Result<ByteCount, String> {
    let bytes = quantity::parse_bytes(text).map_err(|error| format!("{what}: {error}"))?;
    within(what, bytes.get() as f64, 4096.0..=(1_u64 << 44) as f64, "4KiB to 16TiB").map(|()| bytes)
}

pub(super) fn span(what: &str, text: &str) -> Result<Duration, String> {
    quantity::parse_duration(text).map_err(|error| format!("{what}: {error}"))
}

pub(super) fn percent(what: &str, text: &str, allowed: std::ops::RangeInclusive<f64>) -> Result<f64, String> {
    let share = text.trim_end_matches('%').trim().parse::<f64>().ok().map(|percent| percent / 100.0);
    let share = share.filter(|share| text.ends_with('%') && allowed.contains(share));
    let (least, most) = (100.0 * allowed.start(), (100.0 * allowed.end()).round());
    share.ok_or_else(|| format!("{what}: `{text}` is not a share: {least}% to {most}%"))
}

pub(super) fn within(
    what: &str,
    value: f64,
    range: std::ops::RangeInclusive<f64>,
    allowed: &str,
) -> Result<(), String> {
    if range.contains(&value) { Ok(()) } else { Err(format!("{what}: {value} is not allowed: {allowed}")) }
}

pub(super) fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(format!("a {what} has no name"));
        }
        if !seen.insert(name) {
            return Err(format!("{what} {name}: the name is given twice"));
        }
    }
    Ok(())
}

/// A rate of a link, or of traffic on it.
pub(super) fn rate(what: &str, text: &str, least: f64) -> Result<BytesPerSec, String> {
    let rate = quantity::parse_rate(text).map_err(|error| format!("{what}: {error}"))?;
    let allowed = if least > 0.0 { "8kbit/s or more" } else { "0bit/s or more" };
    within(what, rate.get() as f64, least..=1e15, allowed).map(|()| rate)
}

/// The place of what has this name.
pub(super) fn named<'a>(what: &str, name: &str, all: impl Iterator<Item = &'a str>) -> Result<usize, String> {
    let names: Vec<&str> = all.collect();
    let allowed = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let place = names.iter().position(|other| *other == name);
    place.ok_or_else(|| format!("{what}: there is no `{name}`{allowed}"))
}
