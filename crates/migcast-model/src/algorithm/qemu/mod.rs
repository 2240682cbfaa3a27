//! QEMU's pre-copy (migration/migration.c, migration/ram.c), versions 7.2 to 10.1 and later.
//!
//! One thread sends pages in steps of at most 50 ms, in bandwidth windows of at least 100 ms. It reads the dirty log not
//! at the end of a pass but as soon as what is known to remain falls under `bandwidth × downtime-limit`; what is unsent
//! then stays due, and the scan goes on from where it was.
//!
//! ```text
//!  request ─ connect ─ setup ─┬─ sync 1 ─► [ iteration_run ─► rate_limit ]* ─► completion
//!                             │              │ remaining < threshold?  sync
//!                             │              │ still?                  completion: stop, sync, send all, device state
//!                             └ window 1     │ else                    one step: ≤ 50 ms, ≤ the window's budget
//! ```
//!
//! Names of functions and fields in comments are QEMU's.

mod dirty_limit;
mod machine;
mod precopy;
mod rules;
mod settings;
mod stream;
mod throttle;

pub use dirty_limit::DirtyLimit;
pub use machine::{FirstPass, Qemu};
pub use precopy::Precopy;
pub use rules::{CompletionRule, RateAccounting, Rules, SyncRule, Version, Window};
pub use settings::{Multifd, Postcopy, Settings, UNLIMITED, Xbzrle};
pub use stream::page_bytes;
pub use throttle::AutoConverge;
