//! Recorders: how a running guest's page writes become a history.
//!
//! ```text
//!  QMP socket ┐
//!  libvirt    ├─► guest (who, where) ─► memory ─► scanner ─► recorder ─► history
//!  process id ┘                         read      hash,      windows,
//!                                       pages     compare    CPU limit, gaps
//! ```
//! The guest is never stopped, written to or traced, and none of its memory is allocated by looking at it.

mod budget;
mod clock;
mod memory;
mod scan;

pub use clock::{Clock, SystemClock};
pub use memory::{Look, Memory, MemoryError, PAGE_SIZE, Placement, ProcessMemory, Sink};
