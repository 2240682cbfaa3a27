//! One simulated migration on a link of its own.

use std::sync::Arc;
use std::time::Duration;

use crate::algorithm::qemu::FirstPass;
use crate::algorithm::{Algorithm, Ends, Request};
use crate::bounds::Bounds;
use crate::due::DueSource;
use crate::guest::Guest;
use crate::link::Link;
use crate::migration::{Event, Migration};
use crate::outcome::Outcome;
use crate::platform::Platform;
use crate::units::{BytesPerSec, SimTime};

/// Everything about a migration but what the guest writes and when it starts.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The guest.
    pub guest: Guest,
    /// The link, used by this migration alone.
    pub link: Link,
    /// The pair of hosts.
    pub platform: Platform,
    /// The hypervisor's rules and settings.
    pub algorithm: Algorithm,
    /// A migration that still copies then is counted as not converging.
    pub horizon: Duration,
}

impl Scenario {
    /// A horizon for a migration: three times what the whole memory takes as fast as this sender may and can send it,
    /// at least a minute; for an algorithm that ends by itself long enough to see it end.
    pub fn default_horizon(guest: &Guest, link: &Link, platform: &Platform, algorithm: &Algorithm) -> Duration {
        let scheme = algorithm.scheme();
        // QEMU sends a page a window however low its cap.
        let least = BytesPerSec::new(10 * guest.page_size.get());
        let rate = link.goodput().min(scheme.cap().map_or(link.goodput(), |cap| cap.max(least)));
        let cost = platform.page_cost.max(platform.zero_page_cost);
        let work = Duration::try_from_secs_f64(cost.as_secs_f64() * guest.memory.get() as f64).unwrap_or(Duration::MAX);
        let memory = guest.memory_bytes().transfer_time_ceil(rate).max(work);
        let whole = memory.saturating_add(scheme.downtime_aim() + platform.connect + platform.setup);
        let horizon = match scheme.ends() {
            Ends::Never => whole.saturating_mul(3),
            Ends::AfterSending { .. } => {
                Bounds::most(guest, link, platform, scheme.ends()).map_or(whole, |(longest, _)| longest)
            }
            Ends::AfterTime(limit) => whole.saturating_mul(3).saturating_add(limit),
        };
        // A manager that ends migrations is waited for.
        let patience = algorithm.manager().and_then(|manager| manager.manager().patience(guest));
        horizon
            .max(Duration::from_secs(60))
            .max(patience.map_or(Duration::ZERO, |patience| patience.saturating_add(whole)))
    }

    /// Simulates one migration that is requested `start` into the source.
    ///
    /// # Panics
    /// If guest and source differ in size.
    pub fn run<S: DueSource + ?Sized>(&self, source: &S, start: Duration) -> Outcome {
        self.run_sharing(None, source, start)
    }

    /// The same as one of several of this scenario, which share the work on their first passes.
    ///
    /// # Panics
    /// If guest and source differ in size.
    pub fn run_sharing<S: DueSource + ?Sized>(
        &self,
        first_pass: Option<&Arc<FirstPass>>,
        source: &S,
        start: Duration,
    ) -> Outcome {
        assert_eq!(self.guest.memory, source.memory(), "the source is this guest's");
        simulate(self.migration(first_pass, source, start), self.link.goodput(), SimTime::ZERO + self.horizon)
    }

    /// One migration that is requested `start` into the source, to be run by whoever grants it a rate.
    pub fn migration<'a, S: DueSource + ?Sized>(
        &'a self,
        first_pass: Option<&'a Arc<FirstPass>>,
        source: &'a S,
        start: Duration,
    ) -> Box<dyn Migration + 'a> {
        let due = source.due_set(start, self.algorithm.scheme().tracking());
        let request = Request { guest: &self.guest, link: &self.link, platform: &self.platform, first_pass };
        self.algorithm.migration(&request, due)
    }
}

/// Runs `migration` over a link that always carries `goodput`, until it completes, or still copies when `horizon` has
/// come. Once the guest is stopped nothing more becomes due, so the end is near and is waited for.
pub fn simulate(mut migration: impl Migration, goodput: BytesPerSec, horizon: SimTime) -> Outcome {
    let mut until = horizon;
    loop {
        match migration.advance(goodput, until) {
            Event::Completed(completed) => return Outcome::Completed(*completed),
            Event::IterationEnded => {}
            Event::Stopped => until = SimTime::MAX,
            Event::Paused => return Outcome::NotConverged(migration.progress()),
            Event::Cancelled => return Outcome::Cancelled(migration.progress()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::qemu::{Settings, UNLIMITED, Version};
    use crate::dirty::{ConstantRate, WritePattern};
    use crate::units::{ByteCount, PageCount, PagesPerSec};

    #[test]
    fn a_guest_that_is_stopped_before_the_horizon_is_migrated() {
        let guest = Guest::new("g", ByteCount::new(1_000 * 4096));
        let source = ConstantRate::new(guest.memory, PageCount::ZERO, PagesPerSec::ZERO, WritePattern::Uniform, 0);
        let mut algorithm = Algorithm::named("qemu-10.1").unwrap();
        algorithm.set("downtime-limit", "2s").unwrap();
        // 4 MB/s: the first window makes everything that is left, 0.9 s of it, fit into the limit.
        let link =
            Link { payload_share: 1.0, sender_buffer: ByteCount::ZERO, ..Link::ethernet(BytesPerSec::new(4_000_000)) };
        let scenario = |horizon| Scenario {
            guest: guest.clone(),
            link,
            platform: Platform::free(),
            algorithm: algorithm.clone(),
            horizon,
        };
        let outcome = scenario(Duration::from_millis(500)).run(&source, Duration::ZERO);
        let done = outcome.completed().expect("it stands still from 0.1 s on");
        assert!(done.migration_time > Duration::from_secs(1), "{:?}", done.migration_time);
        assert!(scenario(Duration::from_millis(50)).run(&source, Duration::ZERO).completed().is_none());
    }

    /// The default horizon of a million pages, 4.096 GB, over 100 MB/s: 40.96 s on the wire.
    fn horizon_of_a_million(max_bandwidth: BytesPerSec, page_cost: Duration, zero_page_cost: Duration) -> Duration {
        let guest = Guest::new("g", ByteCount::new(1_000_000 * 4096));
        let link = Link { payload_share: 1.0, ..Link::ethernet(BytesPerSec::new(100_000_000)) };
        let (connect, setup) = (Duration::from_secs(1), Duration::from_millis(40));
        let platform = Platform { connect, setup, page_cost, zero_page_cost, ..Platform::free() };
        let settings = Settings { max_bandwidth, downtime_limit: Duration::from_secs(2), ..Settings::default() };
        Scenario::default_horizon(&guest, &link, &platform, &Algorithm::qemu(Version::NEWEST, settings))
    }

    #[test]
    fn the_default_horizon_is_three_times_what_bounds_the_sender() {
        let micros = Duration::from_micros;
        let thrice = |seconds: f64| Duration::from_secs_f64(3.0 * (seconds + 2.0 + 1.0 + 0.04));
        assert_eq!(horizon_of_a_million(UNLIMITED, micros(40), micros(40)), thrice(40.96), "the link");
        let cap = BytesPerSec::new(50_000_000);
        assert_eq!(horizon_of_a_million(cap, micros(40), micros(40)), thrice(81.92), "its cap");
        assert_eq!(horizon_of_a_million(UNLIMITED, micros(50), micros(40)), thrice(50.0), "its work");
        assert_eq!(horizon_of_a_million(UNLIMITED, micros(40), micros(50)), thrice(50.0), "its work on zero pages");
    }

    #[test]
    fn the_default_horizon_is_at_least_a_minute() {
        let (guest, algorithm) = (Guest::new("g", ByteCount::new(4096)), Algorithm::named("qemu").unwrap());
        let link = Link::ethernet(BytesPerSec::from_bits(1_000_000_000));
        let horizon = Scenario::default_horizon(&guest, &link, &Platform::free(), &algorithm);
        assert_eq!(horizon, Duration::from_secs(60));
    }
}
