//! OpenStack Nova's libvirt driver (nova/conf/libvirt.py, nova/virt/libvirt/migration.py, driver.py).

use std::time::Duration;

use super::libvirt::WEEK;
use super::{Clock, Manager, Watch, allow_postcopy, configured_memory};
use crate::algorithm::setting::{Choice, Count, Field, Millis, Switch};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::units::SimTime;

/// How often the driver looks.
const POLL: Duration = Duration::from_millis(500);
/// Guests are taken for at least so many GB.
const LEAST_GB: f64 = 2.0;

/// Settings of nova.conf, section `[libvirt]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nova {
    /// `live_migration_downtime`: the downtime limit in the end. Default 500 ms.
    pub downtime: Duration,
    /// `live_migration_downtime_steps`. Default 10.
    pub steps: u64,
    /// `live_migration_downtime_delay`: between steps, per GB. Default 75 s.
    pub delay_per_gb: Duration,
    /// `live_migration_completion_timeout`, per GB; zero never. Default 800 s.
    pub completion_timeout_per_gb: Duration,
    /// `live_migration_timeout_action`. Default abort.
    pub timeout_action: TimeoutAction,
    /// `live_migration_permit_post_copy`. Default false.
    pub permits_post_copy: bool,
    /// `live_migration_permit_auto_converge`. Default false.
    pub permits_auto_converge: bool,
    /// Size of the disks that are migrated, too, in GB; none if they are shared.
    pub disks_gb: u64,
}

/// What happens at the completion timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// The migration is aborted.
    #[default]
    Abort,
    /// Post-copy if it is permitted, else the guest is paused.
    ForceComplete,
}

const ACTIONS: &[(&str, TimeoutAction)] =
    &[("abort", TimeoutAction::Abort), ("force_complete", TimeoutAction::ForceComplete)];

impl Default for Nova {
    fn default() -> Nova {
        Nova {
            downtime: Duration::from_millis(500),
            steps: 10,
            delay_per_gb: Duration::from_secs(75),
            completion_timeout_per_gb: Duration::from_secs(800),
            timeout_action: TimeoutAction::Abort,
            permits_post_copy: false,
            permits_auto_converge: false,
            disks_gb: 0,
        }
    }
}

impl Nova {
    /// So long for each GB of the guest, cut to whole seconds. Its size is not (driver.py `_live_migration_data_gb`).
    fn per_gb(&self, span: Duration, guest: &Guest) -> Duration {
        let memory_gb = configured_memory(guest) as f64 / (1u64 << 30) as f64;
        let seconds = span.as_secs_f64() * (memory_gb.max(LEAST_GB) + self.disks_gb as f64);
        Duration::from_secs(seconds as u64)
    }

    fn completion_timeout(&self, guest: &Guest) -> Duration {
        self.per_gb(self.completion_timeout_per_gb, guest)
    }

    /// Each step's time and downtime limit in ms, the first at once.
    fn schedule(&self, guest: &Guest) -> Vec<(Duration, u64)> {
        let delay = self.per_gb(self.delay_per_gb, guest);
        let downtime = self.downtime.as_millis() as f64;
        let base = downtime / self.steps as f64;
        let offset = (downtime - base) / self.steps as f64;
        let step = |step: u64| {
            let at = delay.saturating_mul(u32::try_from(step).unwrap_or(u32::MAX));
            (at, (base + offset * step as f64) as u64)
        };
        (0..=self.steps).map(step).collect()
    }
}

impl Manager for Nova {
    fn explained(&self) -> String {
        format!(
            "Nova sets no bandwidth cap. The downtime limit starts at {} ms divided by {} and grows in {} steps, one every {} s \
             per GB of the guest (memory, at least 2 GB, and disks that move). After {} s per GB the migration is aborted, or with \
             live_migration_timeout_action=force_complete switched to post-copy, or the guest is paused.",
            self.downtime.as_millis(),
            self.steps,
            self.steps,
            self.delay_per_gb.as_secs(),
            self.completion_timeout_per_gb.as_secs()
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(2000));
        vec![
            Field::new(
                "live_migration_downtime",
                Millis::new(&mut self.downtime, least..=most),
                "the downtime limit in the end; default 500ms",
            ),
            Field::new(
                "live_migration_downtime_steps",
                Count::new(&mut self.steps, 3..=1000),
                "in so many steps; default 10",
            ),
            Field::new(
                "live_migration_downtime_delay",
                Millis::new(&mut self.delay_per_gb, Duration::from_secs(3)..=WEEK),
                "between two of them, per GB of the guest; default 75s",
            ),
            Field::new(
                "live_migration_completion_timeout",
                Millis::new(&mut self.completion_timeout_per_gb, Duration::ZERO..=WEEK),
                "per GB of the guest, 0s for never; default 800s",
            ),
            Field::new(
                "live_migration_timeout_action",
                Choice::new(&mut self.timeout_action, ACTIONS),
                "abort or force_complete; default abort",
            ),
            Field::new(
                "live_migration_permit_post_copy",
                Switch(&mut self.permits_post_copy),
                "force_complete switches to post-copy instead of pausing the guest; default off",
            ),
            Field::new(
                "live_migration_permit_auto_converge",
                Switch(&mut self.permits_auto_converge),
                "auto-converge; default off",
            ),
            Field::new(
                "disks_gb",
                Count::new(&mut self.disks_gb, 0..=1 << 20),
                "GB of disks that move, too; default 0",
            ),
        ]
    }

    fn sets(&self, guest: &Guest) -> Vec<(&'static str, String)> {
        let mut sets = super::Libvirt::default().sets(guest);
        if self.permits_post_copy {
            sets.push(allow_postcopy());
        } else if self.permits_auto_converge {
            sets.push(("auto-converge", "on".to_owned()));
        }
        sets
    }

    fn watch(&self, guest: &Guest) -> Box<dyn Watch> {
        let mut steps = self.schedule(guest);
        steps.reverse();
        Box::new(Watching {
            settings: *self,
            timeout: self.completion_timeout(guest),
            steps,
            clock: Clock::every(POLL),
            forces: None,
            is_over: false,
        })
    }

    fn patience(&self, guest: &Guest) -> Option<Duration> {
        Some(self.completion_timeout(guest)).filter(|timeout| !timeout.is_zero())
    }
}

#[derive(Clone, Debug)]
struct Watching {
    settings: Nova,
    timeout: Duration,
    /// Steps to come, the next one last.
    steps: Vec<(Duration, u64)>,
    clock: Clock,
    /// What is done to force completion at the next look, which begins with what was asked for in the one before.
    forces: Option<Command>,
    is_over: bool,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.clock.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.clock.tick(progress.now);
        if let Some(command) = self.forces.take() {
            return Some(command);
        }
        let elapsed = progress.now.since(SimTime::ZERO);
        if !self.timeout.is_zero() && elapsed > self.timeout && !self.is_over && !progress.has_moved {
            self.is_over = true;
            self.forces = match (self.settings.timeout_action, self.settings.permits_post_copy) {
                (TimeoutAction::Abort, _) => return Some(Command::Cancel),
                (TimeoutAction::ForceComplete, true) => Some(Command::StartPostcopy),
                (TimeoutAction::ForceComplete, false) => Some(Command::PauseGuest),
            };
        }
        let (_, millis) = self.steps.pop_if(|(at, _)| elapsed > *at)?;
        Some(Command::DowntimeLimit(Duration::from_millis(millis)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commands, guest};
    use super::*;
    use crate::units::ByteCount;

    #[test]
    fn the_downtime_limit_grows_from_50_to_500_ms_in_ten_steps_of_75_s_per_gb() {
        let did = commands(&mut *Nova::default().watch(&guest(4)), &[1 << 30; 6100]);
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        assert_eq!(did[..3], [(500, limit(50)), (300_500, limit(95)), (600_500, limit(140))]);
        assert_eq!(did[10], (3_000_500, limit(500)));
        assert_eq!(did.len(), 11, "the timeout of 3200 s has not come");
        assert_eq!(commands(&mut *Nova::default().watch(&guest(1)), &[1 << 30; 400])[1].0, 150_500, "at least 2 GB");
    }

    #[test]
    fn a_guest_s_size_counts_in_parts_of_a_gb() {
        // 2.5 GB, as a flavor of 2560 MB with 17 MiB of the machine's beside: 75 s × 2.5 are 187 whole seconds, 800 s × 2.5
        // 2000 s.
        let guest = crate::guest::Guest::new("g", ByteCount::new((2560 + 17) << 20));
        let did = commands(&mut *Nova::default().watch(&guest), &[1 << 30; 4100]);
        assert_eq!((did[1].0, did.last()), (187_500, Some(&(2_000_500, Command::Cancel))));
    }

    #[test]
    fn the_completion_timeout_aborts_or_forces() {
        let did = |nova: Nova| commands(&mut *nova.watch(&guest(2)), &[1 << 30; 3300]).pop();
        assert_eq!(did(Nova::default()), Some((1_600_500, Command::Cancel)));
        let force = Nova { timeout_action: TimeoutAction::ForceComplete, ..Nova::default() };
        assert_eq!(did(force), Some((1_601_000, Command::PauseGuest)), "asked for at one look, done at the next");
        assert_eq!(did(Nova { permits_post_copy: true, ..force }), Some((1_601_000, Command::StartPostcopy)));
        let never = Nova { completion_timeout_per_gb: Duration::ZERO, ..Nova::default() };
        assert!(matches!(did(never), Some((_, Command::DowntimeLimit(_)))));
    }
}
