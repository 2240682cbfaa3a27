//! Which pages of a guest are tracked: all, or a seeded random one out of every N.
use serde::{Deserialize, Serialize};

/// Each block is cut into strata of `one_in` consecutive pages (the last may be shorter) and one page of each
/// stratum, drawn by `seed`, is tracked. `one_in` = 1 tracks every page. A tracked page has a *rank*: its index among
/// the tracked pages in scan order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Pages per tracked page, ≥ 1.
    pub one_in: u32,
    /// Seed of the draw.
    pub seed: u64,
}
