//! Which settings `migcast tune` tries, stage by stage: each stage harms the guest more than the one before.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use migcast_model::algorithm::Algorithm;
use migcast_model::quantity::write_duration;

use super::super::sweep::vary::Vary;

/// Settings to change, key and value as users write them; none is what stands.
pub(crate) type Candidate = Vec<(String, String)>;

/// Candidates of all stages at most.
const CANDIDATES_MAX: usize = 10_000;

/// What is promised, for settings that are the same quantities.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Promised {
    pub(in crate::cli) time: Duration,
    pub(in crate::cli) downtime: Duration,
}

/// The values of a setting that are worth a try.
#[derive(Clone, Copy, Debug)]
enum Values {
    /// These shares, in percent, of the downtime that is promised.
    OfDowntime(&'static [u32]),
    /// The same of the migration time.
    OfTime(&'static [u32]),
    /// These.
    Listed(&'static [&'static str]),
}

const SHARES: &[u32] = &[100, 85, 70, 55, 40, 30, 20, 10, 5, 2, 1];

/// When the guest is stopped, and how fast it is copied.
const LIMITS: &[(&str, Values)] = &[
    ("downtime-limit", Values::OfDowntime(SHARES)),
    ("max-bandwidth", Values::Listed(&["none"])),
    ("live_migration_downtime", Values::OfDowntime(SHARES)),
    ("maxDowntime", Values::OfDowntime(SHARES)),
    ("migrate_downtime", Values::OfDowntime(SHARES)),
    ("downtime", Values::OfDowntime(SHARES)),
    ("timeout-strategy", Values::Listed(&["ignore"])),
    ("timeout", Values::OfTime(&[90, 75, 50, 25])),
    ("max-iterations", Values::Listed(&["1", "2", "3", "4", "6", "8", "12", "16", "20", "29"])),
    ("max-factor", Values::Listed(&["1", "2", "5", "8"])),
    ("max-dirty-migrations", Values::Listed(&["1", "2", "3", "8", "12", "16"])),
    ("small-set", Values::Listed(&["10", "200", "1000", "5000", "20000"])),
    ("target-dirty-count", Values::Listed(&["10", "200", "1000", "5000", "20000"])),
    ("dirty-threshold", Values::Listed(&["10", "200", "1000", "5000", "20000"])),
    ("min-pages", Values::Listed(&["10", "200", "1000", "5000", "20000"])),
];
/// What slows the guest.
const SLOWING: &[(&str, Values)] = &[
    ("auto-converge", Values::Listed(&["on"])),
    ("live_migration_permit_auto_converge", Values::Listed(&["on"])),
    ("allowAutoConverge", Values::Listed(&["on"])),
];
/// What moves the guest before its memory: from then on it is lost if the link or the target fails.
const MOVING_FIRST: &[(&str, Values)] = &[
    ("max-bandwidth", Values::Listed(&["none"])),
    ("postcopy-after", Values::OfTime(&[50, 25, 12])),
    ("allowPostCopy", Values::Listed(&["on"])),
];

/// A setting with the values it takes, the one that stands left out.
struct Knob {
    key: String,
    values: Vec<String>,
}

/// What is tried of an algorithm and its manager as they stand, if nothing else is said. What is
/// `fixed` is left alone.
pub(in crate::cli) fn stages(
    algorithm: &Algorithm,
    fixed: &[(String, String)],
    promised: Promised,
) -> [Vec<Candidate>; 3] {
    // A manager changes the algorithm's limits as it goes: what it takes itself is what can be set. But libvirt leaves them
    // alone.
    let settings = match algorithm.manager() {
        Some(manager) if manager.name() == "libvirt" => [manager.settings(), algorithm.settings()].concat(),
        Some(manager) => manager.settings(),
        None => algorithm.settings(),
    };
    let knobs = |table: &[(&str, Values)]| -> Vec<Knob> {
        let open = table.iter().filter(|(key, _)| fixed.iter().all(|(fixed, _)| fixed != key));
        let knob = |(key, values): &(&str, Values)| {
            let stands = settings.iter().find(|setting| setting.key == *key)?;
            let values = values.written(promised).into_iter().filter(|value| *value != stands.value).collect();
            Some(Knob { key: (*key).to_owned(), values })
        };
        open.filter_map(knob).collect()
    };
    let (limits, slowing, first) = (knobs(LIMITS), knobs(SLOWING), knobs(MOVING_FIRST));
    let with = |knobs: &[Knob], more: Candidate| -> Vec<Candidate> {
        product(knobs).into_iter().map(|candidate| [candidate, more.clone()].concat()).collect()
    };
    let slowed: Vec<Candidate> = slowing.iter().flat_map(Knob::changes).flat_map(|more| with(&limits, more)).collect();
    let is_first = |candidate: &Candidate| candidate.iter().any(|(key, _)| key != "max-bandwidth");
    let moved: Vec<Candidate> = product(&first).into_iter().filter(is_first).collect();
    [product(&limits), slowed, moved]
}

/// What the user wants tried: every combination, what stands left out.
///
/// # Errors
/// Values that cannot be read, or too many.
pub(super) fn asked(tries: &[Vary], fixed: &[(String, String)]) -> anyhow::Result<Vec<Candidate>> {
    let mut candidates: Vec<Candidate> = vec![Candidate::new()];
    for (index, vary) in tries.iter().enumerate() {
        let key = &vary.key;
        ensure!(
            fixed.iter().all(|(fixed, _)| fixed != key),
            "--try {key}: --set {key} is given, too; leave one of them out"
        );
        ensure!(tries[..index].iter().all(|other| other.key != *key), "--try {key}: it is given twice");
        let values = vary.values(None).map_err(|error| anyhow!("--try {error}"))?.values;
        let count = candidates.len() * values.len();
        ensure!(count <= CANDIDATES_MAX, "--try: {count} combinations are too many: at most {CANDIDATES_MAX}");
        let with = |candidate: &Candidate| -> Vec<Candidate> {
            let change = |text: &String| vec![(key.clone(), text.clone())];
            values.iter().map(|value| [candidate.clone(), change(&value.text)].concat()).collect()
        };
        candidates = candidates.iter().flat_map(with).collect();
    }
    Ok(candidates)
}

impl Values {
    fn written(self, promised: Promised) -> Vec<String> {
        let shares = |of: Duration, shares: &[u32]| -> Vec<String> {
            // Whole milliseconds, as most of these settings want.
            let millis = |share: &u32| (of.as_millis() as u64 * u64::from(*share) / 100).max(1);
            let mut all: Vec<u64> = shares.iter().map(millis).collect();
            all.dedup();
            all.into_iter().map(|millis| write_duration(Duration::from_millis(millis))).collect()
        };
        match self {
            Values::OfDowntime(of) => shares(promised.downtime, of),
            Values::OfTime(of) => shares(promised.time, of),
            Values::Listed(values) => values.iter().map(|value| (*value).to_owned()).collect(),
        }
    }
}

impl Knob {
    fn changes(&self) -> impl Iterator<Item = Candidate> {
        self.values.iter().map(|value| vec![(self.key.clone(), value.clone())])
    }
}

/// Every combination, what stands of each included; the first changes nothing.
fn product(knobs: &[Knob]) -> Vec<Candidate> {
    knobs.iter().fold(vec![Candidate::new()], |candidates, knob| {
        let with = |candidate: &Candidate| -> Vec<Candidate> {
            let changed = knob.changes().map(|change| [candidate.clone(), change].concat());
            std::iter::once(candidate.clone()).chain(changed).collect()
        };
        candidates.iter().flat_map(with).collect()
    })
}

#[cfg(test)]
mod tests {
    use migcast_model::guest::Guest;
    use migcast_model::manager::Choice;
    use migcast_model::units::ByteCount;

    use super::*;

    const PROMISED: Promised = Promised { time: Duration::from_secs(60), downtime: Duration::from_millis(200) };

    fn keys(candidates: &[Candidate]) -> Vec<&str> {
        let mut keys: Vec<&str> = candidates.iter().flatten().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    #[test]
    fn what_harms_the_guest_is_tried_last() {
        let qemu = Algorithm::named("qemu").unwrap();
        let stages = stages(&qemu, &Candidate::new(), PROMISED);
        assert_eq!(keys(&stages[0]), ["downtime-limit", "max-bandwidth"]);
        assert_eq!(keys(&stages[1]), ["auto-converge", "downtime-limit", "max-bandwidth"]);
        assert_eq!(keys(&stages[2]), ["max-bandwidth", "postcopy-after"]);
        assert!(stages[0][0].is_empty() && stages[1].iter().all(|candidate| !candidate.is_empty()));
        assert!(stages[0].contains(&vec![("downtime-limit".to_owned(), "140ms".to_owned())]));
    }

    #[test]
    fn what_is_set_is_left_alone_and_a_manager_takes_its_own() {
        let qemu = Algorithm::named("qemu").unwrap();
        let fixed = vec![("downtime-limit".to_owned(), "1s".to_owned())];
        assert_eq!(keys(&stages(&qemu, &fixed, PROMISED)[0]), ["max-bandwidth"]);
        let guest = Guest::new("g", ByteCount::new(1 << 30));
        let nova = qemu.managed_by(Choice::named("nova").unwrap(), &guest).unwrap();
        let stages = stages(&nova, &Candidate::new(), PROMISED);
        assert_eq!(keys(&stages[0]), ["live_migration_downtime"]);
        assert_eq!(keys(&stages[1]), ["live_migration_downtime", "live_migration_permit_auto_converge"]);
    }

    #[test]
    fn every_algorithm_has_a_candidate_that_changes_nothing() {
        for entry in migcast_model::algorithm::TABLE {
            let stages = stages(&entry.algorithm(), &Candidate::new(), PROMISED);
            assert!(stages[0][0].is_empty(), "{}", entry.algorithm().name());
        }
    }
}
