//! A migration as a machine that is stepped, so that the world around it can change while it runs.

use std::time::Duration;

use dyn_clone::DynClone;

use crate::outcome::Completed;
use crate::units::{BytesPerSec, SimTime};

/// One migration in progress.
///
/// ```text
///        granted rate ┐         ┌ Event: what happened, and when
///  world ── advance ──┴► machine┴──► world: grants another rate, changes a setting, or stops caring
/// ```
pub trait Migration: DynClone {
    /// Runs until something happens that the world may want to act on, or until `until` at the latest (a page or a
    /// batch that is under way is finished). Meanwhile the link carries `granted` bytes of payload per second.
    ///
    /// After [`Event::Completed`] or [`Event::Cancelled`] it must not be called again.
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event;

    /// How far the migration has come.
    fn progress(&self) -> Progress;

    /// Does what whoever manages the migration tells it, at the next point where it can. What it cannot do at all it
    /// leaves undone: only QEMU can be told anything.
    fn command(&mut self, _command: Command) {}
}

/// What a running migration can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Another downtime limit, from the next bandwidth window on.
    DowntimeLimit(Duration),
    /// Move the guest now, its memory after it.
    StartPostcopy,
    /// Stop the guest, so that it ends.
    PauseGuest,
    /// Give up.
    Cancel,
}

dyn_clone::clone_trait_object!(Migration);

impl<M: Migration + ?Sized> Migration for Box<M>
where
    Box<M>: Clone,
{
    fn advance(&mut self, granted: BytesPerSec, until: SimTime) -> Event {
        (**self).advance(granted, until)
    }

    fn progress(&self) -> Progress {
        (**self).progress()
    }

    fn command(&mut self, command: Command) {
        (**self).command(command);
    }
}

/// What [`Migration::advance`] stopped for.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// `until` has come.
    Paused,
    /// An iteration has ended: the dirty log was read.
    IterationEnded,
    /// The guest has been stopped.
    Stopped,
    /// The guest runs on the target and the source is done.
    Completed(Box<Completed>),
    /// The migration was given up; the guest runs on at the source.
    Cancelled,
}

/// Where a running migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Now.
    pub now: SimTime,
    /// Bytes handed to the link so far.
    pub sent: crate::units::ByteCount,
    /// Iterations so far, as the hypervisor counts them.
    pub iterations: u64,
    /// Pages due now.
    pub due: crate::units::PageCount,
    /// Whether the guest runs at the target already.
    pub has_moved: bool,
}
