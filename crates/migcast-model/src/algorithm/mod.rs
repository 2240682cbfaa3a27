//! The hypervisors' own rules, one module each.

pub mod qemu;
