//! Max-min fair shares of links: nobody can get more without somebody who has no more getting less.

use crate::units::BytesPerSec;

/// What wants to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The pipes it takes, by their numbers; at least one.
    pub path: &'a [usize],
    /// More it does not want.
    pub cap: Option<BytesPerSec>,
}

/// The max-min fair rates of `flows` over pipes of these `capacities`, in bytes per second; what cannot be shared evenly by
/// whole bytes is left over.
///
/// Filling: all rates rise alike until a pipe is full or a cap is reached, which fixes the flows concerned; the others rise
/// on (Bertsekas, Gallager, Data Networks, 6.5.2).
pub fn max_min(capacities: &[BytesPerSec], flows: &[Flow<'_>]) -> Vec<BytesPerSec> {
    let mut rates: Vec<Option<u64>> = vec![None; flows.len()];
    let mut left: Vec<u64> = capacities.iter().map(|capacity| capacity.get()).collect();
    let mut users = vec![0u64; capacities.len()];
    for pipe in flows.iter().flat_map(|flow| flow.path) {
        users[*pipe] += 1;
    }
    let mut rising: Vec<usize> = (0..flows.len()).collect();
    while !rising.is_empty() {
        let fair = |pipe: usize| left[pipe] / users[pipe];
        let full = rising.iter().flat_map(|flow| flows[*flow].path).map(|pipe| fair(*pipe)).min();
        let capped = rising.iter().filter_map(|flow| flows[*flow].cap).map(BytesPerSec::get).min();
        let level = full.into_iter().chain(capped).min().unwrap_or(u64::MAX);
        let is_fixed = |flow: &usize| {
            let flow = &flows[*flow];
            flow.cap.is_some_and(|cap| cap.get() <= level) || flow.path.iter().any(|pipe| fair(*pipe) <= level)
        };
        let fixed: Vec<usize> = rising.iter().copied().filter(is_fixed).collect();
        if fixed.is_empty() {
            // They take no pipe and want no end.
            rising.iter().for_each(|flow| rates[*flow] = Some(level));
            break;
        }
        for flow in &fixed {
            rates[*flow] = Some(level);
            for pipe in flows[*flow].path {
                left[*pipe] -= level;
                users[*pipe] -= 1;
            }
        }
        rising.retain(|flow| rates[*flow].is_none());
    }
    rates.into_iter().map(|rate| BytesPerSec::new(rate.unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Slow and obvious: everybody who still can gets one more, again and again.
    fn filled(capacities: &[u64], flows: &[Flow<'_>]) -> Vec<u64> {
        let mut rates = vec![0u64; flows.len()];
        let mut left = capacities.to_vec();
        let mut rising: Vec<usize> = (0..flows.len()).collect();
        while !rising.is_empty() {
            // A drop more for all of them, if there is one for all who share each pipe.
            let users = |pipe: usize| rising.iter().filter(|flow| flows[**flow].path.contains(&pipe)).count() as u64;
            let fits = |flow: &usize| {
                let flow_rate = rates[*flow];
                let Flow { path, cap } = flows[*flow];
                cap.is_none_or(|cap| flow_rate < cap.get()) && path.iter().all(|pipe| left[*pipe] >= users(*pipe))
            };
            let still: Vec<usize> = rising.iter().copied().filter(fits).collect();
            if still.len() == rising.len() {
                for flow in &rising {
                    rates[*flow] += 1;
                    flows[*flow].path.iter().for_each(|pipe| left[*pipe] -= 1);
                }
            }
            rising = still;
        }
        rates
    }

    #[test]
    fn the_textbook_has_it_so() {
        // One long flow over both pipes, two short ones: 10 and 4 of capacity.
        let paths: [&[usize]; 3] = [&[0, 1], &[0], &[1]];
        let flows = paths.map(|path| Flow { path, cap: None });
        let rates = max_min(&[10, 4].map(BytesPerSec::new), &flows);
        assert_eq!(rates.iter().map(|rate| rate.get()).collect::<Vec<_>>(), [2, 8, 2]);
        let capped = [flows[0], Flow { cap: Some(BytesPerSec::new(3)), ..flows[1] }, flows[2]];
        let rates = max_min(&[10, 4].map(BytesPerSec::new), &capped);
        assert_eq!(rates.iter().map(|rate| rate.get()).collect::<Vec<_>>(), [2, 3, 2]);
    }

    proptest! {
        #[test]
        fn shares_are_what_filling_drop_by_drop_gives(
            capacities in proptest::collection::vec(0u64..60, 1..6),
            wants in proptest::collection::vec((proptest::collection::btree_set(0usize..6, 1..4), proptest::option::of(0u64..40)), 1..9),
        ) {
            let paths: Vec<Vec<usize>> = wants
                .iter()
                .map(|(path, _)| {
                    let path: std::collections::BTreeSet<usize> = path.iter().map(|pipe| pipe % capacities.len()).collect();
                    path.into_iter().collect()
                })
                .collect();
            let flow = |(path, (_, cap))| -> Flow<'_> {
                let (path, cap): (&Vec<usize>, &Option<u64>) = (path, cap);
                Flow { path, cap: cap.map(BytesPerSec::new) }
            };
            let flows: Vec<Flow<'_>> = paths.iter().zip(wants.iter().map(|(path, cap)| (path, cap))).map(flow).collect();
            let shares: Vec<u64> =
                max_min(&capacities.iter().copied().map(BytesPerSec::new).collect::<Vec<_>>(), &flows).iter().map(|rate| rate.get()).collect();
            prop_assert_eq!(shares, filled(&capacities, &flows));
        }
    }
}
