//! The microbenchmark's log of its own writes, turned into pages and times of our clock.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use migcast_dirty::pagemap::Run;
use migcast_dirty::pattern::Pattern;
use migcast_dirty::schedule::Schedule;

use crate::serial::Line;

/// How far the schedule was at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    /// The guest's clock, nanoseconds since `dirty` began.
    guest_ns: i64,
    /// When the line arrived, nanoseconds since the Unix epoch.
    arrived_unix_ns: i64,
    /// Writes done.
    done: u64,
}

/// One write, on our clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedWrite {
    /// Nanoseconds since the Unix epoch; good to a few milliseconds.
    pub unix_ns: i64,
    /// Page of the working set.
    pub page: u32,
}

/// What `dirty` logged.
#[derive(Clone, Debug)]
pub struct WriteLog {
    /// Its pattern.
    pub pattern: Pattern,
    /// Its seed.
    pub seed: u64,
    /// The frame of each page of the working set.
    pub frames: Vec<u64>,
    /// Pages that were found in another frame later on, at most.
    pub moved: u64,
    progress: Vec<Progress>,
}

impl WriteLog {
    /// Reads the log from the lines of the guest's second serial line. A last line that is cut off is left out.
    ///
    /// # Errors
    /// A line that `dirty` does not write, or a log without beginning or progress.
    pub fn parse(lines: &[Line]) -> Result<WriteLog> {
        let (mut pattern, mut seed, mut moved) = (None, None, 0);
        let (mut frames, mut progress) = (Vec::new(), Vec::new());
        for (index, line) in lines.iter().enumerate() {
            let entry = || -> Result<()> {
                let (kind, rest) = line.text.split_once(' ').context("one word")?;
                match kind {
                    "pattern" => pattern = Some(rest.parse::<Pattern>()?),
                    "seed" => seed = Some(rest.parse::<u64>()?),
                    "moved" => moved = moved.max(rest.parse::<u64>()?),
                    "frames" => {
                        let run: Run = rest.parse().map_err(anyhow::Error::msg)?;
                        ensure!(run.page as usize == frames.len(), "frames out of order");
                        frames.extend(run.frames());
                    }
                    "wrote" => progress.push(wrote(rest, line)?),
                    _ => bail!("unknown entry"),
                }
                Ok(())
            };
            if let Err(error) = { entry }() {
                // The guest was stopped in the middle of its last line.
                if index + 1 < lines.len() {
                    return Err(error).with_context(|| format!("log line {}: '{}'", index + 1, line.text));
                }
            }
        }
        let pattern = pattern.context("the log names no pattern")?;
        ensure!(frames.len() == pattern.pages() as usize, "the log has {} of {} frames", frames.len(), pattern.pages());
        ensure!(progress.len() > 1, "the log has no progress");
        let seed = seed.context("the log names no seed")?;
        Ok(WriteLog { pattern, seed, frames, moved, progress })
    }

    /// Reads a log written by [`save`].
    ///
    /// # Errors
    /// The file cannot be read, or as for [`Self::parse`].
    pub fn load(path: &Path) -> Result<WriteLog> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut lines = Vec::new();
        for line in text.lines() {
            lines.push(read(line).with_context(|| format!("{}: '{line}'", path.display()))?);
        }
        WriteLog::parse(&lines).with_context(|| path.display().to_string())
    }

    /// When the guest's clock was zero, on our clock: the line that took the least time from there to here tells, so
    /// it comes out late by that time (a few hundred microseconds), never early.
    fn guest_zero_unix_ns(&self) -> i64 {
        let zero = self.progress.iter().map(|entry| entry.arrived_unix_ns - entry.guest_ns).min();
        zero.expect("parse checks that there is progress")
    }

    /// How much the guest's clock gained on ours (or lost, below zero) from the first half of the log to the second,
    /// in nanoseconds: what [`Self::writes`] may be wrong by.
    pub fn drift_ns(&self) -> i64 {
        let halves = self.progress.split_at(self.progress.len() / 2);
        let zero = |half: &[Progress]| half.iter().map(|entry| entry.arrived_unix_ns - entry.guest_ns).min();
        zero(halves.0).unwrap_or(0) - zero(halves.1).unwrap_or(0)
    }

    /// All writes in order. Between two entries of the log they are taken as evenly spaced.
    pub fn writes(&self) -> Vec<LoggedWrite> {
        let zero = self.guest_zero_unix_ns();
        let mut schedule = Schedule::new(self.pattern.clone(), self.seed);
        let mut writes = Vec::new();
        let (mut before_ns, mut before_done) = (0, 0);
        for entry in &self.progress {
            let count = i64::try_from(entry.done - before_done).expect("writes of 10 ms are few");
            for (index, write) in (0..count).zip(&mut schedule) {
                let guest_ns = before_ns + (entry.guest_ns - before_ns) * (2 * index + 1) / (2 * count);
                writes.push(LoggedWrite { unix_ns: zero + guest_ns, page: write.page });
            }
            (before_ns, before_done) = (entry.guest_ns, entry.done);
        }
        writes
    }

    /// All writes in order until `end_unix_ns`: [`Self::writes`], then what the schedule has due after the log's last
    /// entry, which the guest writes unless it is stopped. A log ends up to 10 ms before its guest.
    pub fn writes_until(&self, end_unix_ns: i64) -> Vec<LoggedWrite> {
        let mut writes = self.writes();
        let Some(last) = self.progress.last() else { return writes };
        let mut due = Schedule::new(self.pattern.clone(), self.seed).skip(writes.len()).peekable();
        let Some(first) = due.peek().map(|write| write.due) else { return writes };
        let zero = self.guest_zero_unix_ns() + last.guest_ns;
        // One that computes goes on as fast as it was.
        let apart =
            matches!(self.pattern, Pattern::Computing { .. }).then(|| last.guest_ns / last.done.max(1).cast_signed());
        let at = |(index, due): (i64, Duration)| match apart {
            Some(apart) => apart.max(1).checked_mul(index + 1)?.checked_add(zero),
            None => i64::try_from((due - first).as_nanos()).ok()?.checked_add(zero),
        };
        let more = (0..)
            .zip(due)
            .map_while(|(index, write)| Some(LoggedWrite { unix_ns: at((index, write.due))?, page: write.page }));
        writes.extend(more.take_while(|write| write.unix_ns < end_unix_ns));
        writes
    }

    /// The span the log covers, on our clock.
    pub fn span_unix_ns(&self) -> (i64, i64) {
        let zero = self.guest_zero_unix_ns();
        (zero, zero + self.progress.last().map_or(0, |entry| entry.guest_ns))
    }
}

fn wrote(text: &str, line: &Line) -> Result<Progress> {
    let (guest_ns, done) = text.split_once(' ').context("no count")?;
    let arrived = line.at.duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_nanos();
    Ok(Progress { guest_ns: guest_ns.parse()?, arrived_unix_ns: i64::try_from(arrived)?, done: done.parse()? })
}

/// Writes the lines of a log with their times of arrival, for [`WriteLog::load`].
///
/// # Errors
/// The file cannot be written.
pub fn save(lines: &[Line], path: &Path) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{}", written(line)?)?;
    }
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// A line of the log with its time of arrival in nanoseconds since the Unix epoch, for [`read`].
pub(crate) fn written(line: &Line) -> Result<String> {
    let at = line.at.duration_since(UNIX_EPOCH).context("a clock before 1970")?;
    Ok(format!("{} {}", at.as_nanos(), line.text))
}

/// What [`written`] made of a line.
pub(crate) fn read(text: &str) -> Result<Line> {
    let (at, text) = text.split_once(' ').context("no time of arrival")?;
    Ok(Line { at: UNIX_EPOCH + Duration::from_nanos(at.parse()?), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at_ms: u64, text: &str) -> Line {
        Line { at: UNIX_EPOCH + Duration::from_millis(at_ms), text: text.to_owned() }
    }

    fn log() -> Vec<Line> {
        vec![
            line(1000, "pattern sequential:rate=100,pages=3"),
            line(1000, "seed 1"),
            line(1000, "frames 0 50 2 up"),
            line(1000, "frames 2 7 1 up"),
            line(1012, "wrote 10000000 1"),
            line(1025, "wrote 20000000 3"),
            line(1026, "moved 0"),
            line(1033, "wrote 30000000 4"),
            line(1034, "wro"),
        ]
    }

    #[test]
    fn a_guest_that_computes_goes_on_as_fast_as_it_was() {
        let lines = log().into_iter().map(|line| match line.text.starts_with("pattern") {
            true => Line { text: "pattern computing:steps=9,pages=3".to_owned(), ..line },
            false => line,
        });
        let log = WriteLog::parse(&lines.collect::<Vec<_>>()).unwrap();
        // Four writes in 30 ms: the next ones 7.5 ms apart, from the last line on.
        let end = log.span_unix_ns().1 + 20_000_000;
        let writes: Vec<_> = log.writes_until(end).iter().map(|write| end - write.unix_ns).collect();
        assert_eq!(writes[4..], [12_500_000, 5_000_000]);
    }

    #[test]
    fn writes_get_pages_and_times_of_our_clock() {
        let log = WriteLog::parse(&log()).unwrap();
        assert_eq!(log.frames, [50, 51, 7]);
        let writes: Vec<_> = log.writes().iter().map(|write| (write.unix_ns / 100_000, write.page)).collect();
        // The quickest line took 2 ms, so the guest's clock began at 1,002 ms or a little before.
        assert_eq!(writes, [(10070, 0), (10145, 1), (10195, 2), (10270, 0)]);
        assert_eq!(log.drift_ns(), -1_000_000);
    }

    #[test]
    fn what_is_due_after_the_log_s_end_follows_at_the_schedule_s_pace() {
        let log = WriteLog::parse(&log()).unwrap();
        let writes = log.writes_until(1_055_000_000);
        assert_eq!(writes[..4], log.writes());
        // The last entry was made at 1,032 ms; 100 writes a second go on from there.
        let more: Vec<_> = writes[4..].iter().map(|write| (write.unix_ns / 1_000_000, write.page)).collect();
        assert_eq!(more, [(1032, 1), (1042, 2), (1052, 0)]);
    }

    #[test]
    fn a_log_is_saved_and_loaded() {
        let path = tempfile::tempdir().unwrap().keep().join("log");
        save(&log(), &path).unwrap();
        assert_eq!(WriteLog::load(&path).unwrap().writes(), WriteLog::parse(&log()).unwrap().writes());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_broken_log_names_the_line() {
        let mut lines = log();
        lines[3].text = "frames 5 7 1 up".into();
        let error = format!("{:#}", WriteLog::parse(&lines).unwrap_err());
        assert_eq!(error, "log line 4: 'frames 5 7 1 up': frames out of order");
        assert!(WriteLog::parse(&log()[..4]).unwrap_err().to_string().contains("no progress"));
    }
}
