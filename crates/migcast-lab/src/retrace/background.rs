//! What the stream tells of pages that the guest's log says nothing of: the kernel's own, and what is zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::evidence::Evidence;

/// A write the stream gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// In which iteration it was sent again, from 0.
    pub(super) iteration: usize,
    /// About when: in the middle between two readings of the dirty log.
    pub(super) at: Duration,
    /// Which page.
    pub(super) page: u64,
    /// Whether it was zero from then on.
    pub(super) zero: bool,
}

/// Whether each page was zero when it was first sent.
///
/// # Errors
/// A page was never sent.
pub(super) fn first_sent(evidence: &Evidence, memory: u64) -> Result<Vec<bool>> {
    let mut zero: BTreeMap<u64, bool> = BTreeMap::new();
    for page in evidence.iterations.iter().flat_map(|iteration| iteration.pages()) {
        zero.entry(page.index).or_insert(page.zero);
    }
    ensure!(zero.len() as u64 == memory, "{} of {memory} pages were sent", zero.len());
    Ok(zero.into_values().collect())
}

/// Pages outside of the working set that were sent again: each was written between the reading of the log before and the
/// one that told of it.
pub(super) fn writes(evidence: &Evidence, working_set: &[u64]) -> Vec<Written> {
    let working_set: BTreeSet<u64> = working_set.iter().copied().collect();
    let (mut sent, mut writes) = (BTreeSet::new(), Vec::new());
    for (number, iteration) in evidence.iterations.iter().enumerate() {
        for page in iteration.pages() {
            if !sent.insert(page.index) && !working_set.contains(&page.index) {
                let before = evidence.iterations[number.saturating_sub(1)].sync.ended;
                let at = (before + iteration.sync.ended) / 2;
                writes.push(Written { iteration: number, at, page: page.index, zero: page.zero });
            }
        }
    }
    writes
}
