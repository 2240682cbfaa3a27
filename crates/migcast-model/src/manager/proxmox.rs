//! Proxmox VE (qemu-server: src/PVE/QemuMigrate.pm).

use std::time::Duration;

use super::{Manager, Watch};
use crate::algorithm::setting::{Field, Millis};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::units::{ByteCount, PageCount, SimTime};

/// Polls that stall before the limit is doubled: more than five.
const STALLS: u32 = 5;
/// Largest downtime limit QEMU takes.
const DOWNTIME_MAX: Duration = Duration::from_secs(2000);
const POLL: Duration = Duration::from_secs(1);
/// Near the end it looks more often.
const POLL_NEAR_THE_END: Duration = Duration::from_millis(100);

/// Settings of a guest's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxmox {
    /// `migrate_downtime`: the first downtime limit. Default 100 ms.
    pub downtime: Duration,
}

impl Default for Proxmox {
    fn default() -> Proxmox {
        Proxmox { downtime: Duration::from_millis(100) }
    }
}

impl Manager for Proxmox {
    fn explained(&self) -> String {
        format!(
            "Proxmox turns auto-converge and XBZRLE on (its cache is a tenth of the memory, to a power of two) and sets no \
             bandwidth cap that binds. The downtime limit starts at {} ms; a look, every second, that finds more left than the one before, or \
             nothing, counts, and after more than {STALLS} of them the limit is doubled, up to 2000 s. So it always ends.",
            self.downtime.as_millis()
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![Field::new(
            "migrate_downtime",
            Millis::new(&mut self.downtime, Duration::from_millis(1)..=DOWNTIME_MAX),
            "the downtime limit at first; default 100ms",
        )]
    }

    fn sets(&self, guest: &Guest) -> Vec<(&'static str, String)> {
        let tenth = ByteCount::new(guest.memory_bytes().get() / 10).get().max(4096);
        // To a power of two, downwards.
        let cache = 1u64 << tenth.ilog2();
        vec![
            ("max-bandwidth", "16GiB/s".to_owned()),
            ("downtime-limit", format!("{}ms", self.downtime.as_millis())),
            ("auto-converge", "on".to_owned()),
            ("xbzrle", "on".to_owned()),
            ("xbzrle-cache-size", crate::quantity::write_bytes(ByteCount::new(cache))),
        ]
    }

    fn watch(&self, guest: &Guest) -> Box<dyn Watch> {
        Box::new(Watching {
            limit: self.downtime,
            page_size: guest.page_size,
            next: SimTime::ZERO + POLL,
            looks: 0,
            before: None,
            stalls: 0,
        })
    }

    /// It ends in the end; how soon depends on what it sees. Ten minutes are enough for most.
    fn patience(&self, _guest: &Guest) -> Option<Duration> {
        Some(Duration::from_secs(600))
    }
}

#[derive(Debug)]
struct Watching {
    limit: Duration,
    page_size: ByteCount,
    next: SimTime,
    looks: u64,
    before: Option<PageCount>,
    stalls: u32,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.looks += 1;
        let remaining = progress.due.bytes(self.page_size);
        let mean_sent = progress.sent.get() / self.looks;
        self.next += if remaining.get() < mean_sent { POLL_NEAR_THE_END } else { POLL };
        let before = self.before.replace(progress.due);
        let stalls = progress.due.is_zero() || before.is_some_and(|before| progress.due > before);
        self.stalls += u32::from(stalls);
        if self.stalls <= STALLS {
            return None;
        }
        self.stalls = 0;
        self.limit = self.limit.saturating_mul(2).min(DOWNTIME_MAX);
        Some(Command::DowntimeLimit(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commands, guest};
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn after_more_than_five_looks_that_found_more_left_the_limit_is_doubled() {
        let mut saw: Vec<u64> = vec![GIB];
        // Every other look finds more.
        (1..=20).for_each(|look| saw.push(GIB + (look % 2) * 4096));
        let did = commands(&mut *Proxmox::default().watch(&guest(4)), &saw);
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        assert_eq!(did, [(12_000, limit(200))], "the sixth such look is the twelfth");
        let grows: Vec<u64> = (0..13).map(|look| GIB + look * 4096).collect();
        let did = commands(&mut *Proxmox::default().watch(&guest(4)), &grows);
        assert_eq!(did, [(7_000, limit(200)), (13_000, limit(400))]);
    }

    #[test]
    fn near_the_end_it_looks_ten_times_a_second() {
        let mut watch = Proxmox::default().watch(&guest(4));
        // 1 GB a second is sent: less than that is left from the second look on.
        let _ = commands(&mut *watch, &[GIB, GIB / 2]);
        assert_eq!(watch.next_look().as_millis(), 2100);
    }

    #[test]
    fn the_cache_is_a_tenth_of_the_memory_to_a_power_of_two() {
        let cache = Proxmox::default().sets(&guest(4)).pop().unwrap();
        assert_eq!(cache, ("xbzrle-cache-size", "256MiB".to_owned()));
    }
}
