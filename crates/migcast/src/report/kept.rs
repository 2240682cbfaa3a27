//! A prediction as what is kept of it, to be judged by what happens (`migcast.forecast/1`).

use jiff::Timestamp;
use migcast_history::observed::forecast::{Band, FORMAT, Forecast};
use migcast_model::forecast::Distribution;

use super::{Prediction, Quantity};

impl Prediction {
    /// What is kept of it, for this guest, made at this time.
    pub(crate) fn kept(&self, guest: &str, made: Timestamp) -> Forecast {
        let scenario = &self.scenario;
        let scattered = |quantity| band(self.distribution(quantity));
        let settings = scenario.algorithm.settings().into_iter();
        Forecast {
            format: FORMAT.to_owned(),
            made,
            guest: guest.to_owned(),
            platform: scenario.platform.name.clone(),
            algorithm: scenario.algorithm.name().to_owned(),
            settings: settings.map(|setting| (setting.key.to_owned(), setting.value)).collect(),
            manager: scenario.algorithm.manager().map(|manager| manager.name().to_owned()),
            link_bits_per_second: scenario.link.line_rate.bits(),
            migration_time_seconds: scattered(Quantity::MigrationTime),
            migration_time_reported_seconds: scattered(Quantity::MigrationTimeReported),
            downtime_seconds: scattered(Quantity::Downtime),
            downtime_reported_seconds: scattered(Quantity::DowntimeReported),
            sent_bytes: band(self.sent_bytes()),
        }
    }
}

fn band(distribution: Distribution) -> Band {
    let Distribution { p5, p50, p95, .. } = distribution;
    Band { p5, p50, p95 }
}
