//! What the tests need from the system, and how to tell whether it is there.

use std::path::Path;
use std::process::Command;

use crate::shell;

/// Software emulation before this version of QEMU loses dirty pages (QEMU commit 03bfc2188f).
pub(crate) const QEMU_MAJOR_MIN: u32 = 9;

/// Something the tests need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// The Debian package that brings it.
    pub(crate) package: &'static str,
    /// What for.
    pub(crate) why: &'static str,
    /// How to tell that it is there.
    pub(crate) proof: Proof,
}

/// How to tell that something is there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// A program on the path or in the folders of the administrator.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// `qemu-system-x86_64` of at least [`QEMU_MAJOR_MIN`].
    Qemu,
    /// A `python3` that can make environments with `pip`.
    Venv,
}

/// All of it.
pub(crate) const NEEDS: [Need; 8] = [
    Need { package: "qemu-system-x86", why: "runs the guests; 9.0 or newer", proof: Proof::Qemu },
    Need { package: "iproute2", why: "shapes the links of migrations", proof: Proof::Program("ip") },
    Need { package: "e2fsprogs", why: "makes the guests' disk image", proof: Proof::Program("mke2fs") },
    Need {
        package: "libc6-dev",
        why: "links the guests' own program statically",
        proof: Proof::File("/usr/lib/x86_64-linux-gnu/libc.a"),
    },
    Need {
        package: "debian-archive-keyring",
        why: "verifies the guests' packages",
        proof: Proof::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
    },
    Need { package: "procps", why: "brings `kill`, with which tests end recorders", proof: Proof::Program("kill") },
    Need { package: "python3-venv", why: "runs DuckDB, which opens histories", proof: Proof::Venv },
    Need { package: "git", why: "lists the files that tidy looks at", proof: Proof::Program("git") },
];

impl Need {
    /// Whether it is there.
    pub(crate) fn is_met(&self) -> bool {
        match self.proof {
            Proof::Program(name) => on_path(name),
            Proof::File(path) => Path::new(path).exists(),
            Proof::Venv => shell::ask(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_some(),
            Proof::Qemu => shell::ask(Command::new("qemu-system-x86_64").arg("--version"))
                .and_then(|said| qemu_major(&said))
                .is_some_and(|major| major >= QEMU_MAJOR_MIN),
        }
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).any(|dir| Path::new(dir).join(program).exists())
}

/// The major version in "QEMU emulator version 10.0.2 (Debian …)".
fn qemu_major(said: &str) -> Option<u32> {
    said.split("version ").nth(1)?.split('.').next()?.parse().ok()
}

/// The major version of a Debian package, e.g. 10 of "1:10.0.2+ds-2".
pub(crate) fn package_major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_versions_are_found() {
        assert_eq!(qemu_major("QEMU emulator version 10.0.2 (Debian 1:10.0.2)"), Some(10));
        assert_eq!(qemu_major("command not found"), None);
        assert_eq!(package_major("1:7.2+dfsg-7+deb12u16"), Some(7));
        assert_eq!(package_major("10.0.2+ds-2"), Some(10));
        assert_eq!(package_major("(none)"), None);
    }

    #[test]
    fn a_missing_program_or_file_is_missing() {
        let need = |proof| Need { package: "x", why: "", proof };
        assert!(!need(Proof::Program("no-such-program")).is_met());
        assert!(!need(Proof::File("/no/such/file")).is_met());
        assert!(need(Proof::Program("sh")).is_met());
    }
}
