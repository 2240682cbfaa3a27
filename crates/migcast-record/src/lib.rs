//! Recorders: how a running guest's page writes become a history.
//!
//! ```text
//!  QMP socket ┐
//!  libvirt    ├─► guest (who, where) ─► memory ─► scanner ─┬─► recorder ─► history
//!  process id ┘                         read      hash,    │   windows,
//!                                       pages     compare  │   CPU limit, gaps
//!  Xen domain ──► guest (who, where) ─► the hypervisor's log
//! ```
//! A guest whose memory is read is never stopped, written to or traced, and none of its memory is allocated by looking at
//! it. A domain of Xen stands while its log is read, for about a millisecond.

mod budget;
mod clock;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod guest;
pub mod libvirt;
mod memory;
mod monitor;
mod pending;
mod plan;
mod priority;
pub mod process;
pub mod qemu;
mod qmp;
mod ramblock;
mod recorder;
mod recording;
mod scan;
mod summary;
mod vcpus;
mod watchdog;
mod write_log;
pub mod xen;

pub use clock::{Clock, SystemClock};
pub use guest::{Guest, Identity, Life, Sight, Watch, Writes};
pub use memory::{Eye, Look, Memory, MemoryError, PAGE_SIZE, Placement, ProcessMemory, Sink};
pub use monitor::{Monitor, MonitorError};
pub use plan::{PlanError, SampleChoice};
pub use priority::stand_back;
pub use qemu::stream;
pub use qmp::QmpSocket;
pub use recording::{RecordError, Recording, Settings, record};
pub use scan::{Scan, Scanner};
pub use summary::{Interrupt, Listener, Progress, Stop, Summary};
pub use vcpus::VcpuClock;
pub use watchdog::is_orphaned;
pub use write_log::WriteLog;
