//! Debian packages for guests, fetched by the host's `apt-get` with sources, lists and status of our own.
//!
//! Neither the host's package sources nor its installed packages play a part, and nothing is installed: packages are
//! downloaded, verified by apt and unpacked into a folder. So guests are the same on every host, and root is not
//! needed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Cache;
use crate::process;

/// The Debian release guests are made of.
pub const RELEASE: &str = "bookworm";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private apt: its own sources, lists, status (nothing installed) and archive of packages.
#[derive(Debug)]
pub struct Packages {
    root: PathBuf,
}

impl Packages {
    /// Sets the private apt up in the cache and fetches the package lists. The mirror is `MIGCAST_LAB_MIRROR` or
    /// deb.debian.org.
    ///
    /// # Errors
    /// No apt or no Debian keyring on this host, or no network.
    pub fn open(cache: &Cache) -> Result<Packages> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing: guests are built on Debian or its kin; run `cargo xtask setup`"
        );
        let root = cache.root().join("apt");
        for dir in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(root.join(dir)).with_context(|| format!("making {}", root.join(dir).display()))?;
        }
        let mirror = std::env::var("MIGCAST_LAB_MIRROR").unwrap_or_else(|_| "http://deb.debian.org".to_owned());
        let source = |archive: &str, suite: &str| {
            format!("deb [signed-by={KEYRING} arch=amd64] {mirror}/{archive} {suite} main\n")
        };
        let sources = source("debian", RELEASE) + &source("debian-security", &format!("{RELEASE}-security"));
        fs::write(root.join("sources.list"), sources).context("writing sources.list")?;
        fs::write(root.join("status"), "").context("writing the empty status")?;
        let packages = Packages { root };
        process::run(packages.apt("apt-get").args(["--quiet", "update"]))?;
        Ok(packages)
    }

    /// Downloads the packages `names` with all they depend on, as onto an empty system; returns the files.
    ///
    /// # Errors
    /// An unknown package, or a failed download.
    pub fn with_dependencies(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let install = ["--quiet", "--yes", "--no-install-recommends", "install"];
        let listed = process::output(self.apt("apt-get").args(["--simulate"]).args(install).args(names))?;
        process::run(self.apt("apt-get").args(["--download-only"]).args(install).args(names))?;
        let mut files = Vec::new();
        for line in listed.lines().filter_map(|line| line.strip_prefix("Inst ")) {
            // "Inst NAME (VERSION Origin [arch])"
            let (name, rest) = line.split_once(" (").with_context(|| format!("apt-get said '{line}'"))?;
            let version = rest.split(' ').next().unwrap_or_default();
            files.push(self.archived(name, version)?);
        }
        ensure!(!files.is_empty(), "apt-get found nothing to install for {names:?}");
        Ok(files)
    }

    /// Downloads one package alone; returns the file.
    ///
    /// # Errors
    /// An unknown package, or a failed download.
    pub fn alone(&self, name: &str) -> Result<PathBuf> {
        process::run(self.apt("apt-get").args(["--quiet", "download", name]).current_dir(self.archives()))?;
        let shown = process::output(self.apt("apt-cache").args(["--no-all-versions", "show", name]))?;
        let version = shown.lines().find_map(|line| line.strip_prefix("Version: "));
        self.archived(name, version.with_context(|| format!("apt-cache knows no version of {name}"))?)
    }

    /// The package that `name`, a metapackage, stands for: its first dependency.
    ///
    /// # Errors
    /// An unknown package or one without dependencies.
    pub fn behind(&self, name: &str) -> Result<String> {
        let listed = process::output(self.apt("apt-cache").args(["depends", name]))?;
        let first = listed.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(first.with_context(|| format!("package {name} depends on nothing"))?.to_owned())
    }

    fn archives(&self) -> PathBuf {
        self.root.join("archives")
    }

    fn archived(&self, name: &str, version: &str) -> Result<PathBuf> {
        // apt writes the epoch's colon as %3a.
        let version = version.replace(':', "%3a");
        for arch in ["amd64", "all"] {
            let file = self.archives().join(format!("{name}_{version}_{arch}.deb"));
            if file.exists() {
                return Ok(file);
            }
        }
        bail!("{name} {version} was not downloaded to {}", self.archives().display())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let root = self.root.display();
        for option in [
            format!("Dir::Etc::SourceList={root}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={root}/lists"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::State::extended_states={root}/extended_states"),
            format!("Dir::Cache={root}"),
            format!("Dir::Cache::Archives={root}/archives"),
            format!("Dir::Log={root}"),
            "APT::Architecture=amd64".to_owned(),
            // The cache belongs to the caller; apt's own user need not be able to read it.
            "APT::Sandbox::User=".to_owned(),
            "Debug::NoLocking=true".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        // Hooks of the host (update notifiers and the like) have no business here.
        command.args(["-o", "#clear=APT::Update::Post-Invoke-Success", "-o", "#clear=APT::Update::Post-Invoke"]);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        command
    }
}

/// Unpacks a package into `folder`, without running any of its scripts.
///
/// # Errors
/// `dpkg-deb` or `tar` is missing, or the package is damaged.
pub fn unpack(package: &Path, folder: &Path) -> Result<()> {
    let tar = package.with_extension("tar");
    let file = File::create(&tar).with_context(|| format!("making {}", tar.display()))?;
    process::run_into(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package), file)?;
    // dpkg-deb's own unpacking would replace the merged system's link /bin by a folder.
    let done = process::run(
        Command::new("tar")
            .arg("--extract")
            .arg("--keep-directory-symlink")
            .arg("--file")
            .arg(&tar)
            .arg("--directory")
            .arg(folder),
    );
    fs::remove_file(&tar).with_context(|| format!("removing {}", tar.display()))?;
    done
}
