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

mod control;
mod dirty_log;
mod error;
mod frames;
mod library;
mod saving;
mod store;

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use self::control::{Control, DomId, State};
use self::dirty_log::DirtyLog;
use self::frames::Frames;
use self::library::{Version, version_in};
use self::saving::Processes;
use self::store::Store;
use crate::guest::{Guest, Identity, Sight, Watch, Writes};
use crate::write_log::Claim;

pub use error::XenError;

/// Where the kernel says which hypervisor runs.
pub const HYPERVISOR: &str = "/sys/hypervisor";

fn call(what: &'static str, domain: DomId) -> impl FnOnce(io::Error) -> XenError {
    move |source| XenError::Call { what, domain, source }
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
/// argument, waits for the end of its standard input ([`crate::is_orphaned`]) and then [`release`]s the domain. `hypervisor` is
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
    let count = domain.control.frames(id).map_err(call("the memory", id))?;
    let frames = Frames::of(&domain.control, id, count).map_err(call("the memory", id))?;
    let bitmap = domain.control.bitmap(count).map_err(call("the log", id))?;
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
    let claim = Rc::new(Cell::new(Claim::None));
    let processes = Processes::of(domain.number);
    let log = DirtyLog::new(&domain.control, id, (frames, bitmap), (processes, watchdog), &claim);
    let watch = XenWatch { domain, claim };
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

/// Sees what becomes of a domain.
struct XenWatch {
    domain: Domain,
    claim: Rc<Cell<Claim>>,
}

impl Watch for XenWatch {
    fn look(&mut self) -> Sight {
        if self.domain.is_migrating() {
            self.claim.set(Claim::Lost);
            return Sight::Taken;
        }
        match self.domain.control.state(self.domain.id) {
            Ok(Some(state)) if state.is_paused() => Sight::Standing("paused".to_owned()),
            Ok(Some(state)) if state.is_shut_down() => Sight::Standing("shut down or suspended".to_owned()),
            Ok(_) => Sight::Clear,
            Err(error) => Sight::Busy(format!("Xen does not say how the domain is ({error})")),
        }
    }

    fn ended(&mut self) -> bool {
        match self.domain.control.state(self.domain.id) {
            Ok(state) => state.is_none_or(State::is_dying),
            Err(_) => false,
        }
    }
}
