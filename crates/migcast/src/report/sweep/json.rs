//! `migcast.sweep/1`: base units in the keys, quantities as distributions, `null` for "does not converge".

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::super::json::{Distribution, Guest, Link, Manager, Model, edge, guest, link, manager, model, settings};
use super::{Point, Sweep, Varied};
use crate::platform_file::PlatformFile;

#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    vary: Vec<Vary<'a>>,
    first: First<'a>,
    points: Vec<PointDocument>,
    warnings: &'a [String],
}

/// One varied quantity, x axis first.
#[derive(Serialize)]
struct Vary<'a> {
    key: &'a str,
    /// Its key within a point.
    point_key: String,
    values: usize,
}

/// The first point's circumstances: what is not varied is the same at all points.
#[derive(Serialize)]
struct First<'a> {
    model: Model<'a>,
    algorithm: &'static str,
    settings: BTreeMap<&'static str, String>,
    manager: Option<Manager>,
    guest: Guest<'a>,
    link: Link,
    platform: PlatformFile,
    horizon_seconds: f64,
}

#[derive(Serialize)]
struct PointDocument {
    #[serde(flatten)]
    varied: Map<String, Json>,
    starts: usize,
    converged: usize,
    migration_time_seconds: Distribution,
    downtime_seconds: Distribution,
    downtime_reported_seconds: Distribution,
    sent_bytes: Distribution,
    sent_pages: Distribution,
    iterations: Distribution,
    stop_reasons: BTreeMap<&'static str, usize>,
}

/// Writes the sweep as one JSON document and a line feed.
pub(crate) fn write_json(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(sweep))?;
    writeln!(out)
}

fn document(sweep: &Sweep) -> Document<'_> {
    let first = &sweep.first;
    let scenario = &first.scenario;
    Document {
        format: "migcast.sweep/1",
        vary: std::iter::once(&sweep.x).chain(&sweep.curves).map(vary).collect(),
        first: First {
            model: model(&first.model),
            algorithm: scenario.algorithm.name(),
            settings: settings(scenario.algorithm.settings()),
            manager: manager(&scenario.algorithm),
            guest: guest(&scenario.guest),
            link: link(&scenario.link),
            platform: PlatformFile::of(&scenario.platform, &scenario.link),
            horizon_seconds: scenario.horizon.as_secs_f64(),
        },
        points: sweep.points.iter().map(|of| point(sweep, of)).collect(),
        warnings: &sweep.warnings,
    }
}

fn vary(varied: &Varied) -> Vary<'_> {
    Vary { key: &varied.key, point_key: varied.dimension.base_key(&varied.key), values: varied.values.len() }
}

fn point(sweep: &Sweep, point: &Point) -> PointDocument {
    let varied = sweep.values_at(point).map(|(varied, value)| {
        let json = match value.number {
            Some(number) if varied.dimension.is_whole() => Json::from(number as u64),
            Some(number) => Json::from(number),
            None => Json::from(value.text.as_str()),
        };
        (varied.dimension.base_key(&varied.key), json)
    });
    PointDocument {
        varied: varied.collect(),
        starts: point.starts,
        converged: point.converged,
        migration_time_seconds: edge(point.migration_time),
        downtime_seconds: edge(point.downtime),
        downtime_reported_seconds: edge(point.downtime_reported),
        sent_bytes: edge(point.sent_bytes),
        sent_pages: edge(point.sent_pages),
        iterations: edge(point.iterations),
        stop_reasons: point.stop_reasons.clone(),
    }
}
