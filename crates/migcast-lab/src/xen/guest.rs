//! The guests: what they run, and the file system they start from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cpio::newc::ModeFileType;

use super::files::{LIBRARIES, LOADER, libraries, name_of};
use crate::cache::Cache;
use crate::disk::WORKLOADS;
use crate::initramfs::Archive;
use crate::packages::{self, Packages};

/// A guest of this laboratory.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// What its kernel is told.
    pub arguments: &'static str,
    /// What its workload runs beside busybox: paths within Debian's packages.
    programs: &'static [&'static str],
}

/// All guests.
pub const GUESTS: [Guest; 13] = [
    microbenchmark("still", "nothing but a line a second", "lab.beat=1000"),
    microbenchmark("idle", "nothing but a line a second and a look at the clock every 10 ms", ""),
    microbenchmark(
        "quiet",
        "500 writes/s, uniform over 5,000 pages",
        "lab.pattern=uniform:rate=500,pages=5000 lab.seed=1",
    ),
    microbenchmark(
        "steady",
        "2,000 writes/s, uniform over 5,000 pages",
        "lab.pattern=uniform:rate=2000,pages=5000 lab.seed=2",
    ),
    microbenchmark(
        "busy",
        "5,000 writes/s, uniform over 5,000 pages",
        "lab.pattern=uniform:rate=5000,pages=5000 lab.seed=3",
    ),
    microbenchmark(
        "sequential",
        "1,000 writes/s, page after page through 5,000",
        "lab.pattern=sequential:rate=1000,pages=5000 lab.seed=4",
    ),
    microbenchmark(
        "hot-cold",
        "1,500 writes/s over 10,000 pages, 90 % of them to 10 % of the pages",
        "lab.pattern=hot-cold:rate=1500,pages=10000,hot-pages=0.1,hot-writes=0.9 lab.seed=5",
    ),
    microbenchmark("verify", "4,000 pages that are written and checked over and over", "lab.verify=4000"),
    microbenchmark("work", "computes without end and writes 2,000 pages/s, uniform over 5,000", "lab.work=2000,5000"),
    workload("cpu", "xz -6, over and over", "lab.workload=cpu", &["usr/bin/xz"]),
    workload("web", "nginx under wrk", "lab.workload=web", &["usr/sbin/nginx", "usr/bin/wrk"]),
    workload(
        "files",
        "dbench: two clients of a file server",
        "lab.workload=files",
        &["usr/bin/dbench", "usr/share/dbench/client.txt"],
    ),
    workload(
        "sort",
        "words counted by map and reduce, 20 MB of them",
        "lab.workload=sort",
        &["usr/bin/sort", "usr/bin/split"],
    ),
];

/// Packages of the real programs.
const PACKAGES: [&str; 6] = ["dash", "coreutils", "xz-utils", "nginx-light", "wrk", "dbench"];
const INIT: &str = include_str!("../../guest/xen/domu-init");
const START: &str = include_str!("../../guest/xen/start");
/// What runs the workloads' scripts, which busybox's shell would run with applets of its own.
const SHELL: &str = "bin/dash";
/// Our own programs.
const OWN: [&str; 4] = ["dirty", "pulse", "verify", "work"];

const fn microbenchmark(name: &'static str, about: &'static str, arguments: &'static str) -> Guest {
    Guest { name, about, memory_mib: 128, arguments, programs: &[] }
}

const fn workload(
    name: &'static str,
    about: &'static str,
    arguments: &'static str,
    programs: &'static [&'static str],
) -> Guest {
    Guest { name, about, memory_mib: 256, arguments, programs }
}

impl Guest {
    /// The guest called `name`.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn named(name: &str) -> Result<&'static Guest> {
        let names = || GUESTS.map(|guest| guest.name).join(", ");
        GUESTS.iter().find(|guest| guest.name == name).with_context(|| format!("guest '{name}': there are {}", names()))
    }

    /// Whether its console says when it is warm.
    pub fn says_ready(&self) -> bool {
        self.arguments.contains("lab.pattern=") || !self.programs.is_empty()
    }

    /// Writes the file system it starts from.
    ///
    /// # Errors
    /// A package cannot be fetched, or the file cannot be written.
    pub fn write(&self, path: &Path, busybox: &Path, own: &Path, cache: &Cache) -> Result<()> {
        let mut archive = Archive::create(path)?;
        for dir in ["bin", "dev", "proc", "tmp", "root", "srv", "run"] {
            archive.add(dir, ModeFileType::Directory, 0o755, &[])?;
        }
        archive.add_console()?;
        archive.add("init", ModeFileType::Regular, 0o755, INIT.as_bytes())?;
        let own = OWN.map(|name| own.join(name));
        for program in own.iter().map(PathBuf::as_path).chain([busybox]) {
            add(&mut archive, &format!("bin/{}", name_of(program)), program)?;
        }
        if !self.programs.is_empty() {
            self.add_workload(&mut archive, cache)?;
        }
        archive.finish()
    }

    fn add_workload(&self, archive: &mut Archive, cache: &Cache) -> Result<()> {
        let root =
            cache.folder("xen-programs", &format!("{} {}", packages::RELEASE, PACKAGES.join(" ")), |folder| {
                let packages = Packages::open(cache)?;
                packages.with_dependencies(&PACKAGES)?.iter().try_for_each(|file| packages::unpack(file, folder))
            })?;
        let dirs = ["usr", "usr/bin", "usr/sbin", "usr/share", "usr/share/dbench", "usr/lib", LIBRARIES[0]];
        for dir in dirs.iter().chain(&["lib64", "etc", "lab", "lab/workloads", "var", "var/log", "var/log/nginx"]) {
            archive.add(dir, ModeFileType::Directory, 0o755, &[])?;
        }
        for (name, content) in [("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")] {
            archive.add(&format!("etc/{name}"), ModeFileType::Regular, 0o644, content.as_bytes())?;
        }
        archive.add("lab/start", ModeFileType::Regular, 0o755, START.as_bytes())?;
        for (name, script) in WORKLOADS.iter().filter(|(name, _)| *name == self.name) {
            archive.add(&format!("lab/workloads/{name}"), ModeFileType::Regular, 0o644, script.as_bytes())?;
        }
        let names: Vec<&str> = self.programs.iter().copied().chain([SHELL]).collect();
        let programs: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
        for (name, program) in names.iter().zip(&programs) {
            add(archive, name, program)?;
        }
        let executables: Vec<PathBuf> = programs.into_iter().filter(|path| path.extension().is_none()).collect();
        for library in libraries(&root, &executables)? {
            add(archive, &format!("{}/{}", LIBRARIES[0], name_of(&library)), &library)?;
        }
        add(archive, LOADER, &root.join(LOADER))
    }
}

fn add(archive: &mut Archive, name: &str, from: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    archive.add(name, ModeFileType::Regular, 0o755, &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_well_formed_and_fit() {
        for guest in &GUESTS {
            let pattern = guest.arguments.split(' ').find_map(|word| word.strip_prefix("lab.pattern="));
            let pages = pattern.map_or(0, |text| text.parse::<migcast_dirty::pattern::Pattern>().unwrap().pages());
            assert!(pages / 256 < guest.memory_mib / 2, "{} fits its memory", guest.name);
        }
        assert!(Guest::named("mail").unwrap_err().to_string().starts_with("guest 'mail': there are still"));
    }

    #[test]
    fn every_workload_has_a_script() {
        for guest in GUESTS.iter().filter(|guest| !guest.programs.is_empty()) {
            assert!(WORKLOADS.iter().any(|(name, _)| *name == guest.name), "{}", guest.name);
            assert!(guest.arguments.ends_with(guest.name));
        }
    }
}
