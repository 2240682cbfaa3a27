//! A set of pages as a bitmap: one bit per tracked page.

/// A fixed-size set of ranks with a cached size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageSet {
    words: Vec<u64>,
    universe: u32,
    len: u32,
}

impl PageSet {
    /// No page of `universe`.
    pub(crate) fn empty(universe: u32) -> PageSet {
        PageSet { words: vec![0; universe.div_ceil(64) as usize], universe, len: 0 }
    }

    /// Every page of `universe`.
    pub(crate) fn full(universe: u32) -> PageSet {
        let mut words = vec![u64::MAX; universe.div_ceil(64) as usize];
        if let (Some(last), rest @ 1..) = (words.last_mut(), universe % 64) {
            *last = (1 << rest) - 1;
        }
        PageSet { words, universe, len: universe }
    }

    /// Pages in the set.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Ranks are below this.
    pub(crate) fn universe(&self) -> u32 {
        self.universe
    }

    /// Whether the page is in the set.
    pub(crate) fn contains(&self, rank: u32) -> bool {
        self.words[rank as usize / 64] >> (rank % 64) & 1 == 1
    }

    /// Puts a page in or takes it out.
    pub(crate) fn set(&mut self, rank: u32, member: bool) {
        let word = &mut self.words[rank as usize / 64];
        let bit = 1 << (rank % 64);
        let was = *word & bit != 0;
        if member && !was {
            *word |= bit;
            self.len += 1;
        } else if !member && was {
            *word &= !bit;
            self.len -= 1;
        }
    }

    /// Adds every page of `other`, which has the same universe. Returns how many were new.
    pub(crate) fn union(&mut self, other: &PageSet) -> u32 {
        assert_eq!(self.universe, other.universe, "sets over the same pages");
        let mut new = 0;
        for (mine, theirs) in self.words.iter_mut().zip(&other.words) {
            new += (theirs & !*mine).count_ones();
            *mine |= theirs;
        }
        self.len += new;
        new
    }

    /// Takes out every page of `other` with a rank in `from..to`.
    pub(crate) fn subtract_range(&mut self, other: &PageSet, from: u32, to: u32) {
        let mut rank = from;
        while let Some(next) = other.next(rank).filter(|next| *next < to) {
            self.set(next, false);
            rank = next + 1;
        }
    }

    /// How many ranks are in the set of which the one so many behind, 1 to 63, is not, or the other way round.
    pub(crate) fn borders(&self, lag: u32) -> u32 {
        // Behind the last rank there is none, and no bit.
        let compared = self.universe.saturating_sub(lag);
        let differing = |word: usize| {
            let next = self.words.get(word + 1).copied().unwrap_or(0);
            let behind = self.words[word] >> lag | next << (64 - lag);
            let ranks = (compared - 64 * word as u32).min(64);
            ((self.words[word] ^ behind) & (u64::MAX >> (64 - ranks))).count_ones()
        };
        (0..compared.div_ceil(64) as usize).map(differing).sum()
    }

    /// Takes out every page.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
        self.len = 0;
    }

    /// The first page at or after `from`, if any.
    pub(crate) fn next(&self, from: u32) -> Option<u32> {
        if from >= self.universe {
            return None;
        }
        let first = from as usize / 64;
        let masked = self.words[first] & (u64::MAX << (from % 64));
        if masked != 0 {
            return Some((first * 64) as u32 + masked.trailing_zeros());
        }
        let skipped = self.words[first + 1..].iter().position(|word| *word != 0)?;
        let index = first + 1 + skipped;
        Some((index * 64) as u32 + self.words[index].trailing_zeros())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_set_has_no_page_beyond_its_universe() {
        for universe in [0, 1, 63, 64, 65, 128] {
            let set = PageSet::full(universe);
            assert_eq!(set.words.iter().map(|word| word.count_ones()).sum::<u32>(), universe);
            assert_eq!(set.next(universe), None);
        }
    }

    proptest! {
        #[test]
        fn borders_are_where_a_rank_and_one_behind_it_differ(
            members in prop::collection::vec(any::<bool>(), 0..200),
            lag in 1u32..64,
        ) {
            let mut set = PageSet::empty(members.len() as u32);
            (0..).zip(&members).for_each(|(rank, member)| set.set(rank, *member));
            let differ = members.iter().zip(members.iter().skip(lag as usize)).filter(|(one, behind)| one != behind);
            prop_assert_eq!(set.borders(lag) as usize, differ.count());
        }

        #[test]
        fn behaves_like_a_tree_set(
            ops in prop::collection::vec((0u32..300, any::<bool>()), 0..200),
            other in prop::collection::btree_set(0u32..300, 0..100),
            from in 0u32..310,
            range in (0u32..300, 0u32..300),
        ) {
            let mut set = PageSet::empty(300);
            let mut model = BTreeSet::new();
            for (rank, member) in ops {
                set.set(rank, member);
                if member { model.insert(rank); } else { model.remove(&rank); }
            }
            prop_assert_eq!(set.next(from), model.range(from..).next().copied());
            let mut others = PageSet::empty(300);
            other.iter().for_each(|rank| others.set(*rank, true));
            let new = set.union(&others);
            prop_assert_eq!(new as usize, other.difference(&model).count());
            model.extend(&other);
            set.subtract_range(&others, range.0, range.1);
            model.retain(|rank| !(other.contains(rank) && (range.0..range.1).contains(rank)));
            prop_assert_eq!(set.len() as usize, model.len());
            prop_assert!((0..300).all(|rank| set.contains(rank) == model.contains(&rank)));
        }
    }
}
