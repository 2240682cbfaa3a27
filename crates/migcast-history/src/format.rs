//! `manifest.json`: what a history is about. Written once, before the first segment.
use serde::{Deserialize, Serialize};

/// Newest format version this program reads and the one it writes.
pub const VERSION: u32 = 1;

/// The manifest of a history (`format` = "migcast.history/1").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// "migcast.history/1".
    pub format: String,
    /// When the recording began, UTC.
    pub created: jiff::Timestamp,
    /// The program that recorded, e.g. "migcast 0.1.0".
    pub recorder: String,
    /// How: "qemu", "process", "xen", "import".
    pub method: String,
    /// What "written" means.
    pub written_means: WrittenMeans,
    /// The resource: "ram" or a disk's name.
    pub resource: String,
    /// Guest name, for people.
    pub guest_name: String,
    /// Guest id (UUID of the guest where it has one, else made at recording time).
    pub guest_id: uuid::Uuid,
    /// "qemu", "xen", …, or "unknown".
    pub hypervisor: String,
    /// Its version, e.g. "10.0.2"; empty if unknown.
    pub hypervisor_version: String,
    /// "tcg", "kvm", …, or "unknown".
    pub accelerator: String,
    /// Page size in bytes: a power of two, 4096 unless said otherwise.
    pub page_size_bytes: u64,
    /// Memory blocks in the hypervisor's scan order. A page is its index in these laid end to end.
    pub blocks: Vec<Block>,
    /// Nominal window length in seconds.
    pub window_seconds: f64,
    /// Which pages were tracked.
    pub sample: crate::sample::Sample,
}

/// What makes a page count as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrittenMeans {
    /// Its content changed between two looks; a store of the same value is not seen.
    Content,
    /// The hypervisor's dirty log marked it.
    DirtyLog,
}

/// One block of guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// The hypervisor's name of it, e.g. "pc.ram".
    pub name: String,
    /// Length in bytes, a multiple of the page size.
    pub length_bytes: u64,
    /// Guest-physical address, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_physical_address: Option<u64>,
}
