//! A sweep as a picture: migration time and downtime over what is varied, a curve for each value of the second quantity.

use std::path::Path;

use anyhow::ensure;
use migcast_model::forecast::Distribution;
use migcast_model::quantity::{show_bytes, show_rate};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::plot::{self, Drawing, FONT, Picture};
use super::axis::Axis;
use super::{Dimension, Point, Sweep, Varied};

/// Curves told apart by colour: the palette of Okabe and Ito without yellow, which is pale on white.
const COLOURS: [RGBColor; CURVES_MAX] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(120, 120, 120),
];

/// Curves of a picture at most.
const CURVES_MAX: usize = 8;
/// Points of a curve up to which each is marked.
const MARKED_MAX: usize = 40;
/// Height of a line of the legend.
const LEGEND_LINE: u16 = 24;
/// Width of a letter of the legend, at most.
const LETTER: usize = 9;

/// Which axes are logarithmic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scales {
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
}

/// Draws the sweep into a file. A file that exists is replaced only by a finished picture.
pub(crate) fn draw(sweep: &Sweep, scales: Scales, path: &Path) -> anyhow::Result<()> {
    plot::save(&SweepPicture { sweep, scales }, path)
}

/// Asked before anything is simulated.
///
/// # Errors
/// More curves than can be told apart, or a logarithmic axis for what has no logarithm.
pub(crate) fn refuse_undrawable(x: &Varied, curves: Option<&Varied>, scales: Scales) -> anyhow::Result<()> {
    let count = curves.map_or(1, |varied| varied.values.len());
    ensure!(count <= CURVES_MAX, "--plot draws at most {CURVES_MAX} curves, these are {count}");
    let above_zero = || x.values.iter().all(|value| value.number.is_some_and(|number| number > 0.0));
    ensure!(
        !scales.log_x || above_zero(),
        "--log-x: {} has values that are no numbers above 0; begin above 0, or leave --log-x out",
        x.key
    );
    Ok(())
}

struct SweepPicture<'a> {
    sweep: &'a Sweep,
    scales: Scales,
}

impl Picture for SweepPicture<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        area.fill(&WHITE)?;
        let body = area.margin(14, 0, 0, 0).titled(&title(self.sweep), (FONT, 22))?;
        let lines = legend_lines(self.sweep, body.dim_in_pixel().0.cast_signed());
        let (legend, panels) = body.split_vertically(u32::from(LEGEND_LINE) * lines.len() as u32 + 6);
        draw_legend(&legend, &lines)?;
        let panels = panels.split_evenly((2, 1));
        self.panel(&panels[0], "migration time", |point| point.migration_time)?;
        self.panel(&panels[1], "downtime", |point| point.downtime)?;
        area.present()
    }
}

fn title(sweep: &Sweep) -> String {
    let scenario = &sweep.first.scenario;
    let mut title = scenario.guest.name.clone();
    if !sweep.varies("memory") {
        title += &format!(" ({})", show_bytes(scenario.guest.memory_bytes()));
    }
    if !sweep.varies("link") {
        title += &format!(" over {}", show_rate(scenario.link.line_rate));
    }
    if !sweep.varies("algorithm") {
        title += &format!(", {}", scenario.algorithm.name());
    }
    title
}

/// An entry of the legend: where it begins, its curve, its text.
type Entry = (i32, Option<usize>, String);

/// The legend in lines that fit into `width`; none where a single curve needs no name.
fn legend_lines(sweep: &Sweep, width: i32) -> Vec<Vec<Entry>> {
    let mut texts: Vec<(Option<usize>, String)> = Vec::new();
    if let Some(varied) = &sweep.curves {
        let name = |(index, value)| (Some(index), format!("{} {}", varied.key, varied.show(value)));
        texts.extend(varied.values.iter().enumerate().map(name));
    }
    if sweep.points.iter().any(|point| point.migration_time.p50.is_none()) {
        texts.push((None, "× does not complete".to_owned()));
    }
    if sweep.is_spread() {
        texts.push((None, "shaded: 5 to 95 %".to_owned()));
    }
    let mut lines: Vec<Vec<Entry>> = Vec::new();
    let mut left = width;
    for (curve, text) in texts {
        let needed = i32::try_from(60 + LETTER * text.chars().count()).unwrap_or(width);
        if left + needed > width {
            lines.push(Vec::new());
            left = 78;
        }
        if let Some(line) = lines.last_mut() {
            line.push((left, curve, text));
        }
        left += needed;
    }
    lines
}

fn draw_legend<B: DrawingBackend>(area: &DrawingArea<B, Shift>, lines: &[Vec<Entry>]) -> Drawing<B> {
    for (row, line) in (0..).zip(lines) {
        let y = row * i32::from(LEGEND_LINE) + 14;
        for (left, curve, text) in line {
            let text_at = match curve {
                Some(curve) => {
                    let stroke = COLOURS[*curve].stroke_width(3);
                    area.draw(&PathElement::new([(*left, y), (left + 26, y)], stroke))?;
                    left + 32
                }
                None => *left,
            };
            area.draw(&Text::new(text.as_str(), (text_at, y - 5), (FONT, 15)))?;
        }
    }
    Ok(())
}

type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<Axis, Axis>>;

impl SweepPicture<'_> {
    fn panel<B: DrawingBackend>(
        &self,
        panel: &DrawingArea<B, Shift>,
        name: &str,
        quantity: fn(&Point) -> Distribution,
    ) -> Drawing<B> {
        let (y, unit_name, unit) = self.y_axis(quantity);
        let (x, x_name) = self.x_axis();
        let mut chart = ChartBuilder::on(panel)
            .margin(8)
            .margin_right(30)
            .x_label_area_size(42)
            .y_label_area_size(76)
            .build_cartesian_2d(x, y.clone())?;
        chart
            .configure_mesh()
            .x_desc(x_name)
            .y_desc(format!("{name}, {unit_name}"))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .draw()?;
        let curves = self.sweep.curves.as_ref().map_or(1, |varied| varied.values.len());
        for (curve, colour) in COLOURS.into_iter().enumerate().take(curves) {
            let points: Vec<Place> = self.curve(curve, quantity, unit);
            // One below the other, so that the curves' crosses do not hide each other.
            draw_curve(&mut chart, &points, colour, (y.end(), y.at(0.97 - 0.035 * curve as f64)))?;
        }
        Ok(())
    }

    /// The y axis with its unit: name, and seconds.
    fn y_axis(&self, quantity: fn(&Point) -> Distribution) -> (Axis, &'static str, f64) {
        let shown = |point: &Point| {
            let Distribution { p5, p50, p95, .. } = quantity(point);
            [p5, p50, p95].into_iter().flatten()
        };
        let most = self.sweep.points.iter().flat_map(shown).fold(0.0, f64::max);
        let least = self.sweep.points.iter().flat_map(shown).filter(|value| *value > 0.0).fold(most, f64::min);
        let (unit_name, unit) = Dimension::Time.axis_unit(most);
        let axis = match (most > 0.0, self.scales.log_y) {
            (false, _) => Axis::linear(0.0, 1.0),
            (true, true) => Axis::log(least / unit / 1.15, most / unit * 1.3),
            (true, false) => Axis::linear(0.0, most / unit * 1.12),
        };
        (axis, unit_name, unit)
    }

    /// The x axis and what it shows.
    fn x_axis(&self) -> (Axis, String) {
        let Varied { key, dimension, values } = &self.sweep.x;
        let Some(numbers) = values.iter().map(|value| value.number).collect::<Option<Vec<f64>>>() else {
            return (Axis::of_names(values.iter().map(|value| value.text.clone()).collect()), key.clone());
        };
        let (least, most) = numbers.iter().fold((f64::MAX, 0.0), |(a, b), n| (f64::min(a, *n), f64::max(b, *n)));
        let (name, unit) = dimension.axis_unit(most);
        let (least, most) = (least / unit, most / unit);
        let axis = if self.scales.log_x { Axis::log(least, most) } else { Axis::linear(least, most) };
        (axis, if name.is_empty() { key.clone() } else { format!("{key}, {name}") })
    }

    /// A curve's points from left to right, its times in `unit` seconds.
    fn curve(&self, curve: usize, quantity: fn(&Point) -> Distribution, unit: f64) -> Vec<Place> {
        let Varied { dimension, values, .. } = &self.sweep.x;
        let most = values.iter().filter_map(|value| value.number).fold(0.0, f64::max);
        let (_, x_unit) = dimension.axis_unit(most);
        let are_numbers = values.iter().all(|value| value.number.is_some());
        let place = |point: &Point| {
            let Distribution { p5, p50, p95, .. } = quantity(point);
            let x = match values[point.x].number {
                Some(number) if are_numbers => number / x_unit,
                _ => point.x as f64,
            };
            let [low, median, high] = [p5, p50, p95].map(|value| value.map(|seconds| seconds / unit));
            Place { x, low, median, high }
        };
        let mut places: Vec<Place> = self.sweep.points.iter().filter(|point| point.curve == curve).map(place).collect();
        places.sort_by(|a, b| a.x.total_cmp(&b.x));
        places
    }
}

/// Where a point stands, in the units of the axes; `None` where it does not converge.
#[derive(Clone, Copy, Debug)]
struct Place {
    x: f64,
    low: Option<f64>,
    median: Option<f64>,
    high: Option<f64>,
}

/// Band, line and marks; a line ends where the median does not converge, which stands as a cross at the height `crosses`.
fn draw_curve<B: DrawingBackend>(
    chart: &mut Chart<'_, B>,
    places: &[Place],
    colour: RGBColor,
    (end, crosses): (f64, f64),
) -> Drawing<B> {
    // What never ends lies beyond the axis.
    let height = |value: Option<f64>| value.unwrap_or(end);
    for run in places.split(|place| place.median.is_none()) {
        if run.iter().any(|place| place.low != place.high) {
            let lower = run.iter().map(|place| (place.x, height(place.low)));
            let upper = run.iter().rev().map(|place| (place.x, height(place.high)));
            chart
                .draw_series(std::iter::once(Polygon::new(lower.chain(upper).collect::<Vec<_>>(), colour.mix(0.15))))?;
        }
        let line: Vec<(f64, f64)> = run.iter().map(|place| (place.x, height(place.median))).collect();
        if places.len() <= MARKED_MAX || line.len() == 1 {
            chart.draw_series(line.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
    }
    let never = places.iter().filter(|place| place.median.is_none());
    chart.draw_series(never.map(|place| Cross::new((place.x, crosses), 4, colour.stroke_width(2))))?;
    Ok(())
}
