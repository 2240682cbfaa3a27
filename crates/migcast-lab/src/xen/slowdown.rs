//! How much a recording through Xen's log slows a guest: a computation's progress with and without it, in alternating
//! blocks.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::dom0;
use super::files::Files;
use super::guest::Guest;
use super::trial::{BOOT, EMULATED, start};
use crate::interrupt::Interrupt;
use crate::slowdown::Slowdown;

/// The guest that tells of its progress.
const GUEST: &str = "work";
/// A block of seconds, and what of it is left out at its start: a recording's own start.
const BLOCK: u32 = 8;
const SETTLE: u32 = 3;

/// Measures `pairs` pairs of blocks, 100 ms windows, the recorder's default limits.
///
/// # Errors
/// The guest or the recorder does not start, or says nothing.
pub fn measure(files: &Files<'_>, migcast: &Path, pairs: u32, interrupt: &Interrupt) -> Result<Slowdown> {
    let guest = Guest::named(GUEST)?;
    let limit = EMULATED * (BOOT + Duration::from_secs(u64::from(4 * pairs * BLOCK)));
    let done = dom0::run(files, migcast, guest, (&job(guest, pairs), limit), interrupt)?;
    if let Some(failure) = done.said.iter().find_map(|said| said.strip_prefix("failed: ")) {
        bail!("{failure}");
    }
    slowdown(&done.said)
}

/// `block on|off MICROS STEPS MICROS STEPS`: the computation's time and steps at the block's start and end.
fn slowdown(said: &[String]) -> Result<Slowdown> {
    let mut blocks = Vec::new();
    for line in said.iter().filter_map(|said| said.strip_prefix("block ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let numbers: Option<Vec<f64>> = words.iter().skip(1).map(|word| word.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == 4).with_context(|| format!("not a block: '{line}'"))?;
        blocks.push((words[0] == "on", (numbers[3] - numbers[1]) / (numbers[2] - numbers[0])));
    }
    Ok(Slowdown::of_recorder(&blocks))
}

fn job(guest: &Guest, pairs: u32) -> String {
    let (start, blocks, length) = (start(guest), 2 * pairs, BLOCK + SETTLE);
    format!(
        r#"{start}
work() {{ cat /tmp/guest-guest*.log | tr -d '\r' | sed -n 's/^lab: work \([0-9]* [0-9]*\)$/\1/p' | tail -1; }}
block=0
while [ $block -lt {blocks} ]; do
    # On first, then off first, and so on: a drift of the machine's speed falls on both alike.
    if [ $(( (block / 2 + block) % 2 )) = 0 ]; then
        state=on
        rm -rf /tmp/history
        migcast record --xen guest --out /tmp/history --duration {length}s > /dev/null 2> /tmp/record.log &
    else
        state=off
    fi
    sleep {SETTLE}
    from=$(work)
    sleep {BLOCK}
    echo "lab: block $state $from $(work)"
    if [ $state = on ]; then
        wait || {{ echo "lab: failed: $(tr '\n' ' ' < /tmp/record.log)"; exit; }}
    fi
    block=$((block + 1))
done
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_compared_whichever_came_first() {
        let said =
            ["block on 0 0 10 90", "block off 10 90 20 190", "dom0 x", "block off 20 0 30 100", "block on 30 0 40 80"];
        let measured = slowdown(&said.map(str::to_owned)).unwrap();
        let expected = [0.1, 0.2];
        assert!(measured.pairs.iter().zip(expected).all(|(pair, expected)| (pair - expected).abs() < 1e-9));
        assert!(slowdown(&["block on 1 2".to_owned()]).is_err());
    }
}
