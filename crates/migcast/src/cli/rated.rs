//! A guest of which only rates are known, opened for forecasts.

use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use migcast_history::format::Manifest;
use migcast_history::rates::{Rate, RateSeries};
use migcast_model::dirty::{ConstantRate, CountedRates, RateSteps};
use migcast_model::guest::Guest;
use migcast_model::quantity::show_duration;
use migcast_model::units::{ByteCount, PageCount, PagesPerSec};

use super::past::{Subject, SubjectWrites};
use super::scenario::{Basis, Request, Start};
use crate::report::{HistoryUsed, Prediction, RatesUsed};

/// Starting points of a series of few rates: so many weigh each by the time it was in force, to a percent.
const STARTS_MIN: usize = 100;

/// A rate series with its guest.
#[derive(Debug)]
pub(super) struct Rated {
    series: RateSeries,
    guest: Guest,
}

impl Rated {
    /// For forecasts from `series`.
    pub(super) fn new(series: RateSeries) -> anyhow::Result<Rated> {
        let manifest = series.manifest();
        let memory = PageCount::new(manifest.memory_bytes() / manifest.page_size_bytes);
        ensure!(memory.get() < 1 << 32, "a rate series of a guest of 2^32 pages or more is not supported");
        let page_size = ByteCount::new(manifest.page_size_bytes);
        let guest = Guest { name: manifest.guest_name.clone(), memory, page_size };
        Ok(Rated { series, guest })
    }

    /// Whose rates they are.
    pub(super) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// What the series says of itself.
    pub(super) fn manifest(&self) -> &Manifest {
        self.series.manifest()
    }

    /// Forecasts with AVG at the rate in force at each start.
    pub(super) fn forecast(&self, request: &Request, progress: &ProgressBar) -> anyhow::Result<Prediction> {
        let options = &request.options;
        let guest = self.guest.clone();
        let algorithm = options.algorithm(&guest, Some(self.manifest()))?;
        let steps = self.steps(request)?;
        let any = options.constant_rate(&guest, PagesPerSec::ZERO);
        let source = RateSteps::new(&any, &steps);
        let starts: Vec<Duration> = steps.iter().map(|(at, _)| *at).collect();
        let wall = if options.start.is_everywhere() { self.on_the_wall(&starts) } else { Vec::new() };
        let model = options.rates_model(self.used(&steps, &any));
        let basis = Basis::new(guest, algorithm, &source, starts, model);
        request.forecast(Basis { wall, warnings: self.warnings(), ..basis }, progress)
    }

    /// The guest as one of many that are moved.
    pub(super) fn subject(&self, request: &Request) -> anyhow::Result<Subject<'_>> {
        let (algorithm, _) = request.options.algorithm(&self.guest, Some(self.manifest()))?;
        let scenario = request.scenario(self.guest.clone(), algorithm)?;
        let steps = self.steps(request)?;
        let any = request.options.constant_rate(&self.guest, PagesPerSec::ZERO);
        let starts = steps.iter().map(|(at, _)| *at).collect();
        let writes = SubjectWrites::Counted(CountedRates::new(RateSteps::new(&any, &steps)));
        Ok(Subject { scenario, writes, starts, warnings: self.warnings() })
    }

    /// Rates of writes from which a migration is to start, with when each is.
    fn steps(&self, request: &Request) -> anyhow::Result<Vec<(Duration, PagesPerSec)>> {
        let options = &request.options;
        let in_force = self.in_force(options.start, request.starts_max)?;
        let step = |(at, rate): &(Duration, &Rate)| {
            let rate = options.rate_of(&self.guest, rate.written as f64, rate.span, "give a larger set")?;
            Ok((*at, rate))
        };
        in_force.iter().map(step).collect()
    }

    /// The rates from which a migration is to start, with when that is: time for which there are rates, since the first.
    fn in_force(&self, start: Start, most: usize) -> anyhow::Result<Vec<(Duration, &Rate)>> {
        let series = &self.series;
        let last = series.rates().last().context("a series has a rate")?;
        match start {
            Start::Best | Start::All => {
                let count = series.rates().len().max(STARTS_MIN).min(most);
                Ok(series.spread(u32::try_from(count).unwrap_or(u32::MAX)))
            }
            Start::Now => Ok(vec![(Duration::ZERO, last)]),
            Start::At(moment) => {
                let rate = series.at(moment.unix_ns(series.start_unix_ns())).with_context(|| {
                    let begin = jiff::Timestamp::from_nanosecond(series.start_unix_ns().into()).unwrap_or_default();
                    let length = show_duration(series.duration());
                    format!("--start: outside of the series, which is {length} from {begin:.0} on")
                })?;
                Ok(vec![(Duration::ZERO, rate)])
            }
        }
    }

    /// When starts were that are counted in the time for which there are rates.
    fn on_the_wall(&self, starts: &[Duration]) -> Vec<(Duration, jiff::Timestamp)> {
        let rates = self.series.rates();
        let until = |before: &mut Duration, rate: &Rate| {
            *before += rate.length();
            Some(*before)
        };
        let ends: Vec<Duration> = rates.iter().scan(Duration::ZERO, until).collect();
        let at = |start: &Duration| {
            let place = ends.partition_point(|end| end <= start);
            let (rate, end) = (rates.get(place)?, ends.get(place)?);
            // As long before the rate's end as the start is before the end of its time.
            let at = i128::from(rate.end_unix_ns) - (*end - *start).as_nanos().cast_signed();
            Some((*start, jiff::Timestamp::from_nanosecond(at).ok()?))
        };
        starts.iter().filter_map(at).collect()
    }

    fn used(&self, steps: &[(Duration, PagesPerSec)], guest: &ConstantRate) -> RatesUsed {
        let manifest = self.manifest();
        let start = jiff::Timestamp::from_nanosecond(self.series.start_unix_ns().into());
        let rates = || steps.iter().map(|(_, rate)| rate.get());
        RatesUsed {
            history: HistoryUsed {
                path: self.series.dir().display().to_string(),
                guest_id: manifest.guest_id.to_string(),
                hypervisor: "imported".to_owned(),
                start: start.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
                recorded: self.series.known_duration(),
                windows: self.series.rates().len(),
                sampled_one_in: manifest.sample.one_in,
                by_index: false,
            },
            mean: PagesPerSec::new(rates().sum::<f64>() / steps.len() as f64),
            min: PagesPerSec::new(rates().fold(f64::INFINITY, f64::min)),
            max: PagesPerSec::new(rates().fold(0.0, f64::max)),
            working_set: guest.working_set(),
        }
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![
            "rate series, AVG-like: says nothing of which pages are written again, nor of zero pages; `migcast record` \
             tells both"
                .to_owned(),
            "a rate that a hypervisor reports during a migration depends on the link and is none of the guest's: leave such \
             times out with `migcast history import --migrating FROM..TO`"
                .to_owned(),
        ];
        let (known, all) = (self.series.known_duration(), self.series.duration());
        if known < all {
            let (missing, all) = (show_duration(all - known), show_duration(all));
            warnings.push(format!("for {missing} of {all} there is no rate; no migration starts there"));
        }
        warnings
    }
}
