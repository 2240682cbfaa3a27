//! `pulse [BEAT]`: a number that goes up every second shows that the guest runs; beside it stands the longest time for
//! which it did not.
//!
//! It prints `lab: tick NUMBER MICROS` once a second: the longest span between two beats since the line before, by the
//! clock of the wall, which goes on while a guest is being moved. Beats come every BEAT milliseconds, 10 unless told. With
//! a second or more nothing happens between the lines, and they tell the number alone.

use std::env;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

const BEAT: Duration = Duration::from_millis(10);
const TOLD_EVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let beat = match env::args().nth(1).map(|millis| millis.parse()) {
        None => BEAT,
        Some(Ok(millis @ 1..)) => Duration::from_millis(millis),
        Some(_) => {
            eprintln!("usage: pulse [BEAT], milliseconds, at least 1");
            return ExitCode::FAILURE;
        }
    };
    let mut last = SystemTime::now();
    let (mut told, mut longest) = (last, Duration::ZERO);
    for number in 1_u64.. {
        while since(told, last) < TOLD_EVERY {
            sleep(beat);
            let now = SystemTime::now();
            longest = longest.max(since(last, now));
            last = now;
        }
        if beat < TOLD_EVERY {
            println!("lab: tick {number} {}", longest.as_micros());
        } else {
            println!("lab: tick {number}");
        }
        (told, longest) = (last, Duration::ZERO);
    }
    ExitCode::SUCCESS
}

/// Zero where the clock was set back.
fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
