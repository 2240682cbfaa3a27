//! The catalogue of guests.

use anyhow::{Context, Result};
use migcast_dirty::pattern::Pattern;

/// A guest that can be booted.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Memory it gets unless told otherwise, in MiB.
    pub memory_mib: u32,
    /// What it runs.
    pub load: Load,
}

/// What a guest runs.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// The microbenchmark with this pattern, from the initramfs alone.
    Dirty(&'static str),
    /// A workload of the disk image.
    Workload(&'static str),
}

/// All guests. The first few are the microbenchmark; the others stand for the paper's four loads and a database. The *heavy*
/// ones write some 4,500 pages/s, 0.4 of what 400 Mbit/s carry and 0.8 of what 200 Mbit/s do, so that much is sent again.
pub const GUESTS: [Guest; 16] = [
    Guest {
        name: "steady",
        about: "2,000 writes/s, uniform over 20,000 pages",
        memory_mib: 512,
        load: Load::Dirty("uniform:rate=2000,pages=20000"),
    },
    Guest {
        name: "hot-cold",
        about: "6,000 writes/s over 60,000 pages, 90 % of them to 10 % of the pages",
        memory_mib: 512,
        load: Load::Dirty("hot-cold:rate=6000,pages=60000,hot-pages=0.1,hot-writes=0.9"),
    },
    Guest {
        name: "sequential",
        about: "9,000 writes/s, page after page through 12,000",
        memory_mib: 512,
        load: Load::Dirty("sequential:rate=9000,pages=12000"),
    },
    Guest {
        name: "phases",
        about: "10 s quiet (300 writes/s), 5 s busy (8,000 writes/s over 40,000 pages), over and over",
        memory_mib: 512,
        load: Load::Dirty("phases:10s@300/2000+5s@8000/40000"),
    },
    Guest {
        name: "computing",
        about: "computes and never waits, a write to one of 60,000 pages every so many steps: some 4,000/s",
        memory_mib: 512,
        load: Load::Dirty("computing:steps=60000,pages=60000"),
    },
    Guest {
        name: "heavy-uniform",
        about: "4,500 writes/s, uniform over 60,000 pages",
        memory_mib: 512,
        load: Load::Dirty("uniform:rate=4500,pages=60000"),
    },
    Guest {
        name: "heavy-hot-cold",
        about: "5,000 writes/s over 60,000 pages, 70 % of them to 30 % of the pages",
        memory_mib: 512,
        load: Load::Dirty("hot-cold:rate=5000,pages=60000,hot-pages=0.3,hot-writes=0.7"),
    },
    Guest {
        name: "heavy-sequential",
        about: "4,500 writes/s, page after page through 30,000",
        memory_mib: 512,
        load: Load::Dirty("sequential:rate=4500,pages=30000"),
    },
    Guest {
        name: "heavy-phases",
        about: "4 s at 1,000 writes/s, 2 s at 9,000, both over 30,000 pages, over and over",
        memory_mib: 512,
        load: Load::Dirty("phases:4s@1000/30000+2s@9000/30000"),
    },
    Guest {
        name: "heavy-computing",
        about: "computes and never waits, a write to one of 60,000 pages every so many steps: some 4,800/s",
        memory_mib: 512,
        load: Load::Dirty("computing:steps=50000,pages=60000"),
    },
    Guest {
        name: "idle",
        about: "a booted system on which nothing happens",
        memory_mib: 512,
        load: Load::Workload("idle"),
    },
    Guest { name: "cpu", about: "xz -6 over and over (the paper's CPU)", memory_mib: 512, load: Load::Workload("cpu") },
    Guest {
        name: "web",
        about: "nginx under wrk, static files and an access log (the paper's WEB)",
        memory_mib: 512,
        load: Load::Workload("web"),
    },
    Guest {
        name: "files",
        about: "dbench, a file server's load on a file system in memory (the paper's SFS)",
        memory_mib: 512,
        load: Load::Workload("files"),
    },
    Guest {
        name: "sort",
        about: "sort | uniq -c over 40 MB of words in four pieces, then merge (the paper's MR)",
        memory_mib: 512,
        load: Load::Workload("sort"),
    },
    Guest {
        name: "redis",
        about: "Redis under redis-benchmark, 200,000 keys of 400 bytes, half reads",
        memory_mib: 512,
        load: Load::Workload("redis"),
    },
];

impl Guest {
    /// The guest called `name`.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn named(name: &str) -> Result<&'static Guest> {
        let names = || GUESTS.map(|guest| guest.name).join(", ");
        GUESTS.iter().find(|guest| guest.name == name).with_context(|| format!("guest '{name}': there are {}", names()))
    }

    /// The microbenchmark's pattern, if that is what it runs.
    pub fn pattern(&self) -> Option<Pattern> {
        match self.load {
            Load::Dirty(text) => Some(text.parse().expect("the catalogue's patterns are tested to be well-formed")),
            Load::Workload(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::WORKLOADS;

    #[test]
    fn every_guest_can_be_built() {
        for guest in &GUESTS {
            match guest.load {
                Load::Dirty(text) => {
                    let pages = text.parse::<Pattern>().unwrap().pages();
                    assert!(pages / 256 < guest.memory_mib * 3 / 4, "{} fits its memory", guest.name);
                }
                Load::Workload(name) => assert!(WORKLOADS.iter().any(|(known, _)| *known == name), "{name}"),
            }
            assert_eq!(Guest::named(guest.name).unwrap().about, guest.about);
        }
    }

    #[test]
    fn an_unknown_guest_names_the_known_ones() {
        let error = Guest::named("mail").unwrap_err().to_string();
        assert!(error.starts_with("guest 'mail': there are steady, hot-cold"), "{error}");
    }

    #[test]
    fn every_workload_says_when_it_is_ready() {
        for (name, script) in WORKLOADS {
            assert!(script.lines().any(|line| line == "ready"), "{name}");
        }
    }
}
