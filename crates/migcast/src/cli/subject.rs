//! Whose migration is asked about: a guest with a history, or one that is only known by its memory and a rate.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use indicatif::ProgressBar;
use migcast_model::quantity;
use migcast_model::units::{ByteCount, BytesPerSec, PagesPerSec};

use super::past::Past;
use super::predict::progress_bar;
use super::scenario::{self, Known, Options, Request, Start};
use crate::report::Prediction;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Subject {
    /// History to forecast from
    #[arg(value_name = "DIR", required_unless_present = "memory")]
    pub(super) history: Option<PathBuf>,
    /// Memory of a guest without a history
    #[arg(long, value_name = "SIZE", conflicts_with = "history", requires = "dirty_rate", value_parser = quantity::parse_bytes)]
    memory: Option<ByteCount>,
    /// Its writes per second: 2000pages/s or 80MiB/s. Measure while it is not being migrated: the rate a hypervisor
    /// reports during a migration depends on the link
    #[arg(long, value_name = "RATE", requires = "memory", value_parser = scenario::parse_dirty_rate)]
    dirty_rate: Option<PagesPerSec>,
    /// Line rate between source and target: 1Gbit/s, 125MB/s
    #[arg(long, value_name = "RATE", value_parser = scenario::parse_link)]
    pub(super) link: BytesPerSec,
    #[command(flatten)]
    pub(super) options: Options,
}

impl Subject {
    /// Forecasts its migration, over at least this horizon.
    pub(super) fn forecast(&self, horizon_min: Duration) -> anyhow::Result<Prediction> {
        let past = self.past()?;
        self.forecast_from(past.as_ref(), &self.request(horizon_min), &progress_bar())
    }

    /// Its past, if it is known by a history.
    pub(super) fn past(&self) -> anyhow::Result<Option<Past>> {
        let past = self.history.as_ref().map(|dir| Past::open(dir, &self.options)).transpose()?;
        self.options.refuse_idle(past.as_ref().map_or(Known::Nothing, Past::known))?;
        Ok(past)
    }

    /// What is asked for, over at least this horizon.
    pub(super) fn request(&self, horizon_min: Duration) -> Request {
        Request { options: self.options.clone(), link: self.link, horizon_min, starts_max: scenario::STARTS_MAX }
    }

    /// What is asked for where a migration has to be over within `time`, from so many starting points everywhere: what is late
    /// is late, and nothing is simulated far beyond that.
    pub(super) fn request_within(&self, time: Duration, starts_max: usize) -> Request {
        let mut request = self.request(Duration::ZERO);
        request.options.horizon.get_or_insert(time.saturating_mul(5) / 4);
        request.options.start = Start::All;
        request.starts_max = starts_max;
        request
    }

    /// Forecasts from this past, or from the rate that was stated where there is none.
    pub(super) fn forecast_from(
        &self,
        past: Option<&Past>,
        request: &Request,
        progress: &ProgressBar,
    ) -> anyhow::Result<Prediction> {
        match past {
            Some(past) => past.forecast(request, progress),
            None => {
                let guest = scenario::guest(self.memory.context("--memory is missing")?)?;
                request.at_rate(guest, self.dirty_rate.context("--dirty-rate is missing")?, progress)
            }
        }
    }
}
