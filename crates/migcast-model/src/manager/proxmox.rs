//! Proxmox VE (qemu-server: src/PVE/QemuMigrate.pm).

use std::time::Duration;

use super::{Manager, Watch, configured_memory};
use crate::algorithm::setting::{Field, Millis};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::units::{ByteCount, SimTime};

/// Polls that stall before the limit is doubled: more than five.
const STALLS: u32 = 5;
/// Largest downtime limit QEMU takes.
const DOWNTIME_MAX: Duration = Duration::from_secs(2000);
const POLL: Duration = Duration::from_secs(1);
/// Once near the end it looks more often.
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
            "Proxmox turns auto-converge and XBZRLE on (its cache is a tenth of the memory, up to a power of two) and sets no \
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
        // round_powerof2: to the next one.
        let cache = (configured_memory(guest) / 10).next_power_of_two();
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
            interval: POLL,
            looks: 0,
            sent: ByteCount::ZERO,
            remaining: ByteCount::ZERO,
            stalls: 0,
        })
    }

    /// It ends in the end; how soon depends on what it sees. Ten minutes are enough for most.
    fn patience(&self, _guest: &Guest) -> Option<Duration> {
        Some(Duration::from_secs(600))
    }
}

#[derive(Clone, Debug)]
struct Watching {
    limit: Duration,
    page_size: ByteCount,
    next: SimTime,
    interval: Duration,
    looks: u64,
    /// What had been sent, and what remained, at the last look that found something sent.
    sent: ByteCount,
    remaining: ByteCount,
    stalls: u32,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.looks += 1;
        let (sent, remaining) = (progress.sent, progress.due.bytes(self.page_size));
        let has_sent = sent != self.sent;
        // Less than a look sends in the mean, of what had been sent by the one before; it never looks more seldom again.
        if has_sent && u128::from(remaining.get()) * u128::from(self.looks) < u128::from(self.sent.get()) {
            self.interval = POLL_NEAR_THE_END;
        }
        self.next = progress.now + self.interval;
        if !has_sent {
            return None;
        }
        let before = std::mem::replace(&mut self.remaining, remaining);
        self.sent = sent;
        // After a look that found nothing left, more is no growth.
        let stalls = remaining.is_zero() || (!before.is_zero() && remaining > before);
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
    use super::super::tests::{at, commands, guest};
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
    fn more_than_nothing_is_no_growth_and_a_look_that_finds_nothing_sent_does_not_count() {
        // Every other look finds nothing left, and counts; the sixth of them is the twelfth look. The second, at 2 s, is
        // near the end, so ten more take another second.
        let saw: Vec<u64> = (1..=12).map(|look| (look % 2) * GIB).collect();
        let did = commands(&mut *Proxmox::default().watch(&guest(4)), &saw);
        assert_eq!(did, [(3_000, Command::DowntimeLimit(Duration::from_millis(200)))]);
        let mut watch = Proxmox::default().watch(&guest(4));
        for look in 0..20 {
            let seen = Progress { sent: ByteCount::MIB, ..at(watch.next_look(), GIB + look * 4096) };
            assert_eq!(watch.look(&seen), None);
        }
        assert_eq!(watch.next_look().as_millis(), 21_000);
    }

    #[test]
    fn once_near_the_end_it_looks_ten_times_a_second() {
        let next = |saw: &[u64]| {
            let mut watch = Proxmox::default().watch(&guest(4));
            let _ = commands(&mut *watch, saw);
            watch.next_look().as_millis()
        };
        // 1 GB was sent by the first look: half of that is the mean of two.
        assert_eq!(next(&[GIB, GIB / 2]), 3000);
        assert_eq!(next(&[GIB, 499_998_720]), 2100);
        assert_eq!(next(&[GIB, 499_998_720, GIB]), 2200, "and goes on so");
    }

    #[test]
    fn the_cache_is_a_tenth_of_the_memory_to_the_next_power_of_two() {
        let cache = |guest: &Guest| Proxmox::default().sets(guest).pop().unwrap();
        assert_eq!(cache(&guest(4)), ("xbzrle-cache-size", "512MiB".to_owned()));
        // A tenth of 5 GiB is one, whatever the machine has beside.
        let beside = Guest::new("g", ByteCount::new((5 * GIB) + (17 << 20)));
        assert_eq!(cache(&beside), ("xbzrle-cache-size", "512MiB".to_owned()));
    }
}
