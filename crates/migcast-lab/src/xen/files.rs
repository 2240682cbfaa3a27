//! What the Xen laboratory is made of, from Debian packages, unpacked into the cache.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::guest::Guest;
use crate::cache::Cache;
use crate::initramfs::{self, Archive};
use crate::kernel::{self, Kernel};
use crate::packages::{self, Packages};
use crate::process;
use cpio::newc::ModeFileType;

/// Xen, its toolstack, and the libraries that takes.
const XEN: [&str; 19] = [
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "libxenmisc4.17",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libxenhypfs1",
    "libyajl2",
    "libc6",
    "libgcc-s1",
    "liblzma5",
    "libuuid1",
    "libzstd1",
    "zlib1g",
];
/// The emulator with all it needs.
const EMULATOR: [&str; 2] = ["qemu-system-x86", "seabios"];
/// dom0's kernel: the cloud kernel cannot be one.
const DOM0_KERNEL: &str = "linux-image-amd64";
/// Its modules, in the order they are loaded.
const MODULES: [&str; 5] = ["xen-evtchn", "xen-privcmd", "xen-gntdev", "xen-gntalloc", "xenfs"];
/// Programs of the toolstack that dom0 gets, from where xen-utils has them.
const TOOLS: &str = "usr/lib/xen-4.17/bin";
const PROGRAMS: [&str; 5] = ["xl", "xenstored", "xenconsoled", "xen-init-dom0", "libxl-save-helper"];
pub(super) const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
pub(super) const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Found by name at run time, so that no program's list has them: `pthread_cancel`'s helper, and what `migcast` asks for.
const BY_NAME: [&str; 3] = ["libgcc_s.so.1", "libxenctrl.so.4.17", "libxenstore.so.4"];

const DOM0_INIT: &str = include_str!("../../guest/xen/dom0-init");

/// Everything a dom0 is booted from.
#[derive(Clone, Debug)]
pub struct Files<'a> {
    /// The hypervisor, not compressed.
    pub hypervisor: PathBuf,
    /// dom0's kernel.
    pub kernel: PathBuf,
    /// The root of the emulator's packages.
    pub emulator: PathBuf,
    xen: PathBuf,
    modules: Vec<PathBuf>,
    guest_kernel: PathBuf,
    busybox: PathBuf,
    programs: PathBuf,
    cache: &'a Cache,
}

impl<'a> Files<'a> {
    /// Fetches, unpacks and builds what is not there yet.
    ///
    /// # Errors
    /// A package cannot be fetched, or holds not what it should.
    pub fn obtain(cache: &'a Cache) -> Result<Files<'a>> {
        let xen = cache.folder("xen", &format!("{} {}", packages::RELEASE, XEN.join(" ")), |folder| {
            let packages = Packages::open(cache)?;
            for name in XEN {
                packages::unpack(&packages.alone(name)?, folder)?;
            }
            let packed = folder.join("boot/xen-4.17-amd64.gz");
            let out = File::create(folder.join("hypervisor")).context("making the hypervisor")?;
            process::run_into(Command::new("gzip").arg("-dc").arg(&packed), out)
        })?;
        let emulator =
            cache.folder("xen-emulator", &format!("{} {}", packages::RELEASE, EMULATOR.join(" ")), |folder| {
                let packages = Packages::open(cache)?;
                packages.with_dependencies(&EMULATOR)?.iter().try_for_each(|file| packages::unpack(file, folder))
            })?;
        let dom0 = cache.folder("xen-kernel", &format!("{} {DOM0_KERNEL}", packages::RELEASE), |folder| {
            let packages = Packages::open(cache)?;
            packages::unpack(&packages.alone(&packages.behind(DOM0_KERNEL)?)?, folder)
        })?;
        let release = kernel::only(&dom0.join("lib/modules"), "")?;
        Ok(Files {
            hypervisor: xen.join("hypervisor"),
            kernel: kernel::only(&dom0.join("boot"), "vmlinuz-")?,
            modules: MODULES.iter().map(|name| kernel::find(&release, &format!("{name}.ko"))).collect::<Result<_>>()?,
            emulator,
            xen,
            guest_kernel: Kernel::obtain(cache)?.image,
            busybox: initramfs::busybox(cache)?,
            programs: initramfs::programs(cache)?,
            cache,
        })
    }

    /// The emulator, run by its own loader with its own libraries.
    pub fn emulator(&self) -> Command {
        let root = &self.emulator;
        let mut command = Command::new(root.join(LOADER));
        command.arg("--library-path").arg(library_path(root)).arg(root.join("usr/bin/qemu-system-x86_64"));
        command.env("QEMU_MODULE_DIR", root.join(LIBRARIES[0]).join("qemu"));
        for folder in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(folder));
        }
        command
    }

    /// Writes dom0's first file system: the toolstack, `migcast`, the guest's kernel and file system, and the job.
    ///
    /// # Errors
    /// A file is missing or cannot be written.
    pub fn write_dom0(&self, path: &Path, migcast: &Path, guest: &Guest, job: &str) -> Result<()> {
        let guest_image = path.with_extension("guest");
        guest.write(&guest_image, &self.busybox, &self.programs, self.cache)?;
        let mut archive = Archive::create(path)?;
        for dir in
            ["bin", "dev", "etc", "etc/xen", "lib", "lib64", "modules", "proc", "run", "sys", "tmp", "usr", "usr/lib"]
        {
            archive.add(dir, ModeFileType::Directory, 0o755, &[])?;
        }
        for dir in ["usr/lib/xen-4.17", TOOLS, "var", "var/lib", "var/lib/xen", "var/lock", "var/log", "var/log/xen"] {
            archive.add(dir, ModeFileType::Directory, 0o755, &[])?;
        }
        archive.add_link("var/run", "../run")?;
        archive.add_console()?;
        archive.add("etc/xen/xl.conf", ModeFileType::Regular, 0o644, &[])?;
        archive.add("init", ModeFileType::Regular, 0o755, DOM0_INIT.as_bytes())?;
        archive.add("job", ModeFileType::Regular, 0o644, job.as_bytes())?;
        let mut add = |name: &str, mode, from: &Path| {
            let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
            archive.add(name, ModeFileType::Regular, mode, &content)
        };
        add("bin/busybox", 0o755, &self.busybox)?;
        for program in ["stamp", "throttle"] {
            add(&format!("bin/{program}"), 0o755, &self.programs.join(program))?;
        }
        add("bin/migcast", 0o755, migcast)?;
        let programs: Vec<PathBuf> = PROGRAMS.iter().map(|name| self.xen.join(TOOLS).join(name)).collect();
        for program in &programs {
            add(&format!("{TOOLS}/{}", name_of(program)), 0o755, program)?;
        }
        for library in self.dom0_libraries(&[programs.as_slice(), &[migcast.to_owned()]].concat())? {
            add(&format!("lib/{}", name_of(&library)), 0o755, &library)?;
        }
        add(LOADER, 0o755, &self.xen.join(LOADER))?;
        for module in &self.modules {
            add(&format!("modules/{}", name_of(module)), 0o644, module)?;
        }
        add("guest-kernel", 0o644, &self.guest_kernel)?;
        add("guest-initrd", 0o644, &guest_image)?;
        archive.finish()?;
        fs::remove_file(&guest_image).with_context(|| format!("removing {}", guest_image.display()))
    }

    /// The shared libraries of these programs, and those that are found by name.
    fn dom0_libraries(&self, programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
        let by_name = BY_NAME
            .iter()
            .filter_map(|name| LIBRARIES.iter().map(|dir| self.xen.join(dir).join(name)).find(|path| path.exists()));
        let by_name: Vec<PathBuf> = by_name.collect();
        let mut found = libraries(&self.xen, &[programs, &by_name].concat())?;
        found.extend(by_name);
        found.sort_by_key(|path| name_of(path));
        found.dedup_by_key(|path| name_of(path));
        Ok(found)
    }

    /// Where images of the moment may lie.
    pub fn cache(&self) -> &Path {
        self.cache.root()
    }
}

/// The shared libraries of these programs, each once, found by Debian's own loader among the packages unpacked in `root`.
pub(super) fn libraries(root: &Path, programs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for program in programs {
        let mut loader = Command::new(root.join(LOADER));
        let path = library_path(root);
        let listed =
            process::output(loader.arg("--inhibit-cache").arg("--library-path").arg(path).arg("--list").arg(program))?;
        // "\tlibc.so.6 => /…/libc.so.6 (0x…)"
        let paths = listed.lines().filter_map(|line| line.split_once(" => ")?.1.split(" (").next().map(PathBuf::from));
        found.extend(paths);
    }
    found.sort_by_key(|path| name_of(path));
    found.dedup_by_key(|path| name_of(path));
    Ok(found)
}

fn library_path(root: &Path) -> String {
    LIBRARIES.map(|dir| root.join(dir).display().to_string()).join(":")
}

pub(super) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
