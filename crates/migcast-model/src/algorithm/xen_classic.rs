//! Xen's classic pre-copy: `xc_domain_save()`, 3.0.2 to 4.5 (tools/libxc/xc_domain_save.c of 3.4.0, 4.0.0 and 4.5.0,
//! xc_linux_save.c of 3.0.2). The algorithm of Akoush et al. (2010).
//!
//! It peeks into the dirty log before each batch and leaves what has been written again to the next round: a page that
//! is written all the time is sent when the guest is stopped, and only then. There is no limit of bandwidth or of
//! downtime, and it always ends.

use super::rounds::{Frame, Next, Policy, Round, Rounds};
use super::setting::{Choice, Count, Field, Pages};
use super::{Ends, Request, Scheme};
use crate::due::{DirtyLog, DueSet, PageBytes, Rewritten, ScanOrder, Tracking};
use crate::migration::Migration;
use crate::outcome::StopReason;
use crate::units::{ByteCount, PageCount};

/// A page in the stream, zero or not: its frame number and type, and its content.
pub(super) const PAGE: PageBytes =
    PageBytes { data: ByteCount::new(8 + 4096), zero: ByteCount::new(8 + 4096), encoded: ByteCount::ZERO };
/// MAX_BATCH_SIZE, pages (xg_save_restore.h, xc_sr_common.h).
pub(super) const BATCH: PageCount = PageCount::new(1024);
/// A frame number and type without content.
pub(super) const ANNOUNCED: ByteCount = ByteCount::new(8);

/// Settings of one migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What kind of guest.
    pub guest: GuestKind,
    /// In which order pages are scanned: rotated in 3.0.2 to 3.2, linear since 3.3.
    pub scan: ScanOrder,
    /// DEF_MAX_ITERS: live rounds at most. Default 29 (xend and libxl pass 0, which means the default).
    pub max_iterations: u64,
    /// DEF_MAX_FACTOR: no further live round once more than so many times the memory was sent. Default 3.
    pub max_factor: u64,
    /// A round whose set has fewer pages than this is the last live one. 50 in the source, where nothing changes it.
    pub small_set: PageCount,
}

/// What kind of guest a classic Xen migrates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GuestKind {
    /// Paravirtualised, or fully virtualised before Xen 4.2.
    #[default]
    Pv,
    /// Fully virtualised under 4.2 to 4.5: the first round leaves nothing out, but sends no data of a page that was
    /// written again.
    Hvm,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            guest: GuestKind::Pv,
            scan: ScanOrder::Linear,
            max_iterations: 29,
            max_factor: 3,
            small_set: PageCount::new(50),
        }
    }
}

const GUEST_KINDS: &[(&str, GuestKind)] = &[("pv", GuestKind::Pv), ("hvm", GuestKind::Hvm)];
const SCANS: &[(&str, ScanOrder)] = &[("linear", ScanOrder::Linear), ("rotated", ScanOrder::Rotated)];

impl Scheme for Settings {
    fn explained(&self) -> String {
        format!(
            "Rounds over the memory in page order, the first with every page. Before each batch of 1024 pages the dirty log \
             is looked into, and a page that has been written again is skipped: the next round has it. The guest is \
             stopped after {} rounds, after a round whose set had fewer than {} pages, or once more than {} times the \
             memory was sent; then everything written since the last round is sent. There is no limit of bandwidth, none of \
             downtime, zero pages are sent whole, and each look into the log pauses the guest. It always ends, but a guest \
             that writes faster than the link carries is stopped with up to all of its memory to send.",
            self.max_iterations, self.small_set, self.max_factor
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            Field::new(
                "guest",
                Choice::new(&mut self.guest, GUEST_KINDS),
                "pv, or hvm for a fully virtualised guest under Xen 4.2 to 4.5, whose first round skips nothing",
            ),
            Field::new("scan", Choice::new(&mut self.scan, SCANS), "linear, or rotated for Xen 3.0.2 to 3.2 (permute)"),
            Field::new(
                "max-iterations",
                Count::new(&mut self.max_iterations, 1..=1_000_000),
                "live rounds at most; default 29 (DEF_MAX_ITERS)",
            ),
            Field::new(
                "max-factor",
                Count::new(&mut self.max_factor, 1..=1_000_000),
                "no further live round once more than so many memories were sent; default 3 (DEF_MAX_FACTOR)",
            ),
            Field::new(
                "small-set",
                Pages(&mut self.small_set),
                "a round with fewer pages is the last live one; 50 in the source",
            ),
        ]
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        let policy = Classic { settings: *self, memory: request.guest.memory };
        Box::new(Rounds::new(policy, request, due))
    }

    fn tracking(&self) -> Tracking {
        Tracking { log: DirtyLog::Kvm, order: self.scan, cache: None, by_position: true }
    }

    /// The factor may be passed by almost one memory, in one round.
    fn ends(&self) -> Ends {
        Ends::AfterSending {
            live: self.max_iterations.min(self.max_factor.saturating_add(1)),
            stopped: 1,
            rounds: self.max_iterations,
        }
    }
}

/// The decisions.
#[derive(Clone, Copy, Debug)]
struct Classic {
    settings: Settings,
    /// p2m_size: holes are not told apart from memory here.
    memory: PageCount,
}

impl Policy for Classic {
    fn frame(&self) -> Frame {
        // A count of four bytes before each batch.
        Frame { batch: BATCH, around: ByteCount::new(4), page: PAGE, announced: ANNOUNCED }
    }

    /// A look takes as long as a reading: either pauses the domain and copies the whole bitmap (paging_log_dirty_op, before
    /// there was hap shadow_log_dirty_op), a reading besides clears it. What the guest pays for having its pages protected
    /// again is left out.
    fn reading_pauses(&self) -> bool {
        true
    }

    fn rewritten(&self, round: u64) -> Rewritten {
        match self.settings.guest {
            GuestKind::Hvm if round == 1 => Rewritten::Announced,
            GuestKind::Pv | GuestKind::Hvm => Rewritten::Skipped,
        }
    }

    /// In the order of the source.
    fn after_round(&mut self, round: &Round) -> Next {
        let Settings { max_iterations, max_factor, small_set, .. } = self.settings;
        if round.number >= max_iterations {
            Next::Stop(StopReason::MaxRounds)
        } else if round.sent + round.skipped < small_set {
            Next::Stop(StopReason::SmallSet)
        } else if round.sent_in_all.get() > self.memory.get().saturating_mul(max_factor) {
            Next::Stop(StopReason::MaxFactor)
        } else {
            Next::Read
        }
    }
}
