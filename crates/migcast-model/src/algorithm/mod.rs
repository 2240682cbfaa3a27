//! The hypervisors' own rules, one module each, and the table of their names.

pub mod cloud_hypervisor;
pub mod criu;
pub mod propolis;
pub mod qemu;
pub mod rounds;
pub mod setting;
pub mod stopped;
pub mod xen;
pub mod xen_classic;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use dyn_clone::DynClone;

use qemu::FirstPass;
use setting::Field;
pub use setting::Setting;

use crate::due::{DirtyLog, DueSet, Tracking};
use crate::guest::Guest;
use crate::link::Link;
use crate::manager::{self, Managed};
use crate::migration::Migration;
use crate::platform::Platform;
use crate::quantity::QuantityError;
use crate::units::BytesPerSec;

/// A hypervisor's way to migrate: its settings, and the machine that obeys them. One type per file of this module.
pub trait Scheme: Debug + DynClone + Send + Sync {
    /// What it does, in plain words, for people who do not know its source.
    fn explained(&self) -> String;

    /// Its settings, open for change.
    fn fields(&mut self) -> Vec<Field<'_>>;

    /// A migration that is requested at time zero.
    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a>;

    /// What it keeps about the pages.
    fn tracking(&self) -> Tracking {
        Tracking { log: DirtyLog::Kvm, ..Tracking::default() }
    }

    /// The same on this accelerator, as a history names it, where that matters.
    fn run_on(&mut self, _accelerator: &str) {}

    /// A cap on the rate while the guest runs.
    fn cap(&self) -> Option<BytesPerSec> {
        None
    }

    /// The downtime it aims at, if it does.
    fn downtime_aim(&self) -> Duration {
        Duration::ZERO
    }

    /// When a migration is over at the latest.
    fn ends(&self) -> Ends;

    /// Whether the guest may move before its memory.
    fn may_move_first(&self) -> bool {
        false
    }

    /// Whether managers can change its settings while it runs: QEMU's alone can.
    fn is_managed(&self) -> bool {
        false
    }

    /// What it calls what it does.
    fn terms(&self) -> Terms {
        Terms { reporter: None, iterations: "rounds" }
    }

    /// Why these settings cannot go together, if they cannot: one line, ending with what is allowed.
    fn contradiction(&self) -> Option<String> {
        None
    }

    /// What a user should know who forecasts with these settings, each ending with what to do.
    fn cautions(&self) -> Vec<String> {
        Vec::new()
    }
}

dyn_clone::clone_trait_object!(Scheme);

/// What is asked of a hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who is migrated.
    pub guest: &'a Guest,
    /// Over which link; only the sender's buffer is taken of it, its rate is granted at each step.
    pub link: &'a Link,
    /// Between which hosts.
    pub platform: &'a Platform,
    /// What is kept for others that ask for the same, from another starting point, and are granted the same rate.
    pub first_pass: Option<&'a Arc<FirstPass>>,
}

/// What a hypervisor calls what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Who reports a downtime of its own, if anyone does.
    pub reporter: Option<&'static str>,
    /// Its iterations, in the plural.
    pub iterations: &'static str,
}

/// When a migration is over at the latest, whatever the guest writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    /// It may go on for ever.
    Never,
    /// After the memory has been sent so many times while the guest runs, and this many times while it stands.
    AfterSending {
        /// Live, in memories.
        live: u64,
        /// Stopped, in memories.
        stopped: u64,
        /// In so many rounds while the guest runs.
        rounds: u64,
    },
    /// After a time, from when memory is first sent; what is under way then is finished, and up to twice the memory is
    /// sent while the guest stands.
    AfterTime(Duration),
}

/// A hypervisor's rules with their settings.
#[derive(Clone, Debug)]
pub struct Algorithm {
    name: &'static str,
    scheme: Box<dyn Scheme>,
    manager: Option<manager::Choice>,
}

impl PartialEq for Algorithm {
    fn eq(&self, other: &Algorithm) -> bool {
        let manager = |of: &Algorithm| of.manager.as_ref().map(|manager| (manager.name(), manager.settings()));
        self.name == other.name && self.settings() == other.settings() && manager(self) == manager(other)
    }
}

/// One line of the table: a name users write and the algorithm it stands for, with its defaults.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name, e.g. `qemu-9.0`.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    make: fn() -> Box<dyn Scheme>,
}

/// A line of the table.
macro_rules! entry {
    ($name:literal, $scheme:expr, $summary:literal) => {
        Entry { name: $name, summary: $summary, make: || Box::new($scheme) }
    };
}

/// Every algorithm. A version stands until the next.
pub const TABLE: &[Entry] = &[
    entry!("qemu-7.2", qemu::Precopy::of(qemu::Version::V7_2), "QEMU 7.2: pre-copy, syncs below the threshold"),
    entry!("qemu-8.0", qemu::Precopy::of(qemu::Version::V8_0), "QEMU 8.0: syncs at or below the threshold"),
    entry!(
        "qemu-8.1",
        qemu::Precopy::of(qemu::Version::V8_1),
        "QEMU 8.1: dirty-limit, multifd syncs no longer with each section"
    ),
    entry!(
        "qemu-8.2",
        qemu::Precopy::of(qemu::Version::V8_2),
        "QEMU 8.2: avail-switchover-bandwidth, the bandwidth cap counts flushed bytes"
    ),
    entry!("qemu-9.0", qemu::Precopy::of(qemu::Version::V9_0), "QEMU 9.0 and 9.1: syncs below the threshold again"),
    entry!("qemu-9.2", qemu::Precopy::of(qemu::Version::V9_2), "QEMU 9.2: auto-converge syncs every 5 s"),
    entry!("qemu-10.0", qemu::Precopy::of(qemu::Version::V10_0), "QEMU 10.0: as 9.2"),
    entry!(
        "qemu-10.1",
        qemu::Precopy::of(qemu::Version::V10_1),
        "QEMU 10.1 and later: what is left may equal the threshold"
    ),
    entry!(
        "xen-classic",
        xen_classic::Settings::default(),
        "Xen 3.0.2 to 4.5: up to 29 rounds, pages written again are skipped"
    ),
    entry!("xen-4.6", xen::V2::of(xen::Version::V4_6), "Xen 4.6 to 4.9: up to five rounds, nothing is skipped"),
    entry!("xen-4.10", xen::V2::of(xen::Version::V4_10), "Xen 4.10 and later: as 4.6, decided by a policy"),
    entry!(
        "cloud-hypervisor-51",
        cloud_hypervisor::Rounds51::default(),
        "Cloud Hypervisor up to 51: five rounds of dirty pages"
    ),
    entry!(
        "cloud-hypervisor",
        cloud_hypervisor::Estimate52::default(),
        "Cloud Hypervisor 52 and later: an estimate of the downtime, a timeout"
    ),
    entry!("propolis", propolis::Propolis, "Propolis: one pass while the guest runs, one while it stands"),
    entry!(
        "criu",
        criu::Settings::default(),
        "CRIU: pre-dumps as p.haul repeats them, then a dump of the frozen process"
    ),
    entry!("stop-and-copy", stopped::StopAndCopy, "the guest stands still while all of its memory is sent"),
    entry!("post-copy", stopped::PostCopy, "the guest moves first, its memory follows"),
];

/// Why an algorithm or a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlgorithmError {
    /// No such name in the table.
    #[error("algorithm `{name}` is not known; nearest: `{nearest}` (`migcast algorithms` lists all)")]
    UnknownAlgorithm {
        /// What was given.
        name: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// No such manager in the table.
    #[error("manager `{name}` is not known; nearest: `{nearest}` (`migcast algorithms` lists all)")]
    UnknownManager {
        /// What was given.
        name: String,
        /// The most similar name.
        nearest: &'static str,
    },
    /// Managers manage QEMU.
    #[error("manager `{manager}`: it manages QEMU, not {algorithm}: choose a `qemu-…` algorithm")]
    NotManaged {
        /// The algorithm's name.
        algorithm: &'static str,
        /// The manager's name.
        manager: &'static str,
    },
    /// The algorithm has no such setting.
    #[error("setting `{key}` is not known to {algorithm}; nearest: `{nearest}`")]
    UnknownSetting {
        /// The algorithm's name.
        algorithm: &'static str,
        /// What was given.
        key: String,
        /// The most similar key.
        nearest: &'static str,
    },
    /// The algorithm has no settings at all.
    #[error("setting `{key}` is not known to {algorithm}, which has none")]
    NoSettings {
        /// The algorithm's name.
        algorithm: &'static str,
        /// What was given.
        key: String,
    },
    /// The value is no quantity of the wanted kind.
    #[error("setting `{key}`: {source}")]
    Malformed {
        /// The setting.
        key: &'static str,
        /// What is wrong.
        source: QuantityError,
    },
    /// The value is outside of what the hypervisor takes.
    #[error("setting `{key}`: `{value}` is not allowed: {allowed}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
}

/// The rules of a version of Xen's toolstack (libxc, xc_sr_save.c): written anew in 4.6, with other stop rules from 4.10 on.
fn xen_rules(major: u32, minor: u32) -> &'static str {
    match (major, minor) {
        (..4, _) | (4, ..6) => "xen-classic",
        (4, 6..10) => "xen-4.6",
        _ => "xen-4.10",
    }
}

impl Algorithm {
    /// The algorithm of this name with its default settings; `qemu` is the newest QEMU, `xen` the newest Xen.
    pub fn named(name: &str) -> Result<Algorithm, AlgorithmError> {
        let wanted = match name {
            "qemu" => "qemu-10.1",
            "xen" => "xen-4.10",
            _ => name,
        };
        let entry = TABLE.iter().find(|entry| entry.name == wanted);
        entry.map(Entry::algorithm).ok_or_else(|| AlgorithmError::UnknownAlgorithm {
            name: name.to_owned(),
            nearest: nearest(name, TABLE.iter().map(|entry| entry.name)),
        })
    }

    /// QEMU's pre-copy with these settings.
    pub fn qemu(version: qemu::Version, settings: qemu::Settings) -> Algorithm {
        let name = version.name();
        debug_assert!(TABLE.iter().any(|entry| entry.name == name), "every version of QEMU stands in the table");
        Algorithm { name, scheme: Box::new(qemu::Precopy { version, settings }), manager: None }
    }

    /// The algorithm of a recorded guest: its hypervisor's name and version text, such as `10.0.2 (Debian …)`.
    pub fn of_hypervisor(hypervisor: &str, version: &str, accelerator: &str) -> Option<Algorithm> {
        let (major, minor) = qemu::Version::number_in(version.trim_start_matches('v'))?;
        match hypervisor {
            "qemu" => {}
            "cloud-hypervisor" if major < 52 => return Algorithm::named("cloud-hypervisor-51").ok(),
            "cloud-hypervisor" => return Algorithm::named("cloud-hypervisor").ok(),
            "xen" => return Algorithm::named(xen_rules(major, minor)).ok(),
            _ => return None,
        }
        let algorithm = Algorithm::qemu(qemu::Version::of(major, minor)?, qemu::Settings::default());
        Some(algorithm.on_accelerator(accelerator))
    }

    /// The same with the dirty log of this accelerator: `tcg`, or any other for KVM's default.
    pub fn on_accelerator(mut self, accelerator: &str) -> Algorithm {
        self.scheme.run_on(accelerator);
        self
    }

    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How it migrates.
    pub fn scheme(&self) -> &dyn Scheme {
        &*self.scheme
    }

    /// Its settings as they stand.
    pub fn settings(&self) -> Vec<Setting> {
        setting::list(self.scheme.clone().fields())
    }

    /// Changes one setting, `key` and `value` as users write them.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), AlgorithmError> {
        setting::change(self.name, self.scheme.fields(), key, value)
    }

    /// The same under a manager, with what it sets before a migration of this guest.
    ///
    /// # Errors
    /// Managers manage QEMU, not this algorithm.
    pub fn managed_by(mut self, manager: manager::Choice, guest: &Guest) -> Result<Algorithm, AlgorithmError> {
        if !self.scheme.is_managed() {
            return Err(AlgorithmError::NotManaged { algorithm: self.name, manager: manager.name() });
        }
        for (key, value) in manager.manager().sets(guest) {
            self.set(key, &value)?;
        }
        self.manager = Some(manager);
        Ok(self)
    }

    /// Who manages its migrations, if anyone does.
    pub fn manager(&self) -> Option<&manager::Choice> {
        self.manager.as_ref()
    }

    /// A migration that is requested at time zero, under its manager's watch.
    pub fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        let migration = self.scheme.migration(request, due);
        match &self.manager {
            Some(manager) => Box::new(Managed::new(migration, manager.manager().watch(request.guest))),
            None => migration,
        }
    }
}

impl Entry {
    /// The algorithm with its default settings.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm { name: self.name, scheme: (self.make)(), manager: None }
    }
}

pub(crate) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    let similar = known.max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    similar.expect("there is at least one name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_found_by_its_name_and_reads_its_own_settings() {
        for entry in TABLE {
            assert_eq!(TABLE.iter().filter(|other| other.name == entry.name).count(), 1);
            assert!(!entry.summary.is_empty() && entry.algorithm().scheme().explained().len() > 200);
            let mut algorithm = Algorithm::named(entry.name).unwrap();
            assert_eq!(algorithm.name(), entry.name);
            let before = algorithm.settings();
            for setting in &before {
                algorithm.set(setting.key, &setting.value).unwrap();
                assert!(!setting.about.is_empty());
            }
            assert_eq!(algorithm.settings(), before);
        }
    }

    #[test]
    fn the_hypervisor_names_its_algorithm() {
        let name = |version| Algorithm::of_hypervisor("qemu", version, "kvm").map(|algorithm| algorithm.name());
        assert_eq!(name("7.2.22 (Debian 1:7.2)"), Some("qemu-7.2"));
        assert_eq!(name("9.1.0"), Some("qemu-9.0"));
        assert_eq!(name("10.0.2"), Some("qemu-10.0"));
        assert_eq!(name("11.2"), Some("qemu-10.1"));
        assert_eq!(name("6.2.0"), None);
        assert_eq!(name("unknown"), None);
        assert_eq!(Algorithm::of_hypervisor("bhyve", "14.0", "bhyve"), None);
        let cloud =
            |version| Algorithm::of_hypervisor("cloud-hypervisor", version, "kvm").map(|algorithm| algorithm.name());
        assert_eq!([cloud("v51.1"), cloud("52.0")], [Some("cloud-hypervisor-51"), Some("cloud-hypervisor")]);
        let xen = |version| Algorithm::of_hypervisor("xen", version, "hvm").map(|algorithm| algorithm.name());
        let (classic, first, today) = (Some("xen-classic"), Some("xen-4.6"), Some("xen-4.10"));
        assert_eq!(["3.4.1", "4.5.5", "4.6.0", "4.9.4"].map(xen), [classic, classic, first, first]);
        assert_eq!(["4.10.0", "4.17.7", "5.0", "unstable"].map(xen), [today, today, today, None]);
    }

    #[test]
    fn refusals_name_the_nearest() {
        let error = Algorithm::named("quemu-9.0").unwrap_err().to_string();
        assert_eq!(error, "algorithm `quemu-9.0` is not known; nearest: `qemu-9.0` (`migcast algorithms` lists all)");
        let mut qemu = Algorithm::named("qemu").unwrap();
        let error = qemu.set("downtime", "1s").unwrap_err().to_string();
        assert_eq!(error, "setting `downtime` is not known to qemu-10.1; nearest: `downtime-limit`");
        let error = qemu.set("downtime-limit", "3000s").unwrap_err().to_string();
        assert_eq!(error, "setting `downtime-limit`: `3000s` is not allowed: 0ms to 2000s, in whole milliseconds");
        let error = qemu.set("max-bandwidth", "fast").unwrap_err().to_string();
        assert!(error.starts_with("setting `max-bandwidth`: `fast` is not a transfer rate: write"), "{error}");
        assert!(Algorithm::named("qemu-7.2").unwrap().set("avail-switchover-bandwidth", "1GB/s").is_err());
    }
}
