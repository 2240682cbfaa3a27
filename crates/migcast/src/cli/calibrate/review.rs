//! `migcast calibrate --review`: the migrations of a store beside the forecasts that were made before them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use migcast_history::observed::Observed;
use migcast_history::observed::forecast::{Band, Forecast};
use migcast_history::observed::store::{self, Store};
use migcast_model::algorithm::Algorithm;
use migcast_model::calibrate::review::Judged;

use crate::report::{Judgement, ReviewAnswer, Reviewed};

/// Looks through stores; a forecast counts for a migration that was requested at most `within` after it was made.
pub(super) fn review(
    paths: &[PathBuf],
    within: Duration,
    wanted: impl Fn(&Observed) -> bool,
) -> anyhow::Result<ReviewAnswer> {
    let shown = super::show(paths).replace(", ", " ");
    let mut answer = ReviewAnswer { within, stores: shown, ..ReviewAnswer::default() };
    for path in paths {
        ensure!(
            store::is_one(path),
            "--review: {} is no store: only `migcast observe --store` and `migcast predict --store` keep what was forecast before",
            path.display()
        );
        let store = Store::open(path)?;
        for observed in store.observed()?.into_iter().filter(|observed| wanted(observed)) {
            answer.migrations += 1;
            if !observed.completed {
                answer.given_up += 1;
                continue;
            }
            match forecast_of(&store, &observed, within)? {
                Some(forecast) => judge(&mut answer.platforms, forecast, &observed),
                None => answer.unforecast += 1,
            }
        }
    }
    ensure!(answer.migrations > 0, "no migration of a wanted guest, link and time in these stores");
    for platform in &mut answer.platforms {
        platform.judged.sort_by_key(|judgement| judgement.requested);
    }
    Ok(answer)
}

/// The newest forecast of this very migration, if one was made before it.
fn forecast_of(store: &Store, observed: &Observed, within: Duration) -> anyhow::Result<Option<Forecast>> {
    let from = observed.requested.checked_sub(within).unwrap_or(Timestamp::MIN);
    let forecasts = store.forecasts(&observed.guest, from, observed.requested).context("forecasts")?;
    Ok(forecasts.into_iter().find(|forecast| {
        forecast.link_bits_per_second == observed.link_bits_per_second && has_settings(forecast, &observed.settings)
    }))
}

/// Whether a forecast was made with these settings; those that are not stated are taken to be its own.
fn has_settings(forecast: &Forecast, stated: &[String]) -> bool {
    let Ok(mut algorithm) = Algorithm::named(&forecast.algorithm) else { return stated.is_empty() };
    for (key, value) in &forecast.settings {
        // What it shows of itself and does not take is no setting that anybody states.
        let _ = algorithm.set(key, value);
    }
    stated.iter().all(|setting| {
        let mut with = algorithm.clone();
        let is_set = setting.split_once('=').is_some_and(|(key, value)| with.set(key, value).is_ok());
        is_set && with.settings() == algorithm.settings()
    })
}

fn judge(platforms: &mut Vec<Reviewed>, forecast: Forecast, observed: &Observed) {
    let pair = |band: Band, actual: Option<f64>| {
        let (band, actual) = (band.whole()?, actual?);
        (band[0] > 0.0 && actual > 0.0).then_some(Judged { band, actual })
    };
    let time = pair(forecast.migration_time_seconds, observed.migration_time_seconds)
        .or_else(|| pair(forecast.migration_time_reported_seconds, observed.migration_time_reported_seconds));
    let downtime = pair(forecast.downtime_seconds, observed.downtime_seconds)
        .or_else(|| pair(forecast.downtime_reported_seconds, observed.downtime_reported_seconds));
    let sent = pair(forecast.sent_bytes, observed.sent_bytes.map(|bytes| bytes as f64));
    let judgement = Judgement {
        requested: observed.requested,
        guest: observed.guest.clone(),
        quantities: [time, downtime, sent],
        told_it_would_end: forecast.migration_time_seconds.p50.is_some(),
    };
    let same = |of: &&mut Reviewed| of.platform == forecast.platform && of.hypervisor == observed.hypervisor;
    match platforms.iter_mut().find(same) {
        Some(platform) => platform.judged.push(judgement),
        None => platforms.push(Reviewed {
            platform: forecast.platform,
            hypervisor: observed.hypervisor.clone(),
            judged: vec![judgement],
        }),
    }
}
