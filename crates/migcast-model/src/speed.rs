//! What a platform's scatter of speed does to a migration.
//!
//! A pair of hosts is now a little faster, now a little slower, by [`Platform::time_scatter`]. A migration that sends each
//! page once is longer by just that. One whose guest writes nearly as fast as the link carries is longer by much more:
//! each iteration is that much longer, and so is the next. So the scenario is simulated with a slower and a faster link.
//!
//! [`Platform::time_scatter`]: crate::platform::Platform::time_scatter

use std::time::Duration;

use crate::due::DueSource;
use crate::link::Link;
use crate::paired::mean_difference;
use crate::simulate::Scenario;

/// Relative standard deviations that a platform's scatter of speed gives a forecast from one starting point, ≥ 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SpeedScatter {
    /// Of migration times: at least the platform's own.
    pub time: f64,
    /// Of the bytes sent.
    pub sent: f64,
}

impl SpeedScatter {
    /// For `scenario` and `source` over `starts`. A start that converges with one link only tells nothing; where none
    /// converges with both, times scatter like the platform.
    pub fn of<S: DueSource + ?Sized>(scenario: &Scenario, source: &S, starts: &[Duration]) -> SpeedScatter {
        let own = scenario.platform.time_scatter;
        if own == 0.0 {
            return SpeedScatter::default();
        }
        let [slow, fast] = [-own, own].map(|log| {
            let line_rate = scenario.link.line_rate.scale(libm::exp(log));
            Scenario { link: Link { line_rate, ..scenario.link }, ..scenario.clone() }
        });
        let run = |scenario: &Scenario, start| scenario.run(source, start);
        let difference = mean_difference(starts, |start| run(&slow, start), |start| run(&fast, start));
        let difference = difference.unwrap_or_default();
        // Two standard deviations lie between the two links.
        SpeedScatter { time: (difference.log_time.abs() / 2.0).max(own), sent: difference.log_sent.abs() / 2.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::Algorithm;
    use crate::dirty::{ConstantRate, WritePattern};
    use crate::guest::Guest;
    use crate::platform::Platform;
    use crate::units::{ByteCount, BytesPerSec, PagesPerSec};

    /// A sequential writer of so many pages a second over a link of 10,000 pages a second, with a scatter of 1 %.
    fn scatter(rate: f64, own: f64) -> SpeedScatter {
        let guest = Guest::new("g", ByteCount::new(50_000 * 4096));
        let source = ConstantRate::new(guest.memory, guest.memory, PagesPerSec::new(rate), WritePattern::Sequential, 0);
        let link = Link {
            payload_share: 1.0,
            sender_buffer: ByteCount::ZERO,
            ..Link::ethernet(BytesPerSec::new(10_000 * 4104))
        };
        let mut algorithm = Algorithm::named("qemu-10.1").unwrap();
        algorithm.set("downtime-limit", "10ms").unwrap();
        let platform = Platform { time_scatter: own, ..Platform::free() };
        let scenario = Scenario { guest, link, platform, algorithm, horizon: Duration::from_secs(600) };
        let starts: Vec<Duration> = (0..24).map(|start| Duration::from_millis(170 * start)).collect();
        SpeedScatter::of(&scenario, &source, &starts)
    }

    #[test]
    fn an_idle_guest_scatters_like_its_platform() {
        let idle = scatter(0.0, 0.01);
        assert!((idle.time - 0.01).abs() < 1e-4 && idle.sent < 1e-4, "{idle:?}");
        assert_eq!(scatter(0.0, 0.0), SpeedScatter::default());
    }

    #[test]
    fn a_guest_that_writes_nearly_as_fast_as_the_link_scatters_more() {
        // Iterations shrink by r = 0.8, so time goes with 1 / (C − rate): a link 1 % slower makes it 1 / (1 − r) = 5 %
        // longer, and the bytes 4 % more.
        let busy = scatter(8_000.0, 0.01);
        assert!((0.04..0.06).contains(&busy.time), "{busy:?}");
        assert!((0.03..0.05).contains(&busy.sent), "{busy:?}");
    }
}
