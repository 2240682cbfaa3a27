//! KubeVirt (pkg/virt-config/virt-config.go; pkg/virt-launcher/virtwrap/live-migration-source.go): 1.0 to 1.3, 1.4 to
//! 1.6, and the stall detector of 2026.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::libvirt::WEEK;
use super::{Clock, Manager, Watch, allow_postcopy, scaled, whole_units};
use crate::algorithm::setting::{Field, Millis, OptionalRate, Switch};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::quantity::write_rate;
use crate::units::{ByteCount, BytesPerSec, PageCount, SimTime};

/// How often the launcher looks.
const POLL: Duration = Duration::from_millis(400);

/// Which rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// 1.0 to 1.3: a timeout switches to post-copy if that is allowed, else aborts.
    PostCopyOrAbort,
    /// 1.4 to 1.6: a timeout may pause the guest instead.
    MayPause,
    /// 2026: besides, a migration that stalls is ended at the next good moment.
    StallDetector,
}

/// Settings of a cluster, or of a MigrationPolicy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KubeVirt {
    rules: Rules,
    /// `completionTimeoutPerGiB`, zero for never. Default 150 s; 800 s up to 1.3.
    pub completion_timeout_per_gib: Duration,
    /// `progressTimeout`, zero for never: how long what remains may not fall; for the stall detector its window. Default
    /// 150 s, of the stall detector 40 s.
    pub progress_timeout: Duration,
    /// `allowAutoConverge`. Default false.
    pub allows_auto_converge: bool,
    /// `allowPostCopy`. Default false.
    pub allows_post_copy: bool,
    /// `allowWorkloadDisruption`: the guest may be paused. As `allowPostCopy` if nothing is said.
    pub allows_workload_disruption: bool,
    /// `bandwidthPerMigration`. Default none.
    pub bandwidth: Option<BytesPerSec>,
    /// The stall detector's largest downtime limit. Default 900 ms.
    pub max_downtime: Duration,
}

impl KubeVirt {
    /// 1.0 to 1.3.
    pub fn until_1_3() -> KubeVirt {
        KubeVirt {
            rules: Rules::PostCopyOrAbort,
            completion_timeout_per_gib: Duration::from_secs(800),
            ..KubeVirt::from_1_4()
        }
    }

    /// 1.4 to 1.6.
    pub fn from_1_4() -> KubeVirt {
        KubeVirt {
            rules: Rules::MayPause,
            completion_timeout_per_gib: Duration::from_secs(150),
            progress_timeout: Duration::from_secs(150),
            allows_auto_converge: false,
            allows_post_copy: false,
            allows_workload_disruption: false,
            bandwidth: None,
            max_downtime: Duration::from_millis(900),
        }
    }

    /// 2026, with the stall detector.
    pub fn of_2026() -> KubeVirt {
        KubeVirt { rules: Rules::StallDetector, progress_timeout: Duration::from_secs(40), ..KubeVirt::from_1_4() }
    }

    fn completion_timeout(&self, guest: &Guest) -> Duration {
        // Counted in GB, in spite of the name.
        scaled(self.completion_timeout_per_gib, whole_units(guest, 1_000_000_000))
    }
}

impl Manager for KubeVirt {
    fn explained(&self) -> String {
        let timeout = self.completion_timeout_per_gib.as_secs();
        let progress = self.progress_timeout.as_secs();
        let common = format!(
            "KubeVirt sets no bandwidth cap unless bandwidthPerMigration says so, and looks every 0.4 s. After {timeout} s per GiB "
        );
        match self.rules {
            Rules::PostCopyOrAbort => format!(
                "{common}the migration is switched to post-copy if allowPostCopy is set, else aborted; it is also aborted when \
                 what remains has not fallen below the look before for {progress} s."
            ),
            Rules::MayPause => format!(
                "{common}the migration is aborted, or if allowWorkloadDisruption is set switched to post-copy (with allowPostCopy) or the \
                 guest is paused, for as long again. It is also aborted when what remains has not fallen below the look before for {progress} s."
            ),
            Rules::StallDetector => format!(
                "{common}it does what 1.5 did. Besides it watches what remains after each iteration: if that is not {:.0} % below the \
                 least of more than {progress} s ago, the migration has stalled, and at the next iteration that is as good as the best it \
                 switches to post-copy, forces the switchover (allowWorkloadDisruption), sets the downtime limit the rest \
                 needs, up to {} ms, or aborts if that is half as much again. The best is relaxed with time.",
                STALL_MARGIN * 100.0,
                self.max_downtime.as_millis()
            ),
        }
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        let mut fields = vec![
            Field::new(
                "completionTimeoutPerGiB",
                Millis::new(&mut self.completion_timeout_per_gib, Duration::ZERO..=WEEK),
                "time allowed per GiB of the guest, 0s for ever; default 150s, 800s up to 1.3",
            ),
            Field::new(
                "progressTimeout",
                Millis::new(&mut self.progress_timeout, Duration::ZERO..=WEEK),
                "how long nothing may be gained, 0s for ever; default 150s, 40s of the stall detector",
            ),
            Field::new("allowAutoConverge", Switch(&mut self.allows_auto_converge), "auto-converge; default off"),
            Field::new("allowPostCopy", Switch(&mut self.allows_post_copy), "post-copy at a timeout; default off"),
            Field::new(
                "bandwidthPerMigration",
                OptionalRate(&mut self.bandwidth),
                "cap while the guest runs, or `none`; default none",
            ),
        ];
        if self.rules != Rules::PostCopyOrAbort {
            fields.push(Field::new(
                "allowWorkloadDisruption",
                Switch(&mut self.allows_workload_disruption),
                "a timeout may pause the guest; default as allowPostCopy",
            ));
        }
        if self.rules == Rules::StallDetector {
            fields.push(Field::new(
                "maxDowntime",
                Millis::new(&mut self.max_downtime, Duration::from_millis(1)..=Duration::from_secs(2000)),
                "largest downtime limit the stall detector sets; default 900ms",
            ));
        }
        fields
    }

    fn sets(&self, guest: &Guest) -> Vec<(&'static str, String)> {
        let mut sets = super::Libvirt::default().sets(guest);
        if let Some(bandwidth) = self.bandwidth {
            sets.push(("max-bandwidth", write_rate(bandwidth)));
        }
        if self.allows_auto_converge {
            sets.push(("auto-converge", "on".to_owned()));
        }
        if self.allows_post_copy {
            sets.push(allow_postcopy());
        }
        sets
    }

    fn watch(&self, guest: &Guest) -> Box<dyn Watch> {
        Box::new(Watching {
            settings: *self,
            allowed: self.completion_timeout(guest),
            clock: Clock::every(POLL),
            before: None,
            progressed: SimTime::ZERO,
            is_over: false,
            is_moving: false,
            stalls: (self.rules == Rules::StallDetector).then(|| StallDetector::new(*self, guest.page_size)),
        })
    }

    fn patience(&self, guest: &Guest) -> Option<Duration> {
        Some(self.completion_timeout(guest)).filter(|timeout| !timeout.is_zero()).map(|timeout| timeout * 2)
    }
}

#[derive(Clone, Debug)]
struct Watching {
    settings: KubeVirt,
    /// Time allowed; doubled when the guest was paused.
    allowed: Duration,
    clock: Clock,
    /// What remained at the look before.
    before: Option<PageCount>,
    /// When it last fell.
    progressed: SimTime,
    /// Post-copy was started, the guest paused, or the migration aborted.
    is_over: bool,
    /// Post-copy was started: nothing is said any more.
    is_moving: bool,
    stalls: Option<StallDetector>,
}

impl Watching {
    fn over(&mut self, command: Command) -> Option<Command> {
        self.is_over = true;
        self.is_moving = command == Command::StartPostcopy;
        Some(command)
    }
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.clock.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.clock.tick(progress.now);
        if progress.has_moved || self.is_moving {
            return None;
        }
        if self.before.is_none_or(|before| progress.due < before) {
            self.progressed = progress.now;
        }
        self.before = Some(progress.due);
        let KubeVirt { rules, allows_post_copy, allows_workload_disruption, progress_timeout, .. } = self.settings;
        let whole_seconds = |span: Duration| Duration::from_secs(span.as_secs());
        let timed_out = !self.allowed.is_zero() && whole_seconds(progress.now.since(SimTime::ZERO)) > self.allowed;
        let stuck = self.stalls.is_none()
            && !progress_timeout.is_zero()
            && whole_seconds(progress.now.since(self.progressed)) > progress_timeout;
        let may_disrupt = match rules {
            Rules::PostCopyOrAbort => allows_post_copy,
            Rules::MayPause | Rules::StallDetector => allows_workload_disruption || allows_post_copy,
        };
        if timed_out && may_disrupt && !self.is_over {
            if allows_post_copy {
                return self.over(Command::StartPostcopy);
            }
            self.allowed *= 2;
            return self.over(Command::PauseGuest);
        }
        if timed_out || (stuck && !self.is_over) {
            return self.over(Command::Cancel);
        }
        None
    }

    fn iteration_ended(&mut self, progress: &Progress) -> Option<Command> {
        if self.is_over || progress.has_moved {
            return None;
        }
        let command = self.stalls.as_mut()?.iteration_ended(progress)?;
        match command {
            Command::StartPostcopy => self.over(command),
            command => Some(command),
        }
    }
}

/// Margin within which two iterations are as good as each other.
const STALL_MARGIN: f64 = 0.04;
/// Weight of the last bandwidth in the moving mean.
const BANDWIDTH_ALPHA: f64 = 0.4;
/// A rest that needs so many times the largest downtime is hopeless.
const HOPELESS_FACTOR: f64 = 1.5;
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// Largest downtime limit QEMU takes: forces the switchover.
const ANY_DOWNTIME: Duration = Duration::from_secs(2000);

/// Whether what remains after an iteration still falls, and what to do once it does not.
#[derive(Clone, Debug)]
struct StallDetector {
    settings: KubeVirt,
    page_size: ByteCount,
    /// Mean bandwidth, bytes a second.
    bandwidth: Option<f64>,
    sent_before: (SimTime, ByteCount),
    /// Minima within the window, falling, with their times.
    recent: VecDeque<(SimTime, u64)>,
    /// Least of those that have left it.
    old_least: Option<u64>,
    stall: Option<Stall>,
    has_acted: bool,
}

/// A migration that has stalled.
#[derive(Clone, Debug)]
struct Stall {
    /// What an iteration is measured against.
    best: u64,
    /// What remained since.
    seen: BinaryHeap<Reverse<u64>>,
    patience: Duration,
    /// When the best is replaced by the best of those seen.
    relaxes: SimTime,
}

impl StallDetector {
    fn new(settings: KubeVirt, page_size: ByteCount) -> StallDetector {
        StallDetector {
            settings,
            page_size,
            bandwidth: None,
            sent_before: (SimTime::ZERO, ByteCount::ZERO),
            recent: VecDeque::new(),
            old_least: None,
            stall: None,
            has_acted: false,
        }
    }

    fn iteration_ended(&mut self, progress: &Progress) -> Option<Command> {
        let (now, remaining) = (progress.now, progress.due.bytes(self.page_size).get());
        self.measure(progress);
        self.remember(now, remaining);
        if self.stall.is_none() && self.has_stalled(remaining) {
            let recent = self.recent.iter().map(|(_, remaining)| *remaining);
            let best = recent.chain(self.old_least).min().unwrap_or(remaining);
            let patience = self.settings.progress_timeout.max(PATIENCE_MIN);
            self.stall = Some(Stall { best, seen: BinaryHeap::new(), patience, relaxes: now + patience });
        }
        let stall = self.stall.as_mut()?;
        stall.seen.push(Reverse(remaining));
        stall.relax(now);
        let is_as_good = remaining as f64 <= stall.best as f64 * (1.0 + STALL_MARGIN);
        if !is_as_good || self.has_acted {
            return None;
        }
        let needs = Duration::try_from_secs_f64(stall.best as f64 / self.bandwidth?).ok()?;
        self.has_acted = true;
        Some(self.action(Duration::from_millis(needs.as_millis() as u64)))
    }

    fn measure(&mut self, progress: &Progress) {
        let (then, sent) = std::mem::replace(&mut self.sent_before, (progress.now, progress.sent));
        let seconds = progress.now.since(then).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let sample = progress.sent.saturating_sub(sent).get() as f64 / seconds;
        let mean = |before: f64| BANDWIDTH_ALPHA * sample + (1.0 - BANDWIDTH_ALPHA) * before;
        self.bandwidth = Some(self.bandwidth.map_or(sample, mean)).filter(|bandwidth| *bandwidth > 0.0);
    }

    /// Keeps the falling minima of the window, and the least of what has left it.
    fn remember(&mut self, now: SimTime, remaining: u64) {
        while let Some((then, old)) = self.recent.front().copied() {
            if now.since(then) < self.settings.progress_timeout {
                break;
            }
            self.recent.pop_front();
            self.old_least = Some(self.old_least.map_or(old, |least| least.min(old)));
        }
        let is_minimum = self.recent.back().is_none_or(|(_, last)| remaining < *last)
            && self.old_least.is_none_or(|least| remaining <= least);
        if is_minimum {
            self.recent.push_back((now, remaining));
        }
    }

    fn has_stalled(&self, remaining: u64) -> bool {
        self.old_least.is_some_and(|least| remaining as f64 >= least as f64 * (1.0 - STALL_MARGIN))
    }

    /// What to do at a good moment, where the rest needs this downtime.
    fn action(&self, needs: Duration) -> Command {
        let KubeVirt { allows_post_copy, allows_workload_disruption, max_downtime, .. } = self.settings;
        if allows_post_copy {
            Command::StartPostcopy
        } else if allows_workload_disruption {
            Command::DowntimeLimit(ANY_DOWNTIME)
        } else if needs <= max_downtime {
            Command::DowntimeLimit(needs.max(Duration::from_millis(1)))
        } else if needs.as_secs_f64() >= max_downtime.as_secs_f64() * HOPELESS_FACTOR {
            Command::Cancel
        } else {
            Command::DowntimeLimit(max_downtime)
        }
    }
}

impl Stall {
    /// When no iteration was as good for too long, the best of those seen will do, sooner and sooner.
    fn relax(&mut self, now: SimTime) {
        if now < self.relaxes {
            return;
        }
        if let Some(Reverse(best)) = self.seen.pop() {
            self.best = best;
            self.patience = (self.patience / 2).max(PATIENCE_MIN);
            self.relaxes = now + self.patience;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, commands, guest};
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Looks for so many seconds at a migration that gains all the time.
    fn gaining(seconds: u64) -> Vec<u64> {
        (0..seconds * 5 / 2).map(|look| (100 << 30) - look * 4096).collect()
    }

    fn did(kubevirt: KubeVirt, saw: &[u64]) -> Vec<(u64, Command)> {
        let mut did = commands(&mut *kubevirt.watch(&guest(1)), saw);
        did.dedup_by_key(|(_, command)| *command);
        did
    }

    #[test]
    fn until_1_3_the_timeout_aborts_or_switches_to_post_copy() {
        let kubevirt = KubeVirt::until_1_3();
        // A GiB is two GB rounded up, but for what is not configured memory: more than 1600 whole seconds.
        assert_eq!(did(kubevirt, &gaining(1700)), [(1_601_200, Command::Cancel)]);
        let post_copy = KubeVirt { allows_post_copy: true, ..kubevirt };
        assert_eq!(did(post_copy, &gaining(1700)), [(1_601_200, Command::StartPostcopy)]);
    }

    #[test]
    fn nothing_gained_for_the_progress_timeout_aborts() {
        let stuck = vec![GIB; 1000];
        assert_eq!(did(KubeVirt::until_1_3(), &stuck), [(151_600, Command::Cancel)], "from the first look at 0.4 s on");
        assert_eq!(did(KubeVirt::from_1_4(), &stuck), [(151_600, Command::Cancel)]);
        let forever = KubeVirt { progress_timeout: Duration::ZERO, ..KubeVirt::until_1_3() };
        assert_eq!(did(forever, &stuck), []);
    }

    #[test]
    fn from_1_4_the_timeout_may_pause_the_guest_for_as_long_again() {
        let kubevirt = KubeVirt::from_1_4();
        assert_eq!(did(kubevirt, &gaining(400)), [(301_200, Command::Cancel)]);
        let disrupting = KubeVirt { allows_workload_disruption: true, ..kubevirt };
        assert_eq!(did(disrupting, &gaining(400)), [(301_200, Command::PauseGuest)]);
        assert_eq!(did(disrupting, &gaining(700)), [(301_200, Command::PauseGuest), (601_200, Command::Cancel)]);
    }

    /// Iterations every ten seconds, at 1 GB a second, that leave this many bytes.
    fn iterations(kubevirt: KubeVirt, remaining: &[u64]) -> Vec<(u64, Command)> {
        let mut watch = kubevirt.watch(&guest(64));
        let mut ended = |(index, remaining): (usize, &u64)| {
            let now = SimTime::ZERO + Duration::from_secs(10 * (index as u64 + 1));
            watch.iteration_ended(&at(now, *remaining)).map(|command| (now.as_millis(), command))
        };
        remaining.iter().enumerate().filter_map(&mut ended).collect()
    }

    #[test]
    fn a_stall_sets_the_downtime_the_rest_needs() {
        let kubevirt = KubeVirt::of_2026();
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        // 0.5 GB remain each time: after 40 s the first one is old, and nothing is better. 0.5 GB need 500 ms.
        assert_eq!(iterations(kubevirt, &[500_002_816; 6]), [(50_000, limit(500))]);
        assert_eq!(iterations(kubevirt, &[1_000_001_536; 6]), [(50_000, limit(900))], "no more than the largest");
        assert_eq!(
            iterations(kubevirt, &[1_400_000_512; 6]),
            [(50_000, Command::Cancel)],
            "half as much again and more"
        );
        let post_copy = KubeVirt { allows_post_copy: true, ..kubevirt };
        assert_eq!(iterations(post_copy, &[500_002_816; 6]), [(50_000, Command::StartPostcopy)]);
        let disrupting = KubeVirt { allows_workload_disruption: true, ..kubevirt };
        assert_eq!(iterations(disrupting, &[1_400_000_512; 6]), [(50_000, Command::DowntimeLimit(ANY_DOWNTIME))]);
    }

    #[test]
    fn a_migration_that_still_falls_by_more_than_the_margin_does_not_stall() {
        let falls: Vec<u64> = (0..12).map(|index| 800_000_000 - index * 20_000_000).collect();
        assert_eq!(iterations(KubeVirt::of_2026(), &falls), []);
    }

    #[test]
    fn it_waits_for_an_iteration_as_good_as_the_best_and_relaxes_what_is_best() {
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        // 0.2 GB once, then 0.8 GB: stalled at 60 s, the best is 0.2 GB. At 100 s the best of those seen will do: 0.8 GB.
        let mut remaining = vec![800_002_048; 12];
        remaining[0] = 200_003_584;
        assert_eq!(iterations(KubeVirt::of_2026(), &remaining), [(90_000, limit(800))]);
        remaining[6] = 204_800_000;
        assert_eq!(iterations(KubeVirt::of_2026(), &remaining), [(70_000, limit(200))], "a good moment came first");
    }
}
