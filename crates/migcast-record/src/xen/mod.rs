//! Recording a domain of Xen from dom0: its hypervisor's log of written pages, as Akoush et al. did (2010, section 5).
//!
//! ```text
//!  ENABLE          CLEAN   CLEAN   CLEAN   …   OFF
//!  ────┼─────────────┼───────┼───────┼──────────┼──
//!      └─ window ────┘                          also by a child, if the recorder is killed
//! ```
//! A domain has one log, and a migration needs it: whoever reads it takes what it tells from the other. So a recorder
//! looks before each reading whether the domain is being migrated, and if it is never touches the log again; it turns off
//! no log that it did not turn on.

mod frames;
mod library;
mod saving;
mod watchdog;

use std::io;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use self::frames::Frames;
use self::library::{Bitmap, Control, DomId, Store, Version, version_in};
use self::saving::Processes;
use self::watchdog::Watchdog;
use crate::guest::{Guest, Identity, Sight, Watch, Writes};
use crate::memory::MemoryError;
use crate::scan::Scan;
use crate::write_log::WriteLog;

pub use watchdog::is_orphaned;

/// Where the kernel says which hypervisor runs.
pub const HYPERVISOR: &str = "/sys/hypervisor";
/// Of a window a reading of the log, for which the guest stands, should take no more than this share.
const READING_SHARE_MAX: f64 = 0.05;

/// Why a domain cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum XenError {
    /// This machine does not run Xen.
    #[error("this machine does not run Xen ({folder}/type does not say so): --xen records from dom0")]
    NotXen {
        /// Where that was looked for.
        folder: String,
    },
    /// A library of Xen's is missing.
    #[error("cannot load {name}, Xen's own library of this version ({why}): install the toolstack's packages")]
    NoLibrary {
        /// Its name.
        name: String,
        /// What the loader said.
        why: String,
    },
    /// It has not what it should have.
    #[error("Xen's library has no function {name}: its version is not supported")]
    NoFunction {
        /// The function.
        name: &'static str,
    },
    /// Xen does not talk to this domain or user.
    #[error("Xen does not let this program ask: run it in dom0, as root")]
    NotDom0 {
        /// What it said.
        source: io::Error,
    },
    /// XenStore does not answer.
    #[error("XenStore does not answer: is xenstored running?")]
    NoStore {
        /// What was said.
        source: io::Error,
    },
    /// There is no such domain.
    #[error("no domain has the name or id {domain:?}; `xl list` names them")]
    NoDomain {
        /// What was asked for.
        domain: String,
    },
    /// It is the one this runs in.
    #[error("domain 0 cannot log itself, allowed: another domain")]
    Itself,
    /// It is being migrated.
    #[error("domain {domain} is being migrated, and its log is the migration's: try again when that is over")]
    Migrating {
        /// Its id.
        domain: u32,
    },
    /// Xen refuses the log.
    #[error(
        "Xen refuses to log the writes of domain {domain}: its log is on already (another recorder, or the screen of an HVM \
         guest), or it has passed-through devices; Xen says the same to both. After a recorder that was killed: migcast \
         record --release {domain}"
    )]
    Refused {
        /// Its id.
        domain: u32,
    },
    /// This Xen cannot do it.
    #[error("this Xen cannot log the writes of domain {domain}: a PV guest needs a Xen with shadow paging")]
    Unsupported {
        /// Its id.
        domain: u32,
    },
    /// The child that turns the log off after a kill cannot be started.
    #[error("cannot start the child that would turn the log off if this recorder were killed")]
    NoWatchdog {
        /// What the kernel said.
        source: io::Error,
    },
    /// Anything else.
    #[error("Xen cannot tell {what} of domain {domain}")]
    Call {
        /// What it was asked for.
        what: &'static str,
        /// Its id.
        domain: u32,
        /// What it said.
        source: io::Error,
    },
}

fn call(what: &'static str, domain: DomId) -> impl FnOnce(io::Error) -> XenError {
    move |source| XenError::Call { what, domain, source }
}

/// A message without line breaks.
fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A connection to Xen, and what it says of one domain.
struct Domain {
    control: Rc<Control>,
    store: Store,
    id: DomId,
    number: Version,
    version: String,
}

impl Domain {
    /// The domain of this name or number. `hypervisor` is [`HYPERVISOR`].
    fn open(domain: &str, hypervisor: &Path) -> Result<Domain, XenError> {
        let folder = || hypervisor.display().to_string();
        let (number, version) = version_in(hypervisor).ok_or_else(|| XenError::NotXen { folder: folder() })?;
        let store = Store::open()?;
        let control = Rc::new(Control::open(number)?);
        let ids = store.list("/local/domain");
        let of_name = |id: &&String| store.read(&format!("/local/domain/{id}/name")).as_deref() == Some(domain);
        let found = ids.iter().find(|id| *id == domain).or_else(|| ids.iter().find(of_name));
        let id =
            found.and_then(|id| id.parse().ok()).ok_or_else(|| XenError::NoDomain { domain: domain.to_owned() })?;
        if id == 0 {
            return Err(XenError::Itself);
        }
        Ok(Domain { control, store, id, number, version })
    }

    fn name(&self) -> String {
        self.store.read(&format!("/local/domain/{}/name", self.id)).unwrap_or_else(|| format!("domain-{}", self.id))
    }

    fn uuid(&self) -> Option<uuid::Uuid> {
        let path = self.store.read(&format!("/local/domain/{}/vm", self.id))?;
        path.rsplit('/').next()?.parse().ok()
    }

    /// xl renames a domain that it moves, on either side.
    fn is_renamed(&self) -> bool {
        let name = self.name();
        name.ends_with("--migratedaway") || name.ends_with("--incoming")
    }

    fn is_migrating(&self) -> bool {
        Processes::of(self.number).save(self.id) || self.is_renamed()
    }
}

/// Prepares to record the domain with this name or id. `watchdog` is a command that, given the domain's id as its last
/// argument, waits for the end of its standard input ([`is_orphaned`]) and then [`release`]s the domain. `hypervisor` is
/// [`HYPERVISOR`].
///
/// # Errors
/// [`XenError`]: not Xen, not dom0, no such domain, being migrated.
pub fn open(domain: &str, hypervisor: &Path, mut watchdog: Command) -> Result<Guest, XenError> {
    let domain = Domain::open(domain, hypervisor)?;
    let id = domain.id;
    if domain.is_migrating() {
        return Err(XenError::Migrating { domain: id });
    }
    let state = domain.control.state(id).map_err(call("the state", id))?;
    let state = state.ok_or_else(|| XenError::NoDomain { domain: id.to_string() })?;
    let frames = Frames::of(&domain.control, id).map_err(call("the memory", id))?;
    let bitmap = domain.control.frames(id).and_then(|frames| domain.control.bitmap(frames));
    let bitmap = bitmap.map_err(call("the log", id))?;
    let identity = Identity {
        method: "xen",
        name: domain.name(),
        id: domain.uuid(),
        hypervisor: "xen".to_owned(),
        hypervisor_version: domain.version.clone(),
        accelerator: if state.is_hvm() { "hvm" } else { "pv" }.to_owned(),
        blocks: frames.blocks(),
    };
    watchdog.arg(id.to_string());
    let has_device_model = domain.store.read(&format!("/local/domain/0/device-model/{id}/state")).is_some();
    let warnings = has_device_model.then(|| {
        "what the guest's device model writes (disk and network of an HVM guest) is not in Xen's log: missed".to_owned()
    });
    let log = DirtyLog {
        control: Rc::clone(&domain.control),
        bitmap,
        frames,
        domain: id,
        watchdog: Phase::Off(Some(watchdog)),
        processes: Processes::of(domain.number),
        outside: 0,
        readings: 0,
        standing: Duration::ZERO,
        longest: Duration::ZERO,
        began: Instant::now(),
    };
    let watch = XenWatch { domain };
    let warnings = warnings.into_iter().collect();
    Ok(Guest { identity, writes: Writes::Log(Box::new(log)), watch: Box::new(watch), warnings })
}

/// Turns off the log of a domain whose recorder was killed.
///
/// # Errors
/// [`XenError`]: as [`open`].
pub fn release(domain: &str, hypervisor: &Path) -> Result<(), XenError> {
    let domain = Domain::open(domain, hypervisor)?;
    if domain.is_migrating() {
        return Err(XenError::Migrating { domain: domain.id });
    }
    domain.control.disable_log(domain.id).map_err(call("anything more", domain.id))
}

/// Xen's log of one domain.
struct DirtyLog {
    control: Rc<Control>,
    bitmap: Bitmap,
    frames: Frames,
    domain: DomId,
    watchdog: Phase,
    processes: Processes,
    /// Writes to frames that were none when the recording began.
    outside: u64,
    readings: u64,
    /// For how long the guest stood at readings, in all and at most.
    standing: Duration,
    longest: Duration,
    began: Instant,
}

/// Whose the log is.
enum Phase {
    /// Nobody's yet; what will watch over it.
    Off(Option<Command>),
    /// Ours.
    On(Watchdog),
    /// Ours no more.
    Over,
}

impl DirtyLog {
    fn enable(&mut self, command: Option<Command>) -> Result<(), XenError> {
        let domain = self.domain;
        let command = command.ok_or_else(|| XenError::NoWatchdog { source: io::ErrorKind::NotFound.into() })?;
        let watchdog = Watchdog::start(command).map_err(|source| XenError::NoWatchdog { source })?;
        if let Err(source) = self.control.enable_log(domain) {
            watchdog.dismiss();
            return Err(match source.raw_os_error() {
                Some(libc::EINVAL) => XenError::Refused { domain },
                Some(libc::EOPNOTSUPP) => XenError::Unsupported { domain },
                _ => XenError::Call { what: "the log", domain, source },
            });
        }
        (self.watchdog, self.began) = (Phase::On(watchdog), Instant::now());
        Ok(())
    }

    /// The log is a migration's now.
    fn let_go(&mut self) -> MemoryError {
        if let Phase::On(watchdog) = std::mem::replace(&mut self.watchdog, Phase::Over) {
            watchdog.dismiss();
        }
        MemoryError::Migrating
    }
}

impl WriteLog for DirtyLog {
    fn read(&mut self) -> Result<Scan, MemoryError> {
        if self.processes.save(self.domain) {
            return Err(self.let_go());
        }
        if let Phase::Off(command) = &mut self.watchdog {
            let command = command.take();
            self.enable(command).map_err(|error| MemoryError::Xen(Box::new(error)))?;
            return Ok(Scan::default());
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
        let Phase::On(watchdog) = std::mem::replace(&mut self.watchdog, Phase::Over) else { return Vec::new() };
        let mut notes = Vec::new();
        if self.processes.fresh().save(self.domain) {
            notes.push(format!("domain {} is being migrated: its log is left to the migration", self.domain));
        } else if let Err(error) = self.control.disable_log(self.domain)
            && error.raw_os_error() != Some(libc::ESRCH)
        {
            notes.push(format!("the log of domain {} could not be turned off: {error}", self.domain));
        }
        watchdog.dismiss();
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

/// Sees what becomes of a domain.
struct XenWatch {
    domain: Domain,
}

impl Watch for XenWatch {
    fn look(&mut self) -> Sight {
        if self.domain.is_migrating() {
            return Sight::Migrating;
        }
        match self.domain.control.state(self.domain.id) {
            Ok(Some(state)) if state.is_paused() => Sight::Standing("paused".to_owned()),
            Ok(Some(state)) if state.is_shut_down() => Sight::Standing("shut down or suspended".to_owned()),
            Ok(_) => Sight::Clear,
            Err(error) => Sight::Busy(format!("Xen does not say how the domain is ({error})")),
        }
    }

    fn ended(&mut self) -> bool {
        matches!(self.domain.control.state(self.domain.id), Ok(None)) || self.is_dying()
    }
}

impl XenWatch {
    fn is_dying(&self) -> bool {
        matches!(self.domain.control.state(self.domain.id), Ok(Some(state)) if state.is_dying())
    }
}
