//! Windows that wait until a look at the guest confirms that it ran and was not migrating meanwhile.

use std::time::Duration;

use migcast_history::vcpu::VcpuTime;
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, WriteError, Writer, ZeroChange};

use crate::clock::Clock;

/// Takes finished windows: a history, or a test.
pub(crate) trait Sink {
    /// Appends a window.
    ///
    /// # Errors
    /// [`WriteError`], e.g. because the disk is full; what was closed before stays readable.
    fn push(&mut self, window: NewWindow<'_>) -> Result<(), WriteError>;
    /// Notes how busy the vCPUs were just before the end of the last window.
    fn add_vcpu_time(&mut self, time: VcpuTime);
    /// Windows of the segments closed so far.
    fn closed_windows(&self) -> u64;
    /// Bytes of those of them that are kept.
    fn bytes_on_disk(&self) -> u64;
}

impl Sink for Writer {
    fn push(&mut self, window: NewWindow<'_>) -> Result<(), WriteError> {
        Writer::push(self, window)
    }

    fn add_vcpu_time(&mut self, time: VcpuTime) {
        Writer::add_vcpu_time(self, time);
    }

    fn closed_windows(&self) -> u64 {
        Writer::closed_windows(self)
    }

    fn bytes_on_disk(&self) -> u64 {
        Writer::bytes_on_disk(self)
    }
}

/// A window that is over, on the recorder's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    pub(crate) state: State,
    pub(crate) written: Vec<u64>,
    pub(crate) zero_changes: Vec<ZeroChange>,
    pub(crate) cost: Duration,
}

/// Holds back the windows since the last look.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    windows: Vec<Finished>,
    /// Windows handed on, and how many of them lie in closed segments.
    pub(crate) pushed: u64,
    pub(crate) closed: u64,
    pub(crate) bytes_on_disk: u64,
    /// Time recorded, time in which the guest migrated, and time of which nothing else is known.
    pub(crate) recorded: Duration,
    pub(crate) migrating: Duration,
    pub(crate) gaps: Duration,
}

impl Pending {
    /// Adds the next window.
    pub(crate) fn add(&mut self, window: Finished) {
        self.windows.push(window);
    }

    /// Windows so far, those held back included.
    pub(crate) fn count(&self) -> u64 {
        self.pushed + self.windows.len() as u64
    }

    /// Hands on what is held back. Where the looks around it do not confirm that the guest ran and did not migrate,
    /// `found` is not [`State::Recorded`]: then what was seen of the writes is dropped, because it may have been the
    /// migration's doing or nothing at all. The zero map is kept, since later windows build on it.
    pub(crate) fn settle(&mut self, found: State, sink: &mut dyn Sink, clock: &dyn Clock) -> Result<(), WriteError> {
        for mut window in std::mem::take(&mut self.windows) {
            if window.state == State::Recorded && found != State::Recorded {
                window.state = found;
                window.written.clear();
            }
            self.push(&window, sink, clock)?;
        }
        Ok(())
    }

    fn push(&mut self, window: &Finished, sink: &mut dyn Sink, clock: &dyn Clock) -> Result<(), WriteError> {
        sink.push(NewWindow {
            start_unix_ns: clock.unix_ns(window.start),
            end_unix_ns: clock.unix_ns(window.end),
            state: window.state,
            written: &window.written,
            zero_changes: &window.zero_changes,
            cost_us: u32::try_from(window.cost.as_micros()).unwrap_or(u32::MAX),
        })?;
        (self.closed, self.bytes_on_disk) = (sink.closed_windows(), sink.bytes_on_disk());
        self.pushed += 1;
        *match window.state {
            State::Recorded => &mut self.recorded,
            State::Migrating => &mut self.migrating,
            State::Gap => &mut self.gaps,
        } += window.end - window.start;
        Ok(())
    }
}
