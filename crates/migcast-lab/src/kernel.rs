//! The guests' kernel: Debian's cloud kernel, unpacked into the cache. The host's boot files are never touched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::packages::{self, Packages};

/// Modules a guest with a disk needs, in the order they are loaded; the rest is built in.
pub const MODULES: [&str; 7] =
    ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk", "overlay"];

/// The unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The kernel image.
    pub image: PathBuf,
    /// The files of [`MODULES`], in that order.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Fetches and unpacks the kernel, once.
    ///
    /// # Errors
    /// No network, or a package without what it should hold.
    pub fn obtain(cache: &Cache) -> Result<Kernel> {
        let recipe = format!("{} linux-image-cloud-amd64", packages::RELEASE);
        let folder = cache.folder("kernel", &recipe, |folder| {
            let packages = Packages::open(cache)?;
            let package = packages.alone(&packages.behind("linux-image-cloud-amd64")?)?;
            packages::unpack(&package, folder)
        })?;
        let image = only(&folder.join("boot"), "vmlinuz-")?;
        let release = only(&folder.join("lib/modules"), "")?;
        let modules = MODULES.iter().map(|name| find(&release, &format!("{name}.ko"))).collect::<Result<_>>()?;
        Ok(Kernel { image, modules })
    }
}

/// The one entry of `folder` whose name begins with `prefix`.
pub(crate) fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = entries.filter_map(|entry| entry.ok()).map(|entry| entry.path());
    let begins = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    paths.find(begins).with_context(|| format!("nothing named {prefix}… in {}", folder.display()))
}

/// The file `name` somewhere below `folder`.
pub(crate) fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
            match path {
                // Symbolic links lead to the host's sources.
                _ if path.is_symlink() => {}
                _ if path.is_dir() => open.push(path),
                _ if path.file_name().is_some_and(|found| found == name) => return Ok(path),
                _ => {}
            }
        }
    }
    anyhow::bail!("the kernel package has no {name}")
}
