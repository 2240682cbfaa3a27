//! A guest under QEMU, from start to end.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use migcast_dirty::pattern::Pattern;
use rustix::process::Signal;

use crate::accel::{Accel, Qemu};
use crate::cache::Cache;
use crate::cores::VcpuCore;
use crate::disk;
use crate::guest::{Guest, Load};
use crate::initramfs;
use crate::interrupt::Interrupt;
use crate::kernel::Kernel;
use crate::load;
use crate::process::{Running, ending};
use crate::qmp::{Awaited, Event, Qmp};
use crate::runtime::RuntimeDir;
use crate::serial::SerialLine;
use crate::trace;

/// What every guest prints on its console when its load has warmed up.
pub const READY: &str = "lab: ready";
/// How long a guest may take to get there; emulated on a busy machine it takes 5 to 60 s.
pub const READY_MAX: Duration = Duration::from_secs(300);

/// QEMU's trace, in the machine's folder.
const TRACE: &str = "trace";
/// How long QEMU may take to open its monitor.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a QEMU whose monitor broke off may take to say why.
const WORDS_MAX: Duration = Duration::from_secs(5);

/// The files a guest is booted from.
#[derive(Clone, Debug)]
pub struct Images {
    kernel: PathBuf,
    initramfs: PathBuf,
    disk: Option<PathBuf>,
}

impl Images {
    /// Builds what `guest` needs, as far as it is not in the cache.
    ///
    /// # Errors
    /// A package cannot be fetched or a tool is missing.
    pub fn obtain(cache: &Cache, guest: &Guest) -> Result<Images> {
        let kernel = Kernel::obtain(cache)?;
        let initramfs = initramfs::build(cache, &kernel)?;
        let disk = match guest.load {
            Load::Dirty(_) => None,
            Load::Workload(_) => Some(disk::build(cache)?),
        };
        Ok(Images { kernel: kernel.image, initramfs, disk })
    }
}

/// How a guest is booted.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Which one.
    pub guest: &'static Guest,
    /// Another pattern than the catalogue's, for a guest that runs the microbenchmark.
    pub pattern: Option<Pattern>,
    /// The seed of the pattern's random choices.
    pub seed: u64,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Memory in a shared memfd, which others can map, instead of private memory.
    pub shared: bool,
    /// What runs its code.
    pub accel: Accel,
    /// Where the free monitor listens; in the machine's own folder if nothing is said.
    pub qmp: Option<PathBuf>,
    /// Wait for an incoming migration (QEMU's `-incoming`) instead of booting.
    pub incoming: Option<String>,
    /// The network namespace QEMU runs in; the host's if nothing is said.
    pub namespace: Option<String>,
    /// The core its vCPU runs on; any if nothing is said.
    pub vcpu_core: Option<VcpuCore>,
}

impl Spec {
    /// `guest` with everything as in the catalogue.
    pub fn of(guest: &'static Guest, accel: Accel) -> Spec {
        Spec {
            guest,
            pattern: None,
            seed: 1,
            memory_mib: guest.memory_mib,
            shared: false,
            accel,
            qmp: None,
            incoming: None,
            namespace: None,
            vcpu_core: None,
        }
    }

    fn command_line(&self) -> Result<String> {
        let load = match (self.guest.load, &self.pattern) {
            // Huge pages would let the kernel move the working set while it is being logged.
            (Load::Dirty(_), Some(pattern)) => format!("lab.pattern={pattern} transparent_hugepage=never"),
            (Load::Dirty(pattern), None) => format!("lab.pattern={pattern} transparent_hugepage=never"),
            (Load::Workload(name), None) => format!("lab.workload={name}"),
            (Load::Workload(_), Some(_)) => {
                bail!("guest '{}' runs a real program: a pattern is for steady, hot-cold, …", self.guest.name)
            }
        };
        Ok(format!("console=ttyS0 loglevel=4 panic=-1 {load} lab.seed={}", self.seed))
    }
}

/// A running guest. Dropping it ends QEMU and removes its folder.
#[derive(Debug)]
pub struct Machine {
    // In this order: first QEMU ends, then its folder goes.
    qemu: Running,
    monitor: Qmp,
    console: SerialLine,
    log: SerialLine,
    qmp: PathBuf,
    version: String,
    folder: RuntimeDir,
}

impl Machine {
    /// Starts QEMU and takes hold of its monitor; does not wait for the guest.
    ///
    /// # Errors
    /// No QEMU, one that cannot be trusted, or one that does not start; the message holds what it said.
    pub fn start(images: &Images, spec: &Spec, interrupt: &Interrupt) -> Result<Machine> {
        let qemu = Qemu::find()?;
        qemu.check(spec.accel)?;
        let folder = RuntimeDir::make()?;
        let console = SerialLine::listen(&folder.path().join("console"))?;
        let log = SerialLine::listen(&folder.path().join("log"))?;
        let awaited = Awaited::listen(&folder.path().join("monitor"))?;
        let qmp = spec.qmp.clone().unwrap_or_else(|| folder.path().join("qmp"));
        let said = folder.path().join("stderr");

        let mut command = in_namespace(spec.namespace.as_deref(), &qemu.program);
        arguments(&mut command, images, spec, folder.path(), &qmp)?;
        let stderr = fs::File::create(&said).with_context(|| format!("making {}", said.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut running = Running::start("QEMU", &mut command, Signal::KILL)?;

        let end = Instant::now() + START_MAX;
        let monitor = loop {
            match awaited.accept() {
                Ok(Some(monitor)) => break monitor,
                Ok(None) => {}
                // QEMU connects before it has understood all its options; why it ended tells more than that it did.
                Err(error) if running.wait(WORDS_MAX)?.is_none() => return Err(error),
                Err(_) => {}
            }
            if let Some(status) = running.ended()? {
                let said = fs::read_to_string(&said).unwrap_or_default();
                bail!("QEMU {}: {}", ending(status), said.trim().replace('\n', " | "));
            }
            if interrupt.wait(Duration::from_millis(20)) || Instant::now() >= end {
                bail!(
                    "QEMU did not open its monitor: {}",
                    if interrupt.came() { "interrupted" } else { "30 s passed" }
                );
            }
        };
        let mut machine = Machine { qemu: running, monitor, console, log, qmp, version: qemu.version, folder };
        if let Some(core) = spec.vcpu_core {
            core.give_to(machine.vcpu().context("QEMU does not name the vCPU's thread")?)?;
        }
        Ok(machine)
    }

    /// Waits until the guest's load has warmed up.
    ///
    /// # Errors
    /// It ends before, [`READY_MAX`] passes, or we are interrupted; the message holds its last words.
    pub fn wait_ready(&self, interrupt: &Interrupt) -> Result<()> {
        self.console.wait_for(READY, READY_MAX, interrupt).map(drop)
    }

    /// QEMU's process.
    pub fn qemu(&mut self) -> &mut Running {
        &mut self.qemu
    }

    /// Our own monitor.
    pub fn monitor(&mut self) -> &mut Qmp {
        &mut self.monitor
    }

    /// What QEMU reported by itself so far.
    pub fn events(&self) -> Vec<Event> {
        self.monitor.events()
    }

    /// Where the free monitor listens.
    pub fn qmp(&self) -> &Path {
        &self.qmp
    }

    /// QEMU's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The guest's console.
    pub fn console(&self) -> &SerialLine {
        &self.console
    }

    /// The second serial line: the microbenchmark's log of its writes.
    pub fn log(&self) -> &SerialLine {
        &self.log
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// The thread of its only vCPU; `None` where nobody tells.
    pub fn vcpu(&mut self) -> Option<load::Thread> {
        let vcpus = self.monitor().execute("query-cpus-fast", &serde_json::json!({})).ok()?;
        Some(load::Thread { pid: self.pid(), id: vcpus[0]["thread-id"].as_u64()? })
    }

    /// What QEMU's trace says of its migrations so far.
    pub fn readings(&self) -> Vec<trace::Reading> {
        trace::readings(&fs::read_to_string(self.folder().join(TRACE)).unwrap_or_default())
    }

    /// What QEMU's trace says of sections and readings of the dirty log, since [`trace::trace_sections`].
    pub fn traced(&self) -> Vec<trace::Traced> {
        trace::traced(&fs::read_to_string(self.folder().join(TRACE)).unwrap_or_default())
    }

    /// The folder with the machine's sockets.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A socket outside our folder does not go with it, and a killed QEMU does not remove it.
        if !self.qmp.starts_with(self.folder.path()) {
            let _ = fs::remove_file(&self.qmp);
        }
    }
}

/// A program that runs in a network namespace: `ip` replaces itself with it, so it keeps the process id.
fn in_namespace(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn arguments(command: &mut Command, images: &Images, spec: &Spec, folder: &Path, qmp: &Path) -> Result<()> {
    let memory = format!("{}M", spec.memory_mib);
    let backend = if spec.shared { "memory-backend-memfd,share=on" } else { "memory-backend-ram" };
    command
        .args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-vga", "std"])
        .args(["-name", spec.guest.name, "-accel", spec.accel.argument(), "-cpu", "max", "-smp", "1"])
        .args(["-m", &memory, "-object", &format!("{backend},id=pc.ram,size={memory}")])
        .args(["-machine", "pc,memory-backend=pc.ram"]);
    command.arg("-kernel").arg(&images.kernel).arg("-initrd").arg(&images.initramfs);
    command.args(["-append", &spec.command_line()?]);
    for name in ["console", "log"] {
        let socket = folder.join(name);
        command.args(["-chardev", &format!("socket,id={name},path={}", socket.display())]);
        command.args(["-serial", &format!("chardev:{name}")]);
    }
    command.args(["-chardev", &format!("socket,id=monitor,path={}", folder.join("monitor").display())]);
    command.args(["-mon", "chardev=monitor,mode=control"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())]);
    if let Some(disk) = &images.disk {
        let drive = format!("if=none,id=disk,format=raw,readonly=on,file.locking=off,file={}", disk.display());
        command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    }
    trace::arguments(command, &folder.join(TRACE));
    if let Some(incoming) = &spec.incoming {
        command.args(["-incoming", incoming]);
    }
    Ok(())
}
