//! The disk image with the real programs: Debian packages unpacked into a folder, turned into ext4 without mounting.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::initramfs;
use crate::packages::{self, Packages};
use crate::process;

/// What the workloads run, and the shell and tools their scripts use.
const PROGRAMS: [&str; 10] = [
    "dash",
    "coreutils",
    "findutils",
    "mount",
    "xz-utils",
    "nginx-light",
    "wrk",
    "redis-server",
    "redis-tools",
    "dbench",
];

const START: &str = include_str!("../guest/start");
/// The workloads: name and script. Every script ends its warm-up by calling `ready`.
pub const WORKLOADS: [(&str, &str); 6] = [
    ("cpu", include_str!("../guest/workloads/cpu")),
    ("files", include_str!("../guest/workloads/files")),
    ("idle", include_str!("../guest/workloads/idle")),
    ("redis", include_str!("../guest/workloads/redis")),
    ("sort", include_str!("../guest/workloads/sort")),
    ("web", include_str!("../guest/workloads/web")),
];

/// Size of the image's file system; sparse, about half of it used.
const SIZE: &str = "512M";

/// Builds the image, once per change of programs or scripts.
///
/// # Errors
/// A package cannot be fetched, or `mke2fs` is missing.
pub fn build(cache: &Cache) -> Result<PathBuf> {
    let mut recipe = format!("{} {PROGRAMS:?} {SIZE}\n{START}", packages::RELEASE);
    for (name, script) in WORKLOADS {
        recipe.push_str(&format!("\n## {name}\n{script}"));
    }
    let busybox = initramfs::busybox(cache)?;
    let folder = cache.folder("disk", &recipe, |folder| {
        let tree = folder.join("tree");
        lay_out(&tree, cache, &busybox)?;
        let image = folder.join("disk.ext4");
        // Owned by root whoever builds it; a fixed hash seed and id keep the image the same from build to build.
        let options = "root_owner=0:0,hash_seed=00000000-0000-0000-0000-000000000001";
        process::run(
            Command::new("mke2fs")
                .env("PATH", path_with_sbin())
                .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", options])
                .args(["-U", "00000000-0000-0000-0000-000000000002", "-d"])
                .args([tree.as_os_str(), image.as_os_str()])
                .arg(SIZE),
        )?;
        fs::remove_dir_all(&tree).with_context(|| format!("removing {}", tree.display()))
    })?;
    Ok(folder.join("disk.ext4"))
}

/// `mke2fs` lives where a user without root does not look.
fn path_with_sbin() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn lay_out(tree: &Path, cache: &Cache, busybox: &Path) -> Result<()> {
    // The merged /usr of Debian, which base-files leaves to the installer.
    for dir in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(tree.join("usr").join(dir))?;
        symlink(format!("usr/{dir}"), tree.join(dir))?;
    }
    for package in Packages::open(cache)?.with_dependencies(&PROGRAMS)? {
        packages::unpack(&package, tree)?;
    }
    for dir in ["proc", "sys", "dev", "run", "tmp", "root", "srv", "etc", "lab/workloads"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    // No package script has run, so there is no user but root.
    fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(tree.join("etc/group"), "root:x:0:\n")?;
    fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    fs::copy(busybox, tree.join("lab/busybox"))?;
    for (name, script) in WORKLOADS {
        fs::write(tree.join("lab/workloads").join(name), script)?;
    }
    let start = tree.join("lab/start");
    fs::write(&start, START)?;
    fs::set_permissions(&start, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
