//! Forecasts that were made before their migrations, judged by what happened: bias, coverage of the band, drift.
//!
//! Each migration gives z = ln(actual ÷ forecast median) in units of the forecast's own scatter (its 5–95 % band is 3.29
//! of them wide). Were platform and guest what the forecast took them for, z would scatter about 0 by 1.
//!
//! **Drift** is found by a two-sided CUSUM of z (Page, Biometrika 41, 1954), divided by its own scatter where that is more
//! than the band's: a band too narrow is no drift. The scatter is that of differences between neighbours, which a shift
//! does not touch. No single migration can raise the alarm: z is cut at [`Z_MAX`].

/// A forecast's band of one quantity, and what came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Quantiles 5 %, 50 % and 95 %; more than 0 and in order.
    pub band: [f64; 3],
    /// What came, more than 0.
    pub actual: f64,
}

/// How forecasts of one quantity did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Review {
    /// Forecasts judged.
    pub count: usize,
    /// Median of actual ÷ forecast median.
    pub ratio: f64,
    /// A 95 % interval of it that supposes no distribution; `None` of fewer than six.
    pub ratio_interval: Option<(f64, f64)>,
    /// How many lay inside of their band, of which 90 % should.
    pub inside: usize,
    /// A 95 % interval of that share.
    pub inside_interval: (f64, f64),
    /// Scatter of what came, in the bands' own: 1 is as said, 2 twice as wide. `None` of fewer than four.
    pub scatter: Option<f64>,
    /// Whether what came has left its forecasts.
    pub drift: Option<Drift>,
}

/// A drift that is still going on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Which migration it began with, by its index.
    pub since: usize,
    /// Median of actual ÷ forecast median since.
    pub ratio: f64,
}

/// What a band is taken to scatter by at least, as a share: nobody knows a migration better.
const SCATTER_MIN: f64 = 0.01;
/// Half of a 5–95 % band in standard deviations.
const HALF_BAND: f64 = 1.645;
/// Shifts by less than twice this are not looked for, in standard deviations.
const SLACK: f64 = 0.5;
/// Where the alarm is raised; what is over is forgotten from twice that. Of forecasts that are right, 2 % of the series of 100 stand in alarm at their end; a shift by
/// one standard deviation is found after 13 migrations in the median, by two after 5 (`cargo test -p migcast-model
/// false_alarms -- --nocapture` prints both).
const ALARM: f64 = 6.0;
/// Most that one migration counts.
const Z_MAX: f64 = 3.0;

impl Judged {
    /// What came in units of the forecast's own scatter about its median.
    fn z(&self) -> f64 {
        let [low, mid, high] = self.band;
        let off = libm::log(self.actual / mid);
        let half = if off < 0.0 { libm::log(mid / low) } else { libm::log(high / mid) };
        off / (half / HALF_BAND).max(SCATTER_MIN)
    }

    /// What came ÷ the forecast's median.
    pub fn ratio(&self) -> f64 {
        self.actual / self.band[1]
    }

    /// Whether it came within the band.
    pub fn is_inside(&self) -> bool {
        (self.band[0]..=self.band[2]).contains(&self.actual)
    }
}

/// Judges forecasts, the oldest first; `None` of none.
pub fn review(judged: &[Judged]) -> Option<Review> {
    if judged.is_empty() {
        return None;
    }
    let z: Vec<f64> = judged.iter().map(Judged::z).collect();
    let scatter = scatter(&z);
    let inside = judged.iter().filter(|one| one.is_inside()).count();
    let ratios = sorted(judged);
    let since = since(&z, scatter.unwrap_or(1.0).max(1.0));
    Some(Review {
        count: judged.len(),
        ratio: middle(&ratios),
        ratio_interval: interval_of_median(&ratios),
        inside,
        inside_interval: interval_of_share(inside, judged.len()),
        scatter,
        drift: since.map(|since| Drift { since, ratio: middle(&sorted(&judged[since..])) }),
    })
}

fn sorted(judged: &[Judged]) -> Vec<f64> {
    let mut ratios: Vec<f64> = judged.iter().map(Judged::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios
}

fn middle(sorted: &[f64]) -> f64 {
    f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2])
}

/// Standard deviation of values that may shift once, from the median difference of neighbours (of a normal distribution
/// 0.954 of it).
fn scatter(z: &[f64]) -> Option<f64> {
    let mut steps: Vec<f64> = z.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    steps.sort_by(f64::total_cmp);
    (steps.len() >= 3).then(|| middle(&steps) / 0.954)
}

/// With which value a shift began that is still seen at the end.
fn since(z: &[f64], scatter: f64) -> Option<usize> {
    let side = |sign: f64| {
        let (mut sum, mut began, mut alarmed) = (0.0, 0, false);
        for (index, z) in z.iter().enumerate() {
            let step = sign * (z / scatter).clamp(-Z_MAX, Z_MAX) - SLACK;
            if sum == 0.0 {
                began = index;
            }
            sum = (sum + step).clamp(0.0, 2.0 * ALARM);
            alarmed = sum > 0.0 && (alarmed || sum > ALARM);
        }
        alarmed.then_some(began)
    };
    side(1.0).or(side(-1.0))
}

/// 95 % interval of the median by order statistics: the values whose ranks a fair coin leaves out once in 40 at most.
fn interval_of_median(sorted: &[f64]) -> Option<(f64, f64)> {
    let count = sorted.len();
    let half_to_the = |exponent: usize| 0.5f64.powi(i32::try_from(exponent).unwrap_or(i32::MAX));
    // Chance that at most `rank` of `count` fall below the median, summed from the tail on.
    let (mut chance, mut below, mut rank) = (half_to_the(count), 0.0, 0);
    if count > 1_000 {
        // The normal approximation: beyond this the first term is no number any more.
        let reach = (0.98 * (count as f64).sqrt()).ceil() as usize;
        return Some((sorted[(count / 2).saturating_sub(reach)], sorted[(count / 2 + reach).min(count - 1)]));
    }
    while below + chance <= 0.025 {
        below += chance;
        chance *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    (rank > 0).then(|| (sorted[rank - 1], sorted[count - rank]))
}

/// 95 % interval of a share of which `held` of `all` were seen (Wilson, JASA 22, 1927).
pub fn interval_of_share(held: usize, all: usize) -> (f64, f64) {
    let (share, all, z2) = (held as f64 / all as f64, all as f64, 1.96f64.powi(2));
    let middle = (share + z2 / (2.0 * all)) / (1.0 + z2 / all);
    let half = (share * (1.0 - share) / all + z2 / (4.0 * all * all)).sqrt() * 1.96 / (1.0 + z2 / all);
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal numbers from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) by Box and Muller.
    struct Normal(u64);

    impl Normal {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64 + 1e-17
        }

        fn next(&mut self) -> f64 {
            (-2.0 * libm::log(self.uniform())).sqrt() * libm::cos(std::f64::consts::TAU * self.uniform())
        }
    }

    /// A band of 5 % scatter about 10 s, and what came this many of its standard deviations away.
    fn came(z: f64) -> Judged {
        let at = |z: f64| 10.0 * libm::exp(0.05 * z);
        Judged { band: [at(-HALF_BAND), 10.0, at(HALF_BAND)], actual: at(z) }
    }

    fn series(seed: u64, count: usize, shift: impl Fn(usize) -> f64, scatter: f64) -> Vec<Judged> {
        let mut normal = Normal(seed << 20);
        (0..count).map(|index| came(shift(index) + scatter * normal.next())).collect()
    }

    #[test]
    fn right_forecasts_have_no_bias_and_nine_in_ten_inside() {
        let review = review(&series(1, 2_000, |_| 0.0, 1.0)).unwrap();
        assert!((review.ratio - 1.0).abs() < 0.005, "{review:?}");
        let (low, high) = review.ratio_interval.unwrap();
        assert!(low < 1.0 && 1.0 < high && high - low < 0.01, "{review:?}");
        let (low, high) = review.inside_interval;
        assert!(low < 0.9 && 0.9 < high, "{review:?}");
        assert!((review.scatter.unwrap() - 1.0).abs() < 0.1, "{review:?}");
    }

    #[test]
    fn false_alarms_are_rare_and_shifts_are_found() {
        let alarmed = |judged: &[Judged]| review(judged).unwrap().drift;
        let false_alarms = (0..1_000).filter(|seed| alarmed(&series(*seed, 100, |_| 0.0, 1.0)).is_some()).count();
        println!("{false_alarms} of 1000 series of 100 right forecasts stand in alarm at their end");
        assert!(false_alarms < 40);
        for (shift, most) in [(1.0, 16), (2.0, 6)] {
            let after = |seed: u64| {
                let all = series(seed, 100, |index| if index < 20 { 0.0 } else { shift }, 1.0);
                (21..=100).find(|end| alarmed(&all[..*end]).is_some()).map_or(80, |end| end - 20)
            };
            let mut found: Vec<usize> = (0..500).map(after).collect();
            found.sort_unstable();
            println!("a shift by {shift} is found after {} migrations in the median", found[250]);
            assert!(found[250] <= most);
        }
    }

    #[test]
    fn a_drift_says_since_when_and_by_how_much() {
        let all = series(3, 40, |index| if index < 25 { 0.0 } else { 3.0 }, 0.5);
        let drift = review(&all).unwrap().drift.unwrap();
        assert!((24..=26).contains(&drift.since), "{drift:?}");
        assert!((drift.ratio - libm::exp(0.15)).abs() < 0.03, "{drift:?}");
        let shorter = series(3, 40, |index| if index < 25 { 0.0 } else { -3.0 }, 0.5);
        assert!(review(&shorter).unwrap().drift.unwrap().ratio < 0.9);
        // One that is over is none.
        assert_eq!(
            review(&series(3, 80, |index| if (25..35).contains(&index) { 3.0 } else { 0.0 }, 0.5)).unwrap().drift,
            None
        );
    }

    #[test]
    fn neither_an_outlier_nor_a_band_too_narrow_is_a_drift() {
        let mut all = vec![came(0.0); 20];
        (all[18], all[19]) = (came(30.0), came(30.0));
        assert_eq!(review(&all).unwrap().drift, None);
        let wide = (0..200).filter(|seed| review(&series(*seed, 60, |_| 0.0, 4.0)).unwrap().drift.is_some()).count();
        assert!(wide < 20, "{wide} of 200");
        let review = review(&series(5, 200, |_| 0.0, 4.0)).unwrap();
        assert!((review.scatter.unwrap() - 4.0).abs() < 0.8, "{review:?}");
    }

    #[test]
    fn few_say_little() {
        assert_eq!(review(&[]), None);
        let one = review(&[came(0.5)]).unwrap();
        assert_eq!((one.count, one.inside, one.ratio_interval, one.scatter, one.drift), (1, 1, None, None, None));
        let six: Vec<Judged> = (0..6).map(|index| came(f64::from(index))).collect();
        let (low, high) = review(&six).unwrap().ratio_interval.unwrap();
        assert_eq!((low, high), (six[0].ratio(), six[5].ratio()), "1 in 32 that all six lie on one side");
    }

    #[test]
    fn an_interval_of_a_share_is_wilsons() {
        // Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
        let (low, high) = interval_of_share(81, 263);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
    }
}
