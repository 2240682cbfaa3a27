//! Recording a QEMU guest: what its monitor says of it, and where its memory lies in the process; or its dirty log.

mod dirty_log;
mod nowhere;
mod settings;
pub mod stream;

use std::cell::Cell;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use migcast_history::format::Block;
use qapi::qmp;

use crate::guest::{Guest, Identity, Life, Sight, Watch, Writes};
use crate::memory::{Mapping, MemoryError, PAGE_SIZE, Placement, ProcessMemory, of_process};
use crate::monitor::{Monitor, MonitorError, QueryMigrate, QueryStatus, ask, ask_human, one_line, request, understand};
use crate::qmp::QmpSocket;
use crate::ramblock::{self, RamBlock};
use crate::vcpus::{Threads, VcpuClock};
use crate::write_log::Claim;

use self::dirty_log::DirtyLog;

pub use self::nowhere::LogError;
pub use self::settings::restore;

/// Guest-physical addresses that lie in main memory on the usual machines: its beginning, and what lies above 4 GiB.
const PROBES: [u64; 3] = [0, 0x4000_0000, 0x1_0000_0000];

/// Less than this may be allocated without a word, in bytes.
const HOLES_WORTH_A_WARNING: u64 = 16 << 20;

/// The one run state in which a guest executes and may write.
const RUNNING: &str = "running";

/// Why a QEMU guest cannot be recorded.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// Its monitor does not answer as it should.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// Its memory cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The process behind the monitor cannot be seen.
    #[error(
        "{place}: the process behind it cannot be seen from here (another PID namespace, or a proxy); \
         run migcast in the namespace of the guest's QEMU, or use --pid"
    )]
    NoProcess {
        /// The monitor.
        place: String,
    },
    /// The monitor's table of memory blocks makes no sense to us.
    #[error("the monitor's table of memory blocks has an unknown form: {first_line:?}; --pid records without it")]
    Table {
        /// How it begins.
        first_line: String,
    },
    /// Much of the memory is not where the monitor says, or nobody knows where it is.
    #[error(
        "{unreadable_mib} of {memory_mib} MiB of guest memory cannot be found in process {pid} (first in {block}): \
         a monitor behind a proxy, or a QEMU that does not tell addresses; --pid records the whole process"
    )]
    Partly {
        /// The process.
        pid: u32,
        /// MiB that cannot be read.
        unreadable_mib: u64,
        /// MiB of all blocks.
        memory_mib: u64,
        /// The first block concerned.
        block: String,
    },
    /// It has no dirty log for us.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The guest's memory is private to it.
    #[error("process {pid} keeps guest memory in guest_memfd (SEV-SNP, TDX): it cannot be read from outside the guest")]
    Encrypted {
        /// The process.
        pid: u32,
    },
}

/// Prepares to record the guest whose monitor listens on this socket.
///
/// # Errors
/// [`QemuError`]: nobody there, busy, not a monitor, no permission, memory not to be found.
pub fn open(socket: &Path) -> Result<Guest, QemuError> {
    let (monitor, pid) = connect(socket)?;
    open_with(Box::new(monitor), pid)
}

/// Prepares to record the guest whose monitor listens on this socket by QEMU's dirty log: a migration to nowhere.
/// `watchdog` makes a command that, given the socket and the guest's migration settings as its last arguments, waits for
/// the end of its standard input ([`crate::is_orphaned`]) and then [`restore`]s them.
///
/// # Errors
/// [`QemuError`]: as [`open`]; a QEMU without what this needs, a guest that cannot be migrated.
pub fn open_dirty_log(socket: &Path, watchdog: Box<dyn Fn() -> Command>) -> Result<Guest, QemuError> {
    let (mut monitor, pid) = connect(socket)?;
    let life = Life::of(pid)?;
    if has_private_memory(pid) {
        return Err(QemuError::Encrypted { pid });
    }
    let mut identity = identify(&mut monitor, pid)?;
    nowhere::refuse(&mut monitor, &identity)?;
    let blocks = ram_blocks(&mut monitor)?;
    let placements = locate(&mut monitor, pid, blocks.clone())?;
    let warnings = warning_of_holes(pid, &placements).into_iter().collect();
    identity.blocks = placements.into_iter().map(|placement| placement.block).collect();
    let threads = Threads::ask(&mut monitor, pid);
    monitor.release();
    let claim = Rc::new(Cell::new(Claim::None));
    let log = DirtyLog::new(socket, pid, &identity.blocks, watchdog, &claim)?;
    let watch = QemuWatch { monitor: Box::new(monitor), pid, life, blocks, threads, claim };
    Ok(Guest { identity, writes: Writes::Log(Box::new(log)), watch: Box::new(watch), warnings })
}

/// A migration reads all memory, and reading a hole of shared memory fills it.
fn warning_of_holes(pid: u32, placements: &[Placement]) -> Option<String> {
    let mappings = of_process(pid).ok()?;
    let holes = |mapping: &Mapping| {
        let Range { start, end } = mapping.addresses;
        let file = std::fs::metadata(format!("/proc/{pid}/map_files/{start:x}-{end:x}")).ok()?;
        Some((end - start).saturating_sub(file.blocks() * 512))
    };
    let is_guests = |mapping: &&Mapping| {
        let starts = |placement: &Placement| placement.address == Some(mapping.addresses.start);
        mapping.shared && placements.iter().any(starts)
    };
    let bytes: u64 = mappings.iter().filter(is_guests).filter_map(holes).sum();
    (bytes >= HOLES_WORTH_A_WARNING).then(|| {
        format!(
            "--dirty-log: QEMU reads all memory once, as any migration does: {} MiB of shared memory that the guest has not \
             touched yet will be allocated",
            bytes >> 20
        )
    })
}

/// The monitor on this socket, and the process behind it.
fn connect(socket: &Path) -> Result<(QmpSocket, u32), QemuError> {
    let mut monitor = QmpSocket::new(socket);
    // The first command connects, which tells the process.
    ask(&mut monitor, QueryStatus {})?;
    let place = socket.display().to_string();
    let pid = monitor.peer().ok_or(QemuError::NoProcess { place })?;
    Ok((monitor, pid))
}

/// Prepares to record the guest with this monitor and process.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(mut monitor: Box<dyn Monitor>, pid: u32) -> Result<Guest, QemuError> {
    let life = Life::of(pid)?;
    if has_private_memory(pid) {
        return Err(QemuError::Encrypted { pid });
    }
    let mut identity = identify(monitor.as_mut(), pid)?;
    let asked = ram_blocks(monitor.as_mut())?;
    let placements = locate(monitor.as_mut(), pid, asked.clone())?;
    let threads = Threads::ask(monitor.as_mut(), pid);
    monitor.release();
    identity.blocks = placements.iter().map(|placement| placement.block.clone()).collect();
    let memory = ProcessMemory::open(pid, &placements)?;
    let bytes: u64 = identity.blocks.iter().map(|block| block.length_bytes).sum();
    if let Some((unreadable, block)) = memory.unreadable() {
        // A ROM or two of an old QEMU may be missing; the guest's memory may not.
        if unreadable * 100 > bytes {
            let (unreadable_mib, memory_mib) = (unreadable >> 20, bytes >> 20);
            return Err(QemuError::Partly { pid, unreadable_mib, memory_mib, block });
        }
    }
    let mut warnings = memory.warnings();
    warnings.extend(warning_of(&identity));
    let watch = QemuWatch { monitor, pid, life, blocks: asked, threads, claim: Rc::new(Cell::new(Claim::None)) };
    Ok(Guest { identity, writes: Writes::Contents(Box::new(memory)), watch: Box::new(watch), warnings })
}

/// Who the guest is; its blocks are filled in later.
fn identify(monitor: &mut dyn Monitor, pid: u32) -> Result<Identity, MonitorError> {
    let version = ask(monitor, qmp::query_version {})?.qemu;
    let name = ask(monitor, qmp::query_name {})?.name;
    let id = ask(monitor, qmp::query_uuid {})?.UUID.parse::<uuid::Uuid>().ok();
    Ok(Identity {
        method: "qemu",
        name: name.unwrap_or_else(|| format!("qemu-{pid}")),
        id: id.filter(|id| !id.is_nil()),
        hypervisor: "qemu".to_owned(),
        hypervisor_version: format!("{}.{}.{}", version.major, version.minor, version.micro),
        accelerator: accelerator(monitor)?,
        blocks: Vec::new(),
    })
}

/// "kvm" or what else it is. Without KVM, QEMU on Linux emulates unless a later version says otherwise.
fn accelerator(monitor: &mut dyn Monitor) -> Result<String, MonitorError> {
    match ask(monitor, qmp::query_kvm {}) {
        Ok(kvm) if kvm.enabled => Ok("kvm".to_owned()),
        Ok(_) => Ok("tcg".to_owned()),
        Err(error) if error.is_unknown_command() => Ok("unknown".to_owned()),
        Err(error) => Err(error),
    }
}

/// The blocks as the monitor lists them.
fn ram_blocks(monitor: &mut dyn Monitor) -> Result<Vec<RamBlock>, QemuError> {
    let text = match ask(monitor, qmp::x_query_ramblock {}) {
        Ok(text) => text.human_readable_text,
        Err(error) if error.is_unknown_command() => ask_human(monitor, "info ramblock")?,
        Err(error) => return Err(error.into()),
    };
    ramblock::parse(&text)
        .filter(|blocks| !blocks.is_empty())
        .ok_or_else(|| QemuError::Table { first_line: text.lines().next().unwrap_or("").chars().take(80).collect() })
}

/// Where the blocks lie in the process and in the guest.
fn locate(monitor: &mut dyn Monitor, pid: u32, mut blocks: Vec<RamBlock>) -> Result<Vec<Placement>, QemuError> {
    if blocks.iter().any(|block| block.address.is_none()) {
        let mut known = Vec::new();
        for address in PROBES {
            let said = ask_human(monitor, &format!("gpa2hva {address:#x}"))?;
            if let Some((name, host)) = ramblock::parse_gpa2hva(&said) {
                known.push((name, host));
            }
        }
        // Only the first probe is known to be a block's beginning; the others are moved back to their mapping's.
        let mappings = of_process(pid).map_err(|source| MemoryError::Io { pid, what: "the mappings", source })?;
        for (_, host) in &mut known {
            if let Some(mapping) = mappings.iter().find(|mapping| mapping.addresses.contains(host)) {
                *host = mapping.addresses.start;
            }
        }
        ramblock::place(&mut blocks, &known, &mappings);
    }
    // Informative only: a monitor that cannot print its tree is no obstacle.
    let tree = ask_human(monitor, "info mtree -f").unwrap_or_default();
    let placement = |block: RamBlock| Placement {
        block: Block {
            guest_physical_address: ramblock::physical_address(&tree, &block.name),
            name: block.name,
            length_bytes: block.used.next_multiple_of(PAGE_SIZE),
        },
        address: block.address,
    };
    Ok(blocks.into_iter().filter(|block| block.used > 0).map(placement).collect())
}

/// Whether the process holds a guest_memfd.
fn has_private_memory(pid: u32) -> bool {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|link| link.to_string_lossy().contains("kvm-gmem"))
}

fn warning_of(identity: &Identity) -> Option<String> {
    let major: u32 = identity.hypervisor_version.split('.').next()?.parse().ok()?;
    (identity.accelerator == "tcg" && major < 9).then(|| {
        format!(
            "QEMU {} under TCG misses writes in its own dirty log (mended in 9.0): the recording is right, \
             but a real migration of this guest sends less than it should and than is forecast",
            identity.hypervisor_version
        )
    })
}

/// Watches a guest through its monitor.
struct QemuWatch {
    monitor: Box<dyn Monitor>,
    pid: u32,
    life: Life,
    /// The blocks at the start.
    blocks: Vec<RamBlock>,
    /// Who runs the vCPUs, where that is known. Asked anew when one of them is gone; a vCPU that is plugged in is not
    /// watched before that.
    threads: Option<Threads>,
    /// Whether the guest's migration is our own, to nowhere.
    claim: Rc<Cell<Claim>>,
}

impl QemuWatch {
    fn state(&mut self) -> Result<Sight, QemuError> {
        let requests = [request(QueryStatus {})?, request(QueryMigrate {})?, request(qmp::x_query_ramblock {})?];
        let mut answers = self.monitor.exchange_all(&requests)?.into_iter();
        let mut next = || answers.next().unwrap_or_default();
        let status = understand::<QueryStatus>(next())?.status;
        let migration = understand::<QueryMigrate>(next())?.status;
        match self.claim.get() {
            // A guest that stands still lets QEMU come to the end of any migration.
            Claim::Ours if nowhere::goes_on(&migration) || status != RUNNING => {}
            Claim::Ours | Claim::Lost => {
                self.claim.set(Claim::Lost);
                return Ok(Sight::Taken);
            }
            Claim::None if is_migrating(&status, &migration) => return Ok(Sight::Migrating),
            Claim::None => {}
        }
        if status != RUNNING {
            return Ok(Sight::Standing(standing(&status)));
        }
        let now = match understand::<qmp::x_query_ramblock>(next()) {
            Ok(text) => ramblock::parse(&text.human_readable_text),
            Err(error) if error.is_unknown_command() => {
                ramblock::parse(&ask_human(self.monitor.as_mut(), "info ramblock")?)
            }
            Err(error) => return Err(error.into()),
        };
        // A table that cannot be read now could be at the start: it was cut, and the next look will tell.
        Ok(now.and_then(|now| difference(&self.blocks, &now)).map_or(Sight::Clear, Sight::LayoutChanged))
    }
}

impl Watch for QemuWatch {
    fn look(&mut self) -> Sight {
        if self.life.ended() {
            // Whoever answers now is another guest, e.g. this one's successor under libvirt.
            return Sight::MonitorGone("the guest's process has ended".to_owned());
        }
        let sight = self.state();
        self.monitor.release();
        match sight {
            Ok(sight) => sight,
            Err(QemuError::Monitor(MonitorError::Gone { place, reason })) => {
                Sight::MonitorGone(format!("{place}: {reason}"))
            }
            Err(error) => Sight::Busy(one_line(&error)),
        }
    }

    fn vcpus(&mut self) -> Option<Vec<VcpuClock>> {
        let clocks = self.threads.as_ref()?.read();
        if clocks.is_none() && !self.life.ended() {
            self.threads = Threads::ask(self.monitor.as_mut(), self.pid);
            self.monitor.release();
        }
        clocks
    }

    fn ended(&mut self) -> bool {
        self.life.ended()
    }

    fn descriptor(&self) -> Option<OwnedFd> {
        self.life.descriptor()
    }
}

/// By QEMU's run state and migration state.
fn is_migrating(status: &str, migration: &str) -> bool {
    matches!(status, "inmigrate" | "postmigrate" | "finish-migrate") || !is_calm(migration)
}

/// Whether no migration in this state goes on. States of a later QEMU are taken for steps of one.
fn is_calm(migration: &str) -> bool {
    matches!(migration, "" | "none" | "completed" | "failed" | "cancelled")
}

/// How a guest is that does not run, by its run state (`RunState` in QEMU's qapi/run-state.json): "paused" by its
/// administrator, or e.g. "paused (io-error)". Run states of a later QEMU are taken for such, too.
fn standing(status: &str) -> String {
    if status == "paused" { status.to_owned() } else { format!("paused ({status})") }
}

/// What is different, in a few words.
fn difference(before: &[RamBlock], now: &[RamBlock]) -> Option<String> {
    let missing = |of: &[RamBlock], from: &[RamBlock]| {
        of.iter().find(|block| !from.iter().any(|other| other.name == block.name)).map(|block| block.name.clone())
    };
    if let Some(name) = missing(now, before) {
        return Some(format!("memory block {name} was added"));
    }
    if let Some(name) = missing(before, now) {
        return Some(format!("memory block {name} was removed"));
    }
    let moved = now.iter().find(|block| !before.contains(block))?;
    Some(format!("memory block {} changed its size or place", moved.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::monitor::fake::FakeMonitor;

    const TABLE: &str = "Block Name PSize Offset Used Total HVA RO\n pc.ram 4 KiB 0x0 0x2000 0x2000 0xADDR rw\n";

    /// A guest of two pages that lies in this very process.
    fn monitor(memory: &[u8]) -> FakeMonitor {
        let address = (memory.as_ptr() as u64).next_multiple_of(PAGE_SIZE);
        let mut fake = FakeMonitor::default();
        for (name, answer) in [
            ("query-version", json!({ "qemu": { "major": 8, "minor": 2, "micro": 1 }, "package": "" })),
            ("query-name", json!({ "name": "guest" })),
            ("query-uuid", json!({ "UUID": "00000000-0000-0000-0000-000000000000" })),
            ("query-kvm", json!({ "enabled": false, "present": true })),
            ("query-status", json!({ "status": "running", "running": true })),
            ("query-migrate", json!({})),
            ("x-query-ramblock", json!({ "human-readable-text": TABLE.replace("ADDR", &format!("{address:x}")) })),
        ] {
            fake.answers.insert(name.to_owned(), answer);
        }
        fake
    }

    fn watch(fake: FakeMonitor, life: Life, blocks: Vec<RamBlock>) -> QemuWatch {
        QemuWatch {
            monitor: Box::new(fake),
            pid: std::process::id(),
            life,
            blocks,
            threads: None,
            claim: Rc::new(Cell::new(Claim::None)),
        }
    }

    #[test]
    fn a_guest_is_identified_and_watched() {
        let memory = vec![1; 4 * 4096];
        let fake = monitor(&memory);
        let mut guest = open_with(Box::new(fake.clone()), std::process::id()).unwrap();
        assert_eq!((guest.identity.name.as_str(), guest.identity.id), ("guest", None));
        assert_eq!(guest.identity.hypervisor_version, "8.2.1");
        assert_eq!(guest.identity.blocks[0].length_bytes, 0x2000);
        assert!(guest.warnings[0].contains("under TCG misses writes"), "{:?}", guest.warnings);
        assert_eq!(guest.watch.look(), Sight::Clear);
        assert!(!guest.watch.ended());
    }

    #[test]
    fn migration_and_hot_plug_are_seen() {
        let memory = vec![1; 4 * 4096];
        let mut fake = monitor(&memory);
        let blocks = ram_blocks(&mut fake).unwrap();
        let seen = |name: &str, answer: serde_json::Value| {
            let mut fake = fake.clone();
            fake.answers.insert(name.to_owned(), answer);
            let life = Life::of(std::process::id()).unwrap();
            watch(fake, life, blocks.clone()).look()
        };
        assert_eq!(seen("query-migrate", json!({ "status": "active" })), Sight::Migrating);
        assert_eq!(seen("query-migrate", json!({ "status": "failed" })), Sight::Clear);
        assert_eq!(seen("query-status", json!({ "status": "postmigrate" })), Sight::Migrating);
        let table = format!("{TABLE} dimm0 4 KiB 0x0 0x2000 0x2000 0x7000 rw\n").replace("ADDR", "1000");
        let changed = seen("x-query-ramblock", json!({ "human-readable-text": table }));
        assert_eq!(changed, Sight::LayoutChanged("memory block dimm0 was added".into()));
    }

    #[test]
    fn our_own_migration_is_none_until_somebody_else_ends_it() {
        let memory = vec![1; 4 * 4096];
        let mut fake = monitor(&memory);
        let blocks = ram_blocks(&mut fake).unwrap();
        let seen = |status: &str, migration: &str| {
            let mut fake = fake.clone();
            fake.answers.insert("query-status".into(), json!({ "status": status }));
            fake.answers.insert("query-migrate".into(), json!({ "status": migration }));
            let watch = &mut watch(fake, Life::of(std::process::id()).unwrap(), blocks.clone());
            watch.claim.set(Claim::Ours);
            (watch.look(), watch.claim.get())
        };
        assert_eq!(seen("running", "active"), (Sight::Clear, Claim::Ours));
        assert_eq!(seen("running", "cancelled"), (Sight::Taken, Claim::Lost));
        // QEMU comes to the end of a migration of a guest that was paused.
        assert_eq!(seen("paused", "active"), (Sight::Standing("paused".into()), Claim::Ours));
        assert!(matches!(seen("finish-migrate", "device"), (Sight::Standing(_), Claim::Ours)));
    }

    #[test]
    fn only_a_running_guest_is_clear() {
        let memory = vec![1; 4 * 4096];
        let mut fake = monitor(&memory);
        let blocks = ram_blocks(&mut fake).unwrap();
        let seen = |status: &str, migration: &str| {
            let mut fake = fake.clone();
            fake.answers.insert("query-status".into(), json!({ "status": status, "running": status == "running" }));
            fake.answers.insert("query-migrate".into(), json!({ "status": migration }));
            let life = Life::of(std::process::id()).unwrap();
            watch(fake, life, blocks.clone()).look()
        };
        assert_eq!(seen("running", "completed"), Sight::Clear);
        assert_eq!(seen("paused", "none"), Sight::Standing("paused".into()));
        // The other run states of qapi/run-state.json that are no part of a migration, and one of a later time.
        let still = [
            "debug",
            "internal-error",
            "io-error",
            "prelaunch",
            "restore-vm",
            "save-vm",
            "shutdown",
            "suspended",
            "watchdog",
            "guest-panicked",
            "colo",
            "of-a-later-time",
        ];
        for status in still {
            assert_eq!(seen(status, "failed"), Sight::Standing(format!("paused ({status})")));
            // A guest may be migrated while it stands still.
            assert_eq!(seen(status, "active"), Sight::Migrating);
        }
        for status in ["inmigrate", "postmigrate", "finish-migrate"] {
            assert_eq!(seen(status, "completed"), Sight::Migrating);
        }
    }

    #[test]
    fn a_monitor_that_does_not_say_whether_the_guest_runs_is_no_confirmation() {
        let mut fake = monitor(&[1; 4 * 4096]);
        fake.answers.insert("query-status".into(), json!({ "running": true }));
        let life = Life::of(std::process::id()).unwrap();
        let sight = watch(fake, life, Vec::new()).look();
        assert!(matches!(&sight, Sight::Busy(why) if why.contains("query-status")), "{sight:?}");
    }

    #[test]
    fn a_guest_that_has_ended_is_not_confused_with_its_successor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let memory = vec![1; 4 * 4096];
        let mut fake = monitor(&memory);
        let blocks = ram_blocks(&mut fake).unwrap();
        let mut watch = watch(fake, Life::of(child.id()).unwrap(), blocks);
        assert_eq!(watch.look(), Sight::Clear);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(watch.look(), Sight::MonitorGone("the guest's process has ended".into()));
    }

    #[test]
    fn memory_that_is_not_there_is_one_clear_line() {
        let mut fake = monitor(&[0; 4096 * 3]);
        let table = TABLE.replace("0xADDR", "0x1000");
        fake.answers.insert("x-query-ramblock".into(), json!({ "human-readable-text": table }));
        let error = open_with(Box::new(fake), std::process::id()).err().unwrap();
        assert!(matches!(error, QemuError::Partly { .. }), "{error}");
    }

    #[test]
    fn an_old_qemu_tells_addresses_one_by_one() {
        let memory = vec![1; 4 * 4096];
        let mut fake = monitor(&memory);
        fake.answers.remove("x-query-ramblock");
        let text = "Block Name PSize Offset Used Total\n pc.ram 4 KiB 0x0 0x2000 0x2000\n";
        fake.answers.insert("info ramblock".into(), json!(text));
        for address in PROBES {
            let line = format!("Host virtual address for {address:#x} (pc.ram) is {:#x}\n", memory.as_ptr() as u64);
            fake.answers.insert(format!("gpa2hva {address:#x}"), json!(line));
        }
        let mut guest = open_with(Box::new(fake), std::process::id()).unwrap();
        assert_eq!(guest.watch.look(), Sight::Clear);
    }
}
