//! `throttle BYTES_PER_SECOND LOG`: copies standard input to standard output at a set rate and tells what of libxc's
//! stream passed.
//!
//! The log gets `first NANOS`, when the first byte came, since 1970; `round BEGAN ENDED PAGES HOLES` for each round and
//! `end BYTES NANOS` at the end, both in nanoseconds since the first byte.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use migcast_dirty::libxc::Parser;

/// Bytes copied at once: a pipe's worth.
const PIECE: usize = 65_536;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let rate = args.next().and_then(|text| text.parse::<u64>().ok()).filter(|rate| *rate > 0);
    let (Some(rate), Some(log)) = (rate, args.next()) else {
        eprintln!("throttle: usage: throttle BYTES_PER_SECOND LOG");
        return ExitCode::FAILURE;
    };
    match copy(rate, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("throttle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn copy(rate: u64, log: &str) -> io::Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let (mut parser, mut buffer, mut copied) = (Parser::default(), vec![0; PIECE], 0_u64);
    let (mut began, mut free) = (None, Duration::ZERO);
    let mut first = SystemTime::UNIX_EPOCH;
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let began = *began.get_or_insert_with(|| {
            first = SystemTime::now();
            Instant::now()
        });
        parser.feed(&buffer[..count], began.elapsed());
        copied += count as u64;
        // What was not sent while there was nothing to send is lost, as on a link.
        free = free.max(began.elapsed()) + Duration::from_secs_f64(count as f64 / rate as f64);
        sleep(free.saturating_sub(began.elapsed()));
        to.write_all(&buffer[..count])?;
        to.flush()?;
    }
    let mut log = File::create(log)?;
    writeln!(log, "first {}", first.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos())?;
    for round in parser.rounds() {
        let (began, ended) = (round.began.as_nanos(), round.ended.as_nanos());
        writeln!(log, "round {began} {ended} {} {}", round.pages, round.holes)?;
    }
    let passed = began.map_or(0, |began| began.elapsed().as_nanos());
    writeln!(log, "end {copied} {passed}")
}
