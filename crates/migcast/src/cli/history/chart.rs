//! A small chart of block characters.

/// Eighths of a character cell, from empty to full.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Where nothing is known.
const UNKNOWN: char = '·';

/// Draws values ≥ 0 as bars, `rows` lines of characters high, top line first. The largest value fills all rows; `None`
/// shows as a dot on the bottom line. A value above zero is never drawn as nothing.
pub(super) fn bars(values: &[Option<f64>], rows: usize) -> Vec<String> {
    let top = values.iter().flatten().copied().fold(0.0, f64::max);
    let full = rows * 8;
    let eighths = |value: f64| {
        if value <= 0.0 { 0 } else { ((value / top * full as f64).round() as usize).clamp(1, full) }
    };
    let cell = |row: usize, value: &Option<f64>| match value {
        None if row == 0 => UNKNOWN,
        None => ' ',
        Some(value) => EIGHTHS[eighths(*value).saturating_sub(row * 8).min(8)],
    };
    (0..rows).rev().map(|row| values.iter().map(|value| cell(row, value)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_from_the_bottom() {
        let lines = bars(&[Some(0.0), Some(1.0), Some(8.0), Some(16.0), None, Some(0.001)], 2);
        assert_eq!(lines, ["   █  ", " ▁██·▁"]);
    }

    #[test]
    fn nothing_written_is_an_empty_chart() {
        assert_eq!(bars(&[Some(0.0), None], 1), [" ·"]);
    }
}
