//! A set of ranks as runs: small where neighbours agree, as zero pages do.
use std::collections::BTreeMap;
use std::ops::Range;

use migcast_model::dirty::ZeroChange;

/// A set of ranks, kept as runs that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankRuns {
    /// Start and end of each run.
    runs: BTreeMap<u32, u32>,
}

impl RankRuns {
    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.runs.iter().map(|(&start, &end)| start..end)
    }

    /// How many ranks there are.
    pub fn count(&self) -> u32 {
        self.iter().map(|run| run.end - run.start).sum()
    }

    /// Adds a run behind all others.
    pub(crate) fn push(&mut self, run: Range<u32>) {
        match self.runs.last_entry() {
            Some(mut last) if *last.get() == run.start => _ = last.insert(run.end),
            _ => _ = self.runs.insert(run.start, run.end),
        }
    }

    /// Adds a rank or takes it out.
    pub fn set(&mut self, rank: u32, member: bool) {
        let before = self.runs.range(..=rank).next_back().map(|(&start, &end)| start..end);
        let inside = before.clone().filter(|run| run.contains(&rank));
        match (member, inside) {
            (true, Some(_)) | (false, None) => {}
            (false, Some(run)) => {
                self.runs.remove(&run.start);
                if run.start < rank {
                    self.runs.insert(run.start, rank);
                }
                if rank + 1 < run.end {
                    self.runs.insert(rank + 1, run.end);
                }
            }
            (true, None) => {
                let start = before.filter(|run| run.end == rank).map_or(rank, |run| run.start);
                let end = self.runs.remove(&(rank + 1)).unwrap_or(rank + 1);
                self.runs.insert(start, end);
            }
        }
    }

    /// The changes that make this set into `other`, ascending.
    pub(crate) fn changes_to(&self, other: &RankRuns) -> Vec<ZeroChange> {
        let mut bounds: Vec<u32> = self.iter().chain(other.iter()).flat_map(|run| [run.start, run.end]).collect();
        bounds.sort_unstable();
        bounds.dedup();
        let mut changes = Vec::new();
        for pair in bounds.windows(2) {
            let (is, shall) = (self.contains(pair[0]), other.contains(pair[0]));
            if is != shall {
                changes.extend((pair[0]..pair[1]).map(|rank| ZeroChange { rank, zero: shall }));
            }
        }
        changes
    }

    fn contains(&self, rank: u32) -> bool {
        self.runs.range(..=rank).next_back().is_some_and(|(_, &end)| rank < end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set_of(runs: &RankRuns) -> BTreeSet<u32> {
        runs.iter().flatten().collect()
    }

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((0u32..60, any::<bool>()), 0..200)) {
            let (mut runs, mut plain) = (RankRuns::default(), BTreeSet::new());
            for (rank, member) in changes {
                runs.set(rank, member);
                if member { plain.insert(rank); } else { plain.remove(&rank); }
                let list: Vec<_> = runs.iter().collect();
                prop_assert!(list.windows(2).all(|pair| pair[0].end < pair[1].start));
            }
            prop_assert_eq!(set_of(&runs), plain);
        }

        #[test]
        fn changes_lead_from_one_to_the_other(a in prop::collection::btree_set(0u32..60, 0..60), b in prop::collection::btree_set(0u32..60, 0..60)) {
            let (mut from, mut to) = (RankRuns::default(), RankRuns::default());
            a.iter().for_each(|rank| from.push(*rank..*rank + 1));
            b.iter().for_each(|rank| to.push(*rank..*rank + 1));
            let changes = from.changes_to(&to);
            prop_assert_eq!(changes.len(), a.symmetric_difference(&b).count());
            changes.iter().for_each(|change| from.set(change.rank, change.zero));
            prop_assert_eq!(from, to);
        }
    }
}
