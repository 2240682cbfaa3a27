//! Fitting a platform to migrations in rounds, whose rounds were seen: Xen's.
//!
//! ```text
//!  request │ active: first page │ round 1 │ round 2 │ … │ decided │ stopped │ last round │ source done │ resumed
//!           └ connect ┘          └ first_round ┘└─ round + page × n ─┘└ stop ┘  stop_pages             └ resume
//! ```
//! A live round lasts as long as its bytes take on the link and its pages in the sender, and a walk that does not depend on
//! them: a straight line through what rounds of different sizes took beyond the link gives both. What suspending writes is
//! what the last round had beyond the simulated one; the toolstack's part of the downtime is what the simulated downtime
//! lacks.

use std::time::Duration;

use super::{Calibration, Residual, Sighting, median, scatter, seconds};
use crate::dirty::PageSource;
use crate::link::Link;
use crate::outcome::Completed;
use crate::platform::Platform;
use crate::units::{ByteCount, PageCount};

/// What was measured of a migration in rounds. Points in time are spans since its request.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The first page.
    pub active: Duration,
    /// Live rounds, at least the first: when each began, and how many pages it sent.
    pub live: Vec<(Duration, PageCount)>,
    /// Pages sent while the guest was suspended.
    pub last: PageCount,
    /// The last live round was over.
    pub decided: Duration,
    /// The guest's last instruction on the source.
    pub stopped: Duration,
    /// The guest's first instruction on the target.
    pub resumed: Duration,
    /// Bytes sent.
    pub sent: ByteCount,
}

impl Measured {
    /// Bytes that are no pages.
    fn beside_pages(&self) -> f64 {
        let pages = self.live.iter().map(|(_, pages)| pages.get()).sum::<u64>() + self.last.get();
        self.sent.get() as f64 - (pages * PAGE_BYTES) as f64
    }
}

/// Bytes that a page takes with what frames it, and pages of a batch (Xen 4.6 and later, algorithms V1 and V6).
const PAGE_BYTES: u64 = 4104;
const BATCH_PAGES: u64 = 1024;
/// Fewer rounds than this tell no slope.
const ROUNDS_MIN: usize = 6;

/// Fits a platform called `name` to `sightings` (at least one); what they do not tell is `base`'s. `None` where one of
/// them does not converge in the simulation, or has no history to start from.
pub fn calibrate<S: PageSource>(
    name: &str,
    (base, link): (&Platform, Link),
    sightings: &[Sighting<'_, S, Measured>],
) -> Option<Calibration> {
    assert!(!sightings.is_empty(), "something was seen");
    let of = |value: &dyn Fn(&Measured) -> f64| median(sightings.iter().map(|one| value(&one.measured)));
    let mut unsettled = Vec::new();
    let work = Work::fitted(&link, base, sightings);
    if work.is_none() {
        let why = format!("page_seconds, round_seconds: fewer than {ROUNDS_MIN} later rounds, or all alike; kept");
        unsettled.push(why);
    }
    let work = work.unwrap_or(Work { round: base.round.as_secs_f64(), page: base.page_cost.as_secs_f64() });
    let beside = of(&|seen| seen.beside_pages());
    let first_round_bytes = ByteCount::new((beside - base.device_state.get() as f64).max(0.0) as u64);
    let first_round = first_round(work, first_round_bytes, &link, sightings).unwrap_or_else(|why| {
        unsettled.push(format!("first_round_seconds: {why}; kept"));
        base.first_round
    });
    unsettled
        .push("sync_seconds_per_gib, device_state_bytes, device_state_seconds, guest_speed: never fitted".to_owned());
    let mut platform = Platform {
        name: name.to_owned(),
        connect: seconds(of(&|m| m.active.as_secs_f64())),
        setup: Duration::ZERO,
        first_round_bytes,
        page_cost: seconds(work.page),
        round: seconds(work.round),
        first_round,
        stop: seconds(of(&|m| m.stopped.saturating_sub(m.decided).as_secs_f64())),
        stop_pages: PageCount::ZERO,
        resume: Duration::ZERO,
        ..base.clone()
    };
    // What is short of a large figure is mostly that figure's own error: small ones tell more of what is always added.
    let short = |platform: &Platform, seen: &dyn Fn(&Measured) -> f64, told: &dyn Fn(&Completed) -> f64| {
        let short = |one: &Sighting<'_, S, Measured>| {
            let seen = seen(&one.measured);
            Some((seen - one.median(platform, link, told)?, 1.0 / seen.max(f64::MIN_POSITIVE)))
        };
        Some(weighted_median(sightings.iter().map(short).collect::<Option<Vec<(f64, f64)>>>()?))
    };
    let in_the_last = |done: &Completed| done.iterations.last().map_or(0.0, |last| last.sent.pages().get() as f64);
    let pages = short(&platform, &|seen| seen.last.get() as f64, &in_the_last)?;
    platform.stop_pages = PageCount::new(pages.max(0.0) as u64);
    let downtime = |done: &Completed| done.downtime.total().as_secs_f64();
    let resume = short(&platform, &|seen| (seen.resumed.saturating_sub(seen.stopped)).as_secs_f64(), &downtime)?;
    if resume < 0.0 {
        unsettled.push(format!("resume_seconds: the fit would take {:.1} ms off nothing, kept at 0", -resume * 1e3));
    }
    platform.resume = seconds(resume);
    let residuals: Vec<Residual> = sightings.iter().map(|one| residual(one, &platform, link)).collect::<Option<_>>()?;
    scatter(&mut platform, sightings, &residuals);
    let Link { payload_share, sender_buffer, .. } = link;
    Some(Calibration { platform, payload_share, sender_buffer, residuals, unsettled })
}

/// How much longer a first round must have been for its walk, as a share, for that to be told from the names on the link.
const WALK_SEEN: f64 = 0.02;

/// How long the sender walks through the frame numbers in a first round. The link carries their names meanwhile, so that is
/// seen where the link was the faster of both.
///
/// # Errors
/// Why it is not known.
fn first_round<S>(
    work: Work,
    bytes: ByteCount,
    link: &Link,
    sightings: &[Sighting<'_, S, Measured>],
) -> Result<Duration, &'static str> {
    let walk = |one: &Sighting<'_, S, Measured>| {
        let link = one.link(*link);
        let on_the_link = bytes.transfer_time_ceil(link.goodput()).as_secs_f64();
        let walk = work.first_round(&one.measured, &link)?;
        let [(began, _), (ended, _)] = *one.measured.live.first_chunk()?;
        let told = on_the_link + WALK_SEEN * ended.saturating_sub(began).as_secs_f64();
        Some(Some(walk).filter(|walk| bytes.get() == 0 || *walk > told))
    };
    let seen: Vec<Option<f64>> = sightings.iter().filter_map(walk).collect();
    let walks: Vec<f64> = seen.iter().copied().flatten().collect();
    match (seen.is_empty(), walks.is_empty()) {
        (true, _) => Err("nobody saw when the second round began"),
        (false, true) => Err("the link was the slower in all first rounds"),
        (false, false) => Ok(seconds(median(walks.into_iter()))),
    }
}

fn residual<S: PageSource>(one: &Sighting<'_, S, Measured>, platform: &Platform, link: Link) -> Option<Residual> {
    let ratio = |told: &dyn Fn(&Completed) -> f64, seen: f64| Some(one.median(platform, link, told)? / seen);
    let seen = &one.measured;
    let downtime = seen.resumed.saturating_sub(seen.stopped).as_secs_f64();
    let downtime_ratio = ratio(&|done| done.downtime.total().as_secs_f64(), downtime)?;
    Some(Residual {
        migration_time: Some(ratio(&|done| done.migration_time.as_secs_f64(), seen.resumed.as_secs_f64())?),
        downtime: Some(downtime_ratio),
        downtime_seconds: Some((downtime_ratio - 1.0) * downtime),
        sent: Some(ratio(&|done| done.sent_bytes.get() as f64, seen.sent.get() as f64)?),
    })
}

/// What a round takes beside the link, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Work {
    /// Whatever is in it.
    round: f64,
    /// For each of its pages.
    page: f64,
}

impl Work {
    /// The straight line of least squares through (pages, what the round took beyond the link). `None` where the rounds are
    /// too few or alike.
    fn fitted<S>(link: &Link, base: &Platform, sightings: &[Sighting<'_, S, Measured>]) -> Option<Work> {
        let of_one = |one: &Sighting<'_, S, Measured>| -> Vec<(f64, f64)> {
            let link = one.link(*link);
            let later = one.measured.live.windows(2).skip(1);
            later.map(|pair| (pair[0].1.get() as f64, beyond_the_link(pair, &link))).collect()
        };
        let rounds: Vec<(f64, f64)> = sightings.iter().flat_map(of_one).collect();
        let count = rounds.len() as f64;
        let (pages, taken) = rounds.iter().fold((0.0, 0.0), |sum, round| (sum.0 + round.0, sum.1 + round.1));
        let (pages, taken) = (pages / count, taken / count);
        let spread: f64 = rounds.iter().map(|round| (round.0 - pages).powi(2)).sum();
        if rounds.len() < ROUNDS_MIN || spread / count < (0.1 * pages).powi(2) {
            return None;
        }
        let page = rounds.iter().map(|round| (round.0 - pages) * (round.1 - taken)).sum::<f64>() / spread;
        // Neither can be less than nothing: the other then has it all.
        Some(match (page.max(0.0), taken - page.max(0.0) * pages) {
            (page, round) if round >= 0.0 => Work { round, page },
            _ => Work { round: 0.0, page: (taken / pages).max(base.page_cost.as_secs_f64().min(taken / pages)) },
        })
    }

    /// What the first round took beside its pages and the walk.
    fn first_round(self, seen: &Measured, link: &Link) -> Option<f64> {
        let pair = seen.live.get(..2)?;
        Some(beyond_the_link(pair, link) - self.page * pair[0].1.get() as f64 - self.round)
    }
}

/// The value below which half of the weight lies, of (value, weight), at least one.
fn weighted_median(mut values: Vec<(f64, f64)>) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut below = 0.0;
    let reaches_half = |(_, weight): &&(f64, f64)| {
        below += weight;
        below >= half
    };
    let middle = values.iter().find(reaches_half);
    middle.unwrap_or(&values[values.len() - 1]).0
}

/// How much longer the first round of a pair took than its bytes on the link; while a batch is put together the link carries
/// what the sender's buffer holds.
fn beyond_the_link(pair: &[(Duration, PageCount)], link: &Link) -> f64 {
    let [(began, pages), (ended, _)] = [pair[0], pair[1]];
    let goodput = link.goodput().get() as f64;
    let batches = pages.get().div_ceil(BATCH_PAGES) as f64;
    let buffered = batches * link.sender_buffer.get() as f64 / goodput;
    ended.saturating_sub(began).as_secs_f64() - (pages.get() * PAGE_BYTES) as f64 / goodput + buffered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::dirty::{PageReplay, PageReplayBuilder};
    use crate::guest::Guest;
    use crate::outcome::Outcome;
    use crate::simulate::Scenario;
    use crate::units::BytesPerSec;

    const PAGES: u32 = 30_000;

    fn replay(per_window: u32) -> PageReplay {
        let mut builder = PageReplayBuilder::new(PageCount::new(PAGES.into()), PageCount::new(PAGES.into()));
        for window in 0..300 {
            let written = (0..per_window).map(|page| (page * 7919 + window * 104_729) % 5_000);
            let unique = std::collections::BTreeSet::from_iter(written);
            builder.window(Duration::from_millis(100), &unique.into_iter().collect::<Vec<_>>(), &[]);
        }
        builder.build().unwrap()
    }

    fn sighting<'a>(truth: &Platform, link: Link, source: &'a PageReplay) -> Sighting<'a, PageReplay, Measured> {
        let guest = Guest { name: "g".into(), memory: PageCount::new(PAGES.into()), page_size: Guest::PAGE_SIZE };
        let algorithm = Algorithm::named("xen-4.10").unwrap();
        let scenario = Scenario {
            guest: guest.clone(),
            link,
            platform: truth.clone(),
            algorithm: algorithm.clone(),
            horizon: Duration::from_secs(600),
        };
        let Outcome::Completed(done) = scenario.run(source, Duration::from_secs(1)) else { panic!("converges") };
        let resumed = done.migration_time;
        let (last, live) = done.iterations.split_last().unwrap();
        let measured = Measured {
            active: truth.connect,
            live: live
                .iter()
                .map(|round| (round.start.since(crate::units::SimTime::ZERO), round.sent.pages()))
                .collect(),
            last: last.sent.pages(),
            decided: resumed - done.downtime_reported,
            stopped: resumed - done.downtime.total(),
            resumed,
            sent: done.sent_bytes,
        };
        Sighting { source, guest, algorithm, line_rate: link.line_rate, measured }
    }

    #[test]
    fn small_figures_weigh_more() {
        assert_eq!(weighted_median(vec![(5.0, 1.0), (1.0, 1.0), (3.0, 1.0)]), 3.0);
        assert_eq!(weighted_median(vec![(250.0, 1.0 / 300.0), (-100.0, 1.0 / 4_000.0), (90.0, 1.0 / 4_000.0)]), 250.0);
    }

    #[test]
    fn a_known_platform_of_rounds_is_found_again() {
        let base =
            Platform { device_state: ByteCount::new(16 << 10), sync_cost_per_gib: Duration::ZERO, ..Platform::free() };
        let truth = Platform {
            connect: Duration::from_millis(250),
            page_cost: Duration::from_micros(110),
            round: Duration::from_millis(70),
            first_round: Duration::from_millis(3_500),
            first_round_bytes: ByteCount::new(8_000_000),
            stop: Duration::from_millis(60),
            stop_pages: PageCount::new(250),
            resume: Duration::from_millis(300),
            ..base.clone()
        };
        let at = |bytes| Link {
            payload_share: 1.0,
            sender_buffer: ByteCount::new(65_536),
            ..Link::ethernet(BytesPerSec::new(bytes))
        };
        let sources = [replay(20), replay(100), replay(400)];
        let sightings: Vec<_> = sources
            .iter()
            .flat_map(|source| [10_000_000, 20_000_000].map(|rate| sighting(&truth, at(rate), source)))
            .collect();
        let found = calibrate("found", (&base, at(1)), &sightings).unwrap();
        let close = |name: &str, found: Duration, wanted: Duration, tolerance: f64| {
            let (found, wanted) = (found.as_secs_f64(), wanted.as_secs_f64());
            assert!((found - wanted).abs() <= tolerance * wanted, "{name}: {found} against {wanted}");
        };
        let Platform { connect, page_cost, round, first_round, stop, resume, stop_pages, .. } = found.platform;
        close("connect", connect, truth.connect, 0.01);
        close("page", page_cost, truth.page_cost, 0.05);
        close("round", round, truth.round, 0.15);
        close("first round", first_round, truth.first_round, 0.03);
        close("stop", stop, truth.stop, 0.01);
        close("resume", resume, truth.resume, 0.1);
        assert!(stop_pages.get().abs_diff(250) < 15, "{stop_pages:?}");
        assert!(found.platform.first_round_bytes.get().abs_diff(8_000_000) < 5_000);
        assert!(found.residuals.iter().all(|residual| (residual.migration_time.unwrap() - 1.0).abs() < 0.02));
        assert_eq!(found.unsettled.len(), 1, "{:?}", found.unsettled);
        // Over a link that takes longer for the names than the sender for the walk, the walk is not seen.
        let base_of_rounds = Platform { page_cost: truth.page_cost, round: truth.round, ..base.clone() };
        let slow = [sighting(&truth, at(2_000_000), &sources[0])];
        let hidden = calibrate("hidden", (&base_of_rounds, at(1)), &slow).unwrap();
        assert_eq!(hidden.platform.first_round, base.first_round);
        assert!(hidden.unsettled.iter().any(|why| why.starts_with("first_round_seconds: the link was")));
        let few = calibrate("few", (&base, at(1)), &sightings[..1]).unwrap();
        assert!(few.unsettled[0].starts_with("page_seconds, round_seconds: fewer than 6"), "{:?}", few.unsettled);
    }
}
