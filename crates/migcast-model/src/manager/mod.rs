//! Managers: what stands above a hypervisor, sets a migration up and changes its settings as it goes.
//!
//! ```text
//!  manager ── sets at first ──► settings of the algorithm
//!     │  ▲ progress: every poll, every iteration
//!     ▼  │
//!  Managed( migration ) ◄── commands: another downtime limit, post-copy, pause, cancel
//! ```
//! A managed migration is a [`Migration`] itself, so that whatever steps migrations need not know of managers.

mod kubevirt;
mod libvirt;
mod nova;
mod proxmox;
mod schedule;
mod vdsm;

use std::fmt::Debug;
use std::time::Duration;

use dyn_clone::DynClone;

pub use kubevirt::KubeVirt;
pub use libvirt::Libvirt;
pub use nova::Nova;
pub use proxmox::Proxmox;
pub use schedule::Schedule;
pub use vdsm::Vdsm;

use crate::algorithm::setting::{self, Field, Setting};
use crate::algorithm::{AlgorithmError, nearest};
use crate::guest::Guest;
use crate::migration::{Command, Event, Migration, Progress};
use crate::units::{BytesPerSec, SimTime};

/// A manager with its settings. One type per file of this module.
pub trait Manager: Debug + DynClone + Send + Sync {
    /// What it does, in plain words.
    fn explained(&self) -> String;

    /// Its settings, open for change.
    fn fields(&mut self) -> Vec<Field<'_>>;

    /// What it sets of QEMU's settings before the migration, key and value as users write them. What a user states holds
    /// against it.
    fn sets(&self, guest: &Guest) -> Vec<(&'static str, String)>;

    /// Its watch over one migration of this guest.
    fn watch(&self, guest: &Guest) -> Box<dyn Watch>;

    /// When it ends a migration of this guest at the latest, from the request on; `None` where it never does.
    fn patience(&self, guest: &Guest) -> Option<Duration>;
}

dyn_clone::clone_trait_object!(Manager);
dyn_clone::clone_trait_object!(Watch);

/// A manager's watch over one migration.
pub trait Watch: Debug + DynClone + Send {
    /// When it looks next.
    fn next_look(&self) -> SimTime;

    /// It looks; the next look is later.
    fn look(&mut self, progress: &Progress) -> Option<Command>;

    /// It is told that the dirty log was read.
    fn iteration_ended(&mut self, _progress: &Progress) -> Option<Command> {
        None
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name users write.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// With its defaults.
    pub make: fn() -> Box<dyn Manager>,
}

/// Every manager.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "libvirt",
        summary: "virsh migrate --live: no bandwidth cap, a timeout if asked for",
        make: || Box::new(Libvirt::default()),
    },
    Entry {
        name: "nova",
        summary: "OpenStack Nova: the downtime limit grows in steps, a completion timeout",
        make: || Box::new(Nova::default()),
    },
    Entry {
        name: "kubevirt-1.0",
        summary: "KubeVirt 1.0 to 1.3: timeouts abort, or switch to post-copy",
        make: || Box::new(KubeVirt::until_1_3()),
    },
    Entry {
        name: "kubevirt-1.5",
        summary: "KubeVirt 1.4 to 1.6: a timeout may also pause the guest",
        make: || Box::new(KubeVirt::from_1_4()),
    },
    Entry {
        name: "kubevirt",
        summary: "KubeVirt of 2026: stalls are detected, the downtime limit follows from them",
        make: || Box::new(KubeVirt::of_2026()),
    },
    Entry {
        name: "proxmox",
        summary: "Proxmox VE: auto-converge, XBZRLE, the downtime limit doubles",
        make: || Box::new(Proxmox::default()),
    },
    Entry {
        name: "vdsm",
        summary: "oVirt (vdsm): the downtime limit grows with the iterations, then the migration is aborted",
        make: || Box::new(Vdsm::default()),
    },
    Entry {
        name: "schedule",
        summary: "a proposal: the downtime limit at stated times, then a pause",
        make: || Box::new(Schedule::default()),
    },
];

/// A manager of the table with its settings.
#[derive(Clone, Debug)]
pub struct Choice {
    name: &'static str,
    manager: Box<dyn Manager>,
}

impl Choice {
    /// The manager of this name with its default settings.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn named(name: &str) -> Result<Choice, AlgorithmError> {
        let entry = TABLE.iter().find(|entry| entry.name == name);
        entry.map(|entry| Choice { name: entry.name, manager: (entry.make)() }).ok_or_else(|| {
            let nearest = nearest(name, TABLE.iter().map(|entry| entry.name));
            AlgorithmError::UnknownManager { name: name.to_owned(), nearest }
        })
    }

    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it does.
    pub fn manager(&self) -> &dyn Manager {
        &*self.manager
    }

    /// Its settings as they stand.
    pub fn settings(&self) -> Vec<Setting> {
        setting::list(self.manager.clone().fields())
    }

    /// Whether it has a setting of this key.
    pub fn knows(&self, key: &str) -> bool {
        self.settings().iter().any(|setting| setting.key == key)
    }

    /// Changes one setting, `key` and `value` as users write them.
    ///
    /// # Errors
    /// It has no such setting, or does not allow the value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), AlgorithmError> {
        setting::change(self.name, self.manager.fields(), key, value)
    }
}

/// A migration under a manager's watch.
#[derive(Clone, Debug)]
pub struct Managed<M, W> {
    migration: M,
    watch: W,
}

impl<M: Migration, W: Watch> Managed<M, W> {
    /// Puts `migration` under `watch`.
    pub fn new(migration: M, watch: W) -> Managed<M, W> {
        Managed { migration, watch }
    }
}

impl<M: Migration + Clone, W: Watch + Clone> Migration for Managed<M, W> {
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        loop {
            // A step may have gone beyond the time of a look: then it is late, as in a busy manager.
            if self.watch.next_look() <= self.migration.progress().now {
                let command = self.watch.look(&self.migration.progress());
                command.into_iter().for_each(|command| self.migration.command(command));
            }
            let event = self.migration.advance(granted, until.min(self.watch.next_look()));
            match event {
                Event::Paused if self.migration.progress().now < until => {}
                Event::IterationEnded => {
                    let command = self.watch.iteration_ended(&self.migration.progress());
                    command.into_iter().for_each(|command| self.migration.command(command));
                    return event;
                }
                _ => return event,
            }
        }
    }

    fn progress(&self) -> Progress {
        self.migration.progress()
    }

    fn command(&mut self, command: Command) {
        self.migration.command(command);
    }
}

impl Watch for Box<dyn Watch> {
    fn next_look(&self) -> SimTime {
        (**self).next_look()
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        (**self).look(progress)
    }

    fn iteration_ended(&mut self, progress: &Progress) -> Option<Command> {
        (**self).iteration_ended(progress)
    }
}

/// Looks at the same interval, the first one interval after the request.
#[derive(Clone, Copy, Debug)]
struct Clock {
    next: SimTime,
    interval: Duration,
}

impl Clock {
    fn every(interval: Duration) -> Clock {
        Clock { next: SimTime::ZERO + interval, interval }
    }

    /// Looked at `now`: looks that were missed meanwhile are not made up for.
    fn tick(&mut self, now: SimTime) {
        while self.next <= now {
            self.next += self.interval;
        }
    }
}

/// Device memory and ROM that a recorded guest has beside its configured memory, and managers do not count, at most.
const BESIDE: u64 = 64 << 20;

/// The capability of a migration that may be switched to post-copy: QEMU takes it at the start only
/// (VIR_MIGRATE_POSTCOPY).
fn allow_postcopy() -> (&'static str, String) {
    ("postcopy-ram", "on".to_owned())
}

/// What a guest is configured with is taken for a multiple of this; it has to be more than there is beside it.
const CONFIGURED_UNIT: u64 = 2 * BESIDE;

/// A guest's configured memory, in bytes.
fn configured_memory(guest: &Guest) -> u64 {
    guest.memory_bytes().get().saturating_sub(BESIDE).div_ceil(CONFIGURED_UNIT).max(1) * CONFIGURED_UNIT
}

/// The same in units of so many bytes, rounded up.
fn whole_units(guest: &Guest, unit: u64) -> u64 {
    configured_memory(guest).div_ceil(unit)
}

/// `per_gib` times the guest's size.
fn scaled(per_gib: Duration, gib: u64) -> Duration {
    per_gib.saturating_mul(u32::try_from(gib).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ByteCount, PageCount};

    /// What a watch does over looks at which so many bytes remain.
    pub(super) fn commands(watch: &mut dyn Watch, remaining: &[u64]) -> Vec<(u64, Command)> {
        let look = |remaining: &u64| {
            let now = watch.next_look();
            watch.look(&at(now, *remaining)).map(|command| (now.as_millis(), command))
        };
        remaining.iter().filter_map(look).collect()
    }

    /// A migration at `now` with so many bytes, in pages of 4096, left to send.
    pub(super) fn at(now: SimTime, remaining: u64) -> Progress {
        let sent = ByteCount::new(now.as_millis() * 1_000_000);
        Progress { now, sent, iterations: 2, due: PageCount::new(remaining / 4096), has_moved: false }
    }

    /// A guest of so many GiB.
    pub(super) fn guest(gib: u64) -> Guest {
        Guest::new("g", ByteCount::new(gib << 30))
    }

    #[test]
    fn every_manager_explains_itself_and_reads_its_own_settings() {
        for entry in TABLE {
            let mut manager = (entry.make)();
            assert!(manager.explained().len() > 100 && !entry.summary.is_empty(), "{}", entry.name);
            for mut field in manager.fields() {
                let value = field.value.write();
                field.value.read(&value).unwrap();
                assert!(!field.about.is_empty());
            }
            for (key, value) in manager.sets(&guest(4)) {
                crate::algorithm::Algorithm::named("qemu").unwrap().set(key, &value).unwrap();
            }
        }
    }
}
