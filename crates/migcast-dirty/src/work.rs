//! `work RATE PAGES`: computes without end and writes RATE pages a second, drawn uniformly from PAGES, as it goes.
//!
//! It prints `lab: work MICROS STEPS` five times a second: time since its start, and steps of the computation done so far.
//! What slows the guest shows in the steps.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use migcast_dirty::pagemap::PAGE_SIZE;
use migcast_dirty::schedule::Random;

/// Steps between two looks at the clock.
const STEPS: u64 = 1_000;
const TOLD_EVERY: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1).map(|text| text.parse::<u32>().ok().filter(|number| *number > 0));
    let (Some(Some(rate)), Some(Some(pages))) = (args.next(), args.next()) else {
        eprintln!("work: usage: work RATE PAGES, both at least 1");
        return ExitCode::FAILURE;
    };
    let words = PAGE_SIZE / size_of::<u64>();
    let mut memory = vec![1_u64; pages as usize * words];
    let (mut where_to, mut computed) = (Random::new(2010), Random::new(2005));
    let (began, every) = (Instant::now(), Duration::from_secs(1) / rate);
    let (mut steps, mut due, mut told) = (0_u64, every, TOLD_EVERY);
    loop {
        for _ in 0..STEPS {
            std::hint::black_box(computed.bits());
        }
        steps += STEPS;
        let now = began.elapsed();
        if now >= due {
            let page = (where_to.bits() % u64::from(pages)) as usize;
            std::hint::black_box(&mut memory)[page * words] = steps;
            // Pages that came too late are left out: a slowed guest does not make up for them.
            due = now.max(due + every);
        }
        if now >= told {
            told = now + TOLD_EVERY;
            println!("lab: work {} {steps}", now.as_micros());
        }
    }
}
