//! Which QEMU runs the guest and how it runs the guest's code.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::process;

/// The environment variable that chooses an accelerator where none is given. KVM is never chosen because it happens
/// to be there: a `/dev/kvm` may open and yet not run a stock kernel.
pub const VARIABLE: &str = "MIGCAST_LAB_ACCEL";

/// What runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Software emulation, one thread per virtual CPU.
    Tcg,
    /// The processor.
    Kvm,
}

impl Accel {
    /// The accelerator named by [`VARIABLE`], else software emulation.
    ///
    /// # Errors
    /// The variable names something else.
    pub fn from_environment() -> Result<Accel> {
        match std::env::var(VARIABLE) {
            Ok(name) => name.parse().with_context(|| VARIABLE.to_owned()),
            Err(_) => Ok(Accel::Tcg),
        }
    }

    /// The value of QEMU's `-accel`.
    pub fn argument(self) -> &'static str {
        match self {
            Accel::Tcg => "tcg,thread=multi",
            Accel::Kvm => "kvm",
        }
    }
}

impl FromStr for Accel {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Accel> {
        match name {
            "tcg" => Ok(Accel::Tcg),
            "kvm" => Ok(Accel::Kvm),
            _ => bail!("accelerator '{name}': allowed are tcg and kvm"),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        })
    }
}

/// The QEMU on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub program: String,
    /// Its version, e.g. "10.0.2".
    pub version: String,
    major: u32,
}

impl Qemu {
    /// Asks `qemu-system-x86_64` for its version.
    ///
    /// # Errors
    /// It is not installed.
    pub fn find() -> Result<Qemu> {
        let program = "qemu-system-x86_64".to_owned();
        let said = process::output(Command::new(&program).arg("--version"))
            .context("QEMU 9.0 or newer is needed; run `cargo xtask setup`")?;
        Qemu::parse(program, &said)
    }

    fn parse(program: String, said: &str) -> Result<Qemu> {
        let version = said.split("version ").nth(1).and_then(|rest| rest.split([' ', '\n']).next());
        let version = version.with_context(|| format!("{program} --version said '{}'", said.trim()))?;
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        let major = major.with_context(|| format!("{program} has the version '{version}'"))?;
        Ok(Qemu { program, version: version.to_owned(), major })
    }

    /// Whether what this QEMU shows of a guest's writing can be trusted.
    ///
    /// # Errors
    /// Software emulation before 9.0: its dirty log misses stores through a hot TLB entry (QEMU commit 03bfc2188f),
    /// so a migration of it sends too little.
    pub fn check(&self, accel: Accel) -> Result<()> {
        if accel == Accel::Tcg && self.major < 9 {
            bail!(
                "QEMU {} with tcg loses dirty pages (fixed in 9.0 by 03bfc2188f), so nothing it migrates can be \
                 measured; run `cargo xtask setup` for a newer one",
                self.version
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcg_before_9_is_refused_with_the_reason() {
        let old = Qemu::parse("q".into(), "QEMU emulator version 7.2.17 (Debian 1:7.2)\nCopyright").unwrap();
        assert_eq!(old.version, "7.2.17");
        assert!(old.check(Accel::Tcg).unwrap_err().to_string().contains("loses dirty pages"));
        old.check(Accel::Kvm).unwrap();
        Qemu::parse("q".into(), "QEMU emulator version 10.0.2\n").unwrap().check(Accel::Tcg).unwrap();
    }

    #[test]
    fn an_unknown_accelerator_names_the_known_ones() {
        assert_eq!("hvf".parse::<Accel>().unwrap_err().to_string(), "accelerator 'hvf': allowed are tcg and kvm");
    }
}
