//! What the microbenchmark writes, and when, as a function of its pattern and seed.
//!
//! The program `dirty` runs inside a guest and carries a [`Schedule`](schedule::Schedule) out; the laboratory runs the
//! same schedule outside to learn which pages the guest wrote. A crate of its own because it is built differently
//! from everything else here: static, without any dependency.

pub mod libxc;
pub mod pagemap;
pub mod pattern;
pub mod schedule;
