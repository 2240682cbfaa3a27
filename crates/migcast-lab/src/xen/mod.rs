//! Real Xen migrations on one small computer: Debian's Xen and a dom0 inside QEMU 7.2 under software emulation, a PVH guest,
//! `xl migrate` to the same host through a pipe of a set rate.
//!
//! ```text
//!  Debian packages ─► [`files`] ─► [`dom0`]: QEMU( Xen( dom0: job ─ xl, migcast │ PVH guest: dirty ) )
//!                                     │  serial line: what the job says, files in base64
//!                                  [`trial`]: record, migrate ─► [`log`] ─► [`kept`] ─► [`comparison`] with forecasts
//! ```
//! QEMU 10 does not do: a PVH guest stops within a second of its start there. Nothing on this computer is touched; packages
//! are unpacked into the cache and nothing is installed.

pub mod comparison;
pub mod dom0;
pub mod files;
pub mod guest;
pub mod kept;
pub mod log;
pub mod slowdown;
pub mod trial;
