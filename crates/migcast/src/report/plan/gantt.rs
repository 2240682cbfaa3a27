//! A plan as a picture: who is moved when.

use std::path::Path;

use migcast_plan::schedule::fleet::Moved;
use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::super::plot::{self, BAND, Drawing, FONT, LINE, NEVER, Picture};
use super::{Plan, PlanAnswer};

/// Moves that are named one by one; of more there are bars only.
const NAMED_MAX: usize = 45;

/// Draws the plan into a file.
pub(crate) fn draw_plan(of: &PlanAnswer<'_>, path: &Path) -> anyhow::Result<()> {
    plot::save(of, path)
}

/// A move's bar: when it begins and ends in the median, when it has ended in all but one case of twenty, and its downtime.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bar {
    begins: f64,
    ends: f64,
    late: f64,
    downtime: f64,
}

/// What never ends is drawn as if it ended when the last one that ends does.
fn bar(plan: &Plan, place: usize, last: f64) -> Bar {
    let ends = plan.of_move(place, Moved::arrived);
    let begins = plan.of_move(place, |of| of.began).p50.unwrap_or_default();
    let ends_at = ends.p50.unwrap_or(last);
    Bar {
        begins,
        ends: ends_at.max(begins),
        late: ends.p95.unwrap_or(last).max(ends_at),
        downtime: plan.of_move(place, |of| of.downtime).p50.unwrap_or(ends_at - begins),
    }
}

impl Picture for PlanAnswer<'_> {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawing<B> {
        area.fill(&WHITE)?;
        let plan = self.plan();
        let order = plan.by_begin();
        let ended = plan.runs.iter().map(migcast_plan::schedule::fleet::Run::ended).fold(1e-3, f64::max);
        let bars: Vec<Bar> = order.iter().map(|place| bar(plan, *place, ended)).collect();
        let right = bars.iter().map(|bar| bar.late).fold(1e-3, f64::max) * 1.02;
        let is_named = order.len() <= NAMED_MAX;
        let title = format!("{}: {} guests, seconds since the first may begin", plan.name, order.len());
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 20))
            .margin(16)
            .margin_right(28)
            .x_label_area_size(36)
            .y_label_area_size(if is_named { 190 } else { 24 })
            .build_cartesian_2d(0.0..right, 0.0..order.len() as f64)?;
        let rows = order.len() as f64;
        let label =
            |place: usize| format!("{}  {} → {}", self.guest(place).name, self.from(place), self.to(plan, place));
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc("bars: in the median; light: until 95 % of the cases; red: the guest stands")
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .y_labels(0)
            .draw()?;
        for (row, (place, bar)) in order.iter().zip(&bars).enumerate() {
            // The first on top.
            let (low, high) = (rows - row as f64 - 0.85, rows - row as f64 - 0.15);
            let stands = (bar.ends - bar.downtime).max(bar.begins);
            let piece = |from: f64, to: f64, style: ShapeStyle| Rectangle::new([(from, low), (to, high)], style);
            chart.draw_series([
                piece(bar.ends, bar.late, BAND.filled()),
                piece(bar.begins, bar.ends, LINE.mix(0.8).filled()),
                piece(stands, bar.ends, NEVER.filled()),
            ])?;
            if is_named {
                let (x, y) = chart.backend_coord(&(0.0, (low + high) / 2.0));
                let style = (FONT, 13).into_font().color(&BLACK);
                area.draw(&Text::new(shortened(&label(*place), 28), ((x - 185).max(4), y - 7), style))?;
            }
        }
        if let Some(within) = self.within.filter(|within| within.as_secs_f64() < right) {
            let at = within.as_secs_f64();
            chart.draw_series(LineSeries::new([(at, 0.0), (at, rows)], NEVER.stroke_width(1)))?;
        }
        area.present()
    }
}

/// A text of at most so many characters.
fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut() {
        assert_eq!([shortened("db  a → b", 28), shortened("abcdef", 4)], ["db  a → b".to_owned(), "abc…".to_owned()]);
    }
}
