//! The hypervisors' own rules, one module each, and the table of their names.

pub mod qemu;

use crate::due::DirtyLog;
use crate::quantity::QuantityError;

/// A hypervisor's rules with their settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Algorithm {
    /// QEMU's pre-copy.
    Qemu(qemu::Version, qemu::Settings),
}

/// One line of the table: a name users write and the algorithm it stands for, with its defaults.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The name, e.g. `qemu-9.0`.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    make: fn() -> Algorithm,
}

/// One QEMU version as a line of the table.
macro_rules! qemu_entry {
    ($name:literal, $version:ident, $summary:literal) => {
        Entry {
            name: $name,
            summary: $summary,
            make: || Algorithm::Qemu(qemu::Version::$version, qemu::Settings::default()),
        }
    };
}
/// Every algorithm, each version standing until the next.
pub const TABLE: &[Entry] = &[
    qemu_entry!("qemu-7.2", V7_2, "QEMU 7.2: pre-copy, syncs below the threshold"),
    qemu_entry!("qemu-8.0", V8_0, "QEMU 8.0: syncs at or below the threshold"),
    qemu_entry!("qemu-8.1", V8_1, "QEMU 8.1: the bandwidth cap counts flushed bytes"),
    qemu_entry!("qemu-8.2", V8_2, "QEMU 8.2: avail-switchover-bandwidth"),
    qemu_entry!("qemu-9.0", V9_0, "QEMU 9.0 and 9.1: syncs below the threshold again"),
    qemu_entry!("qemu-9.2", V9_2, "QEMU 9.2: as 9.0 without auto-converge"),
    qemu_entry!("qemu-10.0", V10_0, "QEMU 10.0: as 9.2 without auto-converge"),
    qemu_entry!("qemu-10.1", V10_1, "QEMU 10.1 and later: what is left may equal the threshold"),
];

/// A setting as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, the hypervisor's own name where it has one.
    pub key: &'static str,
    /// Its value, written so that it can be read back.
    pub value: String,
    /// What it does and where its default comes from.
    pub about: &'static str,
}

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
        allowed: &'static str,
    },
}

impl Algorithm {
    /// The algorithm of this name with its default settings; `qemu` is the newest QEMU.
    pub fn named(name: &str) -> Result<Algorithm, AlgorithmError> {
        let wanted = if name == "qemu" { "qemu-10.1" } else { name };
        let entry = TABLE.iter().find(|entry| entry.name == wanted);
        entry.map(|entry| (entry.make)()).ok_or_else(|| AlgorithmError::UnknownAlgorithm {
            name: name.to_owned(),
            nearest: nearest(name, TABLE.iter().map(|entry| entry.name)),
        })
    }

    /// The algorithm of a recorded guest: its hypervisor's name and version text, such as `10.0.2 (Debian …)`.
    pub fn of_hypervisor(hypervisor: &str, version: &str, accelerator: &str) -> Option<Algorithm> {
        let (major, minor) = qemu::Version::number_in(version)?;
        if hypervisor != "qemu" {
            return None;
        }
        let algorithm = Algorithm::Qemu(qemu::Version::of(major, minor)?, qemu::Settings::default());
        Some(algorithm.on_accelerator(accelerator))
    }

    /// The same with the dirty log of this accelerator: `tcg`, or any other for KVM's default.
    pub fn on_accelerator(self, accelerator: &str) -> Algorithm {
        let Algorithm::Qemu(version, settings) = self;
        let dirty_log = if accelerator == "tcg" { DirtyLog::Tcg } else { DirtyLog::default() };
        Algorithm::Qemu(version, qemu::Settings { dirty_log, ..settings })
    }

    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        let same = |entry: &&Entry| match ((entry.make)(), self) {
            (Algorithm::Qemu(one, _), Algorithm::Qemu(other, _)) => one == *other,
        };
        TABLE.iter().find(same).expect("every algorithm stands in the table").name
    }

    /// Its settings as they stand.
    pub fn settings(&self) -> Vec<Setting> {
        match self {
            Algorithm::Qemu(version, settings) => settings.list(*version),
        }
    }

    /// Changes one setting, `key` and `value` as users write them.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), AlgorithmError> {
        let keys: Vec<&'static str> = self.settings().into_iter().map(|setting| setting.key).collect();
        let Some(known) = keys.iter().find(|known| **known == key) else {
            let nearest = nearest(key, keys.into_iter());
            return Err(AlgorithmError::UnknownSetting { algorithm: self.name(), key: key.to_owned(), nearest });
        };
        match self {
            Algorithm::Qemu(_, settings) => settings.set(known, value),
        }
    }
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> &'static str {
    let similar = known.max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)));
    similar.expect("there is at least one name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_found_by_its_name_and_reads_its_own_settings() {
        for entry in TABLE {
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
