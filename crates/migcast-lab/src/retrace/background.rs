//! What the stream tells of pages that the guest's log says nothing of: the kernel's own, and what is zero.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::evidence::Evidence;
use migcast_record::stream::Page;

/// A write the stream gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// In which iteration it was sent again, from 0.
    pub(super) iteration: usize,
    /// About when.
    pub(super) at: Duration,
    /// Which page.
    pub(super) page: u64,
    /// Whether it was zero from then on.
    pub(super) zero: bool,
}

/// Whether each page was zero when it was first sent.
///
/// # Errors
/// A page was never sent.
pub(super) fn first_sent(evidence: &Evidence, memory: u64) -> Result<Vec<bool>> {
    let mut zero: BTreeMap<u64, bool> = BTreeMap::new();
    for page in evidence.iterations.iter().flat_map(|iteration| iteration.pages()) {
        zero.entry(page.index).or_insert(page.zero);
    }
    ensure!(zero.len() as u64 == memory, "{} of {memory} pages were sent", zero.len());
    Ok(zero.into_values().collect())
}

/// A page that was sent again, and the span in which it was written: it begins with its sending, or with the last reading
/// of the log that cannot have told of it, and ends with the last that can.
#[derive(Clone, Copy, Debug)]
struct SentAgain {
    iteration: usize,
    page: Page,
    after: Duration,
    before: Duration,
}

/// Pages outside of the working set that were sent again, each with a write between its sendings.
///
/// When that was the stream leaves open: a page may be due for long before the scan comes to it. Some are written all the
/// time, some once a second. A page is taken to be written again as soon as ever: in the middle of its shortest span.
pub(super) fn writes(evidence: &Evidence, working_set: &[u64], memory: u64) -> Vec<Written> {
    let working_set: BTreeSet<u64> = working_set.iter().copied().collect();
    let mut sent_again = sent_again(evidence, memory);
    sent_again.retain(|again| !working_set.contains(&again.page.index));
    let mut shortest: BTreeMap<u64, Duration> = BTreeMap::new();
    for again in &sent_again {
        let span = again.before.saturating_sub(again.after);
        shortest.entry(again.page.index).and_modify(|shortest| *shortest = span.min(*shortest)).or_insert(span);
    }
    let written = |again: &SentAgain| Written {
        iteration: again.iteration,
        at: again.after + shortest[&again.page.index] / 2,
        page: again.page.index,
        zero: again.page.zero,
    };
    sent_again.iter().map(written).collect()
}

fn sent_again(evidence: &Evidence, memory: u64) -> Vec<SentAgain> {
    let mut scan = Scan { memory, next: 0 };
    // Where the scan stood at the beginning of each iteration.
    let mut begins = Vec::new();
    let mut sent: BTreeMap<u64, (usize, Duration)> = BTreeMap::new();
    let mut sent_again = Vec::new();
    for (number, iteration) in evidence.iterations.iter().enumerate() {
        begins.push(scan);
        for (step, page) in iteration.steps.iter().flat_map(|step| step.pages.iter().map(move |page| (step, *page))) {
            let place = scan.pass(page.index);
            let Some((last, sent_at)) = sent.insert(page.index, (number, step.span.ended)) else { continue };
            // A page that is due is sent when the scan comes: where it was passed over it was not yet due.
            let told = (last + 1..number).find(|told| begins[*told].meets(page.index) == place).unwrap_or(number);
            let after = evidence.iterations[told.saturating_sub(1)].sync.ended.max(sent_at);
            sent_again.push(SentAgain { iteration: number, page, after, before: iteration.sync.began.max(after) });
        }
    }
    sent_again
}

/// The scan's position, counted on and on instead of around the memory.
#[derive(Clone, Copy, Debug)]
struct Scan {
    memory: u64,
    next: u64,
}

impl Scan {
    /// Where it meets a page next.
    fn meets(self, page: u64) -> u64 {
        self.next + (page + self.memory - self.next % self.memory) % self.memory
    }

    /// Goes on to a page and past it; tells where that was.
    fn pass(&mut self, page: u64) -> u64 {
        let place = self.meets(page);
        self.next = place + 1;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{About, Iteration, Span, Step};

    fn millis(at: u64) -> Duration {
        Duration::from_millis(at)
    }

    /// Iterations that begin every 100 ms, each with one step of 10 ms.
    fn evidence(iterations: &[&[u64]]) -> Evidence {
        let about = About {
            requested_unix_ns: 0,
            hypervisor_version: String::new(),
            accelerator: String::new(),
            link_bits_per_second: 1,
            settings: Vec::new(),
            total_time_ms: 0,
            downtime_ms: 0,
            dirty_sync_count: 0,
            normal_pages: 0,
            duplicate_pages: 0,
            stream_bytes: 0,
            other_cpu_cores: None,
            sender_buffer_bytes: None,
        };
        let iteration = |(number, pages): (u64, &&[u64])| {
            let began = millis(100 * number);
            let pages = pages.iter().map(|index| Page { index: *index, zero: false }).collect();
            let span = Span { began, ended: began + millis(10) };
            let sync = Span { began, ended: began };
            Iteration { sync, due: None, steps: vec![Step { span, arrived: span.ended, pages }] }
        };
        let iterations = (0..).zip(iterations).map(iteration).collect();
        Evidence { about, blocks: Vec::new(), iterations, windows: Vec::new(), log: Vec::new() }
    }

    fn written(iterations: &[&[u64]], working_set: &[u64]) -> Vec<(usize, u64, u128)> {
        let writes = writes(&evidence(iterations), working_set, 10);
        writes.iter().map(|write| (write.iteration, write.page, write.at.as_millis())).collect()
    }

    #[test]
    fn a_page_that_is_sent_again_was_written_in_between_unless_it_is_the_benchmark_s() {
        let all: Vec<u64> = (0..10).collect();
        assert_eq!(written(&[&all, &[3, 4]], &[4]), [(1, 3, 55)]);
        assert!(written(&[&all[..5], &all[5..]], &[]).is_empty(), "each is sent for the first time");
    }

    #[test]
    fn a_page_is_written_again_as_soon_as_ever_but_not_before_the_scan_passed_it_clean() {
        let all: Vec<u64> = (0..10).collect();
        // The second iteration stops at page 4. Page 7, sent at 10 ms and in the third, may have been due since the second's
        // reading; page 2 was passed in the second, so it was written behind that.
        assert_eq!(written(&[&all, &[4], &[7, 2]], &[4]), [(2, 7, 105), (2, 2, 150)]);
        // Page 3 is written within 90 ms at the second time, so it was at the first.
        assert_eq!(written(&[&all, &[], &[3], &[3]], &[]), [(2, 3, 55), (3, 3, 255)]);
    }

    #[test]
    fn a_page_counts_as_it_was_when_it_was_first_sent() {
        let mut evidence = evidence(&[&[0, 1], &[1]]);
        evidence.iterations[0].steps[0].pages[1].zero = true;
        assert_eq!(first_sent(&evidence, 2).unwrap(), [false, true]);
        assert_eq!(first_sent(&evidence, 3).unwrap_err().to_string(), "2 of 3 pages were sent");
    }
}
