//! How busy a guest's vCPUs are: the CPU time of the threads that run them, between two looks.

use std::time::Duration;

use migcast_history::vcpu::VcpuTime;
use qapi::Command;

use crate::monitor::{Monitor, ask};

/// A vCPU's thread and the CPU time it has used since it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuClock {
    /// Its thread id.
    pub thread: u32,
    /// User and system time.
    pub used: Duration,
}

/// The threads of a guest's vCPUs.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    pid: u32,
    ids: Vec<u32>,
}

impl Threads {
    /// Asks a monitor for them. `None` where it does not tell, or where vCPUs share a thread (QEMU's `-accel
    /// tcg,thread=single`): then nobody knows which vCPU is busy.
    pub(crate) fn ask(monitor: &mut dyn Monitor, pid: u32) -> Option<Threads> {
        let told = ask(monitor, QueryCpusFast {});
        let told = told.inspect_err(|error| tracing::debug!("vCPUs will not be watched: {error}")).ok()?;
        let mut ids: Vec<u32> = told.iter().map(|vcpu| vcpu.thread).collect();
        ids.sort_unstable();
        ids.dedup();
        (!ids.is_empty() && ids.len() == told.len()).then_some(Threads { pid, ids })
    }

    /// What each has used; `None` where one of them is gone.
    pub(crate) fn read(&self) -> Option<Vec<VcpuClock>> {
        let clock = |&thread: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{}/task/{thread}/stat", self.pid)).ok()?;
            Some(VcpuClock { thread, used: used(&stat)? })
        };
        self.ids.iter().map(clock).collect()
    }
}

/// Fields 14 and 15 (proc(5), counted from 1), behind a name that may hold anything: user and system time in clock ticks.
fn used(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Makes spans of readings.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    before: Option<(Duration, Vec<VcpuClock>)>,
}

impl Meter {
    /// A span begins at `now`.
    pub(crate) fn begin(&mut self, now: Duration, clocks: Option<Vec<VcpuClock>>) {
        self.before = clocks.map(|clocks| (now, clocks));
    }

    /// No span begins: what follows is not to be counted.
    pub(crate) fn stop(&mut self) {
        self.before = None;
    }

    /// A span ends at `now` and the next one begins. `None` where something is not known, or other threads run the vCPUs
    /// than at its beginning.
    pub(crate) fn next(&mut self, now: Duration, clocks: Option<Vec<VcpuClock>>) -> Option<VcpuTime> {
        let before = self.before.take();
        self.begin(now, clocks);
        let ((began, before), (_, after)) = (before?, self.before.as_ref()?);
        let used: Option<Vec<u64>> = before.iter().zip(after).map(|(before, after)| spent(*before, *after)).collect();
        let used = used.filter(|used| used.len() == before.len() && used.len() == after.len());
        VcpuTime::of_span(nanos(now.saturating_sub(began))?, &used?)
    }
}

/// What one thread used in between; `None` for two threads.
fn spent(before: VcpuClock, after: VcpuClock) -> Option<u64> {
    if before.thread != after.thread {
        return None;
    }
    nanos(after.used.saturating_sub(before.used))
}

fn nanos(span: Duration) -> Option<u64> {
    u64::try_from(span.as_nanos()).ok()
}

/// `query-cpus-fast`, which does not interrupt a vCPU, reduced to the threads.
#[derive(Debug, serde::Serialize)]
struct QueryCpusFast {}

#[derive(Debug, serde::Deserialize)]
struct Vcpu {
    #[serde(rename = "thread-id")]
    thread: u32,
}

impl Command for QueryCpusFast {
    type Ok = Vec<Vcpu>;
    const NAME: &'static str = "query-cpus-fast";
    const ALLOW_OOB: bool = false;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::monitor::fake::FakeMonitor;

    const MS: Duration = Duration::from_millis(1);

    fn told(answer: serde_json::Value) -> Option<Threads> {
        let mut fake = FakeMonitor::default();
        fake.answers.insert("query-cpus-fast".to_owned(), answer);
        Threads::ask(&mut fake, std::process::id())
    }

    #[test]
    fn threads_are_known_where_each_vcpu_has_its_own() {
        let vcpu = |index: u32, thread: u32| json!({ "cpu-index": index, "thread-id": thread, "target": "of-later" });
        assert_eq!(told(json!([vcpu(0, 7), vcpu(1, 5)])).unwrap().ids, [5, 7]);
        assert!(told(json!([vcpu(0, 7), vcpu(1, 7)])).is_none(), "thread=single");
        assert!(told(json!([])).is_none() && told(json!([{ "cpu-index": 0 }])).is_none());
        assert!(Threads::ask(&mut FakeMonitor::default(), 1).is_none(), "a monitor without the command");
    }

    #[test]
    fn a_thread_s_time_is_found_behind_any_name() {
        let ticks = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (CPU 0) x (TCG) S 1 2 3 4 5 6 7 8 9 10 {ticks} {} 0 0", 2 * ticks);
        assert_eq!(used(&stat), Some(3_000 * MS));
        assert_eq!(used("7 (a) S 1 2"), None);
        assert_eq!(used("nothing"), None);
    }

    #[test]
    fn our_own_thread_can_be_read_and_one_that_is_not_ours_cannot() {
        let pid = std::process::id();
        let own = Threads { pid, ids: vec![rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()] };
        assert_eq!(own.read().unwrap().len(), 1);
        assert_eq!(Threads { pid, ids: vec![own.ids[0], 1] }.read(), None);
    }

    #[test]
    fn spans_lie_between_readings_of_the_same_threads() {
        let clocks = |of: &[(u32, u32)]| {
            Some(of.iter().map(|&(thread, used)| VcpuClock { thread, used: used * MS }).collect::<Vec<_>>())
        };
        let mut meter = Meter::default();
        assert_eq!(meter.next(1_000 * MS, clocks(&[(1, 500), (2, 0)])), None, "nothing before it");
        let time = meter.next(2_000 * MS, clocks(&[(1, 1_000), (2, 250)])).unwrap();
        assert_eq!((time.vcpus, time.mean_share()), (2, 0.375));
        assert_eq!(meter.next(3_000 * MS, None), None);
        assert_eq!(meter.next(4_000 * MS, clocks(&[(1, 1_000)])), None, "unknown before it");
        assert_eq!(meter.next(5_000 * MS, clocks(&[(1, 1_000), (3, 0)])), None, "one was added");
        assert_eq!(meter.next(6_000 * MS, clocks(&[(1, 1_000), (4, 0)])), None, "one was replaced");
        assert_eq!(meter.next(7_000 * MS, clocks(&[(1, 2_000), (4, 0)])).unwrap().mean_share(), 0.5);
    }
}
