//! A proposal, not a product: the downtime limit follows a schedule, as a script beside QEMU would set it with
//! `virsh migrate-setmaxdowntime`, and the guest is paused when the time is over. Where a schedule comes from is not known
//! here: `migcast rules` derives one from a guest's past.

use std::time::Duration;

use super::libvirt::WEEK;
use super::{Clock, Manager, Watch};
use crate::algorithm::setting::{Field, OptionalMillis, Refusal, Value};
use crate::guest::Guest;
use crate::migration::{Command, Progress};
use crate::quantity::{parse_duration, write_duration};
use crate::units::SimTime;

/// How often the script looks at its schedule.
const POLL: Duration = Duration::from_millis(100);
/// Steps at most.
const STEPS_MAX: usize = 1_000;

/// A schedule of downtime limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// From which time after the request on which limit holds, in order of time.
    pub limits: Vec<(Duration, Duration)>,
    /// When the guest is paused, so that the migration ends.
    pub pause_after: Option<Duration>,
}

impl Manager for Schedule {
    fn explained(&self) -> String {
        "A proposal that no product ships: the downtime limit is set at stated times after the request, and the guest is \
         paused when the time allowed is over. There is no bandwidth cap. A script can do so with virsh \
         migrate-setmaxdowntime and virsh suspend; `migcast rules` finds a schedule that fits a guest's past."
            .to_owned()
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "limits",
                Steps(&mut self.limits),
                "TIME=LIMIT,TIME=LIMIT,…: from when on which downtime limit holds, or `none`; default none",
            ),
            Field::new(
                "pause-after",
                OptionalMillis::new(&mut self.pause_after, Duration::from_millis(1)..=WEEK),
                "when the guest is paused, from the request on, or `none`; default none",
            ),
        ]
    }

    fn sets(&self, _guest: &Guest) -> Vec<(&'static str, String)> {
        vec![("max-bandwidth", "none".to_owned())]
    }

    fn watch(&self, _guest: &Guest) -> Box<dyn Watch> {
        Box::new(Watching { schedule: self.clone(), clock: Clock::every(POLL), in_force: None, is_paused: false })
    }

    fn patience(&self, _guest: &Guest) -> Option<Duration> {
        self.pause_after
    }
}

#[derive(Clone, Debug)]
struct Watching {
    schedule: Schedule,
    clock: Clock,
    in_force: Option<Duration>,
    is_paused: bool,
}

impl Watch for Watching {
    fn next_look(&self) -> SimTime {
        self.clock.next
    }

    fn look(&mut self, progress: &Progress) -> Option<Command> {
        self.clock.tick(progress.now);
        let passed = progress.now.since(SimTime::ZERO);
        if self.schedule.pause_after.is_some_and(|after| passed >= after) {
            return (!std::mem::replace(&mut self.is_paused, true)).then_some(Command::PauseGuest);
        }
        let due = self.schedule.limits.iter().rev().find(|(from, _)| *from <= passed).map(|(_, limit)| *limit);
        if due.is_none() || due == self.in_force {
            return None;
        }
        self.in_force = due;
        due.map(Command::DowntimeLimit)
    }
}

/// Steps of a schedule as text: `0s=30ms,10s=50ms`.
#[derive(Debug)]
struct Steps<'a>(&'a mut Vec<(Duration, Duration)>);

impl Value for Steps<'_> {
    fn write(&self) -> String {
        if self.0.is_empty() {
            return "none".to_owned();
        }
        let step = |(from, limit): &(Duration, Duration)| {
            let from = if from.is_zero() { "0s".to_owned() } else { write_duration(*from) };
            format!("{from}={}", write_duration(*limit))
        };
        self.0.iter().map(step).collect::<Vec<_>>().join(",")
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let allowed = || {
            Refusal::OutOfRange("TIME=LIMIT,TIME=LIMIT,…, times rising, such as 0s=30ms,10s=50ms, or `none`".to_owned())
        };
        if text == "none" {
            self.0.clear();
            return Ok(());
        }
        let step = |step: &str| -> Result<(Duration, Duration), Refusal> {
            let (from, limit) = step.split_once('=').ok_or_else(allowed)?;
            let span = |text: &str| parse_duration(text.trim()).map_err(Refusal::Malformed);
            Ok((span(from)?, span(limit)?))
        };
        let steps = text.split(',').map(step).collect::<Result<Vec<_>, Refusal>>()?;
        if steps.len() > STEPS_MAX || steps.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(allowed());
        }
        *self.0 = steps;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{commands, guest};
    use super::*;

    #[test]
    fn limits_are_set_when_they_are_due_and_the_guest_is_paused_once() {
        let mut schedule = Schedule::default();
        Steps(&mut schedule.limits).read("0s=30ms,300ms=50ms").unwrap();
        schedule.pause_after = Some(Duration::from_millis(500));
        let limit = |millis| Command::DowntimeLimit(Duration::from_millis(millis));
        let did = commands(&mut *schedule.watch(&guest(1)), &[1 << 30; 8]);
        assert_eq!(did, [(100, limit(30)), (300, limit(50)), (500, Command::PauseGuest)]);
        assert_eq!(commands(&mut *Schedule::default().watch(&guest(1)), &[1 << 30; 8]), []);
    }

    #[test]
    fn steps_are_read_back_as_they_are_written() {
        let mut steps = Vec::new();
        Steps(&mut steps).read("0s=30ms, 10s=1s").unwrap();
        assert_eq!(Steps(&mut steps).write(), "0s=30ms,10s=1s");
        for wrong in ["", "30ms", "10s=1s,5s=2s", "0s=fast", "1s=1s,1s=2s"] {
            assert!(Steps(&mut steps).read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(steps.len(), 2, "what was there stays");
    }
}
