//! `verify PAGES`: writes pages over and over and looks whether each still holds what was written last, until it is stopped.
//!
//! A page that a migration left behind holds an older number than the list says, or the list an older one than the page.
//! It prints `lab: verified ROUNDS` about once a second, and `lab: STALE PAGE HOLDS EXPECTED` for each page that is not as
//! it should be.

use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use migcast_dirty::pagemap::PAGE_SIZE;
use migcast_dirty::schedule::Random;

/// Pages written between two rests.
const BURST: u64 = 20;
const REST: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let Some(pages) = std::env::args().nth(1).and_then(|text| text.parse::<usize>().ok()).filter(|pages| *pages > 0)
    else {
        eprintln!("verify: usage: verify PAGES, at least 1");
        return ExitCode::FAILURE;
    };
    let words = PAGE_SIZE / size_of::<u64>();
    let (mut memory, mut expected) = (vec![0_u64; pages * words], vec![0_u64; pages]);
    let (mut random, mut number) = (Random::new(2010), 0_u64);
    let (mut round, mut told) = (0_u64, Instant::now());
    loop {
        for _ in 0..BURST {
            let page = (random.bits() % pages as u64) as usize;
            number += 1;
            // In another place of the page each time.
            let place = page * words + (number as usize % (words - 1)) + 1;
            memory[page * words] = number;
            memory[place] = number;
            expected[page] = number;
        }
        sleep(REST);
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            round += 1;
            for (page, expected) in expected.iter().enumerate() {
                let holds = std::hint::black_box(memory[page * words]);
                if holds != *expected {
                    println!("lab: STALE {page} {holds} {expected}");
                }
            }
            println!("lab: verified {round}");
        }
    }
}
