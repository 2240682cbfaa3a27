//! One result, many forms: a sweep as a table, as JSON, as CSV, as a picture.

mod axis;
mod csv;
mod dimension;
mod json;
mod plot;
mod table;

use std::collections::BTreeMap;

use migcast_model::forecast::Distribution;

pub(crate) use csv::write_csv;
pub(crate) use dimension::Dimension;
pub(crate) use json::write_json;
pub(crate) use plot::{Scales, draw, refuse_undrawable};
pub(crate) use table::write_table;

use super::{Prediction, Quantity};

/// Forecasts over one or two varied quantities.
#[derive(Debug)]
pub(crate) struct Sweep {
    /// The quantity on the x axis.
    pub(crate) x: Varied,
    /// The quantity of which each value makes a curve.
    pub(crate) curves: Option<Varied>,
    /// Curve by curve, each in the order of the x axis.
    pub(crate) points: Vec<Point>,
    /// The first point's whole prediction, for what all points share.
    pub(crate) first: Prediction,
    /// What the reader should know, each ending with what to do.
    pub(crate) warnings: Vec<String>,
}

/// A quantity that is varied.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Varied {
    /// As users write it, e.g. `downtime-limit`.
    pub(crate) key: String,
    pub(crate) dimension: Dimension,
    /// Each once.
    pub(crate) values: Vec<Value>,
}

/// One value of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Value {
    /// As users write it.
    pub(crate) text: String,
    /// The number in the base unit; `None` for names.
    pub(crate) number: Option<f64>,
}

impl Value {
    /// The quantity of this kind that a text means.
    pub(crate) fn quantity(dimension: Dimension, text: &str) -> Option<Value> {
        Some(Value { text: text.to_owned(), number: Some(dimension.read(text)?) })
    }
}

impl Varied {
    /// One of its values for people.
    pub(crate) fn show(&self, value: &Value) -> String {
        value.number.map_or_else(|| value.text.clone(), |number| self.dimension.show(number))
    }
}

/// What is kept of one point's prediction.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    /// Index of its value on the x axis.
    pub(crate) x: usize,
    /// Index of its curve; 0 where there is one curve only.
    pub(crate) curve: usize,
    pub(crate) starts: usize,
    pub(crate) converged: usize,
    pub(crate) migration_time: Distribution,
    pub(crate) downtime: Distribution,
    pub(crate) downtime_reported: Distribution,
    pub(crate) sent_bytes: Distribution,
    pub(crate) sent_pages: Distribution,
    pub(crate) iterations: Distribution,
    pub(crate) stop_reasons: BTreeMap<&'static str, usize>,
    /// Whether quantities have a distribution.
    pub(crate) is_spread: bool,
}

impl Point {
    pub(crate) fn of(x: usize, curve: usize, prediction: &Prediction) -> Point {
        let (converged, starts) = prediction.converged();
        let forecast = &prediction.forecast;
        Point {
            x,
            curve,
            starts,
            converged,
            migration_time: prediction.distribution(Quantity::MigrationTime),
            downtime: prediction.distribution(Quantity::Downtime),
            downtime_reported: prediction.distribution(Quantity::DowntimeReported),
            sent_bytes: prediction.sent_bytes(),
            sent_pages: forecast.distribution(|done| done.sent.pages().get() as f64),
            iterations: forecast.distribution(|done| done.iteration_count as f64),
            stop_reasons: forecast.stop_reasons(),
            is_spread: prediction.is_spread(),
        }
    }
}

impl Sweep {
    /// The varied quantities with the value each has at a point.
    pub(crate) fn values_at(&self, point: &Point) -> impl Iterator<Item = (&Varied, &Value)> {
        let curve = self.curves.as_ref().map(|varied| (varied, &varied.values[point.curve]));
        std::iter::once((&self.x, &self.x.values[point.x])).chain(curve)
    }

    /// Whether a key is varied.
    pub(crate) fn varies(&self, key: &str) -> bool {
        self.x.key == key || self.curves.as_ref().is_some_and(|varied| varied.key == key)
    }

    /// Whether any point has a distribution.
    pub(crate) fn is_spread(&self) -> bool {
        self.points.iter().any(|point| point.is_spread)
    }
}
