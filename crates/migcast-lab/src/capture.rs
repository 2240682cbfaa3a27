//! One real migration of the microbenchmark into a sink, with the order in which sections were sent and the dirty log
//! was read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::connection::{self, PORT, Route};
use crate::evidence::{About, Evidence, Iteration, Span, Step, Window};
use crate::interrupt::Interrupt;
use crate::link::{End, ShapedLink};
use crate::load::CpuTime;
use crate::machine::{Machine, Spec};
use crate::migration::{self, Terms};
use crate::sink::{Received, Sink};
use crate::trace::{self, Reading, Traced, What};
use migcast_record::stream::PAGE_SIZE;

/// The section with the guest's memory.
const RAM: &str = "ram";
/// How often the sender's buffer is asked for; it grows during the first tenths of a second.
const BUFFER_LOOK: Duration = Duration::from_millis(250);

/// The end the guest runs at: the namespace, which has a send buffer of its own.
pub const SOURCE: End = End::There;

/// Migrates the guest of `machine`, which runs at [`SOURCE`], into a sink at the other end. It stands still afterwards.
///
/// # Errors
/// The guest writes no log, the migration fails or is given up, or stream and trace do not belong together.
pub fn capture(
    machine: &mut Machine,
    link: &ShapedLink,
    spec: &Spec,
    terms: Terms,
    interrupt: &Interrupt,
) -> Result<Evidence> {
    ensure!(spec.pattern.is_some() || spec.guest.pattern().is_some(), "guest '{}' keeps no log", spec.guest.name);
    link.shape(terms.link)?;
    let address = format!("{}:{PORT}", link.address(SOURCE.other()));
    let sink = Sink::listen(link.namespace(SOURCE.other()).as_deref(), &address)?;
    let parameters = json!({
        "max-bandwidth": terms.max_bandwidth.get(),
        "downtime-limit": u64::try_from(terms.downtime_limit.as_millis())?,
    });
    let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
    machine.monitor().execute("migrate-set-capabilities", &events)?;
    machine.monitor().execute("migrate-set-parameters", &parameters)?;
    trace::trace_sections(machine.monitor())?;

    let ours = [machine.pid(), std::process::id()];
    let (cpu, requested) = (CpuTime::now(&ours), SystemTime::now());
    machine.monitor().execute("migrate", &json!({ "uri": format!("tcp:{address}") }))?;
    let (route, done) = (Route { link, from: SOURCE, port: PORT }, AtomicBool::new(false));
    let (watched, sender_buffer_bytes) = thread::scope(|scope| {
        let buffer = scope.spawn(|| watch_buffer(route, &done));
        let watched = migration::watch(machine.monitor(), None, route, terms, interrupt);
        done.store(true, Ordering::Relaxed);
        (watched, buffer.join().ok().flatten())
    });
    let watched = match watched {
        Ok(watched) => watched,
        // A sink that cannot follow the stream hangs up, and the source says only that.
        Err(error) => return Err(sink.refusal().unwrap_or(error)),
    };
    ensure!(watched.completed, "the migration was given up after {:.0} s", terms.give_up.as_secs_f64());
    let received = sink.finish()?;
    let elapsed = requested.elapsed().unwrap_or_default().as_secs_f64();
    let others = cpu.zip(CpuTime::now(&ours)).map(|(before, after)| after.of_others_since(before) / elapsed);

    let said = |value: &serde_json::Value, key: &str| {
        value[key].as_u64().with_context(|| format!("query-migrate says no {key}"))
    };
    let (status, ram) = (&watched.status, &watched.status["ram"]);
    let about = About {
        requested_unix_ns: i64::try_from(requested.duration_since(UNIX_EPOCH)?.as_nanos())?,
        hypervisor_version: machine.version().to_owned(),
        accelerator: spec.accel.to_string(),
        link_bits_per_second: terms.link.bits(),
        settings: terms.settings(),
        total_time_ms: said(status, "total-time")?,
        downtime_ms: said(status, "downtime")?,
        dirty_sync_count: said(ram, "dirty-sync-count")?,
        normal_pages: said(ram, "normal")?,
        duplicate_pages: said(ram, "duplicate")?,
        stream_bytes: received.bytes,
        other_cpu_cores: others,
        sender_buffer_bytes,
    };
    let traced = machine.traced();
    let blocks = received.blocks.clone();
    let mut iterations = iterations(&traced, received, requested)?;
    tell_due(&mut iterations, &machine.readings(), requested);
    Ok(Evidence { about, blocks, iterations, windows: windows(&traced, requested), log: machine.log().lines() })
}

/// How large the sender's buffer has grown when `done` is set.
fn watch_buffer(route: Route, done: &AtomicBool) -> Option<u64> {
    let mut last = None;
    while !done.load(Ordering::Relaxed) {
        // The connection is gone as soon as the source has finished.
        last = connection::send_buffer(route).or(last);
        thread::sleep(BUFFER_LOOK);
    }
    last
}

/// Time since the request, to the microsecond.
fn since(at: SystemTime, requested: SystemTime) -> Duration {
    Duration::from_micros(at.duration_since(requested).unwrap_or_default().as_micros().try_into().unwrap_or(u64::MAX))
}

fn windows(traced: &[Traced], requested: SystemTime) -> Vec<Window> {
    let window = |traced: &Traced| match traced.what {
        What::WindowClosed(bytes, millis) => Some(Window { closed: since(traced.at, requested), bytes, millis }),
        _ => None,
    };
    traced.iter().filter_map(window).collect()
}

/// Gives each iteration what was due after its reading, told before its first step.
fn tell_due(iterations: &mut [Iteration], readings: &[Reading], requested: SystemTime) {
    for reading in readings {
        let at = since(reading.at, requested);
        if let Some(iteration) = iterations.iter_mut().rfind(|iteration| iteration.sync.ended <= at) {
            iteration.due = Some(reading.pending_bytes / PAGE_SIZE);
        }
    }
}

/// Puts the sections that arrived between the readings of the dirty log. The trace has both in their order: set-up's
/// reading first, then as many sections as arrived; ram_save_complete reads the log within its own, before its first page.
fn iterations(traced: &[Traced], received: Received, requested: SystemTime) -> Result<Vec<Iteration>> {
    let mut iterations: Vec<Iteration> = Vec::new();
    let mut arrived = received.sections.into_iter();
    let mut began = Duration::ZERO;
    for Traced { at, what } in traced {
        let at = since(*at, requested);
        match what {
            What::SyncBegan => {
                iterations.push(Iteration { sync: Span { began: at, ended: at }, due: None, steps: Vec::new() })
            }
            What::SyncEnded => iterations.last_mut().context("a reading ended that did not begin")?.sync.ended = at,
            What::SectionBegan(name) if name == RAM => began = at,
            What::SectionEnded(name) if name == RAM => {
                let section = arrived.next().context("the trace has more sections than the stream")?;
                let (span, arrived) = (Span { began, ended: at }, since(section.at, requested));
                let iteration = iterations.last_mut().context("a section before the first reading")?;
                iteration.steps.push(Step { span, arrived, pages: section.pages });
            }
            _ => {}
        }
    }
    if arrived.next().is_some() {
        bail!("the stream has more sections than the trace");
    }
    Ok(iterations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Arrived;
    use migcast_record::stream::Page;

    fn traced(events: &[(u64, What)]) -> Vec<Traced> {
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        events.iter().map(|(millis, what)| Traced { at: at(*millis), what: what.clone() }).collect()
    }

    /// Set-up, a step, a reading, a step, and the end with a reading of its own.
    fn events() -> Vec<(u64, What)> {
        let (began, ended) = (What::SectionBegan(RAM.to_owned()), What::SectionEnded(RAM.to_owned()));
        let (sync, synced) = (What::SyncBegan, What::SyncEnded);
        let setup = [(1, What::SectionBegan("slirp".to_owned())), (2, sync.clone()), (3, synced.clone())];
        let live = [(5, began.clone()), (6, ended.clone()), (7, sync.clone()), (8, synced.clone())];
        let more = [(9, began.clone()), (10, ended.clone()), (10, What::WindowClosed(4096, 100))];
        let last = [(11, began), (12, sync), (13, synced), (14, ended), (15, What::SectionBegan("cpu".to_owned()))];
        [setup.as_slice(), &live, &more, &last].concat()
    }

    fn received(sections: u64) -> Received {
        let section = |index| Arrived { pages: vec![Page { index, zero: false }], at: UNIX_EPOCH };
        Received { sections: (0..sections).map(section).collect(), ..Received::default() }
    }

    #[test]
    fn sections_fall_between_readings_and_the_last_one_reads_for_itself() {
        let iterations = iterations(&traced(&events()), received(3), UNIX_EPOCH).unwrap();
        let pages: Vec<Vec<u64>> =
            iterations.iter().map(|iteration| iteration.pages().map(|page| page.index).collect()).collect();
        assert_eq!(pages, [vec![0], vec![1], vec![2]]);
        let millis = Duration::from_millis;
        assert_eq!(iterations[2].sync, Span { began: millis(12), ended: millis(13) });
        assert_eq!(iterations[2].steps[0].span, Span { began: millis(11), ended: millis(14) });
    }

    #[test]
    fn stream_and_trace_must_agree() {
        let of = |sections| iterations(&traced(&events()), received(sections), UNIX_EPOCH).unwrap_err().to_string();
        assert_eq!(of(2), "the trace has more sections than the stream");
        assert_eq!(of(4), "the stream has more sections than the trace");
    }

    #[test]
    fn a_reading_tells_what_is_due_in_its_iteration() {
        let mut iterations = iterations(&traced(&events()), received(3), UNIX_EPOCH).unwrap();
        let at = UNIX_EPOCH + Duration::from_millis(8);
        tell_due(&mut iterations, &[Reading { at, pending_bytes: 7 * PAGE_SIZE }], UNIX_EPOCH);
        assert_eq!(iterations.iter().map(|iteration| iteration.due).collect::<Vec<_>>(), [None, Some(7), None]);
    }

    #[test]
    fn windows_are_kept_with_their_time() {
        let windows = windows(&traced(&events()), UNIX_EPOCH);
        assert_eq!(windows, [Window { closed: Duration::from_millis(10), bytes: 4096, millis: 100 }]);
    }
}
