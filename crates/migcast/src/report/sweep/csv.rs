//! A sweep as CSV: a line per point, base units in the header, nothing where a migration does not converge.

use std::io::{self, Write};

use migcast_model::forecast::Distribution;

use super::{Point, Sweep};

/// Writes the header and a line per point.
pub(crate) fn write_csv(out: &mut impl Write, sweep: &Sweep) -> io::Result<()> {
    let varied = std::iter::once(&sweep.x).chain(&sweep.curves).map(|varied| varied.dimension.base_key(&varied.key));
    let measured = distributions(&sweep.points[0])
        .into_iter()
        .flat_map(|(name, unit, _)| ["p50", "p5", "p95"].map(|quantile| format!("{name}_{quantile}{unit}")));
    let counts = ["starts", "converged"].map(str::to_owned);
    let header: Vec<String> = varied.chain(counts).chain(measured).collect();
    writeln!(out, "{}", header.join(","))?;
    for point in &sweep.points {
        writeln!(out, "{}", cells(sweep, point).join(","))?;
    }
    Ok(())
}

fn cells(sweep: &Sweep, point: &Point) -> Vec<String> {
    let mut cells: Vec<String> = sweep
        .values_at(point)
        .map(|(_, value)| value.number.map_or_else(|| value.text.clone(), |number| number.to_string()))
        .collect();
    cells.extend([point.starts.to_string(), point.converged.to_string()]);
    for (_, _, distribution) in distributions(point) {
        let number = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
        cells.extend([distribution.p50, distribution.p5, distribution.p95].map(number));
    }
    cells
}

/// What is written of a point: name, unit, distribution.
fn distributions(point: &Point) -> [(&'static str, &'static str, Distribution); 6] {
    [
        ("migration_time", "_seconds", point.migration_time),
        ("downtime", "_seconds", point.downtime),
        ("downtime_reported", "_seconds", point.downtime_reported),
        ("sent", "_bytes", point.sent_bytes),
        ("sent", "_pages", point.sent_pages),
        ("iterations", "", point.iterations),
    ]
}
