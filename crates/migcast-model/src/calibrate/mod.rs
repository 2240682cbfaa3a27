//! Fitting a platform to migrations that were really seen.
//!
//! What can be read off a migration is read off: set-up, stopping, device state, the sender's buffer. What cannot is
//! searched for with the simulator itself, one group after another, each by what it alone moves:
//!
//! ```text
//!  payload share, cost per zero page, guest speed  ◄── when the source was done, bytes sent
//!  cost of the device state                        ◄── the reported downtime
//!  resume                                          ◄── from the source's end to the target's first instruction
//!  scatter                                         ◄── what is left of times and downtimes
//! ```
//! So for QEMU. Of Xen the rounds are seen, which tell more: [`rounds`].

pub mod review;
pub mod rounds;

use std::rc::Rc;
use std::time::Duration;

use crate::algorithm::Algorithm;
use crate::dirty::PageSource;
use crate::forecast::Forecast;
use crate::guest::Guest;
use crate::link::Link;
use crate::outcome::Completed;
use crate::platform::Platform;
use crate::simulate::Scenario;
use crate::units::{ByteCount, BytesPerSec};

/// One completed migration that was really seen, with the history its guest had left before.
#[derive(Clone, Debug)]
pub struct Sighting<'a, S, M = Measured> {
    /// What the guest was known to write.
    pub source: &'a S,
    /// The guest.
    pub guest: Guest,
    /// The hypervisor's rules and the settings that held.
    pub algorithm: Algorithm,
    /// Line rate of the link.
    pub line_rate: BytesPerSec,
    /// What was measured.
    pub measured: M,
}

/// What was measured of a migration, as far as it was. Points in time are spans since its request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// How long it took by whoever says: the longest span that is known. Simulations are given ten times as long.
    pub took: Duration,
    /// The hypervisor's own set-up time.
    pub setup: Option<Duration>,
    /// Memory began to be copied.
    pub active: Option<Duration>,
    /// The guest's last instruction on the source.
    pub stopped: Option<Duration>,
    /// The source was done.
    pub source_done: Option<Duration>,
    /// The guest's first instruction on the target.
    pub resumed: Option<Duration>,
    /// The guest's downtime.
    pub downtime: Option<Duration>,
    /// The hypervisor's own downtime.
    pub downtime_reported: Option<Duration>,
    /// Bytes sent.
    pub sent: Option<ByteCount>,
    /// Bytes that are no pages: device state and what frames it.
    pub overhead: Option<ByteCount>,
    /// What stood in the sender's buffer when the guest stopped.
    pub send_queue: Option<ByteCount>,
}

/// A fitted platform, the links it has, and how well it fits.
#[derive(Clone, Debug)]
pub struct Calibration {
    /// The platform, its scatter included.
    pub platform: Platform,
    /// Payload bytes per byte on the line.
    pub payload_share: f64,
    /// The sender's buffer.
    pub sender_buffer: ByteCount,
    /// Predicted over actual, for each sighting in order.
    pub residuals: Vec<Residual>,
    /// Parameters that these sightings say nothing of, or that the fit would have liked beyond what is possible: one line
    /// each, for people.
    pub unsettled: Vec<String>,
}

/// Predicted ÷ actual of one sighting, with the fitted platform; `None` of what was not measured.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// Of the time until the guest ran on the target, or else until the source was done.
    pub migration_time: Option<f64>,
    /// Of the guest's downtime, or else of the hypervisor's own.
    pub downtime: Option<f64>,
    /// Predicted minus actual downtime, in seconds.
    pub downtime_seconds: Option<f64>,
    /// Of the bytes sent.
    pub sent: Option<f64>,
}

/// The scatter that the residuals of these sightings show, of times as a share and of downtimes in seconds; the platform's own
/// where nobody looked.
fn scatter<S, M>(platform: &mut Platform, sightings: &[Sighting<'_, S, M>], residuals: &[Residual]) {
    let times: Vec<f64> = residuals.iter().filter_map(|residual| Some(libm::log(residual.migration_time?))).collect();
    if !times.is_empty() {
        platform.time_scatter = root_mean_square(times.into_iter()).max(TIME_SCATTER_MIN);
    }
    let mut groups: Vec<(&Sighting<'_, S, M>, Vec<f64>)> = Vec::new();
    for (one, residual) in sightings.iter().zip(residuals) {
        let Some(off) = residual.downtime_seconds else { continue };
        match groups.iter_mut().find(|(first, _)| first.asks_like(one)) {
            Some((_, group)) => group.push(off),
            None => groups.push((one, vec![off])),
        }
    }
    let groups: Vec<Vec<f64>> = groups.into_iter().map(|(_, group)| group).collect();
    if !groups.is_empty() {
        let all = root_mean_square(groups.iter().flatten().copied());
        platform.downtime_scatter = seconds(all).max(DOWNTIME_SCATTER_MIN);
        platform.downtime_scatter_common = seconds(in_common(&groups)).min(platform.downtime_scatter);
    }
}

/// Standard deviation about nothing of what each group has in common: of the group's means, less what their own scatter
/// makes of it (one-way analysis of variance, random effects). 0 where no group has two.
fn in_common(groups: &[Vec<f64>]) -> f64 {
    let mean = |group: &[f64]| group.iter().sum::<f64>() / group.len() as f64;
    let own: f64 = groups.iter().map(|group| group.iter().map(|off| (off - mean(group)).powi(2)).sum::<f64>()).sum();
    let freedom: usize = groups.iter().map(|group| group.len() - 1).sum();
    if freedom == 0 {
        return 0.0;
    }
    let own = own / freedom as f64;
    let common = groups.iter().map(|group| mean(group).powi(2) - own / group.len() as f64).sum::<f64>();
    (common / groups.len() as f64).max(0.0).sqrt()
}

/// What completed is given so long in the simulation.
const HORIZON: Duration = Duration::from_secs(24 * 3600);
/// Starting points simulated per sighting: enough for a median.
const STARTS: u32 = 15;
/// What a sender's buffer holds on average while it limits the sender: between two thirds (the writer is woken) and all.
const SEND_QUEUE_FILL: f64 = 5.0 / 6.0;
/// Rounds of the search over the coupled parameters.
const ROUNDS: usize = 2;
/// Steps of the line searches; each cuts the interval to 62 %.
const FINE_STEPS: usize = 12;
const COARSE_STEPS: usize = 7;
/// What F exceeds by chance once in twenty, for one parameter and many residuals.
const CRITICAL_F: f64 = 3.84;
/// Where parameters are searched for.
const PAYLOAD_SHARE_RANGE: (f64, f64) = (0.5, 1.0);
const ZERO_PAGE_COST_RANGE: (f64, f64) = (0.0, 20e-6);
const GUEST_SPEED_RANGE: (f64, f64) = (0.3, 1.0);
/// Scatter that is assumed at least: a few migrations may agree by chance.
const TIME_SCATTER_MIN: f64 = 0.01;
const DOWNTIME_SCATTER_MIN: Duration = Duration::from_millis(5);

/// Fits a platform called `name` to `sightings` (at least one); what they do not tell is `base`'s. `None` where one of them does not converge in the
/// simulation, or has no history to start from.
pub fn calibrate<S: PageSource>(
    name: &str,
    (base, link): (&Platform, Link),
    sightings: &[Sighting<'_, S>],
) -> Option<Calibration> {
    assert!(!sightings.is_empty(), "something was seen");
    // The median over those of whom it is known.
    let measured = |of: fn(&Measured) -> Option<Duration>| {
        let seen: Vec<f64> = sightings.iter().filter_map(|one| Some(of(&one.measured)?.as_secs_f64())).collect();
        (!seen.is_empty()).then(|| seconds(median(seen.into_iter())))
    };
    let bytes = |of: fn(&Measured) -> Option<ByteCount>| {
        let seen: Vec<f64> = sightings.iter().filter_map(|one| Some(of(&one.measured)?.get() as f64)).collect();
        (!seen.is_empty()).then(|| median(seen.into_iter()))
    };
    let connect = measured(|m| Some(m.active?.saturating_sub(m.setup?)));
    let setup = measured(|m| m.setup);
    let stop = measured(|m| Some((m.stopped? + m.downtime_reported?).saturating_sub(m.source_done?)));
    let device_state = bytes(|m| m.overhead).map(|bytes| ByteCount::new(bytes as u64));
    let mut unsettled = vec!["page_seconds, sync_seconds_per_gib: never fitted, kept".to_owned()];
    let readings = [
        ("connect_seconds", connect.is_some()),
        ("setup_seconds", setup.is_some()),
        ("stop_seconds", stop.is_some()),
        ("device_state_bytes", device_state.is_some()),
    ];
    let unread: Vec<&str> = readings.iter().filter(|(_, is_read)| !is_read).map(|(name, _)| *name).collect();
    if !unread.is_empty() {
        unsettled.push(format!("{}: these migrations do not tell, kept", unread.join(", ")));
    }
    let mut fit = Fit {
        platform: Platform {
            name: name.to_owned(),
            connect: connect.unwrap_or(base.connect),
            setup: setup.unwrap_or(base.setup),
            stop: stop.unwrap_or(base.stop),
            device_state: device_state.unwrap_or(base.device_state),
            ..base.clone()
        },
        base: base.clone(),
        payload_share: link.payload_share,
        sender_buffer: link.sender_buffer,
    };
    match bytes(|m| m.send_queue) {
        Some(queue) => fit.sender_buffer = ByteCount::new((queue / SEND_QUEUE_FILL) as u64),
        None => unsettled.push("sender_buffer_bytes: nobody looked at it, kept".to_owned()),
    }
    let state_is_seen = sightings.iter().any(|one| one.measured.downtime_reported.is_some());
    let mut state_short = 0.0;
    if state_is_seen {
        fit.platform.device_state_cost = Duration::ZERO;
    }
    let after_source = |m: &Measured| Some(m.resumed?.saturating_sub(m.source_done?));
    let resume = if sightings.iter().any(|one| after_source(&one.measured).is_some()) {
        fit.platform.resume = Duration::ZERO;
        Resume::AfterSource
    } else if sightings.iter().any(|one| one.measured.downtime.is_some()) {
        fit.platform.resume = Duration::ZERO;
        Resume::InDowntime
    } else {
        Resume::Unseen
    };
    for _ in 0..ROUNDS {
        fit.search_link(sightings);
        fit.search_guest_speed(sightings);
        if state_is_seen {
            let short = fit.shortfall(sightings, |m| m.downtime_reported, |done| done.downtime_reported)?;
            state_short = fit.platform.device_state_cost.as_secs_f64() + short;
            fit.platform.device_state_cost = seconds(state_short);
        }
    }
    let resume_short = match resume {
        Resume::AfterSource => {
            fit.shortfall(sightings, after_source, |done| done.downtime.drain + done.downtime.resume)?
        }
        Resume::InDowntime => fit.shortfall(sightings, |m| m.downtime, |done| done.downtime.total())?,
        Resume::Unseen => fit.platform.resume.as_secs_f64(),
    };
    fit.platform.resume = seconds(resume_short);
    if fit.platform.zero_page_cost == fit.base.zero_page_cost {
        unsettled.push("zero_page_seconds: these migrations do not depend on it, kept".to_owned());
    }
    let unseen = [("device_state_seconds", state_is_seen), ("resume_seconds", resume != Resume::Unseen)];
    for (name, _) in unseen.iter().filter(|(_, is_seen)| !is_seen) {
        unsettled.push(format!("{name}: these migrations do not tell, kept"));
    }
    for (name, short) in [("device_state_seconds", state_short), ("resume_seconds", resume_short)] {
        if short < 0.0 {
            unsettled.push(format!("{name}: the fit would take {:.1} ms off nothing, kept at 0", -short * 1e3));
        }
    }
    let residuals = fit.residuals(sightings)?;
    scatter(&mut fit.platform, sightings, &residuals);
    let Fit { platform, payload_share, sender_buffer, .. } = fit;
    Some(Calibration { platform, payload_share, sender_buffer, residuals, unsettled })
}

/// What tells of the target's resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resume {
    /// What passed between the source's end and the guest's first instruction.
    AfterSource,
    /// The guest's downtime as a whole, which then has to bear what the rest of the fit left over.
    InDowntime,
    /// Nothing.
    Unseen,
}

impl<S: PageSource, M> Sighting<'_, S, M> {
    /// The median over starting points of what the simulation says; `None` if too many never end.
    fn median(&self, platform: &Platform, link: Link, quantity: impl Fn(&Completed) -> f64) -> Option<f64> {
        let scenario = Scenario {
            guest: self.guest.clone(),
            link: self.link(link),
            platform: platform.clone(),
            algorithm: self.algorithm.clone(),
            horizon: HORIZON,
        };
        self.forecast(&scenario).quantile(quantity, 0.5)
    }

    fn forecast(&self, scenario: &Scenario) -> Forecast {
        let length = self.source.length().unwrap_or(Duration::from_secs(1));
        let starts: Vec<Duration> = (0..STARTS).map(|index| length * index / STARTS).collect();
        Forecast::new(scenario, self.source, &starts, || {})
    }
}

impl<S, M> Sighting<'_, S, M> {
    /// Whether another one is forecast alike: the same past, rules and link.
    fn asks_like(&self, other: &Self) -> bool {
        std::ptr::eq(self.source, other.source)
            && (self.line_rate, self.algorithm.name()) == (other.line_rate, other.algorithm.name())
            && self.algorithm.settings() == other.algorithm.settings()
    }

    /// The link that this migration took, shaped like `link`.
    fn link(&self, link: Link) -> Link {
        Link { line_rate: self.line_rate, ..link }
    }
}

/// The parameters while they are searched for.
#[derive(Clone, Debug)]
struct Fit {
    platform: Platform,
    /// What it began with.
    base: Platform,
    payload_share: f64,
    sender_buffer: ByteCount,
}

impl Fit {
    /// The forecasts of all sightings; those that are forecast alike share one.
    fn forecasts<S: PageSource>(&self, sightings: &[Sighting<'_, S>]) -> Vec<Rc<Forecast>> {
        let mut made: Vec<(&Sighting<'_, S>, Rc<Forecast>)> = Vec::new();
        let forecast = |one| {
            if let Some((_, forecast)) = made.iter().find(|(first, _)| first.asks_like(one)) {
                return Rc::clone(forecast);
            }
            let alike = sightings.iter().filter(|other| other.asks_like(one));
            let took = alike.map(|other| other.measured.took).max().unwrap_or_default();
            let link =
                Link { line_rate: one.line_rate, payload_share: self.payload_share, sender_buffer: self.sender_buffer };
            let scenario = Scenario {
                guest: one.guest.clone(),
                link,
                platform: self.platform.clone(),
                algorithm: one.algorithm.clone(),
                horizon: took * 10,
            };
            made.push((one, Rc::new(one.forecast(&scenario))));
            Rc::clone(&made[made.len() - 1].1)
        };
        sightings.iter().map(forecast).collect()
    }

    /// Squared logarithmic errors of the source's time, or else of the guest's, and of the bytes, as far as they were measured.
    fn loss<S: PageSource>(&self, sightings: &[Sighting<'_, S>]) -> f64 {
        let square = |predicted: f64, actual: f64| libm::log(predicted / actual).powi(2);
        let one = |(one, forecast): (&Sighting<'_, S>, Rc<Forecast>)| {
            let measured = &one.measured;
            let until_done = forecast.quantile(|done| done.migration_time_reported.as_secs_f64(), 0.5)?;
            let until_resumed = forecast.quantile(|done| done.migration_time.as_secs_f64(), 0.5)?;
            let sent = forecast.quantile(|done| done.sent_bytes.get() as f64, 0.5)?;
            let pair = |predicted: f64, actual: Option<Duration>| Some((predicted, actual?.as_secs_f64()));
            let time = pair(until_done, measured.source_done).or(pair(until_resumed, measured.resumed));
            let of_time = time.map_or(0.0, |(predicted, actual)| square(predicted, actual));
            let of_sent = measured.sent.map_or(0.0, |bytes| square(sent, bytes.get() as f64));
            Some(of_time + of_sent)
        };
        sightings.iter().zip(self.forecasts(sightings)).map(|pair| one(pair).unwrap_or(f64::INFINITY)).sum()
    }

    /// Payload share and cost per zero page, which lengthen the same times: searched for together.
    fn search_link<S: PageSource>(&mut self, sightings: &[Sighting<'_, S>]) {
        let with = |share: f64, cost: f64| {
            let mut fit = self.clone();
            (fit.payload_share, fit.platform.zero_page_cost) = (share, Duration::from_secs_f64(cost));
            fit
        };
        let best_share = |cost: f64| golden(PAYLOAD_SHARE_RANGE, FINE_STEPS, |share| with(share, cost).loss(sightings));
        // The other parameters have moved since the last round: what it found has to show again that it is needed.
        let cost = self.base.zero_page_cost.as_secs_f64();
        let share_alone = with(best_share(cost).0, cost);
        let (cost, _) = golden(ZERO_PAGE_COST_RANGE, COARSE_STEPS, |cost| best_share(cost).1);
        let both = with(best_share(cost).0, cost);
        *self = share_alone.or(both, sightings);
    }

    fn search_guest_speed<S: PageSource>(&mut self, sightings: &[Sighting<'_, S>]) {
        let with = |speed: f64| {
            let mut fit = self.clone();
            fit.platform.guest_speed = speed;
            fit
        };
        let (speed, _) = golden(GUEST_SPEED_RANGE, COARSE_STEPS, |speed| with(speed).loss(sightings));
        *self = with(self.base.guest_speed).or(with(speed), sightings);
    }

    /// The fit with one parameter more, if it is better by more than chance would have it: by the F test, at 95 %, of
    /// residuals that scatter by [`TIME_SCATTER_MIN`] at least. Otherwise what was seen does not depend on that parameter,
    /// or not enough to tell it.
    fn or<S: PageSource>(self, with_one_more: Fit, sightings: &[Sighting<'_, S>]) -> Fit {
        let (without, with) = (self.loss(sightings), with_one_more.loss(sightings));
        let of_one_residual = (with / (2 * sightings.len()) as f64).max(TIME_SCATTER_MIN.powi(2));
        if without - with > CRITICAL_F * of_one_residual { with_one_more } else { self }
    }

    /// By how many seconds a prediction falls short of what was measured, in the median over those of whom it is known, of
    /// which there is one at least.
    fn shortfall<S: PageSource>(
        &self,
        sightings: &[Sighting<'_, S>],
        measured: impl Fn(&Measured) -> Option<Duration>,
        predicted: impl Fn(&Completed) -> Duration,
    ) -> Option<f64> {
        let short = |(one, forecast): (&Sighting<'_, S>, Rc<Forecast>)| {
            let measured = measured(&one.measured)?.as_secs_f64();
            let predicted = forecast.quantile(|done| predicted(done).as_secs_f64(), 0.5);
            Some(predicted.map(|predicted| measured - predicted))
        };
        Some(median(
            sightings.iter().zip(self.forecasts(sightings)).filter_map(short).collect::<Option<Vec<_>>>()?.into_iter(),
        ))
    }

    /// `None` where the simulation of one does not converge.
    fn residuals<S: PageSource>(&self, sightings: &[Sighting<'_, S>]) -> Option<Vec<Residual>> {
        sightings.iter().zip(self.forecasts(sightings)).map(|(one, forecast)| residual(one, &forecast)).collect()
    }
}

fn residual<S>(one: &Sighting<'_, S>, forecast: &Forecast) -> Option<Residual> {
    let told = |quantity: &dyn Fn(&Completed) -> f64| forecast.quantile(quantity, 0.5);
    let Measured { source_done, resumed, downtime, downtime_reported, sent, .. } = one.measured;
    let until_resumed = told(&|done| done.migration_time.as_secs_f64())?;
    let until_done = told(&|done| done.migration_time_reported.as_secs_f64())?;
    let down = told(&|done| done.downtime.total().as_secs_f64())?;
    let down_reported = told(&|done| done.downtime_reported.as_secs_f64())?;
    let bytes = told(&|done| done.sent_bytes.get() as f64)?;
    let pair = |predicted: f64, actual: Option<Duration>| Some((predicted, actual?.as_secs_f64()));
    let time = pair(until_resumed, resumed).or(pair(until_done, source_done));
    let downtime = pair(down, downtime).or(pair(down_reported, downtime_reported));
    Some(Residual {
        migration_time: time.map(|(predicted, actual)| predicted / actual),
        downtime: downtime.map(|(predicted, actual)| predicted / actual),
        downtime_seconds: downtime.map(|(predicted, actual)| predicted - actual),
        sent: sent.map(|sent| bytes / sent.get() as f64),
    })
}

/// Golden-section search for the least value of `of` in a range: where it lies, and what it is.
fn golden((mut low, mut high): (f64, f64), steps: usize, of: impl Fn(f64) -> f64) -> (f64, f64) {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let look = |at: f64| (at, of(at));
    let mut left = look(high - GOLDEN * (high - low));
    let mut right = look(low + GOLDEN * (high - low));
    for _ in 0..steps {
        if left.1 < right.1 {
            high = right.0;
            right = left;
            left = look(high - GOLDEN * (high - low));
        } else {
            low = left.0;
            left = right;
            right = look(low + GOLDEN * (high - low));
        }
    }
    if left.1 < right.1 { left } else { right }
}

/// A span of time; what is less than none counts as none.
fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0))
}

/// A standard deviation about no error at all.
fn root_mean_square(errors: impl Iterator<Item = f64>) -> f64 {
    let squares: Vec<f64> = errors.map(|error| error * error).collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::qemu::page_bytes;
    use crate::dirty::{PageReplay, PageReplayBuilder};
    use crate::outcome::Outcome;
    use crate::units::PageCount;

    const PAGES: u32 = 30_000;

    /// A guest that writes so many pages in each 100 ms, with data in its first pages.
    fn replay(per_window: u32, data: u32) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(PAGES.into()), PageCount::new(PAGES.into()));
        builder.zero_at_start(std::iter::once(data..PAGES));
        for window in 0..100 {
            let written: Vec<u32> = (0..per_window).map(|page| (page * 7 + window * 13) % 5_000).collect();
            let unique = std::collections::BTreeSet::from_iter(written);
            builder.window(Duration::from_millis(100), &unique.into_iter().collect::<Vec<_>>(), &[]);
        }
        builder.build().unwrap()
    }

    /// Migrations of a known platform, as they would have been seen.
    fn sighting<'a>(truth: &Platform, link: Link, source: &'a PageReplay, start: u64) -> Sighting<'a, PageReplay> {
        let guest = Guest { name: "g".into(), memory: PageCount::new(PAGES.into()), page_size: Guest::PAGE_SIZE };
        let algorithm = Algorithm::named("qemu-10.0").unwrap();
        let scenario = Scenario {
            guest: guest.clone(),
            link,
            platform: truth.clone(),
            algorithm: algorithm.clone(),
            horizon: Duration::from_secs(60),
        };
        let Outcome::Completed(done) = scenario.run(source, Duration::from_millis(start)) else { panic!("converges") };
        let resumed = done.migration_time;
        let stopped = resumed - done.downtime.total();
        let source_done = stopped + done.downtime.pages + done.downtime.device_state;
        let measured = Measured {
            took: resumed,
            setup: Some(truth.setup),
            active: Some(truth.connect + truth.setup),
            stopped: Some(stopped),
            source_done: Some(source_done),
            resumed: Some(resumed),
            downtime: Some(done.downtime.total()),
            downtime_reported: Some(done.downtime_reported),
            sent: Some(done.sent_bytes),
            overhead: Some(done.sent_bytes - done.sent.bytes(page_bytes(Guest::PAGE_SIZE))),
            send_queue: Some(ByteCount::new((link.sender_buffer.get() as f64 * SEND_QUEUE_FILL) as u64)),
        };
        Sighting { source, guest, algorithm, line_rate: link.line_rate, measured }
    }

    const LINK: Link = Link {
        line_rate: BytesPerSec::from_bits(100_000_000),
        payload_share: 0.88,
        sender_buffer: ByteCount::new(1_000_000),
    };

    fn truth() -> Platform {
        Platform {
            connect: Duration::from_millis(11),
            setup: Duration::from_millis(35),
            stop: Duration::from_millis(6),
            zero_page_cost: Duration::from_micros(15),
            device_state_cost: Duration::from_millis(40),
            resume: Duration::from_millis(70),
            ..Platform::default()
        }
    }

    fn close(name: &str, found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "{name}: {found} against {wanted}");
    }

    #[test]
    fn what_alike_migrations_have_in_common_is_told_from_their_own_scatter() {
        assert_eq!(in_common(&[vec![1.0], vec![-1.0]]), 0.0, "nobody knows");
        close("all in common", in_common(&[vec![1.0, 1.0], vec![-1.0, -1.0]]), 1.0, 1e-12);
        close("nothing", in_common(&[vec![1.0, -1.0], vec![-1.0, 1.0]]), 0.0, 1e-12);
        // Means 3 and -1, own variance 2: the means of two have 1 of it.
        close("both", in_common(&[vec![2.0, 4.0], vec![-2.0, 0.0]]), 2.0, 1e-12);
    }

    #[test]
    fn what_only_the_hypervisors_own_figures_tell_is_fitted_and_the_rest_kept() {
        let (idle, busy) = (replay(0, 10_000), replay(40, 28_000));
        let sightings = [(&idle, 0), (&idle, 3_000), (&busy, 1_100), (&busy, 8_300)].map(|(source, start)| {
            let mut one = sighting(&truth(), LINK, source, start);
            // As `query-migrate` has it.
            let Measured { took, setup, source_done, downtime_reported, sent, .. } = one.measured;
            one.measured = Measured { took, setup, source_done, downtime_reported, sent, ..Measured::default() };
            one
        });
        let base = Platform::default();
        let link = Link { payload_share: 0.94, ..LINK };
        let fitted = calibrate("found", (&base, link), &sightings).unwrap();
        close("payload share", fitted.payload_share, 0.88, 0.01);
        close("setup", fitted.platform.setup.as_secs_f64(), 0.035, 1e-6);
        assert_eq!((fitted.platform.connect, fitted.platform.resume), (base.connect, base.resume));
        let expected = [
            "page_seconds, sync_seconds_per_gib: never fitted, kept",
            "connect_seconds, stop_seconds, device_state_bytes: these migrations do not tell, kept",
            "sender_buffer_bytes: nobody looked at it, kept",
            "resume_seconds: these migrations do not tell, kept",
        ];
        let unsettled: Vec<&str> =
            fitted.unsettled.iter().map(String::as_str).filter(|line| !line.starts_with("zero_page")).collect();
        assert_eq!(unsettled, expected);
        for residual in &fitted.residuals {
            close("time", residual.migration_time.unwrap(), 1.0, 0.02);
            close("downtime", residual.downtime.unwrap(), 1.0, 0.06);
        }
    }

    #[test]
    fn a_downtime_from_stop_to_resume_alone_puts_what_is_missing_into_the_resume() {
        let idle = replay(0, 10_000);
        // One guest alone does not tell the cost of a zero page from that of a byte: it has the platform's own.
        let truth = Platform { zero_page_cost: Platform::default().zero_page_cost, ..truth() };
        let sightings = [0, 3_000, 7_000].map(|start| {
            let mut one = sighting(&truth, LINK, &idle, start);
            // As `domjobinfo` has it.
            let Measured { took, resumed, downtime, sent, .. } = one.measured;
            one.measured = Measured { took, resumed, downtime, sent, ..Measured::default() };
            one
        });
        let fitted = calibrate("found", (&Platform::default(), LINK), &sightings).unwrap();
        for residual in &fitted.residuals {
            close("downtime", residual.downtime.unwrap(), 1.0, 0.06);
        }
        assert!(fitted.unsettled.iter().any(|line| line.starts_with("device_state_seconds: ")));
    }

    #[test]
    fn a_known_platform_is_found_again() {
        let (truth, link) = (truth(), LINK);
        // Only guests that differ in what is zero tell the cost of a zero page from that of a byte.
        let (idle, busy) = (replay(0, 10_000), replay(40, 28_000));
        let sightings = [(&idle, 0), (&idle, 3_000), (&idle, 7_000), (&busy, 1_100), (&busy, 8_300)];
        let sightings = sightings.map(|(source, start)| sighting(&truth, link, source, start));
        let fitted = calibrate("found", (&Platform::default(), Link::ethernet(link.line_rate)), &sightings).unwrap();
        close("payload share", fitted.payload_share, 0.88, 0.01);
        // Most of what zero pages cost is hidden: meanwhile the buffer drains.
        close("zero page", fitted.platform.zero_page_cost.as_secs_f64(), 15e-6, 2.5e-6);
        close("device state", fitted.platform.device_state_cost.as_secs_f64(), 0.040, 0.008);
        close("resume", fitted.platform.resume.as_secs_f64(), 0.070, 0.005);
        close("stop", fitted.platform.stop.as_secs_f64(), 0.006, 0.0011);
        for residual in &fitted.residuals {
            close("time", residual.migration_time.unwrap(), 1.0, 0.02);
            close("downtime", residual.downtime.unwrap(), 1.0, 0.06);
            close("bytes", residual.sent.unwrap(), 1.0, 0.02);
        }
        assert!(fitted.platform.time_scatter >= TIME_SCATTER_MIN);
        assert_eq!(fitted.unsettled, ["page_seconds, sync_seconds_per_gib: never fitted, kept"]);
    }
}
