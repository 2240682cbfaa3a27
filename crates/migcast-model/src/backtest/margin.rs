//! How much farther out the ends of a band lie than its starting points say.

/// A share of what came lies beyond each end of a band.
const BEYOND: f64 = 0.05;

/// How much farther out the ends of a 5 to 95 % band lie, as logarithms of factors, 0 or more; infinite where an end lies
/// beyond everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Of the lower end.
    pub below: f64,
    /// Of the upper end.
    pub above: f64,
}

/// Of each quantity that is forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margins {
    /// Migration time.
    pub time: Margin,
    /// Downtime.
    pub downtime: Margin,
    /// Bytes sent.
    pub sent: Margin,
}

impl Margins {
    /// None at all.
    pub const NONE: Margins = Margins { time: Margin::NONE, downtime: Margin::NONE, sent: Margin::NONE };
}

impl Margin {
    /// None at all.
    pub const NONE: Margin = Margin { below: 0.0, above: 0.0 };

    /// So much that a twentieth of what came lies beyond each end: of (lower end, upper end, what came), infinite where it does
    /// not converge. They count as so many independent ones, by which the share is rounded up (Romano, Patterson and
    /// Candès, *Conformalized Quantile Regression*, 2019, where both ends have one margin).
    pub(super) fn holding(bands: &[(f64, f64, f64)], independent: usize) -> Margin {
        let over = |end: f64, inner: f64| match (end.is_finite(), inner.is_finite()) {
            (true, true) => libm::log(end.max(1e-9) / inner.max(1e-9)).max(0.0),
            (true, false) => 0.0,
            (false, true) => f64::INFINITY,
            (false, false) => 0.0,
        };
        let holding = |mut beyond: Vec<f64>| {
            beyond.sort_by(f64::total_cmp);
            let share = ((1.0 - BEYOND) * (1.0 + 1.0 / independent.max(1) as f64)).min(1.0);
            let rank = ((share * beyond.len() as f64).ceil() as usize).clamp(1, beyond.len());
            beyond[rank - 1]
        };
        if bands.is_empty() {
            return Margin::NONE;
        }
        Margin {
            below: holding(bands.iter().map(|(low, _, came)| over(*low, *came)).collect()),
            above: holding(bands.iter().map(|(_, high, came)| over(*came, *high)).collect()),
        }
    }

    /// A value at the quantile `q` with its margin: none at the median, all of it at 5 and 95 %, between them in proportion.
    pub fn widened(self, value: f64, q: f64) -> f64 {
        let share = (q - 0.5) / (0.5 - BEYOND);
        let margin = if share < 0.0 { self.below } else { self.above };
        if margin == 0.0 || share == 0.0 {
            value
        } else if margin.is_finite() {
            value * libm::exp(share * margin)
        } else if share.abs() < 1.0 - 1e-9 {
            // Nobody knows how far before the ends that begins.
            value
        } else if share < 0.0 {
            0.0
        } else {
            f64::INFINITY
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_band_is_widened_until_it_holds_nine_of_ten() {
        // Of a hundred that came ten lie above 1 to 2, by factors of 1.1, 1.2, … 2.0, and none below.
        let bands: Vec<_> =
            (0..100).map(|n| (1.0, 2.0, if n < 10 { 2.0 * (1.1 + 0.1 * f64::from(n)) } else { 1.5 })).collect();
        let margin = Margin::holding(&bands, 100_000);
        assert_eq!(margin.below, 0.0);
        let above =
            |share: usize| bands.iter().filter(|(_, high, came)| *came > margin.widened(*high, 0.95)).count() <= share;
        assert!(above(5) && (margin.above - libm::log(1.6)).abs() < 1e-9, "{margin:?}");
        // Few that are independent say less: all of them are to be held.
        assert!((Margin::holding(&bands, 10).above - libm::log(2.0)).abs() < 1e-9);
        assert_eq!(Margin::holding(&[], 10), Margin::NONE);
    }

    #[test]
    fn what_never_ends_is_held_by_what_never_ends() {
        let never = f64::INFINITY;
        let bands: Vec<_> = (0..20).map(|n| (1.0, 2.0, if n < 2 { never } else { 1.5 })).collect();
        let margin = Margin::holding(&bands, 1_000);
        assert_eq!((margin.below, margin.above), (0.0, never));
        assert_eq!((margin.widened(2.0, 0.95), margin.widened(1.5, 0.5)), (never, 1.5));
        assert_eq!(Margin::holding(&[(never, never, 3.0)], 9).widened(never, 0.95), never);
        assert_eq!(Margin::holding(&[(never, never, 3.0)], 9).widened(never, 0.05), 0.0);
    }

    #[test]
    fn the_margin_grows_from_the_median_on() {
        let margin = Margin { below: libm::log(2.0), above: libm::log(4.0) };
        let at = |q| margin.widened(8.0, q);
        assert_eq!((at(0.5), at(0.05).round(), at(0.95).round(), at(0.725).round()), (8.0, 4.0, 32.0, 16.0));
    }
}
