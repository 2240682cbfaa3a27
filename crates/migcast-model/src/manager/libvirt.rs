//! libvirt, as `virsh migrate --live` uses it (src/qemu/qemu_migration.c and qemu_migration_params.c of 9.x; tools/virsh).

use std::time::Duration;

use super::{Clock, Manager, Watch, allow_postcopy};
use crate::algorithm::setting::{Choice, Field, OptionalMillis};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::units::SimTime;

/// Longest timeout that makes sense.
pub(super) const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// How often virsh looks whether the time is over.
const POLL: Duration = Duration::from_millis(500);

/// Settings of `virsh migrate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Libvirt {
    /// `--timeout`: default none.
    pub timeout: Option<Duration>,
    /// What happens then.
    pub at_timeout: AtTimeout,
}

/// What happens after `--timeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtTimeout {
    /// `--timeout-suspend`, the default: the guest is paused, so that the migration ends.
    #[default]
    Suspend,
    /// `--timeout-postcopy`.
    Postcopy,
}

const AT_TIMEOUT: &[(&str, AtTimeout)] = &[("suspend", AtTimeout::Suspend), ("postcopy", AtTimeout::Postcopy)];

impl Manager for Libvirt {
    fn explained(&self) -> String {
        "libvirt sets no bandwidth cap unless it is told one, leaves the downtime limit alone, and has QEMU wait before the \
         switchover until it has seen the event (how long it takes to answer is taken for nothing). It never gives up; with \
         --timeout virsh pauses the guest or switches to post-copy when the time is over."
            .to_owned()
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "timeout",
                OptionalMillis::new(&mut self.timeout, Duration::from_secs(1)..=WEEK),
                "virsh migrate --timeout, or `none`; default none",
            ),
            Field::new(
                "timeout-action",
                Choice::new(&mut self.at_timeout, AT_TIMEOUT),
                "suspend or postcopy: virsh migrate --timeout-suspend, --timeout-postcopy; default suspend",
            ),
        ]
    }

    fn sets(&self, _guest: &Guest) -> Vec<(&'static str, String)> {
        let mut sets = vec![("max-bandwidth", "none".to_owned()), ("pause-before-switchover", "0ms".to_owned())];
        if self.at_timeout == AtTimeout::Postcopy {
            // virsh wants --postcopy with --timeout-postcopy.
            sets.push(allow_postcopy());
        }
        sets
    }

    fn watch(&self, _guest: &Guest) -> Box<dyn Watch> {
        Box::new(Watching { settings: *self, clock: Clock::every(POLL), is_over: false })
    }

    fn patience(&self, _guest: &Guest) -> Option<Duration> {
        self.timeout
    }
}

#[derive(Clone, Debug)]
struct Watching {
    settings: Libvirt,
    clock: Clock,
    is_over: bool,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.clock.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.clock.tick(progress.now);
        let over = self.settings.timeout.is_some_and(|timeout| progress.now.since(SimTime::ZERO) > timeout);
        if !over || self.is_over {
            return None;
        }
        self.is_over = true;
        Some(match self.settings.at_timeout {
            AtTimeout::Suspend => Command::PauseGuest,
            AtTimeout::Postcopy => Command::StartPostcopy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commands, guest};
    use super::*;

    #[test]
    fn after_the_timeout_the_guest_is_paused_once_or_moved() {
        let mut libvirt = Libvirt { timeout: Some(Duration::from_secs(2)), ..Libvirt::default() };
        let did = |libvirt: Libvirt| commands(&mut *libvirt.watch(&guest(1)), &[1 << 30; 20]);
        assert_eq!(
            did(libvirt),
            [(2500, Command::PauseGuest)],
            "looked at every half second: 2000 is not more than 2 s"
        );
        libvirt.at_timeout = AtTimeout::Postcopy;
        assert_eq!(did(libvirt), [(2500, Command::StartPostcopy)]);
        assert_eq!(did(Libvirt::default()), []);
    }
}
