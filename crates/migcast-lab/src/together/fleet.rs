//! The fleet file that `migcast plan` reads, and the asking.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use migcast_model::units::BytesPerSec;

use crate::process;

/// The host that all guests are on, and the one that all go to.
pub const HOSTS: [&str; 2] = ["a", "b"];

/// A guest's line in the file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is called.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Its history, as a path from the file's folder.
    pub history: String,
}

/// The file's text: two hosts with one link between them, and guests that all go from the first to the second.
pub fn text(link: BytesPerSec, entries: &[Entry]) -> String {
    let memory: u32 = entries.iter().map(|entry| entry.memory_mib).sum();
    let mut out = format!("format = \"migcast.inventory/1\"\nlink = \"{}bit/s\"\n", link.bits());
    for host in HOSTS {
        // Room for all of them and as much again: memory is not what the laboratory tries.
        let _ = write!(out, "\n[[host]]\nname = \"{host}\"\nmemory = \"{}MiB\"\n", 2 * memory);
    }
    for Entry { name, memory_mib, history } in entries {
        let _ = write!(
            out,
            "\n[[guest]]\nname = \"{name}\"\nhost = \"{}\"\nmemory = \"{memory_mib}MiB\"\nhistory = \"{history}\"\n\
             to = \"{}\"\n",
            HOSTS[0], HOSTS[1],
        );
    }
    out
}

/// The names of the fleet file and of the plan that was made of it, the `number`-th of a results folder.
pub fn files(number: u32) -> [String; 2] {
    [format!("fleet-{number}.toml"), format!("plan-{number}.json")]
}

/// The fleet file of a plan.
///
/// # Errors
/// The plan's file is not named as [`files`] names it.
pub fn of_plan(plan: &Path) -> Result<PathBuf> {
    let number = plan.file_stem().and_then(OsStr::to_str).and_then(|stem| stem.strip_prefix("plan-")?.parse().ok());
    let number = number.with_context(|| format!("{}: a plan is called plan-N.json", plan.display()))?;
    Ok(plan.with_file_name(&files(number)[0]))
}

/// Asks `migcast plan --json`; returns what it says as it is.
///
/// # Errors
/// The program fails.
pub fn ask(program: &Path, file: &Path, settings: &[String], platform: Option<&Path>) -> Result<String> {
    let mut command = Command::new(program);
    command.arg("plan").arg(file).arg("--json");
    for setting in settings {
        command.args(["--set", setting]);
    }
    if let Some(platform) = platform {
        command.arg("--platform").arg(platform);
    }
    process::output(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_leads_to_its_fleet() {
        let [fleet, plan] = files(12);
        assert_eq!(of_plan(Path::new(&plan)).unwrap(), Path::new(&fleet));
        assert_eq!(of_plan(Path::new("x.json")).unwrap_err().to_string(), "x.json: a plan is called plan-N.json");
    }

    #[test]
    fn every_guest_goes_from_the_first_host_to_the_second() {
        let entry = |name: &str| Entry { name: name.into(), memory_mib: 512, history: format!("{name}-1") };
        let expected = "format = \"migcast.inventory/1\"\nlink = \"200000000bit/s\"\n\n\
                        [[host]]\nname = \"a\"\nmemory = \"1024MiB\"\n\n[[host]]\nname = \"b\"\nmemory = \"1024MiB\"\n\n\
                        [[guest]]\nname = \"x\"\nhost = \"a\"\nmemory = \"512MiB\"\nhistory = \"x-1\"\nto = \"b\"\n";
        assert_eq!(text(BytesPerSec::from_bits(200_000_000), &[entry("x")]), expected);
    }
}
