//! Prometheus's answer to a range query for KubeVirt's dirty rate.
//!
//! ```text
//! {"status": "success", "data": {"resultType": "matrix", "result": [
//!   {"metric": {"name": "web", "namespace": "shop", "node": "a", …}, "values": [[1767225600, "55574528"], …]}, …]}}
//! ```
//!
//! Facts: Prometheus's HTTP API (`/api/v1/query_range`); KubeVirt's metric is a gauge in bytes per second with the labels
//! `name`, `namespace` and `node` of the guest. It is what libvirt measured last before the time of the value. A guest
//! that has migrated has a result for each node it was on.
use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use serde::Deserialize;

use super::{File, ImportError, Imported, Measured, Place, RateUnit};
use crate::quote::quoted;

/// Longest document, in bytes. Prometheus gives at most 11,000 values of some 30 bytes for each guest.
pub const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// KubeVirt's name of the metric.
const METRIC: &str = "kubevirt_vmi_dirty_rate_bytes_per_second";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status: String,
    error: Option<String>,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Series {
    /// `NAMESPACE/NAME`, as far as the labels say.
    fn guest(&self) -> Option<String> {
        let name = self.metric.get("name")?;
        Some(self.metric.get("namespace").map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")))
    }
}

pub(super) fn read(input: &mut dyn BufRead, file: File<'_>) -> Result<Imported, ImportError> {
    let all = parse(input, file)?;
    let mut names = Vec::new();
    for (index, series) in all.iter().enumerate() {
        if series.metric.get("__name__").is_some_and(|name| name != METRIC) {
            let name = quoted(&series.metric["__name__"]);
            return Err(file.whole(format!("result {} is of {name}, allowed: {METRIC}", index + 1)));
        }
        let Some(name) = series.guest() else {
            return Err(file.whole(format!("result {} has no label `name`, which names the guest", index + 1)));
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let guest = choose(&names, file)?;
    let chosen = all.iter().enumerate().filter(|(_, series)| series.guest().as_ref() == Some(&guest));
    let mut imported = Imported { guest: Some(guest.clone()), ..Imported::default() };
    for (index, series) in chosen {
        for (value, (seconds, rate)) in series.values.iter().enumerate() {
            let place = Place::Value { result: index + 1, value: value + 1 };
            file.push(&mut imported.measured, measured(place, *seconds, rate, file)?)?;
        }
    }
    // A guest that migrated comes in one result per node.
    imported.measured.sort_by_key(|measured| (measured.start_unix_ns, place_key(measured.place)));
    Ok(imported)
}

fn place_key(place: Place) -> (usize, usize) {
    match place {
        Place::Value { result, value } => (result, value),
        Place::Line(_) => (0, 0),
    }
}

fn parse(input: &mut dyn BufRead, file: File<'_>) -> Result<Vec<Series>, ImportError> {
    let path = || file.path.into();
    let mut text = Vec::new();
    let read = input.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|source| ImportError::Io { path: path(), source })?;
    if text.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(ImportError::LongDocument { path: path() });
    }
    let json = |source: serde_json::Error| ImportError::Json { path: path(), source: source.into() };
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&text);
    let answer: Answer = serde_json::from_slice(text).map_err(json)?;
    let Some(data) = answer.data.filter(|_| answer.status == "success") else {
        let reason = answer.error.map_or_else(String::new, |error| format!(" ({})", quoted(&error)));
        return Err(file.whole(format!("status is {}{reason}, allowed: success, with data", quoted(&answer.status))));
    };
    if data.result_type != "matrix" {
        let found = quoted(&data.result_type);
        return Err(file.whole(format!("data.resultType is {found}, allowed: matrix, which a range query gives")));
    }
    Ok(data.result)
}

/// The guest that is asked for: by its name where only one namespace has it, else with its namespace.
fn choose(names: &[String], file: File<'_>) -> Result<String, ImportError> {
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let bare = |name: &str| name.rsplit('/').next().map(str::to_owned);
    let Some(wanted) = &file.asked.guest else { return file.choose(&all, "VM instance", "--vmi") };
    let alike: Vec<&str> = all.iter().copied().filter(|name| bare(name).as_ref() == Some(wanted)).collect();
    match alike[..] {
        [only] => Ok(only.to_owned()),
        [] => file.choose(&all, "VM instance", "--vmi"),
        _ => Err(file.whole(format!(
            "{} namespaces have a {}, say which with --vmi NAMESPACE/NAME",
            alike.len(),
            quoted(wanted)
        ))),
    }
}

fn measured(place: Place, seconds: f64, rate: &str, file: File<'_>) -> Result<Measured, ImportError> {
    let span = file.span();
    let before = span.as_secs_f64();
    let allowed = "seconds since 1970 up to the year 2200, as Prometheus writes them";
    let start_unix_ns =
        super::unix_ns(seconds - before).ok_or_else(|| file.value(place, "the time", &seconds.to_string(), allowed))?;
    let written = file.written((place, "the rate", rate), RateUnit::Bytes(1), span)?;
    Ok(Measured { place, start_unix_ns, span, written, left_out: false })
}
