//! A prediction as a picture: migration time and downtime over the starting point, and the median's iterations.

use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use migcast_model::outcome::{Completed, Iteration, Outcome};
use migcast_model::quantity::{show_bytes, show_rate};
use migcast_model::units::SimTime;
use plotters::backend::{BitMapBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::register_font;

use super::{Prediction, Quantity};

const SIZE: (u32, u32) = (960, 900);
pub(super) const FONT: &str = "sans-serif";
pub(super) const LINE: RGBColor = RGBColor(31, 100, 173);
pub(super) const BAND: RGBAColor = RGBAColor(31, 100, 173, 0.15);
pub(super) const NEVER: RGBColor = RGBColor(200, 40, 40);
const MIB: f64 = (1 << 20) as f64;

/// The kinds of picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlotFormat {
    Svg,
    Png,
}

impl PlotFormat {
    /// By the file's ending.
    pub(crate) fn of(path: &Path) -> anyhow::Result<PlotFormat> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => Ok(PlotFormat::Svg),
            Some("png") => Ok(PlotFormat::Png),
            _ => bail!("--plot {}: the file must end in .svg or .png", path.display()),
        }
    }
}

/// What can be drawn with any backend.
pub(super) trait Picture {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B>;
}

/// Draws the prediction into a file. A file that exists is replaced only by a finished picture.
pub(crate) fn draw(prediction: &Prediction, path: &Path) -> anyhow::Result<()> {
    save(prediction, path)
}

/// Draws a picture into a file. A file that exists is replaced only by a finished picture.
pub(super) fn save(picture: &impl Picture, path: &Path) -> anyhow::Result<()> {
    register_fonts();
    let image = match PlotFormat::of(path)? {
        PlotFormat::Svg => {
            let mut svg = String::new();
            finish(picture.draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area()))?;
            svg.into_bytes()
        }
        PlotFormat::Png => {
            let mut pixels = vec![0; 3 * (SIZE.0 * SIZE.1) as usize];
            finish(picture.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area()))?;
            encode_png(&pixels)?
        }
    };
    std::fs::write(path, image).with_context(|| format!("--plot {}", path.display()))
}

fn finish<E: std::error::Error + Send + Sync>(drawn: Result<(), DrawingAreaErrorKind<E>>) -> anyhow::Result<()> {
    drawn.map_err(|error| anyhow!("drawing failed: {error}"))
}

fn encode_png(pixels: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(png)
}

/// The fonts travel with the program: a server has none.
fn register_fonts() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (style, font) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
            register_font(FONT, style, font).unwrap_or_else(|_| unreachable!("the embedded font is a font"));
        }
    });
}

pub(super) type Drawing<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl Picture for Prediction {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        area.fill(&WHITE)?;
        let scenario = &self.scenario;
        let title = format!(
            "{} ({}) over {}, {}",
            scenario.guest.name,
            show_bytes(scenario.guest.memory_bytes()),
            show_rate(scenario.link.line_rate),
            scenario.algorithm.name()
        );
        let body = area.margin(14, 0, 0, 0).titled(&title, (FONT, 22))?;
        if self.forecast.starts().len() == 1 {
            // One point makes no curve.
            draw_iterations(&body, self.forecast.median())?;
        } else {
            let panels = body.split_evenly((3, 1));
            draw_over_start(&panels[0], self, Quantity::MigrationTime, "migration time, s", 1.0)?;
            draw_over_start(&panels[1], self, Quantity::Downtime, "downtime, ms", 1e3)?;
            draw_iterations(&panels[2], self.forecast.median())?;
        }
        area.present()
    }
}

pub(super) type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Both axes from zero to their ends, with what they show.
pub(super) fn axes<'a, B: DrawingBackend>(
    panel: &'a DrawingArea<B, Shift>,
    (right, x_label): (f64, &str),
    (top, y_label): (f64, &str),
) -> Result<Chart<'a, B>, DrawingAreaErrorKind<B::ErrorType>> {
    let mut chart = ChartBuilder::on(panel)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(38)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .label_style((FONT, 13))
        .y_label_formatter(&|value| format!("{value:.0$}", usize::from(top < 10.0)))
        .light_line_style(WHITE)
        .draw()?;
    Ok(chart)
}

/// One quantity over the starting point, with its 5 to 95 % band; starts that never end stand as crosses at the top.
fn draw_over_start<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    prediction: &Prediction,
    quantity: Quantity,
    label: &str,
    unit: f64,
) -> Drawing<B> {
    let value = |done: &Completed| quantity.seconds(done) * unit;
    let points: Vec<(f64, Option<f64>)> = prediction
        .forecast
        .starts()
        .iter()
        .map(|(start, outcome)| (start.as_secs_f64(), outcome.completed().map(value)))
        .collect();
    let top = points.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max) * 1.15;
    let top = if top > 0.0 { top } else { 1.0 };
    let right = points.iter().map(|(start, _)| *start).fold(1.0, f64::max);
    let mut chart = axes(panel, (right, "start of the migration, seconds into the history"), (top, label))?;
    let distribution = prediction.distribution(quantity);
    if let (Some(low), Some(high)) = (distribution.p5, distribution.p95) {
        let band = Rectangle::new([(0.0, low * unit), (right, (high * unit).min(top))], BAND.filled());
        chart.draw_series(std::iter::once(band))?;
    }
    for run in points.split(|(_, value)| value.is_none()) {
        let line = run.iter().filter_map(|(start, value)| Some((*start, (*value)?)));
        chart.draw_series(LineSeries::new(line.clone(), LINE.stroke_width(2)))?;
        if points.len() <= 60 {
            chart.draw_series(line.map(|point| Circle::new(point, 3, LINE.filled())))?;
        }
    }
    let never = points.iter().filter(|(_, value)| value.is_none());
    chart.draw_series(never.map(|(start, _)| Cross::new((*start, top * 0.97), 4, NEVER.stroke_width(2))))?;
    Ok(())
}

/// What the median migration sent, iteration by iteration.
fn draw_iterations<B: DrawingBackend>(panel: &DrawingArea<B, Shift>, median: &(Duration, Outcome)) -> Drawing<B> {
    let (_, outcome) = median;
    let Some(done) = outcome.completed() else {
        let text = Text::new("the median migration does not converge", (80, 60), (FONT, 18).into_font().color(&NEVER));
        return panel.draw(&text);
    };
    let right = done.migration_time.as_secs_f64();
    let bar = |iteration: &Iteration| {
        let seconds = |at: SimTime| at.as_nanos() as f64 / 1e9;
        (seconds(iteration.start), seconds(iteration.end), iteration.sent_bytes.get() as f64 / MIB)
    };
    let bars: Vec<(f64, f64, f64)> = done.iterations.iter().map(bar).collect();
    let top = bars.iter().map(|(_, _, sent)| *sent).fold(1.0, f64::max) * 1.1;
    let under = "the median migration: seconds since its request; one bar per iteration, stop-and-copy red";
    let mut chart = axes(panel, (right, under), (top, "sent, MiB"))?;
    let last = bars.len() - 1;
    for (index, (from, to, sent)) in bars.into_iter().enumerate() {
        let colour = if index == last { NEVER } else { LINE };
        let bar = |style: ShapeStyle| Rectangle::new([(from, 0.0), (to, sent)], style);
        chart.draw_series([bar(colour.mix(0.8).filled()), bar(WHITE.stroke_width(1))])?;
    }
    Ok(())
}
