//! When the windows of a history were.
use std::time::Duration;

use crate::windows::{State, Window};

/// A window and its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from the start of the history, windows that can no longer be read included.
    pub index: u32,
    /// The window.
    pub window: Window,
}

/// All readable windows of a history, in order; at least one.
#[derive(Clone, Debug)]
pub struct Timeline {
    entries: Vec<Entry>,
}

/// A point of a history, as people name it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// Wall-clock time since the start of the first window.
    Offset(Duration),
    /// A point in time.
    Timestamp(jiff::Timestamp),
}

/// A point of a history, as a replay names it: only recorded windows count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Index in [`Timeline::entries`].
    pub entry: usize,
    /// How many recorded windows come before it: the window's index in the replay of the whole history.
    pub recorded: usize,
    /// How far into the window.
    pub into: Duration,
    /// Recorded time before the point: guest time since the start of the replay.
    pub recorded_time: Duration,
}

/// Why a text is no [`Moment`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is neither an offset like 90s or 5m nor a time like 2026-01-31T12:00:00Z")]
pub struct MomentError {
    /// The text.
    pub text: String,
}

impl std::str::FromStr for Moment {
    type Err = MomentError;

    /// Reads "90s", "5m 30s", "1h", or an RFC 3339 time with its zone.
    fn from_str(text: &str) -> Result<Moment, MomentError> {
        if let Ok(timestamp) = text.parse() {
            return Ok(Moment::Timestamp(timestamp));
        }
        let span = text.parse::<jiff::SignedDuration>().ok();
        let span = span.filter(|_| text.contains(|c: char| c.is_ascii_alphabetic()));
        let offset = span.and_then(|span| Duration::try_from(span).ok());
        offset.map(Moment::Offset).ok_or_else(|| MomentError { text: text.into() })
    }
}

impl Moment {
    /// Nanoseconds since the Unix epoch, in a past that starts then. A moment too far off for 64 bits is later than all.
    pub fn unix_ns(self, start_unix_ns: i64) -> i64 {
        match self {
            Moment::Offset(offset) => {
                start_unix_ns.saturating_add(i64::try_from(offset.as_nanos()).unwrap_or(i64::MAX))
            }
            Moment::Timestamp(timestamp) => i64::try_from(timestamp.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}

impl Timeline {
    /// `None` without an entry.
    pub(crate) fn new(entries: Vec<Entry>) -> Option<Timeline> {
        if entries.is_empty() { None } else { Some(Timeline { entries }) }
    }

    /// The windows.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The recorded windows.
    pub fn recorded(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.window.state == State::Recorded)
    }

    /// How many windows are in a state, and how long they are together.
    pub fn in_state(&self, state: State) -> (usize, Duration) {
        let windows = self.entries.iter().map(|entry| entry.window).filter(|window| window.state == state);
        windows.fold((0, Duration::ZERO), |(count, time), window| (count + 1, time + window.length()))
    }

    /// Start of the first window.
    pub fn start(&self) -> jiff::Timestamp {
        crate::reader::timestamp(self.start_unix_ns())
    }

    /// End of the last window.
    pub fn end(&self) -> jiff::Timestamp {
        crate::reader::timestamp(self.end_unix_ns())
    }

    /// End of the last recorded window: until when the guest is known.
    pub fn recorded_end(&self) -> Option<jiff::Timestamp> {
        let last = self.entries.iter().rfind(|entry| entry.window.state == State::Recorded);
        last.map(|entry| crate::reader::timestamp(entry.window.end_unix_ns))
    }

    /// Start of the first window, nanoseconds since the Unix epoch.
    pub fn start_unix_ns(&self) -> i64 {
        self.entries.first().map_or(0, |entry| entry.window.start_unix_ns)
    }

    /// End of the last window, nanoseconds since the Unix epoch.
    pub fn end_unix_ns(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.window.end_unix_ns)
    }

    /// Wall-clock time from the first start to the last end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_unix_ns().abs_diff(self.start_unix_ns()))
    }

    /// Time that was recorded: the recorded windows together.
    pub fn recorded_duration(&self) -> Duration {
        self.recorded().map(|entry| entry.window.length()).sum()
    }

    /// The range of window indices that holds everything.
    pub fn all(&self) -> std::ops::Range<u32> {
        let index = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.index);
        index(self.entries.first())..index(self.entries.last()).saturating_add(1)
    }

    /// A moment as nanoseconds since the Unix epoch, whether inside the history or not.
    pub fn unix_ns(&self, moment: Moment) -> i64 {
        moment.unix_ns(self.start_unix_ns())
    }

    /// The recorded window at a moment. Between recorded windows, the start of the next one; `None` before the history's
    /// start, and from the end of its last recorded window on.
    pub fn find(&self, moment: Moment) -> Option<Position> {
        let at = self.unix_ns(moment);
        if at < self.start_unix_ns() {
            return None;
        }
        let (mut recorded, mut recorded_time) = (0, Duration::ZERO);
        for (entry, Entry { window, .. }) in self.entries.iter().enumerate() {
            if window.state != State::Recorded {
                continue;
            }
            if at < window.end_unix_ns {
                let into = Duration::from_nanos(at.saturating_sub(window.start_unix_ns).max(0).unsigned_abs());
                return Some(Position { entry, recorded, into, recorded_time: recorded_time + into });
            }
            recorded += 1;
            recorded_time += window.length();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(states: &[State]) -> Timeline {
        let window = |(index, state): (usize, &State)| {
            let start_unix_ns = 1_000_000_000 * i64::try_from(index).unwrap();
            let window = Window {
                start_unix_ns,
                end_unix_ns: start_unix_ns + 900_000_000,
                state: *state,
                written: 0,
                zero: 0,
                cost_us: 0,
            };
            Entry { index: index as u32, window }
        };
        Timeline::new(states.iter().enumerate().map(window).collect()).unwrap()
    }

    #[test]
    fn moments_are_found_among_recorded_windows() {
        use State::{Gap, Recorded};
        let timeline = timeline(&[Recorded, Gap, Recorded]);
        let find = |ms| timeline.find(Moment::Offset(Duration::from_millis(ms))).map(|p| (p.entry, p.into.as_millis()));
        assert_eq!(find(0), Some((0, 0)));
        assert_eq!(find(899), Some((0, 899)));
        assert_eq!(find(900), Some((2, 0)));
        assert_eq!(find(1_500), Some((2, 0)));
        assert_eq!(find(2_100), Some((2, 100)));
        assert_eq!(find(2_900), None);
        let there = timeline.find(Moment::Timestamp("1970-01-01T00:00:02.1Z".parse().unwrap())).unwrap();
        assert_eq!((there.recorded, there.recorded_time), (1, Duration::from_millis(1_000)));
        assert_eq!(timeline.find(Moment::Timestamp("1969-12-31T23:59:59Z".parse().unwrap())), None);
    }

    #[test]
    fn moments_are_read_with_their_unit_only() {
        assert_eq!("90s".parse(), Ok(Moment::Offset(Duration::from_secs(90))));
        assert_eq!("5m 30s".parse(), Ok(Moment::Offset(Duration::from_secs(330))));
        assert!("2026-01-31T12:00:00Z".parse::<Moment>().is_ok_and(|m| matches!(m, Moment::Timestamp(_))));
        for text in ["90", "-5s", "", "noon", "2026-01-31T12:00:00"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
