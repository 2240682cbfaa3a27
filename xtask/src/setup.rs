//! `cargo xtask setup`: installs what the tests need from the system, after listing it, and DuckDB from PyPI.
//!
//! QEMU 9 comes from the release's backports where the release itself is older. The host's package sources are not
//! changed for that: apt is given a private list and a private folder for what it fetches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::{NEEDS, Need, Proof, QEMU_MAJOR_MIN, package_major};
use crate::{duckdb, shell};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Only list what is missing and how it would be installed
    #[arg(long)]
    list: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !need.is_met()).collect();
    println!("what the tests need from the system:");
    for need in &NEEDS {
        let there = if missing.iter().any(|other| other.package == need.package) { "missing" } else { "there" };
        println!("  {there:<8} {:<24} {}", need.package, need.why);
    }
    let duckdb = duckdb::is_there()?;
    println!("  {:<8} {}, which opens histories", if duckdb { "there" } else { "missing" }, duckdb::described()?);
    if missing.is_empty() && duckdb {
        println!("everything is there; nothing is changed");
        return Ok(());
    }
    if !missing.is_empty() {
        packages(&missing, args.list)?;
    }
    if duckdb || args.list { Ok(()) } else { duckdb::install() }
}

/// Installs packages of the system; with `list` only says how.
fn packages(missing: &[&Need], list: bool) -> Result<()> {
    let release = release()?;
    let plain: Vec<&str> =
        missing.iter().filter(|need| !matches!(need.proof, Proof::Qemu)).map(|need| need.package).collect();
    let with_qemu = plain.len() < missing.len();
    println!("to be installed by apt-get, with what they depend on and no recommendations:");
    if !plain.is_empty() {
        println!("  from this system's package sources: {}", plain.join(" "));
    }
    if with_qemu {
        println!(
            "  qemu-system-x86 {QEMU_MAJOR_MIN}.0 or newer from this system's package sources if they have it, else from"
        );
        println!("  {release}-backports (asked this once; the system's package sources stay as they are)");
    }
    if list {
        return Ok(());
    }
    if !is_root() {
        bail!("installing needs root: run `sudo -E cargo xtask setup`, or install the packages above by hand");
    }
    install(&plain, with_qemu, &release)?;
    match NEEDS.iter().find(|need| !need.is_met()) {
        Some(need) => bail!("{} is still missing after its installation: {}", need.package, need.why),
        None => Ok(()),
    }
}

/// Whether we may install: the owner of our own `/proc` entry is the effective user.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The code name of the installed release, e.g. "bookworm".
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let name = code_name(&text);
    name.context(
        "this system has no apt release name (VERSION_CODENAME in /etc/os-release): install by hand what is listed",
    )
}

fn code_name(os_release: &str) -> Option<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

fn install(plain: &[&str], with_qemu: bool, release: &str) -> Result<()> {
    shell::run(apt(&[]).arg("update"))?;
    if !plain.is_empty() {
        shell::run(apt(&[]).args(["install", "--yes", "--no-install-recommends"]).args(plain))?;
    }
    if !with_qemu {
        return Ok(());
    }
    if candidate_major(&[]).is_some_and(|major| major >= QEMU_MAJOR_MIN) {
        return shell::run(apt(&[]).args(["install", "--yes", "--no-install-recommends", "qemu-system-x86"]));
    }
    let backports = Backports::open(release)?;
    let options = backports.options();
    shell::run(apt(&options).arg("update"))?;
    let target = format!("{release}-backports");
    shell::run(apt(&options).args(["install", "--yes", "--no-install-recommends", "-t", &target, "qemu-system-x86"]))
}

fn apt(options: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    for option in options {
        command.args(["-o", option]);
    }
    command
}

/// The major version of the QEMU apt would install.
fn candidate_major(options: &[String]) -> Option<u32> {
    let mut policy = Command::new("apt-cache");
    for option in options {
        policy.args(["-o", option]);
    }
    let said = shell::ask(policy.args(["policy", "qemu-system-x86"]).env("LC_ALL", "C"))?;
    let version = said.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    package_major(version)
}

/// The system's package sources and backports, in a folder of our own that goes when this value does.
struct Backports {
    folder: PathBuf,
}

impl Backports {
    fn open(release: &str) -> Result<Backports> {
        let folder = std::env::temp_dir().join(format!("xtask-setup-{}", std::process::id()));
        let backports = Backports { folder };
        backports.fill(release).with_context(|| backports.folder.display().to_string())?;
        Ok(backports)
    }

    fn fill(&self, release: &str) -> Result<()> {
        fs::create_dir_all(self.folder.join("lists/partial"))?;
        let parts = self.folder.join("parts");
        fs::create_dir(&parts)?;
        for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten() {
            let from = entry?.path();
            let name = from.file_name().context("an entry of a folder has a name")?;
            fs::copy(&from, parts.join(name)).with_context(|| from.display().to_string())?;
        }
        fs::write(parts.join("xtask-backports.list"), backports_line(release))?;
        Ok(())
    }

    fn options(&self) -> Vec<String> {
        let folder = self.folder.display();
        vec![format!("Dir::Etc::SourceParts={folder}/parts"), format!("Dir::State::Lists={folder}/lists")]
    }
}

impl Drop for Backports {
    fn drop(&mut self) {
        // Nothing depends on it; the temporary folder is emptied by the system in time.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

fn backports_line(release: &str) -> String {
    // Without the keyring as a file of its own, apt's general one is asked.
    let signed_by = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
    format!("deb {signed_by}http://deb.debian.org/debian {release}-backports main\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_os_release() {
        let text = "ID=debian\nVERSION_CODENAME=bookworm\n";
        assert_eq!(code_name(text).as_deref(), Some("bookworm"));
        assert_eq!(code_name("ID=arch\n"), None);
    }

    #[test]
    fn the_private_sources_hold_backports_and_go_away() {
        let backports = Backports::open("bookworm").unwrap();
        let folder = backports.folder.clone();
        let line = fs::read_to_string(folder.join("parts/xtask-backports.list")).unwrap();
        assert!(line.starts_with("deb ") && line.ends_with(" bookworm-backports main\n"), "{line}");
        assert!(backports.options()[0].ends_with("/parts"));
        drop(backports);
        assert!(!folder.exists());
    }
}
