//! How many migrations a service level agreement allows, and what is left of it after so many.

use crate::sum::{COUNT_MAX, Sum};

/// What one migration may cost the service: one entry for each way it may go, all equally likely. Seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    /// Downtime; nothing where the migration is given up.
    pub downtime: Vec<f64>,
    /// Time under pre-copy, post-copy or throttling, in which the service runs but may be slower; of a migration that is
    /// given up all the time it was given.
    pub brownout: Vec<f64>,
    /// What all migrations of a period may be off by alike, beside that: each as likely, 0 where nothing is known.
    pub common: Vec<f64>,
}

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Share of the time the service is to be available, in (0, 1).
    pub availability: Option<f64>,
    /// Over what it counts, in seconds.
    pub period: f64,
    /// Longest downtime of a single event, in seconds.
    pub event_limit: Option<f64>,
    /// What a second of brownout counts, in seconds of downtime, in [0, 1].
    pub brownout_weight: f64,
    /// Downtime that the period has had already, in seconds.
    pub spent: f64,
    /// How sure it is to be, in (0, 1).
    pub confidence: f64,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SlaError {
    /// Neither an availability nor a limit of one event.
    #[error("nothing was agreed: give an availability, a limit of one event, or both")]
    Nothing,
    /// More than the budget is gone.
    #[error("{spent:.1} s of downtime were spent already, and the budget of the period is {budget:.1} s")]
    Overspent {
        /// Seconds.
        spent: f64,
        /// Seconds.
        budget: f64,
    },
}

/// How often a migration fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Count {
    /// So many in a period.
    Most(u64),
    /// As many as anyone may want: more than a million.
    Unlimited,
}

/// What the availability allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Downtime the period may have in all, in seconds.
    pub all: f64,
    /// What is left of it.
    pub left: f64,
    /// Mean cost of one migration, in seconds.
    pub cost: f64,
    /// So many migrations stay within it.
    pub count: Count,
}

/// What the limit of one event allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Events {
    /// The limit, in seconds.
    pub limit: f64,
    /// Share of migrations whose downtime exceeds it.
    pub exceeding: f64,
    /// So many migrations, and none of them exceeds it.
    pub count: Count,
}

/// Which of the two allows less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The budget of the period.
    Budget,
    /// The limit of one event.
    Event,
    /// Neither: there is no bound.
    None,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// By the availability, if there is one.
    pub budget: Option<Budget>,
    /// By the limit of one event, if there is one.
    pub events: Option<Events>,
    /// Which binds.
    pub binding: Binding,
}

impl Answer {
    /// So many migrations fit in a period.
    pub fn count(&self) -> Count {
        match self.binding {
            Binding::Budget => self.budget.map_or(Count::Unlimited, |budget| budget.count),
            Binding::Event => self.events.map_or(Count::Unlimited, |events| events.count),
            Binding::None => Count::Unlimited,
        }
    }
}

impl Draws {
    /// Costs of one migration, for each error that all have in common. What is off is downtime that there is.
    fn costs(&self, weight: f64) -> Vec<Vec<f64>> {
        let ways = || self.downtime.iter().zip(&self.brownout);
        let cost = |(down, brown): (&f64, &f64), off: f64| {
            let down = if *down > 0.0 { (down + off).max(0.0) } else { 0.0 };
            down + weight * brown
        };
        self.common.iter().map(|off| ways().map(|way| cost(way, *off)).collect()).collect()
    }
}

fn mean(costs: &[Vec<f64>]) -> f64 {
    let of_one = |costs: &Vec<f64>| costs.iter().sum::<f64>() / costs.len() as f64;
    costs.iter().map(of_one).sum::<f64>() / costs.len() as f64
}

/// How many migrations a period allows.
///
/// # Errors
/// Nothing was agreed, or more was spent than there is.
pub fn most(draws: &Draws, agreed: &Agreement) -> Result<Answer, SlaError> {
    if agreed.availability.is_none() && agreed.event_limit.is_none() {
        return Err(SlaError::Nothing);
    }
    let costs = draws.costs(agreed.brownout_weight);
    let budget = |availability: f64| -> Result<Budget, SlaError> {
        let all = (1.0 - availability) * agreed.period;
        let left = all - agreed.spent;
        if left <= 0.0 {
            return Err(SlaError::Overspent { spent: agreed.spent, budget: all });
        }
        let count = counted(Sum::of_one_of(&costs, left).most(agreed.confidence));
        Ok(Budget { all, left, cost: mean(&costs), count })
    };
    let budget = agreed.availability.map(budget).transpose()?;
    let downtimes = draws.costs(0.0);
    let events = agreed.event_limit.map(|limit| {
        let exceeding = |downtimes: &Vec<f64>| {
            downtimes.iter().filter(|down| **down > limit).count() as f64 / downtimes.len() as f64
        };
        let shares: Vec<f64> = downtimes.iter().map(exceeding).collect();
        let count = if shares.iter().all(|share| *share == 0.0) {
            Count::Unlimited
        } else {
            counted(without(&shares, agreed.confidence))
        };
        Events { limit, exceeding: shares.iter().sum::<f64>() / shares.len() as f64, count }
    });
    let number = |count: Option<Count>| match count {
        Some(Count::Most(count)) => count,
        _ => u64::MAX,
    };
    let by = (number(budget.map(|budget| budget.count)), number(events.map(|events| events.count)));
    let binding = match by {
        (u64::MAX, u64::MAX) => Binding::None,
        (budget, event) if event < budget => Binding::Event,
        _ => Binding::Budget,
    };
    Ok(Answer { budget, events, binding })
}

/// The most migrations of which none exceeds a limit, with this confidence: of n none does with probability (1 − share)^n,
/// the share being one of these, each as likely.
fn without(shares: &[f64], confidence: f64) -> u64 {
    let fits = |count: u64| {
        let none = |share: &f64| libm::pow(1.0 - share, count as f64);
        shares.iter().map(none).sum::<f64>() / shares.len() as f64 >= confidence
    };
    let (mut fit, mut not) = (0, COUNT_MAX);
    if fits(not) {
        return COUNT_MAX;
    }
    while not - fit > 1 {
        let middle = u64::midpoint(fit, not);
        if fits(middle) { fit = middle } else { not = middle }
    }
    fit
}

fn counted(count: u64) -> Count {
    if count >= COUNT_MAX { Count::Unlimited } else { Count::Most(count) }
}

/// What so many migrations leave of a period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Remaining {
    /// Mean availability.
    pub mean: f64,
    /// The availability that is reached or exceeded with the stated confidence.
    pub at_confidence: f64,
}

/// The availability that remains with `count` migrations in a period (at least one).
pub fn remaining(draws: &Draws, agreed: &Agreement, count: u64) -> Remaining {
    let costs = draws.costs(agreed.brownout_weight);
    let n = count as f64;
    // Far beyond what any confidence asks for; the lattice ends there.
    let limit = |costs: &Vec<f64>| {
        let mean = costs.iter().sum::<f64>() / costs.len() as f64;
        let variance = costs.iter().map(|cost| (cost - mean).powi(2)).sum::<f64>() / costs.len() as f64;
        let largest = costs.iter().copied().fold(0.0, f64::max);
        (n * mean + 12.0 * (n * variance).sqrt() + largest).min(n * largest)
    };
    let limit = costs.iter().map(limit).fold(f64::MIN_POSITIVE, f64::max);
    let most = Sum::of_one_of(&costs, limit).quantile(count, agreed.confidence).min(limit);
    let availability = |cost: f64| (1.0 - (cost + agreed.spent) / agreed.period).max(0.0);
    Remaining { mean: availability(n * mean(&costs)), at_confidence: availability(most) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    const MONTH: f64 = 30.0 * 86_400.0;

    fn agreed() -> Agreement {
        Agreement {
            availability: Some(0.9995),
            period: MONTH,
            event_limit: None,
            brownout_weight: 0.0,
            spent: 0.0,
            confidence: 0.95,
        }
    }

    fn draws(downtime: &[f64]) -> Draws {
        Draws { downtime: downtime.to_vec(), brownout: vec![10.0; downtime.len()], common: vec![0.0] }
    }

    #[test]
    fn an_error_that_all_migrations_share_costs_confidence() {
        let with = |common: &[f64]| {
            let draws = Draws { common: common.to_vec(), ..draws(&[0.9, 1.0, 1.1]) };
            let answer = most(&draws, &Agreement { event_limit: Some(1.15), ..agreed() }).unwrap();
            let Count::Most(count) = answer.budget.unwrap().count else { panic!("a number") };
            (count, answer.events.unwrap(), remaining(&draws, &agreed(), 1_000))
        };
        let ((alone, events, left), (shared, events_shared, left_shared)) = (with(&[0.0]), with(&[-0.1, 0.0, 0.1]));
        assert!((1_285..=1_296).contains(&alone), "{alone}");
        assert!((1_170..=1_178).contains(&shared), "a tenth more each: {shared}");
        assert_eq!((events.exceeding, events.count), (0.0, Count::Unlimited));
        assert!((events_shared.exceeding - 1.0 / 9.0).abs() < 1e-12, "{events_shared:?}");
        assert_eq!(events_shared.count, Count::Most(0), "one in three that a third of them exceeds it");
        assert!((left.mean - left_shared.mean).abs() < 1e-12 && left.at_confidence > left_shared.at_confidence);
    }

    #[test]
    fn three_and_a_half_nines_of_a_month_are_1296_seconds() {
        let answer = most(&draws(&[0.5]), &agreed()).unwrap();
        let budget = answer.budget.unwrap();
        assert!((budget.all - 1_296.0).abs() < 1e-6);
        // The lattice is a little careful: never too many, at most a fifth of a per cent too few.
        let count = |draws: &Draws, agreed: &Agreement| match most(draws, agreed).unwrap().count() {
            Count::Most(count) => count,
            Count::Unlimited => panic!("it is bounded"),
        };
        assert_eq!(answer.binding, Binding::Budget);
        assert!((2_586..=2_592).contains(&count(&draws(&[0.5]), &agreed())));
        let spent = Agreement { spent: 1_196.0, ..agreed() };
        assert!((199..=200).contains(&count(&draws(&[0.5]), &spent)));
        let weighed = Agreement { brownout_weight: 0.05, ..agreed() };
        assert!((1_293..=1_296).contains(&count(&draws(&[0.5]), &weighed)));
    }

    #[test]
    fn whichever_limit_allows_less_binds() {
        let mixed: Vec<f64> = (0..1_000).map(|index| if index < 3 { 2.0 } else { 0.1 }).collect();
        let both = Agreement { event_limit: Some(1.0), ..agreed() };
        let answer = most(&draws(&mixed), &both).unwrap();
        // 0.997^17 is 0.950, 0.997^18 is 0.947.
        assert_eq!((answer.binding, answer.count()), (Binding::Event, Count::Most(17)));
        let never = Agreement { event_limit: Some(5.0), ..agreed() };
        assert_eq!(most(&draws(&mixed), &never).unwrap().binding, Binding::Budget);
        let alone = Agreement { availability: None, event_limit: Some(5.0), ..agreed() };
        assert_eq!(most(&draws(&mixed), &alone).unwrap().count(), Count::Unlimited);
        let always = Agreement { event_limit: Some(0.05), ..agreed() };
        assert_eq!(most(&draws(&mixed), &always).unwrap().count(), Count::Most(0));
    }

    #[test]
    fn what_cannot_be_answered_says_why() {
        let nothing = Agreement { availability: None, ..agreed() };
        assert_eq!(most(&draws(&[1.0]), &nothing), Err(SlaError::Nothing));
        let over = Agreement { spent: 2_000.0, ..agreed() };
        let said = most(&draws(&[1.0]), &over).unwrap_err().to_string();
        assert_eq!(said, "2000.0 s of downtime were spent already, and the budget of the period is 1296.0 s");
    }

    #[test]
    fn what_remains_is_the_reverse_of_what_fits() {
        let draws = draws(&[0.2, 0.3, 0.3, 4.0]);
        let Count::Most(count) = most(&draws, &agreed()).unwrap().count() else { panic!("it is bounded") };
        assert!(remaining(&draws, &agreed(), count).at_confidence >= 0.9995 - 1e-6);
        assert!(remaining(&draws, &agreed(), count + 20).at_confidence < 0.9995);
        let one = remaining(&draws, &agreed(), 1);
        assert!((one.mean - (1.0 - 1.2 / MONTH)).abs() < 1e-12);
        assert!((one.at_confidence - (1.0 - 4.0 / MONTH)).abs() < 1e-9);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_stated_confidence_is_kept_by_draws(downs in proptest::collection::vec(0.05..30.0f64, 2..30), seed in any::<u64>()) {
            let draws = draws(&downs);
            let Count::Most(count) = most(&draws, &agreed()).unwrap().count() else { panic!("it is bounded") };
            let mut random = Random::new(seed);
            let rounds = 2_000;
            let mut share = |count: u64| {
                let month = |_: &i32| (0..count).map(|_| downs[random.below(downs.len())]).sum::<f64>() <= 1_296.0;
                (0..rounds).filter(month).count() as f64 / f64::from(rounds)
            };
            // Two per cent for the draws, and as many migrations more are too many.
            prop_assert!(share(count) > 0.93, "{count} fit in {} of months", share(count));
            prop_assert!(share(count + count / 10 + 2) < 0.95);
        }
    }
}
