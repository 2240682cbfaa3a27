//! What is known of a guest's past, opened for forecasts.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;
use migcast_history::contents::Contents;
use migcast_history::format::Manifest;
use migcast_model::dirty::{ConstantRate, CountedRates, RateSteps};
use migcast_model::due::DueSource;
use migcast_model::guest::Guest;
use migcast_model::simulate::Scenario;

use super::rated::Rated;
use super::recorded::Recorded;
use super::scenario::{Known, Options, Request};
use crate::report::Prediction;

/// A guest's past.
#[derive(Debug)]
pub(super) enum Past {
    /// Which pages it wrote.
    Recorded(Box<Recorded>),
    /// How many it wrote.
    Rated(Box<Rated>),
}

impl Past {
    /// Opens the history in `dir` for forecasts that are told `options`.
    pub(super) fn open(dir: &Path, options: &Options) -> anyhow::Result<Past> {
        Ok(match Contents::open(dir)? {
            Contents::Windows(history) => {
                Past::Recorded(Box::new(Recorded::new(history, options.start, options.from)?))
            }
            Contents::Rates(series) => Past::Rated(Box::new(Rated::new(series)?)),
        })
    }

    /// The two halves of the history in `dir`, each as if the other were not known; `None` where it cannot be cut in two.
    pub(super) fn halves(dir: &Path, options: &Options) -> anyhow::Result<Option<[Past; 2]>> {
        if matches!(Contents::open(dir)?, Contents::Rates(_)) {
            return Ok(None);
        }
        let halves = Recorded::halves(dir, options.from)?;
        Ok(halves.map(|halves| halves.map(|half| Past::Recorded(Box::new(half)))))
    }

    /// What options it gives a meaning to.
    pub(super) fn known(&self) -> Known {
        match self {
            Past::Recorded(_) => Known::Pages,
            Past::Rated(_) => Known::Rates,
        }
    }

    /// Whose past it is.
    pub(super) fn guest(&self) -> &Guest {
        match self {
            Past::Recorded(recorded) => recorded.guest(),
            Past::Rated(rated) => rated.guest(),
        }
    }

    /// What it says of itself.
    pub(super) fn manifest(&self) -> &Manifest {
        match self {
            Past::Recorded(recorded) => recorded.manifest(),
            Past::Rated(rated) => rated.manifest(),
        }
    }

    /// The guest as one of many that are moved.
    pub(super) fn subject(&self, request: &Request) -> anyhow::Result<Subject<'_>> {
        match self {
            Past::Recorded(recorded) => recorded.subject(request),
            Past::Rated(rated) => rated.subject(request),
        }
    }

    /// Forecasts from it.
    pub(super) fn forecast(&self, request: &Request, progress: &ProgressBar) -> anyhow::Result<Prediction> {
        match self {
            Past::Recorded(recorded) => recorded.forecast(request, progress),
            Past::Rated(rated) => rated.forecast(request, progress),
        }
    }
}

/// A guest that is to be moved, with what a simulation needs.
pub(super) struct Subject<'a> {
    pub(super) scenario: Scenario,
    pub(super) writes: SubjectWrites<'a>,
    /// Where in its past it may be, at least one.
    pub(super) starts: Vec<Duration>,
    /// What a reader should know of its past.
    pub(super) warnings: Vec<String>,
}

/// What it writes.
pub(super) enum SubjectWrites<'a> {
    /// What was recorded.
    Held(&'a dyn DueSource),
    /// Rates, by counting.
    Counted(CountedRates),
}

impl SubjectWrites<'_> {
    /// A constant rate.
    pub(super) fn at_rate(rate: &ConstantRate) -> SubjectWrites<'static> {
        SubjectWrites::Counted(CountedRates::new(RateSteps::new(rate, &[(Duration::ZERO, rate.rate())])))
    }

    /// As one over which migrations are simulated.
    pub(super) fn source(&self) -> &dyn DueSource {
        match self {
            SubjectWrites::Held(source) => *source,
            SubjectWrites::Counted(counted) => counted,
        }
    }
}
