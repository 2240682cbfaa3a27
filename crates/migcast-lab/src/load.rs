//! What else the machine did while a guest was migrated: a migration beside a busy neighbour says little of migration.

use std::fs;

/// Clock ticks per second of /proc (USER_HZ, 100 on every Linux there is).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time used so far: by some processes, and by the whole machine, what its host took away included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuTime {
    ours: f64,
    all: f64,
}

impl CpuTime {
    /// Now, with `pids` for ours; `None` where /proc does not tell. A process that is gone counts with nothing.
    pub fn now(pids: &[u32]) -> Option<CpuTime> {
        let all = machine(&fs::read_to_string("/proc/stat").ok()?)?;
        let ours = pids.iter().filter_map(|pid| process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum();
        Some(CpuTime { ours, all })
    }

    /// CPU seconds that others than ours used since `earlier`.
    pub fn of_others_since(self, earlier: CpuTime) -> f64 {
        ((self.all - earlier.all) - (self.ours - earlier.ours)).max(0.0)
    }
}

/// A thread of a process.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    pub(crate) pid: u32,
    pub(crate) id: u64,
}

impl Thread {
    /// CPU seconds it has used; `None` where /proc does not tell.
    pub fn seconds(self) -> Option<f64> {
        process(&fs::read_to_string(format!("/proc/{}/task/{}/stat", self.pid, self.id)).ok()?)
    }
}

/// user, nice, system, (idle, iowait,) irq, softirq, steal; guests are within user.
fn machine(stat: &str) -> Option<f64> {
    let mut fields =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(|field| field.parse::<f64>().ok());
    let mut sum = 0.0;
    for index in 0..8 {
        let ticks = fields.next()??;
        sum += if index == 3 || index == 4 { 0.0 } else { ticks };
    }
    Some(sum / TICKS_PER_SECOND)
}

/// Fields 14 and 15, counted from 1, behind a name that may hold anything: user and system time.
fn process(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((fields.next()?? + fields.next()??) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_nobodys_and_stolen_time_is_anothers() {
        assert_eq!(machine("cpu  100 1 50 9999 77 2 3 44 55 66\ncpu0 1 2"), Some(2.0));
        assert_eq!(machine("intr 1 2 3"), None);
    }

    #[test]
    fn a_process_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(process(stat), Some(2.0));
    }

    #[test]
    fn our_own_work_is_ours() {
        let pids = [std::process::id()];
        let before = CpuTime::now(&pids).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(300);
        while std::time::Instant::now() < end {
            std::hint::spin_loop();
        }
        let after = CpuTime::now(&pids).unwrap();
        assert!(after.ours - before.ours >= 0.05, "{before:?} {after:?}");
    }
}
