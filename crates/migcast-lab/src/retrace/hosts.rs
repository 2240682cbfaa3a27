//! What a platform file says of a pair of hosts, as far as a retraced migration depends on it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::units::{ByteCount, BytesPerSec};
use serde::Deserialize;

use crate::link::PAYLOAD_SHARE;

/// A pair of hosts and the link between them, whose line rate is each migration's own.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Costs.
    pub platform: Platform,
    /// Payload share as the lab's shaper counts, and the sender's buffer of runs that do not tell theirs.
    pub link: Link,
}

/// The keys of a platform file that are read here (docs/platform.md).
#[derive(Debug, Deserialize)]
struct File {
    connect_seconds: f64,
    setup_seconds: f64,
    page_seconds: f64,
    zero_page_seconds: f64,
    sync_seconds_per_gib: f64,
    stop_seconds: f64,
    sender_buffer_bytes: u64,
}

impl Hosts {
    /// Reads a platform file.
    ///
    /// # Errors
    /// It cannot be read, lacks a key, or gives a time that is none.
    pub fn read(path: &Path) -> Result<Hosts> {
        let read = || -> Result<Hosts> {
            let file: File = serde_json::from_str(&fs::read_to_string(path)?)?;
            let seconds = Duration::try_from_secs_f64;
            let platform = Platform {
                connect: seconds(file.connect_seconds)?,
                setup: seconds(file.setup_seconds)?,
                page_cost: seconds(file.page_seconds)?,
                zero_page_cost: seconds(file.zero_page_seconds)?,
                sync_cost_per_gib: seconds(file.sync_seconds_per_gib)?,
                stop: seconds(file.stop_seconds)?,
                ..Platform::free()
            };
            let sender_buffer = ByteCount::new(file.sender_buffer_bytes);
            let link = Link::ethernet(BytesPerSec::ZERO);
            Ok(Hosts { platform, link: Link { payload_share: PAYLOAD_SHARE, sender_buffer, ..link } })
        };
        read().with_context(|| path.display().to_string())
    }
}
