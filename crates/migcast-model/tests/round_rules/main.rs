//! The rules of the algorithms in rounds, each with a trace computed by hand. Numbers are those of docs/algorithms.md, one
//! module per hypervisor; a test's name begins with its rule.
//!
//! Unless a test says otherwise the platform costs nothing, nothing stands in the sender's buffer and the link takes exactly
//! one millisecond a page with its header, so that page counts are milliseconds. A batch has 1024 pages.

#![allow(clippy::single_range_in_vec_init, reason = "traces list ranges of pages")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod cloud_hypervisor;
mod criu;
mod propolis;
mod stopped;
#[path = "../support/mod.rs"]
mod support;
mod xen;
mod xen_classic;

use std::collections::BTreeSet;
use std::time::Duration;

use migcast_model::algorithm::Algorithm;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::outcome::{Completed, Outcome};
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{ByteCount, BytesPerSec};

use support::Trace;

/// One migration, everything adjustable.
struct Run {
    algorithm: Algorithm,
    platform: Platform,
    rate: BytesPerSec,
    sender_buffer: u64,
}

impl Run {
    /// Over a link that takes a millisecond for a page of so many bytes.
    fn of(algorithm: &str, page_bytes: u64) -> Run {
        let algorithm = Algorithm::named(algorithm).unwrap();
        Run { algorithm, platform: Platform::free(), rate: BytesPerSec::new(page_bytes * 1000), sender_buffer: 0 }
    }

    fn with(mut self, key: &str, value: &str) -> Run {
        self.algorithm.set(key, value).unwrap();
        self
    }

    fn on(self, platform: Platform) -> Run {
        Run { platform, ..self }
    }

    fn outcome(&self, trace: &Trace) -> Outcome {
        let source = trace.source();
        let guest = Guest { name: "trace".into(), memory: trace.memory(), page_size: Guest::PAGE_SIZE };
        let link = Link { line_rate: self.rate, payload_share: 1.0, sender_buffer: ByteCount::new(self.sender_buffer) };
        let (platform, algorithm) = (self.platform.clone(), self.algorithm.clone());
        let scenario = Scenario { guest, link, platform, algorithm, horizon: Duration::from_secs(3600) };
        scenario.run(&source, Duration::ZERO)
    }

    fn completed(&self, trace: &Trace) -> Completed {
        match self.outcome(trace) {
            Outcome::Completed(completed) => completed,
            outcome => panic!("did not complete: {outcome:?}"),
        }
    }
}

/// A platform on which one look into the log of `trace` takes this long, and nothing else takes any time.
fn slow_log(trace: &Trace, look: Duration) -> Platform {
    let gib = (trace.memory().get() * 4096) as f64 / (1u64 << 30) as f64;
    Platform { sync_cost_per_gib: look.div_f64(gib), ..Platform::free() }
}

/// Pages skipped in each iteration.
fn skipped(completed: &Completed) -> Vec<u64> {
    completed.iterations.iter().map(|iteration| iteration.skipped.get()).collect()
}

#[test]
fn docs_algorithms_md_lists_each_rule_with_its_tests() {
    let modules = [
        include_str!("xen_classic.rs"),
        include_str!("xen.rs"),
        include_str!("cloud_hypervisor.rs"),
        include_str!("propolis.rs"),
        include_str!("criu.rs"),
        include_str!("stopped.rs"),
    ];
    let tests = modules.into_iter().flat_map(str::lines).filter_map(|line| line.strip_prefix("fn rule_"));
    let here: BTreeSet<String> = tests.map(|rest| format!("rule_{}", rest.trim_end_matches("() {"))).collect();
    let document = include_str!("../../../../docs/algorithms.md");
    let there = document.split('`').filter(|name| name.starts_with("rule_"));
    assert_eq!(here, there.map(str::to_owned).collect());
}
