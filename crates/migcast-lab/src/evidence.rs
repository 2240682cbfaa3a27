//! What is kept of one captured migration: the pages of its stream between the readings of the dirty log, and the guest's
//! own log of its writes. testdata/lab/streams/README.md describes the file.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::serial::Line;
use crate::write_log;
use migcast_record::stream::{Block, Page};

/// What the first line of a file says.
pub const FORMAT: &str = "migcast.stream/1";
/// zstd: files are written once and read often.
const LEVEL: i32 = 19;

/// A captured migration. Times are counted from its request, in whole microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// How it was made, and what QEMU said of it.
    pub about: About,
    /// The blocks of memory, in QEMU's scan order.
    pub blocks: Vec<Block>,
    /// One per reading of the dirty log, in order; the guest stands still in the last.
    pub iterations: Vec<Iteration>,
    /// QEMU's bandwidth windows.
    pub windows: Vec<Window>,
    /// The lines of the guest's log, from its beginning.
    pub log: Vec<Line>,
}

/// How a migration was made, and what QEMU said of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// When it was requested: nanoseconds since the Unix epoch.
    pub requested_unix_ns: i64,
    /// QEMU's version.
    pub hypervisor_version: String,
    /// `tcg` or `kvm`.
    pub accelerator: String,
    /// Line rate of the link.
    pub link_bits_per_second: u64,
    /// What differed from QEMU's defaults, as `migcast predict --set` takes it.
    pub settings: Vec<String>,
    /// QEMU's `total-time`, milliseconds.
    pub total_time_ms: u64,
    /// QEMU's `downtime`, milliseconds.
    pub downtime_ms: u64,
    /// QEMU's `dirty-sync-count`.
    pub dirty_sync_count: u64,
    /// QEMU's `normal`: pages sent with data.
    pub normal_pages: u64,
    /// QEMU's `duplicate`: pages sent as zeros.
    pub duplicate_pages: u64,
    /// Bytes of the stream that arrived.
    pub stream_bytes: u64,
    /// CPU time that others used meanwhile, in cores.
    pub other_cpu_cores: Option<f64>,
    /// Bytes the sender's kernel held ready for the connection (`tb` of `ss -m`) when last asked.
    pub sender_buffer_bytes: Option<u64>,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (link, settings) = (self.link_bits_per_second / 1_000_000, self.settings.join(" "));
        write!(f, "QEMU {} over {link} Mbit/s, {settings}: ", self.hypervisor_version)?;
        write!(f, "{} ms, down {} ms, {} syncs", self.total_time_ms, self.downtime_ms, self.dirty_sync_count)
    }
}

/// What was sent between two readings of the dirty log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iteration {
    /// The reading it began with.
    pub sync: Span,
    /// Pages due after it, as QEMU's trace tells of readings while the guest ran; not of set-up's and the last.
    pub due: Option<u64>,
    /// Its steps (calls of ram_save_iterate; in the last iteration, ram_save_complete).
    pub steps: Vec<Step>,
}

impl Iteration {
    /// Its pages in the order they were sent.
    pub fn pages(&self) -> impl Iterator<Item = Page> + '_ {
        self.steps.iter().flat_map(|step| step.pages.iter().copied())
    }
}

/// One section of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When the source wrote it.
    pub span: Span,
    /// When its end arrived at the sink.
    pub arrived: Duration,
    /// Its pages in order.
    pub pages: Vec<Page>,
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub began: Duration,
    /// Its end.
    pub ended: Duration,
}

/// A bandwidth window QEMU closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When.
    pub closed: Duration,
    /// Bytes accepted in it.
    pub bytes: u64,
    /// How long it had lasted by QEMU's clock, in milliseconds.
    pub millis: u64,
}

impl Evidence {
    /// Writes the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let packed = zstd::encode_all(self.text()?.as_bytes(), LEVEL).context("packing")?;
        fs::write(path, packed).with_context(|| path.display().to_string())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or a line is not as [`Self::save`] writes it; the message names the line.
    pub fn load(path: &Path) -> Result<Evidence> {
        let packed = fs::read(path).with_context(|| path.display().to_string())?;
        let text = zstd::decode_all(packed.as_slice()).with_context(|| path.display().to_string())?;
        let text = String::from_utf8(text).with_context(|| path.display().to_string())?;
        Evidence::read(&text).with_context(|| path.display().to_string())
    }

    fn text(&self) -> Result<String> {
        let mut text = format!("{FORMAT}\n{}\n", serde_json::to_string(&self.about)?);
        for block in &self.blocks {
            writeln!(text, "block {} {}", block.pages, block.name)?;
        }
        for window in &self.windows {
            writeln!(text, "window {} {} {}", window.closed.as_micros(), window.bytes, window.millis)?;
        }
        for iteration in &self.iterations {
            let due = iteration.due.map(|due| format!(" {due}")).unwrap_or_default();
            writeln!(text, "sync {}{due}", micros(iteration.sync))?;
            for step in &iteration.steps {
                writeln!(text, "step {} {}{}", micros(step.span), step.arrived.as_micros(), runs(&step.pages))?;
            }
        }
        for line in &self.log {
            writeln!(text, "log {}", write_log::written(line)?)?;
        }
        Ok(text)
    }

    fn read(text: &str) -> Result<Evidence> {
        let mut lines = text.lines();
        let format = lines.next().unwrap_or_default();
        ensure!(format == FORMAT, "line 1: '{format}', allowed is '{FORMAT}'");
        let about = serde_json::from_str(lines.next().unwrap_or_default()).context("line 2")?;
        let (blocks, iterations, windows, log) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut evidence = Evidence { about, blocks, iterations, windows, log };
        for (index, line) in lines.enumerate() {
            let start = || line.chars().take(40).collect::<String>();
            evidence.take(line).with_context(|| format!("line {}: '{}'", index + 3, start()))?;
        }
        Ok(evidence)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        let (kind, rest) = line.split_once(' ').context("one word")?;
        match kind {
            "block" => {
                let (pages, name) = rest.split_once(' ').context("no name")?;
                self.blocks.push(Block { name: name.to_owned(), pages: pages.parse()? });
            }
            "window" => {
                let [closed, bytes, millis] = numbers(rest)?;
                self.windows.push(Window { closed: Duration::from_micros(closed), bytes, millis });
            }
            "sync" => self.iterations.push(sync(rest)?),
            "step" => self.iterations.last_mut().context("no 'sync' before it")?.steps.push(step(rest)?),
            "log" => self.log.push(write_log::read(rest)?),
            _ => bail!("allowed are block, window, sync, step and log"),
        }
        Ok(())
    }
}

fn micros(span: Span) -> String {
    format!("{} {}", span.began.as_micros(), span.ended.as_micros())
}

fn numbers<const N: usize>(text: &str) -> Result<[u64; N]> {
    let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
    numbers?.try_into().map_err(|numbers: Vec<u64>| anyhow::anyhow!("{} numbers, expected {N}", numbers.len()))
}

fn sync(text: &str) -> Result<Iteration> {
    let ([began, ended], due) = match numbers(text) {
        Ok([began, ended, due]) => ([began, ended], Some(due)),
        Err(_) => (numbers(text)?, None),
    };
    let sync = Span { began: Duration::from_micros(began), ended: Duration::from_micros(ended) };
    Ok(Iteration { sync, due, steps: Vec::new() })
}

fn step(text: &str) -> Result<Step> {
    let mut words = text.splitn(4, ' ');
    let mut micros = || -> Result<Duration> { Ok(Duration::from_micros(words.next().context("too short")?.parse()?)) };
    let (began, ended, arrived) = (micros()?, micros()?, micros()?);
    let pages = pages(words.next().unwrap_or_default())?;
    Ok(Step { span: Span { began, ended }, arrived, pages })
}

/// Pages as runs, ` GAPdCOUNT` or ` GAPzCOUNT` each: from the end of the run before (0 at first) to the beginning of this
/// one, whether it was sent as data or as zeros, and how many pages on end.
fn runs(pages: &[Page]) -> String {
    let (mut text, mut next) = (String::new(), 0);
    for run in pages.chunk_by(|one, other| other.index == one.index + 1 && other.zero == one.zero) {
        let gap = i128::from(run[0].index) - i128::from(next);
        let _ = write!(text, " {gap}{}{}", if run[0].zero { 'z' } else { 'd' }, run.len());
        next = run[0].index + run.len() as u64;
    }
    text
}

fn pages(runs: &str) -> Result<Vec<Page>> {
    let (mut pages, mut next) = (Vec::new(), 0_u64);
    for run in runs.split_whitespace() {
        let wrong = || format!("run '{run}', allowed is GAPdCOUNT or GAPzCOUNT");
        let at = run.find(['d', 'z']).with_context(wrong)?;
        let (gap, count) = (run[..at].parse().with_context(wrong)?, run[at + 1..].parse::<u64>().with_context(wrong)?);
        let first = next.checked_add_signed(gap).with_context(wrong)?;
        next = first.checked_add(count).with_context(wrong)?;
        pages.extend((first..next).map(|index| Page { index, zero: run.as_bytes()[at] == b'z' }));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn span_of(began: u64, ended: u64) -> Span {
        Span { began: Duration::from_micros(began), ended: Duration::from_micros(ended) }
    }

    fn page(index: u64, zero: bool) -> Page {
        Page { index, zero }
    }

    fn evidence() -> Evidence {
        let about = About {
            requested_unix_ns: 1_000_000_007,
            hypervisor_version: "10.0.2".to_owned(),
            accelerator: "tcg".to_owned(),
            link_bits_per_second: 400_000_000,
            settings: vec!["downtime-limit=300ms".to_owned()],
            total_time_ms: 1,
            downtime_ms: 2,
            dirty_sync_count: 2,
            normal_pages: 4,
            duplicate_pages: 1,
            stream_bytes: 5,
            other_cpu_cores: Some(0.25),
            sender_buffer_bytes: None,
        };
        let pages = vec![page(5, false), page(6, false), page(7, true), page(2, false), page(0, false)];
        let step = |pages| Step { span: span_of(3, 4), arrived: Duration::from_micros(5), pages };
        let iterations = vec![
            Iteration { sync: span_of(1, 2), due: None, steps: vec![step(pages), step(Vec::new())] },
            Iteration { sync: span_of(6, 7), due: Some(8), steps: Vec::new() },
        ];
        let blocks = vec![Block { name: "0000:00:02.0/vga.vram".to_owned(), pages: 9 }];
        let windows = vec![Window { closed: Duration::from_micros(8), bytes: 9, millis: 100 }];
        let log = vec![Line { at: UNIX_EPOCH + Duration::from_nanos(11), text: "wrote 10 1".to_owned() }];
        Evidence { about, blocks, iterations, windows, log }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evidence");
        evidence().save(&path).unwrap();
        assert_eq!(Evidence::load(&path).unwrap(), evidence());
    }

    #[test]
    fn pages_are_written_as_runs() {
        let text = evidence().text().unwrap();
        assert!(text.contains("\nsync 1 2\nstep 3 4 5 5d2 0z1 -6d1 -3d1\nstep 3 4 5\nsync 6 7 8\n"), "{text}");
    }

    #[test]
    fn a_broken_file_names_the_line_and_what_is_allowed() {
        let text = evidence().text().unwrap();
        let refusal = |from: &str, to: &str| format!("{:#}", Evidence::read(&text.replace(from, to)).unwrap_err());
        assert_eq!(refusal("stream/1", "stream/2"), "line 1: 'migcast.stream/2', allowed is 'migcast.stream/1'");
        assert!(refusal("0z1", "0y1").starts_with("line 6: 'step 3 4 5 5d2 0y1"), "{}", refusal("0z1", "0y1"));
        assert!(refusal("-6d1", "-9d1").ends_with("run '-9d1', allowed is GAPdCOUNT or GAPzCOUNT"));
        assert!(refusal("sync 1 2", "wink 1 2").contains("allowed are block, window, sync, step and log"));
        assert!(refusal("sync 1 2", "block 1 x").contains("no 'sync' before it"));
    }
}
