//! One trial: a guest is started, recorded with `migcast record --xen` and migrated a few times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use migcast_model::units::BytesPerSec;
use serde::{Deserialize, Serialize};

use super::dom0::{self, Done, SEND};
use super::files::Files;
use crate::interrupt::Interrupt;

/// A guest of this laboratory.
#[derive(Clone, Copy, Debug)]
pub struct Guest {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What its kernel is told.
    arguments: &'static str,
}

/// Memory of a guest, in MiB.
const MEMORY_MIB: u32 = 128;
/// Time to boot dom0 and a guest, and around each migration.
const BOOT: Duration = Duration::from_secs(180);
const AROUND: Duration = Duration::from_secs(60);
/// What a migration of this memory may take as a multiple of sending it once.
const PASSES: u32 = 8;

/// All guests.
pub const GUESTS: [Guest; 7] = [
    Guest { name: "idle", about: "nothing but a number a second", arguments: "" },
    Guest {
        name: "quiet",
        about: "500 writes/s, uniform over 5,000 pages",
        arguments: "lab.pattern=uniform:rate=500,pages=5000 lab.seed=1",
    },
    Guest {
        name: "steady",
        about: "2,000 writes/s, uniform over 5,000 pages",
        arguments: "lab.pattern=uniform:rate=2000,pages=5000 lab.seed=2",
    },
    Guest {
        name: "busy",
        about: "5,000 writes/s, uniform over 5,000 pages",
        arguments: "lab.pattern=uniform:rate=5000,pages=5000 lab.seed=3",
    },
    Guest {
        name: "sequential",
        about: "1,000 writes/s, page after page through 5,000",
        arguments: "lab.pattern=sequential:rate=1000,pages=5000 lab.seed=4",
    },
    Guest {
        name: "hot-cold",
        about: "1,500 writes/s over 10,000 pages, 90 % of them to 10 % of the pages",
        arguments: "lab.pattern=hot-cold:rate=1500,pages=10000,hot-pages=0.1,hot-writes=0.9 lab.seed=5",
    },
    Guest {
        name: "verify",
        about: "4,000 pages that are written and checked over and over",
        arguments: "lab.verify=4000",
    },
];

impl Guest {
    /// The guest called `name`.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn named(name: &str) -> Result<&'static Guest> {
        let names = || GUESTS.map(|guest| guest.name).join(", ");
        GUESTS.iter().find(|guest| guest.name == name).with_context(|| format!("guest '{name}': there are {}", names()))
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long the guest is recorded.
    pub record: Duration,
    /// Rates of the pipe, each for `runs` migrations.
    pub rates: Vec<BytesPerSec>,
    /// See `rates`.
    pub runs: u32,
}

/// One migration, as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Migration {
    /// The guest's name.
    pub guest: String,
    /// Rate of the pipe.
    pub bytes_per_second: u64,
    /// From the call of `xl migrate` to its end.
    pub seconds: f64,
    /// Bytes in the pipe, all of xl's.
    pub bytes: u64,
    /// Rounds of libxc's stream, the final one included.
    pub rounds: Vec<Round>,
    /// Whether the guest's own number went on afterwards.
    pub went_on: bool,
}

/// A round of libxc's stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Pages that were sent.
    pub pages: u64,
    /// Frames that were named without a page: the hole of a PVH guest's frame numbers, in the first round.
    pub holes: u64,
    /// When its first and last page data passed, since the stream's first byte.
    pub began_seconds: f64,
    /// See `began_seconds`.
    pub ended_seconds: f64,
}

/// What a trial left.
#[derive(Debug)]
pub struct Trial {
    /// The recording.
    pub history: PathBuf,
    /// In the order in which they were made.
    pub migrations: Vec<Migration>,
}

/// Boots a dom0, starts `guest`, records it into `out` and migrates it. Under emulation something fails now and then: what
/// has left no recording is tried once more.
///
/// # Errors
/// Anything does not start, or what was recorded does not arrive, twice; or a guest that checks its pages found one that is
/// not as it was. A migration that fails is one of the results.
pub fn run(
    files: &Files,
    migcast: &Path,
    guest: &Guest,
    terms: &Terms,
    out: &Path,
    interrupt: &Interrupt,
) -> Result<Trial> {
    let attempt = || -> Result<(PathBuf, Done)> {
        let done = dom0::run(files, migcast, &job(guest, terms), limit(terms), interrupt)?;
        let is_told = |said: &&String| ["xl: ", "recorder: ", "start "].iter().any(|part| said.starts_with(part));
        done.said.iter().filter(is_told).for_each(|said| eprintln!("dom0 {said}"));
        if let Some(failure) = done.said.iter().find_map(|said| said.strip_prefix("failed: ")) {
            bail!("{failure}");
        }
        Ok((done.unpack(guest.name, out)?, done))
    };
    let (history, done) = match attempt() {
        Err(error) if !interrupt.came() => {
            eprintln!("{}: {error:#}; once more", guest.name);
            attempt()
        }
        done => done,
    }
    .context(guest.name)?;
    if let Some(stale) = done.said.iter().find(|said| said.starts_with("STALE ")) {
        bail!("{}: a page did not arrive as it was: {stale}", guest.name);
    }
    Ok(Trial { history, migrations: migrations(guest, &done)? })
}

fn limit(terms: &Terms) -> Duration {
    let memory = f64::from(MEMORY_MIB) * f64::from(1 << 20);
    let once = |rate: &BytesPerSec| Duration::from_secs_f64(memory / rate.get() as f64);
    let migrations: Duration = terms.rates.iter().map(|rate| (AROUND + PASSES * once(rate)) * terms.runs).sum();
    BOOT + terms.record + migrations
}

fn job(guest: &Guest, terms: &Terms) -> String {
    let Guest { name, arguments, .. } = guest;
    let seconds = terms.record.as_secs_f64();
    let rates: Vec<String> = terms.rates.iter().map(|rate| rate.get().to_string()).collect();
    let (rates, runs) = (rates.join(" "), terms.runs);
    format!(
        r#"{SEND}
cat > /tmp/guest.cfg <<X
name="guest"
type="pvh"
memory={MEMORY_MIB}
vcpus=1
tsc_mode="native"
kernel="/guest-kernel"
ramdisk="/guest-initrd"
extra="console=hvc0 rdinit=/init quiet {arguments}"
on_crash="preserve"
X
# The guest's own number; 0 before it has one. Consoles are logged by the name that a domain is made with.
ticks() {{ cat /tmp/guest-guest*.log 2>/dev/null | tr -d '\r' | sed -n 's/^lab: tick //p' | sort -n | tail -1 | grep . || echo 0; }}
for attempt in 1 2 3; do
    rm -f /tmp/guest-guest*.log
    xl create -q /tmp/guest.cfg > /tmp/create.log 2>&1
    waited=0
    while [ "$(ticks)" -lt 4 ] && [ $waited -lt 40 ]; do sleep 1; waited=$((waited + 1)); done
    [ "$(ticks)" -ge 4 ] && break
    # Under emulation one start in twenty fails.
    echo "lab: start $attempt of the guest failed"
    xl destroy guest
done
[ "$(ticks)" -ge 4 ] || {{ echo "lab: failed: the guest does not start: $(tail -1 /tmp/create.log)"; exit; }}
migcast record --xen guest --name {name} --out /tmp/{name} --duration {seconds}s --cpu-limit 50% > /dev/null 2> /tmp/record.log ||
    {{ echo "lab: failed: $(tr '\n' ' ' < /tmp/record.log)"; exit; }}
sed 's/^/lab: recorder: /' /tmp/record.log
send /tmp {name}
for rate in {rates}; do
    run=0
    while [ $run -lt {runs} ]; do
        run=$((run + 1))
        before=$(ticks)
        read began rest < /proc/uptime
        rm -f /tmp/rounds
        timeout $((60 + {PASSES} * {MEMORY_MIB} * 1048576 / rate)) \
            xl -vvv migrate -s '' guest "throttle $rate /tmp/rounds | xl migrate-receive" > /tmp/xl.log 2>&1 ||
            tail -25 /tmp/xl.log | sed 's/^/lab: xl: /'
        read ended rest < /proc/uptime
        sleep 4
        echo "lab: migration $rate $began $ended $before $(ticks)"
        [ -f /tmp/rounds ] && sed 's/^/lab: /' /tmp/rounds
    done
done
grep -h STALE /tmp/guest-guest*.log
"#
    )
}

/// `migration RATE BEGAN ENDED BEFORE AFTER`, then what the throttle logged: `round …` and `end BYTES NANOS`.
fn migrations(guest: &Guest, done: &Done) -> Result<Vec<Migration>> {
    let mut migrations: Vec<Migration> = Vec::new();
    for said in &done.said {
        let words: Vec<&str> = said.split(' ').collect();
        let number = |at: usize| -> Result<f64> {
            words.get(at).and_then(|word| word.parse().ok()).with_context(|| format!("dom0 said '{said}'"))
        };
        match words[0] {
            "migration" => migrations.push(Migration {
                guest: guest.name.to_owned(),
                bytes_per_second: number(1)? as u64,
                seconds: number(3)? - number(2)?,
                bytes: 0,
                rounds: Vec::new(),
                went_on: number(5)? > number(4)?,
            }),
            "round" => {
                let round = Round {
                    pages: number(3)? as u64,
                    holes: number(4)? as u64,
                    began_seconds: number(1)? / 1e9,
                    ended_seconds: number(2)? / 1e9,
                };
                migrations.last_mut().context("a round of no migration")?.rounds.push(round);
            }
            "end" => migrations.last_mut().context("an end of no migration")?.bytes = number(1)? as u64,
            _ => {}
        }
    }
    Ok(migrations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_well_formed_and_fit() {
        for guest in &GUESTS {
            let pattern = guest.arguments.split(' ').find_map(|word| word.strip_prefix("lab.pattern="));
            let pages = pattern.map_or(0, |text| text.parse::<migcast_dirty::pattern::Pattern>().unwrap().pages());
            assert!(pages / 256 < MEMORY_MIB / 2, "{} fits its memory", guest.name);
        }
        assert!(Guest::named("mail").unwrap_err().to_string().starts_with("guest 'mail': there are idle"));
    }

    #[test]
    fn a_migration_is_read_from_what_dom0_said() {
        let said = "dom0 ready\nmigration 10000000 12.5 33.1 9 31\nround 0 14000000000 32784 1011696\nround \
                    14000000000 15000000000 400 0\nend 150000000 15100000000";
        let done = Done::of(said.lines().map(str::to_owned).collect());
        let [migration] = migrations(&GUESTS[1], &done).unwrap().try_into().unwrap();
        assert!((migration.seconds - 20.6).abs() < 1e-9 && migration.went_on);
        assert_eq!((migration.rounds.len(), migration.rounds[1].pages, migration.bytes), (2, 400, 150_000_000));
        let done = Done::of(vec!["migration fast".to_owned()]);
        assert!(migrations(&GUESTS[1], &done).unwrap_err().to_string().contains("migration fast"));
    }
}
