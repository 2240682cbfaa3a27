//! A dirty source that notes which pages are sent: whoever sends a page asks whether it is zero at that moment.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use migcast_model::dirty::{DirtySource, Estimate, PageCursor, PageReplay, PageSource};
use migcast_model::units::{GuestTime, PageCount};

use migcast_record::stream::Page;

/// A replay of every page, and what was sent of it.
#[derive(Debug)]
pub(super) struct Witness<'a> {
    replay: &'a PageReplay,
    sent: Mutex<Vec<Page>>,
}

impl<'a> Witness<'a> {
    /// Nothing sent yet.
    pub(super) fn new(replay: &'a PageReplay) -> Witness<'a> {
        Witness { replay, sent: Mutex::default() }
    }

    /// What was sent, in order.
    pub(super) fn sent(self) -> Vec<Page> {
        self.sent.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A walk that notes.
#[derive(Clone, Debug)]
pub(super) struct WitnessCursor<'a> {
    cursor: <PageReplay as PageSource>::Cursor<'a>,
    sent: &'a Mutex<Vec<Page>>,
}

impl DirtySource for Witness<'_> {
    fn memory(&self) -> PageCount {
        self.replay.memory()
    }

    fn length(&self) -> Option<Duration> {
        self.replay.length()
    }

    fn write_set(&self, span: Duration) -> Estimate {
        self.replay.write_set(span)
    }

    fn zero(&self) -> Estimate {
        self.replay.zero()
    }

    fn never_zero(&self) -> PageCount {
        self.replay.never_zero()
    }
}

impl PageSource for Witness<'_> {
    type Cursor<'a>
        = WitnessCursor<'a>
    where
        Self: 'a;

    fn tracked(&self) -> PageCount {
        self.replay.tracked()
    }

    fn cursor(&self, start: Duration) -> WitnessCursor<'_> {
        WitnessCursor { cursor: self.replay.cursor(start), sent: &self.sent }
    }
}

impl PageCursor for WitnessCursor<'_> {
    fn advance(&mut self, until: GuestTime, written: impl FnMut(u32)) {
        self.cursor.advance(until, written);
    }

    fn is_zero(&self, rank: u32) -> bool {
        let zero = self.cursor.is_zero(rank);
        let page = Page { index: rank.into(), zero };
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(page);
        zero
    }

    fn zero_is_settled(&self) -> bool {
        self.cursor.zero_is_settled()
    }
}
