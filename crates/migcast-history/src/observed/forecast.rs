//! A forecast as it was made before a migration (`migcast.forecast/1`): what is left of it to be judged by.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format's name.
pub const FORMAT: &str = "migcast.forecast/1";

/// A forecast of one guest's migration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made, UTC.
    pub made: Timestamp,
    /// The guest.
    pub guest: String,
    /// Name of the platform it was made for.
    pub platform: String,
    /// The algorithm's name.
    pub algorithm: String,
    /// All its settings, as `migcast algorithms` shows them.
    pub settings: BTreeMap<String, String>,
    /// The manager's name, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manager: Option<String>,
    /// Line rate of the link, bits per second.
    pub link_bits_per_second: u64,
    /// Until the guest runs on the target.
    pub migration_time_seconds: Band,
    /// By the hypervisor's own clock.
    pub migration_time_reported_seconds: Band,
    /// The guest's downtime.
    pub downtime_seconds: Band,
    /// The hypervisor's own figure.
    pub downtime_reported_seconds: Band,
    /// Bytes sent.
    pub sent_bytes: Band,
}

/// Quantiles; `None` where that does not converge.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// 5 %.
    pub p5: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// 95 %.
    pub p95: Option<f64>,
}

impl Band {
    /// All three, where they are there and in order.
    pub fn whole(self) -> Option<[f64; 3]> {
        let [low, mid, high] = [self.p5?, self.p50?, self.p95?];
        (0.0 <= low && low <= mid && mid <= high && high.is_finite()).then_some([low, mid, high])
    }
}
