//! QEMU's migration stream, parsed as far as it tells of pages: bytes in, events out.
//!
//! ```text
//!  magic · version · configuration · section … section · the devices' state
//!                                    │
//!                     START ram: list of blocks · EOS · footer
//!                     PART  ram: pages … EOS · footer        (one per ram_save_iterate)
//!                     commands to the target
//!                     END   ram: pages … EOS · footer        (ram_save_complete)
//! ```
//! Source: QEMU 10.0, migration/savevm.c (qemu_loadvm_state_main), migration/ram.c (ram_save_setup, save_page_header).
//! Behind the END of `ram` stands the state of devices, which only their own code can read: it is passed over.
//! Multifd, XBZRLE, postcopy and `x-ignore-shared` change what a section holds and are refused.

mod input;
mod parser;

use thiserror::Error;

pub use parser::Parser;

/// Something the stream told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The blocks of memory, in QEMU's scan order.
    Blocks(Vec<Block>),
    /// A section of `ram` begins.
    Began(Section),
    /// A page.
    Page(Page),
    /// Its end marker: it has no more pages. The footer behind it may come with what is sent next.
    Marked(Section),
    /// The section is over: end marker and footer have been read.
    Ended(Section),
}

/// Which section of `ram`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Set-up: the list of blocks, no page.
    Start,
    /// What one call of ram_save_iterate sent.
    Part,
    /// What was sent while the guest stood still.
    End,
}

/// A block of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// QEMU's name of it, e.g. `pc.ram`.
    pub name: String,
    /// Its length in pages of [`PAGE_SIZE`] bytes.
    pub pages: u64,
}

/// A page that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Index in the blocks laid end to end in QEMU's scan order.
    pub index: u64,
    /// Sent as nothing but zeros.
    pub zero: bool,
}

/// Bytes of a page (x86).
pub const PAGE_SIZE: u64 = 4096;

/// Why a stream cannot be followed. Positions are bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// Something else than what has to stand there.
    #[error("migration stream, byte {at}: {what} {found:#x}, expected {expected}")]
    Unexpected {
        /// Where it begins.
        at: u64,
        /// What was read.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What is allowed.
        expected: &'static str,
    },
    /// A section that is not of memory, before memory's end.
    #[error("migration stream, byte {at}: section '{name}', expected 'ram' alone before the guest is stopped")]
    OtherSection {
        /// Where it begins.
        at: u64,
        /// Its name.
        name: String,
    },
    /// Two blocks of one name: a page could not be told to be of either.
    #[error("migration stream, byte {at}: block '{name}' is listed twice")]
    BlockTwice {
        /// Where its second entry begins.
        at: u64,
        /// Its name.
        name: String,
    },
    /// A page of no known block, or beyond its block's end.
    #[error("migration stream, byte {at}: page at offset {offset:#x} of block '{block}', which has no such page")]
    NoSuchPage {
        /// Where it begins.
        at: u64,
        /// The block's name.
        block: String,
        /// Bytes into the block.
        offset: u64,
    },
}

fn unexpected(at: u64, what: &'static str, found: impl Into<u64>, expected: &'static str) -> StreamError {
    StreamError::Unexpected { at, what, found: found.into(), expected }
}
