//! `dirty PATTERN SEED [LOG]`: writes memory by the pattern until it is stopped.
//!
//! It prints `lab: ready` once the working set is filled. The log (a file or a serial line) gets
//! - `pattern PATTERN`, `seed SEED`, and `frames PAGE FRAME COUNT up|down` for each run of the working set;
//! - `wrote NANOS COUNT` every 10 ms: writes of the schedule done so far, at a time counted from its own start;
//! - `moved COUNT` every 10 s: pages that no longer lie where `frames` said.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::iter::Peekable;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use migcast_dirty::pagemap::{self, PAGE_SIZE};
use migcast_dirty::pattern::Pattern;
use migcast_dirty::schedule::{Random, Schedule};

/// How often due writes are carried out.
const TICK: Duration = Duration::from_millis(1);
/// How often the log hears of it.
const LOG_EVERY: Duration = Duration::from_millis(10);
/// How often the page map is looked at again.
const MAP_EVERY: Duration = Duration::from_secs(10);
/// A backlog longer than this is dropped: a guest that was stopped goes on at its rate instead of making up for it.
const BACKLOG_MAX: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("dirty: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: dirty PATTERN SEED [LOG]";
    let pattern: Pattern = args.next().ok_or(usage)?.parse().map_err(|error| format!("{error}"))?;
    let seed: u64 = args.next().ok_or(usage)?.parse().map_err(|_| format!("the seed is a whole number; {usage}"))?;
    let log: Box<dyn Write> = match args.next() {
        Some(path) => {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            Box::new(file.map_err(|error| format!("{path}: {error}"))?)
        }
        None => Box::new(io::sink()),
    };
    let mut memory = WorkingSet::filled(pattern.pages());
    writes_for_ever(&mut memory, pattern, seed, log).map_err(|error| format!("log: {error}"))
}

fn writes_for_ever(memory: &mut WorkingSet, pattern: Pattern, seed: u64, mut log: impl Write) -> io::Result<()> {
    let frames = memory.frames()?;
    let mut head = format!("pattern {pattern}\nseed {seed}\n");
    for run in pagemap::runs(&frames) {
        head.push_str(&format!("frames {run}\n"));
    }
    log.write_all(head.as_bytes())?;
    println!("lab: ready");

    let mut pace = Pace::of(&pattern);
    let mut schedule = Schedule::new(pattern, seed).peekable();
    let start = Instant::now();
    let mut done: u64 = 0;
    let (mut next_log, mut next_map) = (LOG_EVERY, MAP_EVERY);
    loop {
        pace.write_what_is_due(start, &mut schedule, |page| {
            done += 1;
            memory.write(page, done);
        });
        let now = start.elapsed();
        if now >= next_log {
            log.write_all(format!("wrote {} {done}\n", now.as_nanos()).as_bytes())?;
            next_log = now + LOG_EVERY;
        }
        if now >= next_map {
            let moved = memory.frames()?.iter().zip(&frames).filter(|(new, old)| new != old).count();
            log.write_all(format!("moved {moved}\n").as_bytes())?;
            next_map = now + MAP_EVERY;
        }
        pace.rest();
    }
}

/// What decides when a write is carried out.
enum Pace {
    /// The time at which it is due. The schedule's time is the clock's time less what was dropped.
    Clock { dropped: Duration },
    /// So many steps of a computation since the last one.
    Computation { steps: u32, random: Random },
}

impl Pace {
    fn of(pattern: &Pattern) -> Pace {
        match pattern {
            Pattern::Computing { steps, .. } => Pace::Computation { steps: *steps, random: Random::new(0) },
            _ => Pace::Clock { dropped: Duration::ZERO },
        }
    }

    fn write_what_is_due(&mut self, start: Instant, schedule: &mut Peekable<Schedule>, mut write: impl FnMut(u32)) {
        match self {
            Pace::Clock { dropped } => {
                let now = start.elapsed();
                if let Some(next) = schedule.peek() {
                    let late = (now - *dropped).saturating_sub(next.due);
                    if late > BACKLOG_MAX {
                        *dropped += late;
                    }
                }
                let schedule_now = now - *dropped;
                while let Some(due) = schedule.next_if(|write| write.due <= schedule_now) {
                    write(due.page);
                }
            }
            Pace::Computation { steps, random } => {
                for _ in 0..*steps {
                    std::hint::black_box(random.bits());
                }
                schedule.next().into_iter().for_each(|next| write(next.page));
            }
        }
    }

    /// Waits for the next write, if it is the clock that tells when.
    fn rest(&self) {
        if matches!(self, Pace::Clock { .. }) {
            sleep(TICK);
        }
    }
}

/// The pages that are written, each filled with noise so that none is zero and none like another.
struct WorkingSet {
    words: Vec<u64>,
    /// Words before the first page boundary.
    offset: usize,
    pages: u32,
}

const WORDS: usize = PAGE_SIZE / 8;

impl WorkingSet {
    fn filled(pages: u32) -> WorkingSet {
        // One page more than needed, so that a page boundary lies inside.
        let mut random = Random::new(0);
        let words: Vec<u64> = (0..(pages as usize + 1) * WORDS).map(|_| random.bits()).collect();
        let offset = words.as_ptr().align_offset(PAGE_SIZE);
        WorkingSet { words, offset, pages }
    }

    /// Changes the page: `count` differs at every call.
    fn write(&mut self, page: u32, count: u64) {
        let word = &mut self.words[self.offset + page as usize * WORDS];
        // Volatile, because nothing in this program ever reads the word and an ordinary store may be removed.
        // SAFETY: `word` is a valid, aligned, exclusive reference.
        unsafe { std::ptr::write_volatile(word, count) };
    }

    fn frames(&self) -> io::Result<Vec<u64>> {
        if self.pages == 0 {
            return Ok(Vec::new());
        }
        pagemap::frames(self.words[self.offset..].as_ptr().addr(), self.pages)
    }
}
