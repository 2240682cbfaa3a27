//! When to migrate: which times of the day or of the week are better, and whether the past can tell.
//!
//! A history is cut into blocks (days, or weeks) and each block into slots (hours). Whether slots differ is asked as
//! Friedman did (1937), by ranks within each block: a block that is slower as a whole says nothing. Neighbouring hours are
//! alike in any history, whatever the clock has to do with it, so the ranks of chance are not Friedman's: they come from the
//! blocks themselves, each turned by a random number of slots, which leaves alone what is alike in neighbours and breaks
//! what is bound to the clock.
//!
//! How much better the best slot is, is judged on blocks that had no part in choosing it: it is chosen from the others.

use std::collections::BTreeMap;

use crate::random::Random;

/// Blocks below which nothing is said to come again.
pub const BLOCKS_MIN: usize = 3;
/// Slots a block has at least to say anything.
const SLOTS_MIN: usize = 3;
/// Turnings drawn.
const TURNINGS: usize = 999;
/// What chance may do as well counts as chance.
const SIGNIFICANCE: f64 = 0.05;
const SEED: u64 = 1937;

/// A starting point of the past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Which day (or week) it was in.
    pub block: i64,
    /// Which hour of it.
    pub slot: usize,
    /// What is to be small, in seconds; infinite where the migration does not end.
    pub value: f64,
}

/// What a slot was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slot {
    /// Which.
    pub slot: usize,
    /// In how many blocks it was seen.
    pub blocks: usize,
    /// Starting points in it.
    pub starts: usize,
    /// Least, median and largest of the blocks' medians; infinite where that does not end.
    pub medians: [f64; 3],
}

/// Whether slots differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// They do: chance does as well with this probability.
    Differ(f64),
    /// Nothing shows that they do.
    Alike(f64),
    /// There are too few blocks to tell.
    TooShort,
}

/// How much smaller the value is in the best slot than in another, judged on blocks that did not choose it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain {
    /// Least, median and largest over blocks, in seconds; negative where it was worse.
    pub seconds: [f64; 3],
    /// How many blocks there were to judge.
    pub blocks: usize,
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What was seen of each slot, in order.
    pub slots: Vec<Slot>,
    /// Whether they differ.
    pub verdict: Verdict,
    /// The slot with the smallest values, of those allowed that were seen in most blocks.
    pub best: Option<usize>,
    /// The one with the largest, of all.
    pub worst: Option<usize>,
    /// The best against `instead`, if that was asked for and can be told.
    pub gain: Option<Gain>,
}

/// Medians of a block's slots: what is compared.
type Block = BTreeMap<usize, f64>;

/// Which slot is best among those `allowed`, and how much better than the slot `instead`.
pub fn when(seen: &[Seen], allowed: impl Fn(usize) -> bool, instead: Option<usize>) -> Answer {
    let blocks = blocks(seen);
    let slots = slots(seen, &blocks);
    let enough = |slot: &&Slot| 2 * slot.blocks > blocks.len();
    let all: Vec<usize> = slots.iter().filter(enough).map(|slot| slot.slot).collect();
    let candidates: Vec<usize> = all.iter().copied().filter(|slot| allowed(*slot)).collect();
    let ranks: Vec<Block> = blocks.iter().map(ranked).collect();
    let best = least(&ranks, &candidates, None);
    let worst = all.iter().copied().max_by(|a, b| mean_rank(&ranks, *a, None).total_cmp(&mean_rank(&ranks, *b, None)));
    let gain = instead.and_then(|instead| gain(&blocks, &ranks, &candidates, instead));
    Answer { slots, verdict: verdict(&ranks), best, worst, gain }
}

fn blocks(seen: &[Seen]) -> Vec<Block> {
    let mut values: BTreeMap<i64, BTreeMap<usize, Vec<f64>>> = BTreeMap::new();
    for one in seen {
        values.entry(one.block).or_default().entry(one.slot).or_default().push(one.value);
    }
    let block =
        |slots: BTreeMap<usize, Vec<f64>>| slots.into_iter().map(|(slot, values)| (slot, median(values))).collect();
    values.into_values().map(block).filter(|block: &Block| block.len() >= SLOTS_MIN).collect()
}

fn slots(seen: &[Seen], blocks: &[Block]) -> Vec<Slot> {
    let mut starts: BTreeMap<usize, usize> = BTreeMap::new();
    for one in seen {
        *starts.entry(one.slot).or_default() += 1;
    }
    let slot = |(slot, starts): (usize, usize)| {
        let medians: Vec<f64> = blocks.iter().filter_map(|block| block.get(&slot).copied()).collect();
        let ends = (!medians.is_empty()).then(|| spread(medians.clone()));
        Some(Slot { slot, blocks: medians.len(), starts, medians: ends? })
    };
    starts.into_iter().filter_map(slot).collect()
}

/// Ranks within a block, from −½ to ½ with ties shared.
fn ranked(block: &Block) -> Block {
    let count = block.len() as f64;
    let rank = |value: f64| {
        let below = block.values().filter(|other| **other < value).count() as f64;
        let equal = block.values().filter(|other| **other == value).count() as f64;
        (below + (equal - 1.0) / 2.0) / (count - 1.0) - 0.5
    };
    block.iter().map(|(slot, value)| (*slot, rank(*value))).collect()
}

fn mean_rank(ranks: &[Block], slot: usize, without: Option<usize>) -> f64 {
    let used = ranks.iter().enumerate().filter(|(index, _)| Some(*index) != without);
    let of_slot: Vec<f64> = used.filter_map(|(_, block)| block.get(&slot).copied()).collect();
    if of_slot.is_empty() { f64::INFINITY } else { of_slot.iter().sum::<f64>() / of_slot.len() as f64 }
}

fn least(ranks: &[Block], candidates: &[usize], without: Option<usize>) -> Option<usize> {
    let rank = |slot: &usize| mean_rank(ranks, *slot, without);
    candidates.iter().copied().min_by(|a, b| rank(a).total_cmp(&rank(b)))
}

/// Friedman's statistic: how far slots' mean ranks lie apart, weighed by how often they were seen.
fn statistic(blocks: &[Vec<(usize, f64)>]) -> f64 {
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (slot, rank) in blocks.iter().flatten() {
        let sum = sums.entry(*slot).or_default();
        *sum = (sum.0 + rank, sum.1 + 1.0);
    }
    sums.values().map(|(sum, count)| sum * sum / count).sum()
}

fn verdict(ranks: &[Block]) -> Verdict {
    if ranks.len() < BLOCKS_MIN {
        return Verdict::TooShort;
    }
    let blocks: Vec<Vec<(usize, f64)>> =
        ranks.iter().map(|block| block.iter().map(|(slot, rank)| (*slot, *rank)).collect()).collect();
    let found = statistic(&blocks);
    let mut random = Random::new(SEED);
    let mut turned = || {
        let turn = |block: &Vec<(usize, f64)>| -> Vec<(usize, f64)> {
            let by = random.below(block.len());
            let ranks = block.iter().map(|(_, rank)| *rank).cycle().skip(by);
            block.iter().map(|(slot, _)| *slot).zip(ranks).collect()
        };
        let blocks: Vec<_> = blocks.iter().map(turn).collect();
        statistic(&blocks)
    };
    // Rounding must not tell equal ones apart.
    let as_large = (0..TURNINGS).filter(|_| turned() >= found * (1.0 - 1e-9)).count();
    let chance = (as_large + 1) as f64 / (TURNINGS + 1) as f64;
    if chance <= SIGNIFICANCE { Verdict::Differ(chance) } else { Verdict::Alike(chance) }
}

fn gain(blocks: &[Block], ranks: &[Block], candidates: &[usize], instead: usize) -> Option<Gain> {
    let of_block = |(index, block): (usize, &Block)| {
        let best = least(ranks, candidates, Some(index))?;
        let (from, to) = (*block.get(&instead)?, *block.get(&best)?);
        // Where neither ends there is nothing between them.
        Some(if from == to { 0.0 } else { from - to })
    };
    let gains: Vec<f64> = blocks.iter().enumerate().filter_map(of_block).collect();
    (gains.len() >= BLOCKS_MIN).then(|| Gain { blocks: gains.len(), seconds: spread(gains) })
}

/// Least, median and largest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[(values.len() - 1) / 2], values[values.len() - 1]]
}

fn median(values: Vec<f64>) -> f64 {
    spread(values)[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days of 24 hours with four starts in each, of this value.
    fn days(days: i64, value: impl Fn(i64, usize) -> f64) -> Vec<Seen> {
        let of_day = |block: i64| (0..24).map(move |slot| (block, slot));
        let starts = (0..days).flat_map(of_day).flat_map(|(block, slot)| {
            let value = value(block, slot);
            (0..4).map(move |start| Seen { block, slot, value: value * (1.0 + 0.01 * f64::from(start)) })
        });
        starts.collect()
    }

    /// What wanders from hour to hour and day to day without minding the clock, slowly enough that neighbours are alike.
    fn wandering(seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut at = 0.0;
        let step = |_| {
            at = 0.9 * at + (random.bits() as f64 / u64::MAX as f64 - 0.5);
            10.0 * (1.0 + 0.3 * at)
        };
        (0..24 * 30).map(step).collect()
    }

    #[test]
    fn a_quiet_hour_is_found_and_what_it_gains() {
        let seen = days(5, |day, hour| if hour == 3 { 2.0 } else { 10.0 } + 0.1 * day as f64);
        let answer = when(&seen, |_| true, Some(14));
        assert!(matches!(answer.verdict, Verdict::Differ(_)), "{:?}", answer.verdict);
        assert_eq!((answer.best, answer.slots.len(), answer.slots[3].blocks), (Some(3), 24, 5));
        let gain = answer.gain.unwrap();
        assert!(gain.seconds.iter().all(|seconds| (seconds - 8.0).abs() < 0.2) && gain.blocks == 5, "{gain:?}");
        // Within a window that has not the best hour, the best of the window.
        let evening = when(&seen, |hour| hour >= 18, Some(3));
        assert!(evening.best.unwrap() >= 18 && evening.gain.unwrap().seconds[1] < 0.0);
    }

    #[test]
    fn a_guest_without_a_clock_is_told_that_the_hour_makes_no_difference() {
        let mistaken = (0..200)
            .filter(|seed| {
                let values = wandering(*seed);
                let seen = days(6, |day, hour| values[day as usize * 24 + hour]);
                matches!(when(&seen, |_| true, None).verdict, Verdict::Differ(_))
            })
            .count();
        // One in twenty by its own words; twice that would be beyond chance.
        assert!(mistaken <= 20, "{mistaken} of 200 histories without a cycle were said to have one");
    }

    #[test]
    fn a_gain_of_chance_alone_is_none_on_the_days_that_did_not_choose() {
        let gains: Vec<f64> = (0..100)
            .map(|seed| {
                let values = wandering(1_000 + seed);
                let seen = days(6, |day, hour| values[day as usize * 24 + hour]);
                when(&seen, |_| true, Some(12)).gain.unwrap().seconds[1]
            })
            .collect();
        let mean = gains.iter().sum::<f64>() / gains.len() as f64;
        assert!(mean.abs() < 0.5, "{mean} s of ten are gained by chance");
    }

    #[test]
    fn two_days_tell_nothing_and_what_never_ends_is_worst() {
        let seen = days(2, |_, hour| hour as f64);
        let answer = when(&seen, |_| true, Some(5));
        assert_eq!((answer.verdict, answer.gain), (Verdict::TooShort, None));
        let seen = days(4, |_, hour| if (9..17).contains(&hour) { f64::INFINITY } else { 5.0 });
        let answer = when(&seen, |_| true, Some(10));
        assert!((9..17).contains(&answer.worst.unwrap()));
        assert_eq!(answer.gain.unwrap().seconds[1], f64::INFINITY);
        let none = when(&seen, |_| false, Some(10));
        assert_eq!((none.best, none.gain), (None, None));
    }
}
