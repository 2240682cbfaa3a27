//! Propolis, which runs guests under bhyve (bin/propolis-server/src/lib/migrate/source.rs).
//!
//! Exactly one pass while the guest runs and one while it stands. Pages are offered in bitmaps of 128 MiB; what the log
//! knows of such a chunk is cleared when it is offered.

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::Field;
use super::{Ends, Request, Scheme};
use crate::due::{DirtyLog, DueSet, PageBytes, Tracking};
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::units::{ByteCount, PageCount};

/// One message per page: its content and, around it, what a message of the protocol has. The exact framing is left out,
/// under one percent.
const PAGE: PageBytes = PageBytes { data: ByteCount::new(4096), zero: ByteCount::ZERO, encoded: ByteCount::ZERO };

/// Propolis has nothing to set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Propolis;

impl Scheme for Propolis {
    fn explained(&self) -> String {
        "One pass over the memory while the guest runs, offered in chunks of 128 MiB, and one while it stands, with what was \
         written since each page's chunk was offered. Nothing is tested and nothing is limited: a guest that writes much is \
         stopped with much to send. Pages that were never touched are not offered; a page of zeros counts as such. It \
         always ends."
            .to_owned()
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        Vec::new()
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        Box::new(Rounds::new(*self, request, due))
    }

    fn tracking(&self) -> Tracking {
        Tracking { log: DirtyLog::Offered, by_position: true, ..Tracking::default() }
    }

    fn ends(&self) -> Ends {
        Ends::AfterSending { live: 1, stopped: 1, rounds: 1 }
    }
}

impl Policy for Propolis {
    fn frame(&self) -> Frame {
        Frame { batch: PageCount::new(1024), around: ByteCount::ZERO, page: PAGE, announced: ByteCount::ZERO }
    }

    fn after_round(&mut self, _round: &Round) -> Next {
        Next::Stop(StopReason::Fixed)
    }
}
