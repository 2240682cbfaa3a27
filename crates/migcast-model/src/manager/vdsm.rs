//! oVirt's vdsm under the engine's migration policies (vdsm lib/vdsm/virt/migration.py; the policies are rows of the
//! engine's configuration, `MigrationPolicies`).

use std::time::Duration;

use super::{Clock, Manager, Watch, allow_postcopy};
use crate::algorithm::setting::{Choice, Field, Millis};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::units::{PageCount, SimTime};

/// Settings of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vdsm {
    /// The migration policy. Default minimal downtime.
    pub policy: Policy,
    /// `migration_monitor_interval` of vdsm.conf. Default 2 s.
    pub interval: Duration,
}

/// A migration policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// "Minimal downtime": aborts in the end.
    #[default]
    MinimalDowntime,
    /// "Suspend workload if needed": 5 s of downtime before it aborts.
    SuspendWorkload,
    /// "Post-copy migration".
    PostCopy,
}

const POLICIES: &[(&str, Policy)] = &[
    ("minimal-downtime", Policy::MinimalDowntime),
    ("suspend-workload", Policy::SuspendWorkload),
    ("post-copy", Policy::PostCopy),
];

/// Iterations that are stalled for, and the downtime limit in ms that is set by the next one.
const STEPS: [(u64, u64); 5] = [(1, 150), (2, 200), (3, 300), (4, 400), (6, 500)];

impl Default for Vdsm {
    fn default() -> Vdsm {
        Vdsm { policy: Policy::default(), interval: Duration::from_secs(2) }
    }
}

impl Vdsm {
    /// Each action with the number of iterations after which it is taken, in order.
    fn schedule(&self) -> Vec<(u64, Command)> {
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        // The last ones stand for "next", whatever the number.
        let last: &[Command] = match self.policy {
            Policy::MinimalDowntime => &[Command::Cancel],
            Policy::SuspendWorkload => &[limit(5000), Command::Cancel],
            Policy::PostCopy => &[Command::StartPostcopy, Command::Cancel],
        };
        let steps = STEPS.iter().map(|(stalled, millis)| (*stalled, limit(*millis)));
        steps.chain(last.iter().map(|command| (0, *command))).collect()
    }
}

impl Manager for Vdsm {
    fn explained(&self) -> String {
        format!(
            "The downtime limit starts at 100 ms. Each look, every {} s, that finds more left than the one before is a new iteration; \
             with them the limit grows to 150, 200, 300, 400 and 500 ms. After that the policy decides: minimal-downtime \
             aborts, suspend-workload allows 5 s and then aborts, post-copy switches to post-copy. Auto-converge is on, there is \
             no bandwidth cap.",
            self.interval.as_secs()
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "policy",
                Choice::new(&mut self.policy, POLICIES),
                "minimal-downtime, suspend-workload or post-copy; default minimal-downtime",
            ),
            Field::new(
                "migration_monitor_interval",
                Millis::new(&mut self.interval, Duration::from_secs(1)..=Duration::from_secs(3600)),
                "how often vdsm looks; default 2s",
            ),
        ]
    }

    fn sets(&self, guest: &Guest) -> Vec<(&'static str, String)> {
        let mut sets = super::Libvirt::default().sets(guest);
        sets.push(("downtime-limit", "100ms".to_owned()));
        sets.push(("auto-converge", "on".to_owned()));
        if self.policy == Policy::SuspendWorkload {
            sets.push(("xbzrle", "on".to_owned()));
        }
        if self.policy == Policy::PostCopy {
            sets.push(allow_postcopy());
        }
        sets
    }

    fn watch(&self, _guest: &Guest) -> Box<dyn Watch> {
        let mut schedule = self.schedule();
        schedule.reverse();
        Box::new(Watching { clock: Clock::every(self.interval), schedule, before: None, iterations: 0 })
    }

    /// It ends in the end; how soon depends on what it sees. Ten minutes are enough for most.
    fn patience(&self, _guest: &Guest) -> Option<Duration> {
        Some(Duration::from_secs(600))
    }
}

#[derive(Clone, Debug)]
struct Watching {
    clock: Clock,
    /// Actions to come, the next one last.
    schedule: Vec<(u64, Command)>,
    before: Option<PageCount>,
    iterations: u64,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.clock.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.clock.tick(progress.now);
        let before = self.before.replace(progress.due);
        if progress.has_moved || before.is_none_or(|before| progress.due <= before) {
            return None;
        }
        self.iterations += 1;
        let iterations = self.iterations;
        self.schedule.pop_if(|(stalled, _)| *stalled < iterations).map(|(_, command)| command)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commands, guest};
    use super::*;

    /// What is done if every look finds more left.
    fn did(policy: Policy) -> Vec<(u64, Command)> {
        let grows: Vec<u64> = (0..14).map(|look| (1 << 30) + look * 4096).collect();
        commands(&mut *Vdsm { policy, ..Vdsm::default() }.watch(&guest(1)), &grows)
    }

    #[test]
    fn the_limit_grows_with_the_iterations_then_the_policy_decides() {
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        // Looks at 2, 4, … s; the first has nothing to compare with. A step for `n` is taken at iteration n + 1.
        let steps = [
            (6_000, limit(150)),
            (8_000, limit(200)),
            (10_000, limit(300)),
            (12_000, limit(400)),
            (16_000, limit(500)),
        ];
        assert_eq!(did(Policy::MinimalDowntime)[..5], steps);
        assert_eq!(did(Policy::MinimalDowntime)[5..], [(18_000, Command::Cancel)]);
        assert_eq!(did(Policy::SuspendWorkload)[5..], [(18_000, limit(5000)), (20_000, Command::Cancel)]);
        assert_eq!(did(Policy::PostCopy)[5], (18_000, Command::StartPostcopy));
    }

    #[test]
    fn a_look_that_finds_less_left_is_no_iteration() {
        let shrinks: Vec<u64> = (0..20).map(|look| (1 << 30) - look * 4096).collect();
        assert_eq!(commands(&mut *Vdsm::default().watch(&guest(1)), &shrinks), []);
    }
}
