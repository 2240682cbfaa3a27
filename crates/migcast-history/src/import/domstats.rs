//! Text of `virsh domstats --dirtyrate`: a block per domain, once or many times.
//!
//! ```text
//! Domain: 'web'
//!   dirtyrate.calc_status=2
//!   dirtyrate.calc_start_time=348414
//!   dirtyrate.calc_period=1
//!   dirtyrate.megabytes_per_second=4
//!   dirtyrate.calc_mode=page-sampling
//! ```
//!
//! Facts: libvirt's `docs/manpages/virsh.rst` and `virDomainDirtyRateStatus` (0 unstarted, 1 measuring, 2 measured). The
//! rate is in MiB/s, the period in seconds; the start is QEMU's.
use std::io::BufRead;
use std::time::Duration;

use super::lines::Lines;
use super::{File, ImportError, Imported, Measured, Place, RateUnit, qemu};

/// libvirt's number for a calculation that is done, and for those that are not begun or not done.
const MEASURED: i64 = 2;
const UNFINISHED: [i64; 2] = [0, 1];

/// What a block says, each with its line.
#[derive(Default)]
struct Block {
    domain: String,
    line: u64,
    status: Option<(u64, i64)>,
    start: Option<(u64, i64)>,
    period: Option<(u64, i64)>,
    rate: Option<(u64, i64)>,
    /// KiB.
    memory: Option<(u64, i64)>,
}

pub(super) fn read(input: &mut dyn BufRead, file: File<'_>) -> Result<Imported, ImportError> {
    let mut lines = Lines::new(input, file);
    let (mut names, mut found): (Vec<String>, Found) = (Vec::new(), Found::default());
    let mut block: Option<Block> = None;
    while let Some((line, text)) = lines.next_line()? {
        if let Some(domain) = domain(text) {
            found.take(block.take(), file)?;
            if !names.iter().any(|name| name == domain) {
                names.push(domain.to_owned());
            }
            block = Some(Block { domain: domain.to_owned(), line, ..Block::default() });
            continue;
        }
        let field = text.trim().split_once('=');
        match (&mut block, field) {
            (Some(block), Some((key, value))) => block.set(line, key.trim(), value.trim(), file)?,
            _ => {
                let allowed = "Domain: 'NAME', and under it lines of KEY=VALUE";
                return Err(file.value(Place::Line(line), "the line", text, allowed));
            }
        }
    }
    found.take(block, file)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    found.imported.guest = Some(file.choose(&names, "domain", "--domain")?);
    Ok(found.imported)
}

/// The name in a line that begins a block.
fn domain(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("Domain:")?.trim();
    let bare = name.strip_prefix('\'').and_then(|name| name.strip_suffix('\''));
    Some(bare.unwrap_or(name))
}

/// What was found of the domain that is asked for; of the first one, where none is.
#[derive(Default)]
struct Found {
    first: Option<String>,
    imported: Imported,
}

impl Found {
    fn take(&mut self, block: Option<Block>, file: File<'_>) -> Result<(), ImportError> {
        let Some(block) = block else { return Ok(()) };
        let wanted = file.asked.guest.as_ref().unwrap_or_else(|| self.first.get_or_insert(block.domain.clone()));
        if *wanted != block.domain {
            return Ok(());
        }
        if let Some((line, kib)) = block.memory {
            let bytes = u64::try_from(kib).ok().and_then(|kib| kib.checked_mul(1_024));
            let refused = || file.value(Place::Line(line), "balloon.maximum", &kib.to_string(), "KiB, 0 or more");
            self.imported.memory_bytes = Some(bytes.ok_or_else(refused)?);
        }
        match block.measured(file)? {
            Some(measured) => file.push(&mut self.imported.measured, measured)?,
            None => self.imported.unfinished += 1,
        }
        Ok(())
    }
}

impl Block {
    fn set(&mut self, line: u64, key: &str, value: &str, file: File<'_>) -> Result<(), ImportError> {
        let place = match key {
            "dirtyrate.calc_status" => &mut self.status,
            "dirtyrate.calc_start_time" => &mut self.start,
            "dirtyrate.calc_period" => &mut self.period,
            "dirtyrate.megabytes_per_second" => &mut self.rate,
            "balloon.maximum" => &mut self.memory,
            // Statistics of other groups, the mode, and the rates of single vCPUs.
            _ => return Ok(()),
        };
        let number = value.parse().map_err(|_| file.value(Place::Line(line), key, value, "a whole number"))?;
        if place.replace((line, number)).is_some() {
            return Err(file.value(Place::Line(line), key, value, "once in a domain's block"));
        }
        Ok(())
    }

    fn measured(&self, file: File<'_>) -> Result<Option<Measured>, ImportError> {
        match self.status {
            Some((_, MEASURED)) => {}
            None => return Ok(None),
            Some((_, status)) if UNFINISHED.contains(&status) => return Ok(None),
            Some((line, status)) => {
                let allowed = "0 (unstarted), 1 (measuring) or 2 (measured)";
                return Err(file.value(Place::Line(line), "dirtyrate.calc_status", &status.to_string(), allowed));
            }
        }
        let needed = |value: Option<(u64, i64)>, key: &str| {
            value.ok_or_else(|| file.value(Place::Line(self.line), key, "missing", "a whole number in each block"))
        };
        let (start_line, start) = needed(self.start, "dirtyrate.calc_start_time")?;
        let (period_line, period) = needed(self.period, "dirtyrate.calc_period")?;
        let (rate_line, rate) = needed(self.rate, "dirtyrate.megabytes_per_second")?;
        let second = Duration::from_secs(1);
        let span = qemu::span(Place::Line(period_line), "dirtyrate.calc_period", period, second, file)?;
        let start_unix_ns = file.qemu_start(Place::Line(start_line), "dirtyrate.calc_start_time", start)?;
        let rate = (Place::Line(rate_line), "dirtyrate.megabytes_per_second", rate.to_string());
        let written = file.written((rate.0, rate.1, &rate.2), RateUnit::Bytes(1 << 20), span)?;
        Ok(Some(Measured { place: rate.0, start_unix_ns, span, written, left_out: false }))
    }
}
