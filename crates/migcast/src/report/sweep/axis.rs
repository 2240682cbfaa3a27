//! An axis of a picture: from where to where, linear or logarithmic, and where its marks stand.

use std::ops::Range;

use migcast_model::quantity::show_count;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// One axis. Values are in the unit of its marks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    from: f64,
    to: f64,
    is_log: bool,
    /// Names that stand at 0, 1, 2 … instead of numbers.
    names: Vec<String>,
}

impl Axis {
    /// From `from` to `to`; a single value gets room around it.
    pub(super) fn linear(from: f64, to: f64) -> Axis {
        let room = if to > from { 0.0 } else { (from.abs() / 2.0).max(0.5) };
        Axis { from: from - room, to: to + room, is_log: false, names: Vec::new() }
    }

    /// From `from` > 0 to `to`, each power of ten as wide as the other.
    pub(super) fn log(from: f64, to: f64) -> Axis {
        let room = if to > from { 1.0 } else { 2.0 };
        Axis { from: from / room, to: to * room, is_log: true, names: Vec::new() }
    }

    /// One place for each name.
    pub(super) fn of_names(names: Vec<String>) -> Axis {
        Axis { from: -0.5, to: names.len() as f64 - 0.5, is_log: false, names }
    }

    /// The far end.
    pub(super) fn end(&self) -> f64 {
        self.to
    }

    /// The value at a share of the axis' length.
    pub(super) fn at(&self, share: f64) -> f64 {
        if self.is_log {
            self.from * (self.to / self.from).powf(share)
        } else {
            self.from + share * (self.to - self.from)
        }
    }

    fn share(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        share.clamp(0.0, 1.0)
    }

    /// Where marks stand, at most `most` of them where that can be.
    pub(super) fn marks(&self, most: usize) -> Vec<f64> {
        if !self.names.is_empty() {
            return (0..self.names.len()).map(|index| index as f64).collect();
        }
        let steps = if self.is_log { log_marks(self.from, self.to, most) } else { Vec::new() };
        // A logarithmic axis over less than a few powers of ten is marked like another.
        if steps.len() >= 3 { steps } else { linear_marks(self.from, self.to, most) }
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn linear_marks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let rough = (to - from) / most.max(2) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * (1.0 - 1e-9));
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((from / step - 1e-9).ceil() as i64, (to / step + 1e-9).floor() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// 1, 2 and 5 of each power of ten, or 1 only if that is too many.
fn log_marks(from: f64, to: f64, most: usize) -> Vec<f64> {
    let within = |digits: &[f64]| {
        let powers = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
        let all = powers.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        all.filter(|mark| *mark >= from * (1.0 - 1e-6) && *mark <= to * (1.0 + 1e-6)).collect::<Vec<f64>>()
    };
    let fine = within(&[1.0, 2.0, 5.0]);
    if fine.len() <= most { fine } else { within(&[1.0]) }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        first + (self.share(*value) * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The finer grid that plotters asks for after the marks would only be noise.
        if hint.weight().allow_light_points() { Vec::new() } else { self.marks(hint.bold_points().min(10)) }
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        if let Some(name) = self.names.get(value.round() as usize).filter(|_| (value - value.round()).abs() < 1e-9) {
            return name.clone();
        }
        if *value >= 1_000.0 && (value - value.round()).abs() < 1e-6 {
            return show_count(value.round() as u64);
        }
        // Six digits, without what float adds.
        let shown = format!("{value:.6}");
        shown.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(Axis::linear(0.0, 60_000.0).marks(7), [0.0, 1e4, 2e4, 3e4, 4e4, 5e4, 6e4]);
        assert_eq!(Axis::linear(0.0, 9.5).marks(6), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(Axis::log(90.0, 11_000.0).marks(5), [100.0, 1_000.0, 10_000.0]);
        assert_eq!(Axis::log(1.0, 10.0).marks(5), [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(Axis::log(5.2, 8.1).marks(5), [6.0, 7.0, 8.0]);
    }

    #[test]
    fn powers_of_ten_are_equally_wide_on_a_logarithmic_axis() {
        let axis = Axis::log(1.0, 1_000.0);
        let places = [1.0, 10.0, 100.0, 1_000.0].map(|value| axis.map(&value, (0, 300)));
        assert_eq!(places, [0, 100, 200, 300]);
        assert!((axis.at(1.0 / 3.0) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_single_value_has_room_around_it() {
        assert_eq!(Axis::linear(4.0, 4.0).map(&4.0, (0, 100)), 50);
        assert_eq!(Axis::log(4.0, 4.0).map(&4.0, (0, 100)), 50);
    }

    #[test]
    fn marks_are_written_without_what_floats_add() {
        let axis = Axis::linear(0.0, 1.0);
        assert_eq!(axis.format_ext(&(0.1 + 0.2)), "0.3");
        assert_eq!(axis.format_ext(&30_000.0), "30,000");
        assert_eq!(axis.format_ext(&0.0), "0");
        assert_eq!(Axis::of_names(vec!["a".into(), "b".into()]).format_ext(&1.0), "b");
    }
}
