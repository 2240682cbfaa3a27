//! The history of a guest: which pages it wrote, window by window, on disk.
pub mod format;
pub mod sample;
pub mod windows;
pub mod writer;
