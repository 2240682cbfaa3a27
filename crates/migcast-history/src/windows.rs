//! One recorded window.
use std::time::Duration;

use crate::table::Values;

/// What the recorder did in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The write set is complete.
    Recorded,
    /// Nothing is known: the recorder could not look, or the guest did not run.
    Gap,
    /// The guest was migrating, so the recorder kept away.
    Migrating,
}

impl State {
    /// The word for it in files and exports.
    pub const fn word(self) -> &'static str {
        match self {
            State::Recorded => "recorded",
            State::Gap => "gap",
            State::Migrating => "migrating",
        }
    }

    /// The state a word stands for.
    pub fn from_word(word: &[u8]) -> Option<State> {
        [State::Recorded, State::Gap, State::Migrating].into_iter().find(|state| state.word().as_bytes() == word)
    }
}

/// One row of `windows/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Start, nanoseconds since the Unix epoch, UTC.
    pub start_unix_ns: i64,
    /// End, likewise; later than the start.
    pub end_unix_ns: i64,
    /// What the recorder did.
    pub state: State,
    /// Tracked pages written.
    pub written: u32,
    /// Tracked pages that are zero at the end of the window.
    pub zero: u32,
    /// CPU time the recorder spent on this window, in microseconds.
    pub cost_us: u32,
}

impl Window {
    /// Its length.
    pub fn length(&self) -> Duration {
        Duration::from_nanos(self.length_ns())
    }

    /// The same in nanoseconds.
    pub(crate) fn length_ns(&self) -> u64 {
        self.end_unix_ns.abs_diff(self.start_unix_ns)
    }

    /// The columns of `windows/`.
    pub(crate) fn columns(windows: &[Window]) -> [Values; 6] {
        let u32s = |value: fn(&Window) -> u32| Values::U32(windows.iter().map(|w| value(w).cast_signed()).collect());
        [
            Values::U64(windows.iter().map(|w| w.start_unix_ns).collect()),
            Values::U64(windows.iter().map(|w| w.end_unix_ns).collect()),
            Values::Word(windows.iter().map(|w| w.state.word()).collect()),
            u32s(|w| w.written),
            u32s(|w| w.zero),
            u32s(|w| w.cost_us),
        ]
    }
}
