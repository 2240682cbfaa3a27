//! Dirty sources: what a guest writes, as the model sees it.

mod replay;

pub use replay::{PageReplay, PageReplayBuilder, ZeroChange};
