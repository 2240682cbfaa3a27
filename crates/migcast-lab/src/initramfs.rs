//! The first file system of every guest: a static busybox, our static `dirty`, a few modules and `init`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType, trailer};

use crate::cache::Cache;
use crate::kernel::Kernel;
use crate::packages::{self, Packages};
use crate::process;

const INIT: &str = include_str!("../guest/init");
/// The workspace this laboratory was built from, where `dirty` is built.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds the initramfs; quick when nothing has changed.
///
/// # Errors
/// A package cannot be fetched, or `dirty` does not build.
pub fn build(cache: &Cache, kernel: &Kernel) -> Result<PathBuf> {
    let busybox = busybox(cache)?;
    let dirty = programs(cache)?.join("dirty");
    let image = cache.root().join("initramfs.cpio");
    let new = cache.root().join("initramfs.cpio.new");
    write_archive(&new, &busybox, &dirty, kernel).with_context(|| format!("writing {}", new.display()))?;
    // Renamed, because a guest that is booting may be reading the old one.
    fs::rename(&new, &image).with_context(|| format!("writing {}", image.display()))?;
    Ok(image)
}

/// Fetches Debian's static busybox, once.
///
/// # Errors
/// The package cannot be fetched.
pub fn busybox(cache: &Cache) -> Result<PathBuf> {
    let recipe = format!("{} busybox-static", packages::RELEASE);
    let folder = cache.folder("busybox", &recipe, |folder| {
        let package = Packages::open(cache)?.alone("busybox-static")?;
        packages::unpack(&package, folder)
    })?;
    Ok(folder.join("bin/busybox"))
}

/// Builds our own programs for guests (`dirty`, `verify`, `throttle`), linked statically, in a target folder of its own:
/// their flags differ from everybody else's, and the workspace's folder may be locked by the very cargo that runs us.
/// Returns the folder they are in.
///
/// # Errors
/// They do not build.
pub fn programs(cache: &Cache) -> Result<PathBuf> {
    let triple = "x86_64-unknown-linux-gnu";
    let target = cache.root().join("dirty");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    process::run(
        Command::new(cargo)
            .args(["build", "--release", "--package", "migcast-dirty", "--target", triple])
            .current_dir(WORKSPACE)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER"),
    )
    .context("building the static programs of guests")?;
    Ok(target.join(triple).join("release"))
}

fn write_archive(path: &Path, busybox: &Path, dirty: &Path, kernel: &Kernel) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for dir in ["bin", "dev", "proc", "sys", "modules", "disk", "over", "new"] {
        archive.add(dir, ModeFileType::Directory, 0o755, &[])?;
    }
    // The kernel opens it for the first process before that can mount /dev.
    archive.add_console()?;
    archive.add("init", ModeFileType::Regular, 0o755, INIT.as_bytes())?;
    archive.add("bin/busybox", ModeFileType::Regular, 0o755, &fs::read(busybox)?)?;
    archive.add("bin/dirty", ModeFileType::Regular, 0o755, &fs::read(dirty)?)?;
    for module in &kernel.modules {
        let name = module.file_name().context("a module has a name")?.to_string_lossy();
        archive.add(&format!("modules/{name}"), ModeFileType::Regular, 0o644, &fs::read(module)?)?;
    }
    archive.finish()
}

/// A cpio archive in the "newc" format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
pub(crate) struct Archive {
    out: BufWriter<File>,
    inode: u32,
}

impl Archive {
    pub(crate) fn create(path: &Path) -> Result<Archive> {
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        Ok(Archive { out: BufWriter::new(file), inode: 0 })
    }

    pub(crate) fn finish(self) -> Result<()> {
        Ok(trailer(self.out)?.flush()?)
    }

    pub(crate) fn add(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        let entry = self.entry(name).mode(mode).set_mode_file_type(kind);
        self.write(entry, content)
    }

    pub(crate) fn add_link(&mut self, name: &str, to: &str) -> Result<()> {
        self.add(name, ModeFileType::Symlink, 0o777, to.as_bytes())
    }

    pub(crate) fn add_console(&mut self) -> Result<()> {
        let entry = self.entry("dev/console").mode(0o600).set_mode_file_type(ModeFileType::Char);
        self.write(entry.rdev_major(5).rdev_minor(1), &[])
    }

    fn entry(&mut self, name: &str) -> Builder {
        self.inode += 1;
        Builder::new(name).ino(self.inode).nlink(1).mtime(0)
    }

    fn write(&mut self, entry: Builder, content: &[u8]) -> Result<()> {
        let length = u32::try_from(content.len()).context("a file of the initramfs is larger than 4 GiB")?;
        let mut file = entry.write(&mut self.out, length);
        file.write_all(content)?;
        file.finish()?;
        Ok(())
    }
}
