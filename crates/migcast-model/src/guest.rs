//! The guest: the virtual machine that is migrated.

use crate::units::{ByteCount, PageCount};

/// What the model knows of a guest besides how it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Name, for people.
    pub name: String,
    /// All pages the hypervisor migrates, device memory and ROM blocks included (QEMU counts them, too).
    pub memory: PageCount,
    /// Bytes per page, 4096 unless the history says otherwise.
    pub page_size: ByteCount,
}

impl Guest {
    /// The page size of x86 and of every algorithm here.
    pub const PAGE_SIZE: ByteCount = ByteCount::new(4096);

    /// A guest of `memory` bytes in 4 KiB pages; a part of a page counts as one.
    pub fn new(name: impl Into<String>, memory: ByteCount) -> Guest {
        Guest { name: name.into(), memory: memory.pages_ceil(Guest::PAGE_SIZE), page_size: Guest::PAGE_SIZE }
    }

    /// The memory in bytes.
    pub fn memory_bytes(&self) -> ByteCount {
        self.memory.bytes(self.page_size)
    }
}
