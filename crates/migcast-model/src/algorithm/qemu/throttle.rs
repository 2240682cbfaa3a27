//! Auto-converge: the guest's vCPUs are made to sleep so that it writes less (migration/ram.c `migration_trigger_throttle`
//! and `mig_throttle_guest_down`; from 9.2 on also cpu-throttle.c `cpu_throttle_dirty_sync_timer_tick`).

use std::time::Duration;

use crate::units::{ByteCount, SimTime};

/// Settings of auto-converge, and of what decides that a guest writes too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoConverge {
    /// The capability `auto-converge`. Default off.
    pub is_on: bool,
    /// `throttle-trigger-threshold`: a period is bad when more than so many percent of the bytes sent in it were written
    /// anew. Default 50.
    pub trigger_threshold: u64,
    /// `cpu-throttle-initial`: percent of their time the vCPUs sleep at first. Default 20.
    pub initial: u64,
    /// `cpu-throttle-increment`: how many more percent each time. Default 10.
    pub increment: u64,
    /// `max-cpu-throttle`: the most. Default 99.
    pub max: u64,
    /// `cpu-throttle-tailslow`: near the end by no more than is needed. Default off.
    pub tailslow: bool,
    /// Percent of their time the vCPUs are busy if nobody makes them sleep: not a setting of QEMU's but of the guest. What
    /// they sleep they first take from the time they would have been idle, and lose nothing by it. Taken for 100 where it
    /// is not known.
    pub busy: Option<u64>,
}

impl Default for AutoConverge {
    fn default() -> AutoConverge {
        AutoConverge {
            is_on: false,
            trigger_threshold: 50,
            initial: 20,
            increment: 10,
            max: 99,
            tailslow: false,
            busy: None,
        }
    }
}

/// A period is looked at when a reading of the log comes more than this after the last look (MIGRATION_BITMAP_SYNC's one
/// second).
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// Two bad periods, next to each other or not, make a step.
const BAD_PERIODS: u32 = 2;

/// What was written and sent since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Period {
    began: SimTime,
    /// Bytes of pages that became due.
    dirtied: ByteCount,
    sent_before: ByteCount,
    bad: u32,
}

/// A period that has ended badly twice: what was written in it, and how much would have been good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMuch {
    dirtied: ByteCount,
    allowed: ByteCount,
}

impl Period {
    pub(super) fn open(now: SimTime, sent: ByteCount) -> Period {
        Period { began: now, sent_before: sent, ..Period::default() }
    }

    /// The log was read and `dirtied` bytes became due; so far `sent` bytes went out. Says when something is to be done.
    pub(super) fn after_sync(
        &mut self,
        now: SimTime,
        dirtied: ByteCount,
        sent: ByteCount,
        trigger_threshold: u64,
    ) -> Option<TooMuch> {
        self.dirtied += dirtied;
        // Clocks of whole milliseconds.
        if now.as_millis() - self.began.as_millis() <= PERIOD_MIN.as_millis() as u64 {
            return None;
        }
        let (dirtied, transferred) = (self.dirtied, sent.saturating_sub(self.sent_before));
        let allowed = ByteCount::new(transferred.get().saturating_mul(trigger_threshold) / 100);
        // A good period does not forgive a bad one before it.
        let bad = self.bad + u32::from(dirtied > allowed);
        *self = Period { bad, ..Period::open(now, sent) };
        if dirtied > allowed && bad >= BAD_PERIODS {
            self.bad = 0;
            return Some(TooMuch { dirtied, allowed });
        }
        None
    }
}

impl AutoConverge {
    /// Percent the vCPUs sleep after another step, from `now` percent.
    pub(super) fn stepped(&self, now: u64, much: TooMuch) -> u64 {
        if now == 0 {
            return self.initial;
        }
        let increment = if self.tailslow {
            let runs = 100 - now;
            let ideal = (runs as f64 * (much.allowed.get() as f64 / much.dirtied.get() as f64)) as u64;
            self.increment.min(runs.saturating_sub(ideal))
        } else {
            self.increment
        };
        (now + increment).min(self.max)
    }
}

impl AutoConverge {
    /// Share of what the guest would have done that it does not, if its vCPUs sleep so many percent of their time.
    pub(super) fn lost(&self, asleep: u64) -> f64 {
        let (awake, busy) = (100 - asleep.min(100), self.busy.unwrap_or(100).max(1));
        if awake >= busy { 0.0 } else { 1.0 - awake as f64 / busy as f64 }
    }
}

/// The slices in which a vCPU that is made to sleep runs and sleeps (cpu-throttle.c, `cpu_throttle_thread`): it runs
/// [`Slices::AWAKE`], then sleeps so long that its share comes out right.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slices {
    /// When it is known to have begun to run.
    woke: SimTime,
}

impl Slices {
    /// CPU_THROTTLE_TIMESLICE_NS.
    const AWAKE: Duration = Duration::from_millis(10);

    /// It runs from `now` on.
    pub(super) fn wake(&mut self, now: SimTime) {
        self.woke = now;
    }

    /// How long a vCPU that sleeps so many percent of its time, fewer than 100, still sleeps at `now`.
    pub(super) fn sleeps_on(&self, now: SimTime, percent: u64) -> Duration {
        let cycle = Self::AWAKE.mul_f64(100.0 / (100 - percent) as f64);
        let passed = Duration::from_nanos((now.since(self.woke).as_nanos() % cycle.as_nanos()) as u64);
        if passed <= Self::AWAKE { Duration::ZERO } else { cycle - passed }
    }
}

/// From 9.2 on: every 5 s the log is read if nothing has read it since the last time, so that a long pass does not keep
/// the throttle where it is. Not before the second reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncTimer {
    next: SimTime,
    syncs_before: u64,
}

impl SyncTimer {
    /// CPU_THROTTLE_DIRTY_SYNC_TIMESLICE_MS.
    const PERIOD: Duration = Duration::from_secs(5);

    pub(super) fn start(now: SimTime) -> SyncTimer {
        SyncTimer { next: now + SyncTimer::PERIOD, syncs_before: 0 }
    }

    /// Whether the timer has run out and the log is to be read; `syncs` times it was read so far.
    pub(super) fn expires(&mut self, now: SimTime, syncs: u64) -> bool {
        if now < self.next {
            return false;
        }
        self.next += SyncTimer::PERIOD;
        let forces = syncs > 1 && syncs == self.syncs_before;
        self.syncs_before = syncs + u64::from(forces);
        forces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SimTime {
        SimTime::from_nanos(millis * 1_000_000)
    }

    fn mb(megabytes: u64) -> ByteCount {
        ByteCount::new(megabytes * 1_000_000)
    }

    #[test]
    fn two_bad_periods_make_a_step_and_a_good_one_between_them_does_not_forgive() {
        let mut period = Period::open(at(0), mb(0));
        assert_eq!(period.after_sync(at(1001), mb(51), mb(100), 50), None, "bad: 51 of 100");
        assert_eq!(period.after_sync(at(2002), mb(50), mb(200), 50), None, "good: 50 of 100 is not more than half");
        let much = period.after_sync(at(3003), mb(60), mb(300), 50);
        assert_eq!(much, Some(TooMuch { dirtied: mb(60), allowed: mb(50) }));
        assert_eq!(period.after_sync(at(4004), mb(60), mb(400), 50), None, "counted anew");
        assert!(period.after_sync(at(5005), mb(60), mb(500), 50).is_some());
    }

    #[test]
    fn readings_within_a_second_add_up() {
        let mut period = Period::open(at(0), mb(0));
        assert_eq!(period.after_sync(at(1000), mb(40), mb(90), 50), None, "not more than a second");
        assert_eq!(period.after_sync(at(1001), mb(11), mb(100), 50), None, "bad: 51 of 100");
        assert!(period.after_sync(at(2002), mb(51), mb(200), 50).is_some());
    }

    #[test]
    fn steps_are_20_then_10_more_up_to_99() {
        let (converge, much) = (AutoConverge::default(), TooMuch { dirtied: mb(60), allowed: mb(50) });
        let mut steps = vec![0];
        for _ in 0..10 {
            steps.push(converge.stepped(*steps.last().unwrap(), much));
        }
        assert_eq!(steps, [0, 20, 30, 40, 50, 60, 70, 80, 90, 99, 99]);
    }

    #[test]
    fn tailslow_adds_no_more_than_is_needed() {
        let converge = AutoConverge { tailslow: true, ..AutoConverge::default() };
        // At 50 % the guest wrote 60 of 57 allowed: 47.5 % of its time would do, so 3 more.
        assert_eq!(converge.stepped(50, TooMuch { dirtied: mb(60), allowed: mb(57) }), 53);
        assert_eq!(converge.stepped(50, TooMuch { dirtied: mb(60), allowed: mb(30) }), 60);
    }

    #[test]
    fn what_the_vcpus_sleep_they_take_from_their_idle_time_first() {
        let lost = |busy, asleep| AutoConverge { busy: Some(busy), ..AutoConverge::default() }.lost(asleep);
        assert_eq!([lost(100, 0), lost(100, 20), lost(100, 99)].map(|lost| (lost * 100.0).round()), [0.0, 20.0, 99.0]);
        assert_eq!(AutoConverge::default().lost(30), lost(100, 30), "unknown");
        assert_eq!([lost(40, 20), lost(40, 60), lost(40, 80)].map(|lost| (lost * 100.0).round()), [0.0, 0.0, 50.0]);
    }

    #[test]
    fn a_vcpu_runs_ten_milliseconds_of_each_cycle() {
        let mut slices = Slices::default();
        slices.wake(at(500));
        let left = |percent, millis| slices.sleeps_on(at(millis), percent).as_millis();
        assert_eq!([500, 510, 511, 1499, 1500, 1510, 1700].map(|now| left(99, now)), [0, 0, 989, 1, 0, 0, 800]);
        assert_eq!([511, 519, 520].map(|now| left(50, now)), [9, 1, 0]);
        assert_eq!(left(0, 505), 0, "it never sleeps");
    }

    #[test]
    fn the_timer_forces_a_reading_when_five_seconds_had_none() {
        let mut timer = SyncTimer::start(at(0));
        assert!(!timer.expires(at(4999), 1));
        assert!(!timer.expires(at(5000), 1), "the first pass is left alone");
        assert!(!timer.expires(at(10_000), 3), "read in between");
        assert!(timer.expires(at(15_000), 3));
        assert!(!timer.expires(at(15_000), 4), "only once");
        assert!(timer.expires(at(20_000), 4), "its own reading does not count");
    }
}
