//! The recorder's clock: a monotonic one for schedules and stamps, and the CPU time the recorder has used.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// Longest sleep in one piece, so that a stop request that arrives just before the sleep is not missed for long.
const SLEEP_MAX: Duration = Duration::from_millis(200);

/// What the recorder needs of time. Times are measured from the clock's own start.
pub trait Clock {
    /// Monotonic time since the clock was made.
    fn now(&self) -> Duration;
    /// CPU time the recorder has used so far, its finished child processes and what was charged included.
    fn cpu(&self) -> Duration;
    /// Counts CPU time that the recorder used on other threads.
    fn charge(&mut self, cpu: Duration);
    /// Sleeps until `deadline`; may return earlier (a signal, the guest's end), so callers check.
    fn wait(&mut self, deadline: Duration);
    /// `at` as nanoseconds since the Unix epoch.
    fn unix_ns(&self, at: Duration) -> i64;
}

/// The machine's clocks. The wall clock is read once, so that a window's length never depends on its being set.
#[derive(Debug)]
pub struct SystemClock {
    anchor: Duration,
    anchor_unix_ns: i64,
    charged: Duration,
    /// Becomes readable when the guest's process ends.
    guest: Option<OwnedFd>,
}

impl SystemClock {
    /// Starts the clock. `guest` is the guest's pidfd: its end cuts a wait short.
    pub fn start(guest: Option<OwnedFd>) -> SystemClock {
        let unix = read(ClockId::Realtime);
        let anchor_unix_ns = i64::try_from(unix.as_nanos()).unwrap_or(i64::MAX);
        SystemClock { anchor: read(ClockId::Monotonic), anchor_unix_ns, charged: Duration::ZERO, guest }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        read(ClockId::Monotonic).saturating_sub(self.anchor)
    }

    fn cpu(&self) -> Duration {
        // The recorder is one thread, but for scans; a libvirt monitor also runs virsh, which costs this machine just as
        // much.
        thread_cpu() + self.charged + children_cpu()
    }

    fn charge(&mut self, cpu: Duration) {
        self.charged += cpu;
    }

    fn wait(&mut self, deadline: Duration) {
        let span = deadline.saturating_sub(self.now()).min(SLEEP_MAX);
        let span = Timespec { tv_sec: 0, tv_nsec: i64::from(span.subsec_nanos()) };
        let mut watched: Vec<PollFd<'_>> =
            self.guest.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        // An interrupted poll is an early return, which the contract allows; no other error can occur here.
        let _ = poll(&mut watched, Some(&span));
    }

    fn unix_ns(&self, at: Duration) -> i64 {
        self.anchor_unix_ns.saturating_add(i64::try_from(at.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// CPU time the calling thread has used.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn children_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes one rusage into the buffer, which is that large.
    let done = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    if done != 0 {
        tracing::debug!("getrusage: {}", io::Error::last_os_error());
        return Duration::ZERO;
    }
    // SAFETY: all-zero bytes are a valid rusage, and getrusage has filled it.
    let usage = unsafe { usage.assume_init() };
    let span = |time: libc::timeval| {
        Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    span(usage.ru_utime) + span(usage.ru_stime)
}

#[cfg(test)]
pub(crate) mod fake {
    //! A clock that tests move: waiting jumps to the deadline, work costs what the test says.

    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::Clock;

    /// Time and CPU time shared by a test's clock, memory and guest.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FakeTime {
        now: Rc<Cell<Duration>>,
        cpu: Rc<Cell<Duration>>,
    }

    impl FakeTime {
        /// Lets time pass while the recorder works: `wall` on the clock, `cpu` of it on the processor.
        pub(crate) fn work(&self, wall: Duration, cpu: Duration) {
            self.now.set(self.now.get() + wall);
            self.cpu.set(self.cpu.get() + cpu);
        }

        pub(crate) fn now(&self) -> Duration {
            self.now.get()
        }
    }

    impl Clock for FakeTime {
        fn now(&self) -> Duration {
            self.now.get()
        }

        fn cpu(&self) -> Duration {
            self.cpu.get()
        }

        fn charge(&mut self, cpu: Duration) {
            self.cpu.set(self.cpu.get() + cpu);
        }

        fn wait(&mut self, deadline: Duration) {
            self.now.set(self.now.get().max(deadline));
        }

        fn unix_ns(&self, at: Duration) -> i64 {
            1_700_000_000_000_000_000 + i64::try_from(at.as_nanos()).unwrap()
        }
    }
}
