//! QEMU's rules, each with a trace computed by hand. Numbers are those of docs/model.md ("QEMU's rules"), one module per
//! section; a test's name begins with the number of its rule.
//!
//! Unless a test says otherwise the platform costs nothing, the link takes exactly one millisecond a page (4104 bytes)
//! and nothing stands in the sender's buffer, so that page counts are milliseconds. A step is then 65 pages long: QEMU
//! looks at the clock after its 1st page and after its 65th, when 65 ms have passed, more than 50.

#![allow(clippy::single_range_in_vec_init, reason = "traces list ranges of pages")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod completion;
mod decision;
mod dirty_log;
mod life;
mod multifd;
mod postcopy;
mod rate;
mod slowing;
mod step;
#[path = "../support/mod.rs"]
mod support;
mod xbzrle;

use std::collections::BTreeSet;
use std::time::Duration;

use migcast_model::algorithm::Scheme;
use migcast_model::algorithm::qemu::{Precopy, Qemu, Settings, UNLIMITED, Version};
use migcast_model::due::{Bitmap, DirtyLog};
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::manager::Managed;
use migcast_model::migration::Command;
use migcast_model::outcome::{Completed, Outcome};
use migcast_model::platform::Platform;
use migcast_model::simulate::simulate;
use migcast_model::units::{ByteCount, BytesPerSec, SimTime};

use support::{Script, Trace, data_pages, millis, ms};

const PAGE_BYTES: u64 = 4104;
const PAGE_PER_MS: BytesPerSec = BytesPerSec::new(PAGE_BYTES * 1000);
const SECTION: u64 = 18;

/// One migration, everything adjustable.
struct Run {
    version: Version,
    settings: Settings,
    platform: Platform,
    rate: BytesPerSec,
    sender_buffer: u64,
}

impl Run {
    fn of(version: Version) -> Run {
        let settings = Settings {
            max_bandwidth: UNLIMITED,
            downtime_limit: ms(100),
            dirty_log: DirtyLog::Tcg,
            ..Settings::default()
        };
        Run { version, settings, platform: Platform::free(), rate: PAGE_PER_MS, sender_buffer: 0 }
    }

    fn outcome(&self, trace: &Trace) -> Outcome {
        self.told(trace, &[])
    }

    /// The same if these things are said so many milliseconds after the request.
    fn told(&self, trace: &Trace, says: &[(u64, Command)]) -> Outcome {
        let source = trace.source();
        let guest = Guest { name: "trace".into(), memory: trace.memory(), page_size: Guest::PAGE_SIZE };
        let link = Link { line_rate: self.rate, payload_share: 1.0, sender_buffer: ByteCount::new(self.sender_buffer) };
        let precopy = Precopy { version: self.version, settings: self.settings };
        let due = Bitmap::tracking(&source, Duration::ZERO, precopy.tracking());
        let qemu = Qemu::new(self.version.rules(), self.settings, guest, &link, self.platform.clone(), due);
        simulate(Managed::new(qemu, Script::new(says)), link.goodput(), SimTime::from_nanos(60_000_000_000))
    }

    fn completed(&self, trace: &Trace) -> Completed {
        match self.outcome(trace) {
            Outcome::Completed(completed) => completed,
            outcome => panic!("did not converge: {outcome:?}"),
        }
    }
}

#[test]
fn docs_model_md_lists_each_rule_with_its_tests() {
    let modules = [
        include_str!("life.rs"),
        include_str!("rate.rs"),
        include_str!("decision.rs"),
        include_str!("step.rs"),
        include_str!("completion.rs"),
        include_str!("dirty_log.rs"),
        include_str!("slowing.rs"),
        include_str!("multifd.rs"),
        include_str!("xbzrle.rs"),
        include_str!("postcopy.rs"),
    ];
    let tests = modules.into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("fn rule"));
    let here: BTreeSet<String> = tests.map(|rest| format!("rule{}", rest.trim_end_matches("() {"))).collect();
    let document = include_str!("../../../../docs/model.md");
    let there = document.split('`').filter(|name| name.starts_with("rule_") || name.starts_with("rules_"));
    assert_eq!(here, there.map(str::to_owned).collect());
}
