//! How far QEMU slows a vCPU, and how much it runs all the same.

use std::time::SystemTime;

use migcast_history::observed::ThrottleStep;
use serde_json::Value;

use crate::load::Thread;

/// How much of the time the vCPU ran at each percentage, on one line; `None` where nothing was slowed, or nobody watched.
pub fn describe(steps: &[ThrottleStep]) -> Option<String> {
    let share = |step: &ThrottleStep| format!("{:.1} % of the time", 100.0 * step.vcpu_busy);
    let (first, slowed) = steps.split_first().filter(|(_, slowed)| !slowed.is_empty())?;
    let slowed: Vec<String> = slowed.iter().map(|step| format!("at {} % {}", step.percent, share(step))).collect();
    Some(format!("the vCPU ran {}; slowed {}", share(first), slowed.join(", ")))
}

/// Notes each change of the throttle.
#[derive(Debug)]
pub(crate) struct ThrottleLog {
    vcpu: Option<Thread>,
    requested: SystemTime,
    began: f64,
    percent: u64,
    /// CPU seconds of the vCPU when the step began.
    used: Option<f64>,
    steps: Vec<ThrottleStep>,
}

impl ThrottleLog {
    /// Begins at the request, when nothing slows the vCPU.
    pub(crate) fn begin(vcpu: Option<Thread>, requested: SystemTime) -> ThrottleLog {
        let used = vcpu.and_then(Thread::seconds);
        ThrottleLog { vcpu, requested, began: 0.0, percent: 0, used, steps: Vec::new() }
    }

    /// Takes an answer to `query-migrate`. (Of a guest that stands there is nothing to note.)
    pub(crate) fn look(&mut self, status: &Value) {
        // The key is missing while nothing is slowed.
        let percent = status["cpu-throttle-percentage"].as_u64().unwrap_or_default();
        if status["status"] == "active" && percent != self.percent && self.used.is_some() {
            self.end_step(self.vcpu.and_then(Thread::seconds), SystemTime::now());
            self.percent = percent;
        }
    }

    /// The guest stands: what the vCPU runs from now on is nothing, and is not counted.
    pub(crate) fn stop(&mut self) {
        self.end_step(self.vcpu.and_then(Thread::seconds), SystemTime::now());
        self.used = None;
    }

    /// The migration is over, or was given up. Where the guest was never slowed there is one step, which tells how much of
    /// the time a guest runs that is being migrated.
    pub(crate) fn finish(mut self) -> Vec<ThrottleStep> {
        self.end_step(self.vcpu.and_then(Thread::seconds), SystemTime::now());
        self.steps
    }

    fn end_step(&mut self, used: Option<f64>, now: SystemTime) {
        let now = now.duration_since(self.requested).unwrap_or_default().as_secs_f64();
        if let Some((before, after)) = self.used.zip(used).filter(|_| now > self.began) {
            let vcpu_busy = (after - before) / (now - self.began);
            self.steps.push(ThrottleStep { start_seconds: self.began, percent: self.percent, vcpu_busy });
        }
        (self.began, self.used) = (now, used);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_has_its_time_and_the_share_that_was_run() {
        let requested = SystemTime::now();
        let mut log = ThrottleLog { used: Some(10.0), ..ThrottleLog::begin(None, requested) };
        log.end_step(Some(11.0), requested + Duration::from_secs(4));
        log.percent = 20;
        log.end_step(Some(11.5), requested + Duration::from_secs(5));
        let step = |start_seconds, percent, vcpu_busy| ThrottleStep { start_seconds, percent, vcpu_busy };
        assert_eq!(log.steps, [step(0.0, 0, 0.25), step(4.0, 20, 0.5)]);
        let line = "the vCPU ran 25.0 % of the time; slowed at 20 % 50.0 % of the time";
        assert_eq!((describe(&log.steps).as_deref(), describe(&log.steps[..1])), (Some(line), None));
    }

    #[test]
    fn a_guest_that_is_never_slowed_has_one_step() {
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        let own = Thread { pid: std::process::id(), id: u64::try_from(own).unwrap() };
        let begin = || ThrottleLog::begin(Some(own), SystemTime::now() - Duration::from_secs(1));
        let mut log = begin();
        log.look(&json!({ "status": "active" }));
        assert_eq!(log.finish().iter().map(|step| step.percent).collect::<Vec<_>>(), [0]);
        let mut log = begin();
        log.look(&json!({ "status": "active", "cpu-throttle-percentage": 20 }));
        log.look(&json!({ "status": "cancelling" }));
        assert_eq!(log.finish().iter().map(|step| step.percent).collect::<Vec<_>>(), [0, 20]);
        let mut log = begin();
        log.stop();
        log.look(&json!({ "status": "active", "cpu-throttle-percentage": 20 }));
        assert_eq!(
            log.finish().iter().map(|step| step.percent).collect::<Vec<_>>(),
            [0],
            "nothing of a guest that stands"
        );
    }
}
