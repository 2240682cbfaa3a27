//! The log of written pages that Xen keeps of a domain, as long as it is ours.

use std::cell::Cell;
use std::io;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::XenError;
use super::control::{Bitmap, Control, DomId};
use super::frames::Frames;
use super::saving::Processes;
use crate::memory::MemoryError;
use crate::scan::Scan;
use crate::watchdog::Watchdog;
use crate::write_log::{Claim, WriteLog};

/// Of a window a reading of the log, for which the guest stands, should take no more than this share.
const READING_SHARE_MAX: f64 = 0.05;

/// Xen's log of one domain.
pub(super) struct DirtyLog {
    control: Rc<Control>,
    bitmap: Bitmap,
    frames: Frames,
    domain: DomId,
    claim: Rc<Cell<Claim>>,
    /// How the child is started that turns the log off if this process is killed; then the child.
    command: Option<Command>,
    watchdog: Option<Watchdog>,
    processes: Processes,
    /// Writes to frames that were none when the recording began.
    outside: u64,
    readings: u64,
    /// For how long the guest stood at readings, in all and at most.
    standing: Duration,
    longest: Duration,
    began: Instant,
}

impl DirtyLog {
    /// A log that is off. `command` starts the child that will turn it off if this process is killed.
    pub(super) fn new(
        control: &Rc<Control>,
        domain: DomId,
        (frames, bitmap): (Frames, Bitmap),
        (processes, command): (Processes, Command),
        claim: &Rc<Cell<Claim>>,
    ) -> DirtyLog {
        DirtyLog {
            control: Rc::clone(control),
            bitmap,
            frames,
            domain,
            claim: Rc::clone(claim),
            command: Some(command),
            watchdog: None,
            processes,
            outside: 0,
            readings: 0,
            standing: Duration::ZERO,
            longest: Duration::ZERO,
            began: Instant::now(),
        }
    }

    fn enable(&mut self) -> Result<(), XenError> {
        let domain = self.domain;
        let command =
            self.command.take().ok_or_else(|| XenError::NoWatchdog { source: io::ErrorKind::NotFound.into() })?;
        let watchdog = Watchdog::start(command).map_err(|source| XenError::NoWatchdog { source })?;
        if let Err(source) = self.control.enable_log(domain) {
            watchdog.dismiss();
            return Err(match source.raw_os_error() {
                Some(libc::EINVAL) => XenError::Refused { domain },
                Some(libc::EOPNOTSUPP) => XenError::Unsupported { domain },
                _ => XenError::Call { what: "the log", domain, source },
            });
        }
        self.claim.set(Claim::Ours);
        (self.watchdog, self.began) = (Some(watchdog), Instant::now());
        Ok(())
    }
}

impl WriteLog for DirtyLog {
    fn read(&mut self) -> Result<Scan, MemoryError> {
        if self.processes.save(self.domain) {
            self.claim.set(Claim::Lost);
        }
        match self.claim.get() {
            Claim::Lost => return Err(MemoryError::Migrating),
            Claim::None => {
                self.enable().map_err(|error| MemoryError::Xen(Box::new(error)))?;
                return Ok(Scan::default());
            }
            Claim::Ours => {}
        }
        let began = Instant::now();
        if let Err(source) = self.control.clean_log(self.domain, &mut self.bitmap) {
            return Err(match source.raw_os_error() {
                Some(libc::ESRCH) => MemoryError::Ended { pid: self.domain },
                _ => MemoryError::Xen(Box::new(XenError::Call { what: "the log", domain: self.domain, source })),
            });
        }
        let stood = began.elapsed();
        self.readings += 1;
        self.standing += stood;
        self.longest = self.longest.max(stood);
        let mut written = Vec::new();
        for frame in self.bitmap.ones() {
            match self.frames.page(frame) {
                Some(page) => written.push(page),
                None => self.outside += 1,
            }
        }
        Ok(Scan { written, ..Scan::default() })
    }

    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        self.processes = self.processes.fresh();
        Ok(Vec::new())
    }

    fn tracked(&self) -> u32 {
        u32::try_from(self.frames.pages()).unwrap_or(u32::MAX)
    }

    fn memory_pages(&self) -> u64 {
        self.frames.pages()
    }

    fn zero_pages(&self) -> Vec<u64> {
        Vec::new()
    }

    fn release(&mut self) -> Vec<String> {
        let Some(watchdog) = self.watchdog.take() else { return Vec::new() };
        let mut notes = Vec::new();
        if self.processes.fresh().save(self.domain) {
            self.claim.set(Claim::Lost);
        }
        let is_ours = self.claim.replace(Claim::Lost) == Claim::Ours;
        let turned_off = if is_ours { self.control.disable_log(self.domain) } else { Ok(()) };
        match turned_off {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                notes.push(format!(
                    "the log of domain {} could not be turned off: {error}; trying once more",
                    self.domain
                ));
                // Without a word it takes the recorder for killed.
                drop(watchdog);
            }
            _ => watchdog.dismiss(),
        }
        notes.extend(self.told_of_readings());
        if self.outside > 0 {
            notes.push(format!("{} writes to pages that came after the recording began are left out", self.outside));
        }
        notes
    }
}

impl DirtyLog {
    fn told_of_readings(&self) -> Option<String> {
        let all = self.began.elapsed().as_secs_f64();
        let share = self.standing.as_secs_f64() / all;
        let (mean, longest) =
            (self.standing.as_secs_f64() / self.readings as f64 * 1e3, self.longest.as_secs_f64() * 1e3);
        let advice = if share > READING_SHARE_MAX { "; a longer --window makes that less" } else { "" };
        (self.readings > 0).then(|| {
            format!(
                "the guest stood for {mean:.1} ms at each reading of its log, {longest:.1} ms at most, {:.1} % of the time{advice}",
                share * 100.0
            )
        })
    }
}

impl Drop for DirtyLog {
    fn drop(&mut self) {
        self.release();
    }
}
