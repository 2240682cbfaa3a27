//! A history directory of either kind.
use std::path::Path;

use crate::damage::ReadError;
use crate::format::{Manifest, WrittenMeans};
use crate::rates::RateSeries;
use crate::reader::History;

/// What a history holds.
#[derive(Debug)]
pub enum Contents {
    /// Windows with the pages written in each.
    Windows(History),
    /// Rates alone.
    Rates(RateSeries),
}

impl Contents {
    /// Opens a history of whichever kind lies in `dir`.
    ///
    /// # Errors
    /// Those of [`History::open`] and [`RateSeries::open`].
    pub fn open(dir: &Path) -> Result<Contents, ReadError> {
        let manifest = Manifest::read(dir)?;
        Ok(match manifest.written_means {
            WrittenMeans::Rate => Contents::Rates(RateSeries::open_with(dir, manifest)?),
            WrittenMeans::Content | WrittenMeans::DirtyLog => Contents::Windows(History::open_with(dir, manifest)?),
        })
    }
}
