//! The history of a guest: which pages it wrote, window by window, on disk.
//!
//! ```text
//! recorder ──► Writer ──► DIR/manifest.json                 what the history is about
//!                         DIR/windows/NNNNNN.parquet ┐
//!                         DIR/pages/NNNNNN.parquet   │ one segment of at most 60 s, immutable
//!                         DIR/zero/NNNNNN.parquet    │ (pages and zero are kept as long as wanted)
//!                         DIR/bands/NNNNNN.parquet   │
//!                         DIR/wws/NNNNNN.parquet     ┘ written last: its name commits the segment
//!             History ◄── DIR ──► page replay, WWS index, summary, export, trim
//!
//! import ──► RateSeries ──► DIR/manifest.json, DIR/rates/000000.parquet   how much was written when, not which pages
//! ```
//!
//! The format is described in `docs/history-format.md`.
pub mod contents;
mod copy;
pub mod damage;
pub mod export;
pub mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod import;
pub mod index;
pub mod merge;
pub mod parts;
pub mod sample;
pub mod windows;
pub mod writer;

pub mod observed;
pub mod quote;
pub mod rates;
pub mod reader;
pub mod runs;
pub mod stream;
pub mod summary;
pub mod timeline;
pub mod trim;
pub mod vcpu;

mod bounded;
mod committer;
mod disk;
mod files;
mod retention;
mod seal;
mod segment;
mod splice;
mod table;
mod zero;

#[cfg(test)]
mod crafted;
#[cfg(test)]
mod mutated;
