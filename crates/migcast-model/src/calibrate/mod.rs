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

pub mod rounds;

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

/// What was measured of a migration. Points in time are spans since its request.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The hypervisor's own set-up time.
    pub setup: Duration,
    /// Memory began to be copied.
    pub active: Duration,
    /// The guest's last instruction on the source.
    pub stopped: Duration,
    /// The source was done.
    pub source_done: Duration,
    /// The guest's first instruction on the target.
    pub resumed: Duration,
    /// The hypervisor's own downtime.
    pub downtime_reported: Duration,
    /// Bytes sent.
    pub sent: ByteCount,
    /// Bytes that are no pages: device state and what frames it.
    pub overhead: ByteCount,
    /// What stood in the sender's buffer when the guest stopped, where it was looked at.
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

/// Predicted ÷ actual of one sighting, with the fitted platform.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    /// Of the time until the guest ran on the target.
    pub migration_time: f64,
    /// Of the guest's downtime.
    pub downtime: f64,
    /// Predicted minus actual downtime, in seconds.
    pub downtime_seconds: f64,
    /// Of the bytes sent.
    pub sent: f64,
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
    let measured = |of: fn(&Measured) -> Duration| median(sightings.iter().map(|one| of(&one.measured).as_secs_f64()));
    let mut fit = Fit {
        platform: Platform {
            name: name.to_owned(),
            connect: seconds(measured(|m| m.active.saturating_sub(m.setup))),
            setup: seconds(measured(|m| m.setup)),
            stop: seconds(measured(|m| (m.stopped + m.downtime_reported).saturating_sub(m.source_done))),
            device_state: ByteCount::new(median(sightings.iter().map(|one| one.measured.overhead.get() as f64)) as u64),
            device_state_cost: Duration::ZERO,
            resume: Duration::ZERO,
            ..base.clone()
        },
        base: base.clone(),
        payload_share: link.payload_share,
        sender_buffer: link.sender_buffer,
    };
    let queues: Vec<f64> = sightings.iter().filter_map(|one| one.measured.send_queue).map(|q| q.get() as f64).collect();
    if !queues.is_empty() {
        fit.sender_buffer = ByteCount::new((median(queues.into_iter()) / SEND_QUEUE_FILL) as u64);
    }
    let mut state_short = 0.0;
    for _ in 0..ROUNDS {
        fit.search_link(sightings);
        fit.search_guest_speed(sightings);
        let short = fit.shortfall(sightings, |m| m.downtime_reported, |done| done.downtime_reported)?;
        state_short = fit.platform.device_state_cost.as_secs_f64() + short;
        fit.platform.device_state_cost = seconds(state_short);
    }
    let after_source = |done: &Completed| done.downtime.drain + done.downtime.resume;
    let resume_short = fit.shortfall(sightings, |m| m.resumed.saturating_sub(m.source_done), after_source)?;
    fit.platform.resume = seconds(resume_short);
    let unsettled = unsettled(&fit, state_short, resume_short, sightings);
    let residuals = sightings.iter().map(|one| fit.residual(one)).collect::<Option<Vec<_>>>()?;
    let times = root_mean_square(residuals.iter().map(|residual| libm::log(residual.migration_time)));
    let downtimes = root_mean_square(residuals.iter().map(|residual| residual.downtime_seconds));
    fit.platform.time_scatter = times.max(TIME_SCATTER_MIN);
    fit.platform.downtime_scatter = seconds(downtimes).max(DOWNTIME_SCATTER_MIN);
    let Fit { platform, payload_share, sender_buffer, .. } = fit;
    Some(Calibration { platform, payload_share, sender_buffer, residuals, unsettled })
}

/// What the fit did not settle, in words.
fn unsettled<S>(fit: &Fit, state_short: f64, resume_short: f64, sightings: &[Sighting<'_, S>]) -> Vec<String> {
    let mut lines = vec!["page_seconds, sync_seconds_per_gib: never fitted, kept".to_owned()];
    if fit.platform.zero_page_cost == fit.base.zero_page_cost {
        lines.push("zero_page_seconds: these migrations do not depend on it, kept".to_owned());
    }
    if sightings.iter().all(|one| one.measured.send_queue.is_none()) {
        lines.push("sender_buffer_bytes: nobody looked at it, kept".to_owned());
    }
    for (name, short) in [("device_state_seconds", state_short), ("resume_seconds", resume_short)] {
        if short < 0.0 {
            lines.push(format!("{name}: the fit would take {:.1} ms off nothing, kept at 0", -short * 1e3));
        }
    }
    lines
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
    fn forecast<S: PageSource>(&self, one: &Sighting<'_, S>) -> Forecast {
        let link =
            Link { line_rate: one.line_rate, payload_share: self.payload_share, sender_buffer: self.sender_buffer };
        let scenario = Scenario {
            guest: one.guest.clone(),
            link,
            platform: self.platform.clone(),
            algorithm: one.algorithm.clone(),
            horizon: one.measured.resumed * 10,
        };
        one.forecast(&scenario)
    }

    fn median<S: PageSource>(&self, one: &Sighting<'_, S>, quantity: impl Fn(&Completed) -> f64) -> Option<f64> {
        self.forecast(one).quantile(quantity, 0.5)
    }

    /// Squared logarithmic errors of the source's time and of the bytes.
    fn loss<S: PageSource>(&self, sightings: &[Sighting<'_, S>]) -> f64 {
        let square = |predicted: f64, actual: f64| libm::log(predicted / actual).powi(2);
        let one = |one: &Sighting<'_, S>| {
            let forecast = self.forecast(one);
            let time = forecast.quantile(|done| done.migration_time_reported.as_secs_f64(), 0.5)?;
            let sent = forecast.quantile(|done| done.sent_bytes.get() as f64, 0.5)?;
            let measured = &one.measured;
            Some(square(time, measured.source_done.as_secs_f64()) + square(sent, measured.sent.get() as f64))
        };
        sightings.iter().map(|sighting| one(sighting).unwrap_or(f64::INFINITY)).sum()
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

    /// By how many seconds a prediction falls short of what was measured, in the median.
    fn shortfall<S: PageSource>(
        &self,
        sightings: &[Sighting<'_, S>],
        measured: impl Fn(&Measured) -> Duration,
        predicted: impl Fn(&Completed) -> Duration,
    ) -> Option<f64> {
        let short = |one: &Sighting<'_, S>| {
            let predicted = self.median(one, |done| predicted(done).as_secs_f64())?;
            Some(measured(&one.measured).as_secs_f64() - predicted)
        };
        Some(median(sightings.iter().map(short).collect::<Option<Vec<_>>>()?.into_iter()))
    }

    fn residual<S: PageSource>(&self, one: &Sighting<'_, S>) -> Option<Residual> {
        let forecast = self.forecast(one);
        let ratio =
            |quantity: &dyn Fn(&Completed) -> f64, actual: f64| Some(forecast.quantile(quantity, 0.5)? / actual);
        let measured = &one.measured;
        let downtime = measured.resumed.saturating_sub(measured.stopped).as_secs_f64();
        let downtime_ratio = ratio(&|done| done.downtime.total().as_secs_f64(), downtime)?;
        Some(Residual {
            migration_time: ratio(&|done| done.migration_time.as_secs_f64(), measured.resumed.as_secs_f64())?,
            downtime: downtime_ratio,
            downtime_seconds: (downtime_ratio - 1.0) * downtime,
            sent: ratio(&|done| done.sent_bytes.get() as f64, measured.sent.get() as f64)?,
        })
    }
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
            setup: truth.setup,
            active: truth.connect + truth.setup,
            stopped,
            source_done,
            resumed,
            downtime_reported: done.downtime_reported,
            sent: done.sent_bytes,
            overhead: done.sent_bytes - done.sent.bytes(page_bytes(Guest::PAGE_SIZE)),
            send_queue: Some(ByteCount::new((link.sender_buffer.get() as f64 * SEND_QUEUE_FILL) as u64)),
        };
        Sighting { source, guest, algorithm, line_rate: link.line_rate, measured }
    }

    #[test]
    fn what_the_fit_does_not_settle_is_said() {
        let fit = Fit {
            platform: Platform::default(),
            base: Platform::default(),
            payload_share: 0.9,
            sender_buffer: Link::LINUX_SENDER_BUFFER,
        };
        let lines = unsettled::<PageReplay>(&fit, 0.0, -0.0042, &[]);
        let expected = [
            "page_seconds, sync_seconds_per_gib: never fitted, kept",
            "zero_page_seconds: these migrations do not depend on it, kept",
            "sender_buffer_bytes: nobody looked at it, kept",
            "resume_seconds: the fit would take 4.2 ms off nothing, kept at 0",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_known_platform_is_found_again() {
        let truth = Platform {
            connect: Duration::from_millis(11),
            setup: Duration::from_millis(35),
            stop: Duration::from_millis(6),
            zero_page_cost: Duration::from_micros(15),
            device_state_cost: Duration::from_millis(40),
            resume: Duration::from_millis(70),
            ..Platform::default()
        };
        let link = Link {
            line_rate: BytesPerSec::from_bits(100_000_000),
            payload_share: 0.88,
            sender_buffer: ByteCount::new(1_000_000),
        };
        // Only guests that differ in what is zero tell the cost of a zero page from that of a byte.
        let (idle, busy) = (replay(0, 10_000), replay(40, 28_000));
        let sightings = [(&idle, 0), (&idle, 3_000), (&idle, 7_000), (&busy, 1_100), (&busy, 8_300)];
        let sightings = sightings.map(|(source, start)| sighting(&truth, link, source, start));
        let fitted = calibrate("found", (&Platform::default(), Link::ethernet(link.line_rate)), &sightings).unwrap();
        let close = |name: &str, found: f64, wanted: f64, tolerance: f64| {
            assert!((found - wanted).abs() <= tolerance, "{name}: {found} against {wanted}");
        };
        close("payload share", fitted.payload_share, 0.88, 0.01);
        // Most of what zero pages cost is hidden: meanwhile the buffer drains.
        close("zero page", fitted.platform.zero_page_cost.as_secs_f64(), 15e-6, 2.5e-6);
        close("device state", fitted.platform.device_state_cost.as_secs_f64(), 0.040, 0.008);
        close("resume", fitted.platform.resume.as_secs_f64(), 0.070, 0.005);
        close("stop", fitted.platform.stop.as_secs_f64(), 0.006, 0.0011);
        for residual in &fitted.residuals {
            close("time", residual.migration_time, 1.0, 0.02);
            close("downtime", residual.downtime, 1.0, 0.06);
            close("bytes", residual.sent, 1.0, 0.02);
        }
        assert!(fitted.platform.time_scatter >= TIME_SCATTER_MIN);
        assert_eq!(fitted.unsettled, ["page_seconds, sync_seconds_per_gib: never fitted, kept"]);
    }
}
