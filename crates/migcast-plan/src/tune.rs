//! Which settings keep a promise: *migration time at most T and downtime at most D with probability p*, at the least harm.
//!
//! ```text
//!  settings ──► forecast over the first half of the past ──► [`Score`]: is it kept, at what harm ──► [`choose`]
//!           └─► forecast over the second half, for the chosen only ──────────────────────────────► was it kept there
//! ```
//! What was chosen because it did well on a past looks better there than it is. So the past is halved, and the half that had
//! no part in choosing says how often the promise is kept.

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// Migration time at most, in seconds.
    pub time: f64,
    /// Downtime at most, in seconds.
    pub downtime: f64,
    /// With this probability, in (0, 1].
    pub probability: f64,
}

/// How a migration from one starting point may go.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// Migration times, all equally likely, in seconds; infinite where it does not complete.
    pub time: Vec<f64>,
    /// Downtimes likewise, whatever the time is; infinite where it does not complete.
    pub downtime: Vec<f64>,
    /// Bytes sent, however it ends.
    pub sent: f64,
    /// How long the guest's work stands still beside its downtime: throttled, or waiting for pages after post-copy. Seconds.
    pub slowed: f64,
}

/// What came of one choice of settings over many starting points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Probability that the promise is kept.
    pub kept: f64,
    /// Migration time that the promised share of migrations stays below, in seconds; infinite where fewer complete.
    pub time: f64,
    /// The same of the downtime.
    pub downtime: f64,
    /// Mean of the bytes sent.
    pub sent: f64,
    /// Mean of the seconds for which the guest's work stands still.
    pub slowed: f64,
}

/// What was chosen, as a place in what was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It keeps the promise at the least harm.
    Kept(usize),
    /// Nothing keeps it; this comes nearest.
    Nearest(usize),
}

impl Choice {
    /// Its place in what was tried.
    pub fn index(self) -> usize {
        match self {
            Choice::Kept(index) | Choice::Nearest(index) => index,
        }
    }
}

/// Traffic that differs by less is the same traffic: a hundredth.
const SAME_TRAFFIC: f64 = 0.01;
/// So is work that is lost, in seconds.
const SAME_SLOWED: f64 = 0.01;

impl Score {
    /// The score of settings that went so from these starting points (at least one).
    pub fn of(ways: &[Way], promise: &Promise) -> Score {
        let share = |values: &[f64], limit: f64| {
            values.iter().filter(|value| **value <= limit).count() as f64 / values.len() as f64
        };
        let mean = |of: &dyn Fn(&Way) -> f64| ways.iter().map(of).sum::<f64>() / ways.len() as f64;
        // What scatters a time and what scatters a downtime have nothing to do with each other.
        let kept = mean(&|way| share(&way.time, promise.time) * share(&way.downtime, promise.downtime));
        let quantile = |of: &dyn Fn(&Way) -> &Vec<f64>| {
            let mut all: Vec<f64> = ways.iter().flat_map(|way| of(way).iter().copied()).collect();
            all.sort_by(f64::total_cmp);
            let rank = (promise.probability * all.len() as f64 - 1e-9).ceil() as usize;
            all[rank.clamp(1, all.len()) - 1]
        };
        Score {
            kept,
            time: quantile(&|way| &way.time),
            downtime: quantile(&|way| &way.downtime),
            sent: mean(&|way| way.sent),
            slowed: mean(&|way| way.slowed),
        }
    }

    /// Whether the promise is kept as often as was promised.
    pub fn keeps(&self, promise: &Promise) -> bool {
        self.kept >= promise.probability - 1e-12
    }

    /// How far the worse of time and downtime is beyond what was promised, as a factor.
    fn beyond(&self, promise: &Promise) -> f64 {
        (self.time / promise.time).max(self.downtime / promise.downtime)
    }
}

/// The one to take: of those that keep the promise the one in which the guest loses least work, of those the one with
/// the least traffic, of those what `stands` (a place in what was tried, if it was), so that nothing is changed for nothing,
/// else the one with the shortest downtime, the first of equals. Where none keeps it the one that keeps it most often, of
/// those the one nearest to it. `None` if nothing was tried.
pub fn choose(scores: &[Score], stands: Option<usize>, promise: &Promise) -> Option<Choice> {
    let keeping: Vec<usize> = (0..scores.len()).filter(|index| scores[*index].keeps(promise)).collect();
    if keeping.is_empty() {
        let nearer = |a: &usize, b: &usize| {
            let (a, b) = (&scores[*a], &scores[*b]);
            b.kept.total_cmp(&a.kept).then(a.beyond(promise).total_cmp(&b.beyond(promise)))
        };
        return (0..scores.len()).min_by(nearer).map(Choice::Nearest);
    }
    let least = |of: &dyn Fn(&Score) -> f64, among: &[usize]| {
        among.iter().map(|index| of(&scores[*index])).fold(f64::INFINITY, f64::min)
    };
    let slowed = least(&|score| score.slowed, &keeping);
    let unharmed: Vec<usize> =
        keeping.into_iter().filter(|index| scores[*index].slowed <= slowed + SAME_SLOWED).collect();
    let sent = least(&|score| score.sent, &unharmed);
    let lean = unharmed.into_iter().filter(|index| scores[*index].sent <= sent * (1.0 + SAME_TRAFFIC));
    let shortest = |a: &usize, b: &usize| scores[*a].downtime.total_cmp(&scores[*b].downtime);
    let lean: Vec<usize> = lean.collect();
    let stands = stands.filter(|stands| lean.contains(stands));
    stands.or_else(|| lean.into_iter().min_by(shortest)).map(Choice::Kept)
}

/// The trade-off: those of which none other is better in time or downtime and as good in the other, by time. Equal ones
/// count once; what completes too rarely does not count.
pub fn front(scores: &[Score]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|index| scores[*index].time.is_finite() && scores[*index].downtime.is_finite())
        .collect();
    let key = |index: &usize| (scores[*index].time, scores[*index].downtime);
    order.sort_by(|a, b| {
        let (a, b) = (key(a), key(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    let mut least = f64::INFINITY;
    order.retain(|index| {
        let is_better = scores[*index].downtime < least;
        least = least.min(scores[*index].downtime);
        is_better
    });
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROMISE: Promise = Promise { time: 20.0, downtime: 0.3, probability: 0.9 };

    fn score(kept: f64, time: f64, downtime: f64, sent: f64, slowed: f64) -> Score {
        Score { kept, time, downtime, sent, slowed }
    }

    #[test]
    fn a_promise_is_kept_where_time_and_downtime_are() {
        let way = |time: &[f64], downtime: &[f64]| Way {
            time: time.to_vec(),
            downtime: downtime.to_vec(),
            sent: 100.0,
            slowed: 0.0,
        };
        let half = way(&[10.0, 30.0], &[0.2]);
        let quarter = way(&[10.0, 30.0], &[0.2, 0.4]);
        let never = way(&[f64::INFINITY], &[f64::INFINITY]);
        assert!((Score::of(&[half.clone(), quarter], &PROMISE).kept - 0.375).abs() < 1e-12);
        let score = Score::of(&[half, never], &PROMISE);
        assert_eq!((score.kept, score.time), (0.25, f64::INFINITY));
        let sure: Vec<Way> = (0..10).map(|index| way(&[10.0 + f64::from(index)], &[0.1])).collect();
        let score = Score::of(&sure, &PROMISE);
        assert!(score.keeps(&PROMISE) && score.time == 18.0, "nine of ten are at most the quantile: {score:?}");
    }

    #[test]
    fn the_least_harm_is_chosen_of_what_keeps_the_promise() {
        let tried = [
            score(0.95, 18.0, 0.1, 100.0, 4.0),
            score(0.95, 19.0, 0.29, 100.0, 0.0),
            score(0.92, 19.0, 0.2, 100.5, 0.0),
            score(0.99, 15.0, 0.1, 300.0, 0.0),
            score(0.5, 9.0, 0.1, 10.0, 0.0),
        ];
        // Not the throttled one, not the one that sends thrice, and of two alike the one that is down for less.
        assert_eq!(choose(&tried, None, &PROMISE), Some(Choice::Kept(2)));
        assert_eq!(choose(&tried, Some(1), &PROMISE), Some(Choice::Kept(1)), "what stands keeps it as well");
        assert_eq!(choose(&tried, Some(3), &PROMISE), Some(Choice::Kept(2)), "but not at thrice the traffic");
        assert_eq!(choose(&tried[..1], None, &PROMISE), Some(Choice::Kept(0)), "throttling, if it takes that");
        assert_eq!(choose(&[], None, &PROMISE), None);
    }

    #[test]
    fn where_nothing_keeps_it_the_nearest_is_named() {
        let tried = [
            score(0.2, 19.0, 0.9, 1.0, 0.0),
            score(0.6, f64::INFINITY, f64::INFINITY, 1.0, 0.0),
            score(0.6, 30.0, 0.3, 1.0, 0.0),
        ];
        assert_eq!(choose(&tried, None, &PROMISE), Some(Choice::Nearest(2)));
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let tried = [
            score(1.0, 10.0, 0.9, 0.0, 0.0),
            score(1.0, 12.0, 0.5, 0.0, 0.0),
            score(1.0, 12.0, 0.6, 0.0, 0.0),
            score(1.0, 13.0, 0.5, 0.0, 0.0),
            score(1.0, f64::INFINITY, f64::INFINITY, 0.0, 0.0),
            score(1.0, 20.0, 0.1, 0.0, 0.0),
        ];
        assert_eq!(front(&tried), [0, 1, 5]);
    }

    proptest! {
        #[test]
        fn nothing_beats_what_is_on_the_front_and_something_beats_the_rest(
            points in proptest::collection::vec((1.0..50.0f64, 0.01..5.0f64), 1..40),
        ) {
            let tried: Vec<Score> = points.iter().map(|(time, down)| score(1.0, *time, *down, 0.0, 0.0)).collect();
            let beats = |a: &Score, b: &Score| {
                a.time <= b.time && a.downtime <= b.downtime && (a.time < b.time || a.downtime < b.downtime)
            };
            let front = front(&tried);
            for index in 0..tried.len() {
                let beaten = tried.iter().any(|other| beats(other, &tried[index]));
                let equal = front.iter().any(|on| tried[*on] == tried[index]);
                prop_assert_eq!(equal, !beaten);
            }
        }
    }
}
