//! One trial: a guest is started, recorded with `migcast record --xen` and migrated a few times.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use migcast_model::units::BytesPerSec;

use super::dom0::{self, Done, SEND};
use super::files::Files;
use super::guest::Guest;
use super::log;
use crate::interrupt::Interrupt;

/// What a second of the machine, whose every instruction takes a nanosecond, may take to emulate.
pub(super) const EMULATED: u32 = 10;
/// Time to boot dom0 and a guest, and around each migration, in the machine.
pub(super) const BOOT: Duration = Duration::from_secs(60);
const AROUND: Duration = Duration::from_secs(20);
/// What a migration of this memory may take as a multiple of sending it once.
const PASSES: u32 = 8;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Terms {
    /// How long the guest is recorded.
    pub record: Duration,
    /// Rates of the pipe, each for `runs` migrations.
    pub rates: Vec<BytesPerSec>,
    /// See `rates`.
    pub runs: u32,
    /// The guest is recorded once more while it is being moved for the first time: that recording has to give way.
    pub record_into_migration: bool,
}

/// What a trial left in its folder.
#[derive(Debug)]
pub struct Trial {
    /// The recording.
    pub history: PathBuf,
    /// The raw log ([`log`]).
    pub log: PathBuf,
}

/// Boots a dom0, starts `guest`, records it into `out` and migrates it. Under emulation something fails now and then: what
/// has left no recording is tried once more.
///
/// # Errors
/// Anything does not start, or what was recorded does not arrive, twice; or a guest that checks its pages found one that is
/// not as it was. A migration that fails is one of the results.
pub fn run(
    files: &Files<'_>,
    migcast: &Path,
    guest: &Guest,
    terms: &Terms,
    out: &Path,
    interrupt: &Interrupt,
) -> Result<Trial> {
    let attempt = || -> Result<(PathBuf, Done)> {
        let done = dom0::run(files, migcast, guest, (&job(guest, terms), limit(guest, terms)), interrupt)?;
        let is_told = |said: &&String| ["recorder: ", "start "].iter().any(|part| said.starts_with(part));
        done.said.iter().filter(is_told).for_each(|said| eprintln!("{}: dom0 {said}", guest.name));
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
    let log = log::path(out, guest.name);
    fs::write(&log, done.said.join("\n") + "\n").with_context(|| log.display().to_string())?;
    if let Some(stale) = done.said.iter().find(|said| said.starts_with("STALE ")) {
        bail!("{}: a page did not arrive as it was: {stale}", guest.name);
    }
    Ok(Trial { history, log })
}

fn limit(guest: &Guest, terms: &Terms) -> Duration {
    let memory = f64::from(guest.memory_mib) * f64::from(1 << 20);
    let once = |rate: &BytesPerSec| Duration::from_secs_f64(memory / rate.get() as f64);
    let migrations: Duration = terms.rates.iter().map(|rate| (AROUND + PASSES * once(rate)) * terms.runs).sum();
    EMULATED * (BOOT + terms.record + migrations)
}

/// Starts the guest; a shell function `ticks` tells the guest's own number.
pub(super) fn start(guest: &Guest) -> String {
    let Guest { memory_mib, arguments, .. } = guest;
    let warm = if guest.says_ready() { "grep -q '^lab: ready' /tmp/guest-guest*.log" } else { "true" };
    format!(
        r#"{SEND}
# dom0 shares the one processor with the guest; on a host it has others. With the greatest weight it gets it when it wants it.
xl sched-credit2 -d 0 -w 65535 || {{ echo "lab: failed: Xen's scheduler takes no weight"; exit; }}
cat > /tmp/guest.cfg <<X
name="guest"
type="pvh"
memory={memory_mib}
vcpus=1
tsc_mode="native"
kernel="/guest-kernel"
ramdisk="/guest-initrd"
extra="console=hvc0 rdinit=/init quiet {arguments}"
on_crash="preserve"
X
# The guest's own numbers, each with the longest time it stood before. Consoles are logged by the name that a domain is
# made with.
ticks() {{ cat /tmp/guest-guest*.log 2>/dev/null | tr -d '\r' | sed -n 's/^lab: tick //p'; }}
last_tick() {{ ticks | awk '$1 > last {{ last = $1 }} END {{ print last + 0 }}'; }}
stood_since() {{ ticks | awk -v from="$1" '$1 > from && $2 > most {{ most = $2 }} END {{ print most + 0 }}'; }}
is_gone() {{ grep -q '^lab: gone' /tmp/guest-guest*.log; }}
is_warm() {{ [ "$(last_tick)" -ge 4 ] && {warm} && ! is_gone; }}
give_up_if_gone() {{
    is_gone && {{ echo "lab: failed: a program of the guest ended: $(cat /tmp/guest-guest*.log | tr -d '\r' | grep '^lab: gone' | tail -1)"; exit; }}
}}
for attempt in 1 2 3; do
    rm -f /tmp/guest-guest*.log
    xl create -q /tmp/guest.cfg > /tmp/create.log 2>&1
    waited=0
    while ! is_warm && ! is_gone && [ $waited -lt 40 -o "$(last_tick)" -ge 4 ] && [ $waited -lt 120 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    is_warm && break
    # Under emulation one start in twenty fails.
    echo "lab: start $attempt of the guest failed"
    xl destroy guest
done
is_warm || {{ echo "lab: failed: the guest does not start: $(tail -1 /tmp/create.log)"; exit; }}
"#
    )
}

fn job(guest: &Guest, terms: &Terms) -> String {
    let Guest { name, memory_mib, .. } = guest;
    let seconds = terms.record.as_secs_f64();
    let rates: Vec<String> = terms.rates.iter().map(|rate| rate.get().to_string()).collect();
    let (start, rates, runs) = (start(guest), rates.join(" "), terms.runs);
    let into = if terms.record_into_migration { 1 } else { 0 };
    format!(
        r#"{start}
echo "lab: guest {name} {memory_mib} $(cat /sys/hypervisor/version/major).$(cat /sys/hypervisor/version/minor)$(cat /sys/hypervisor/version/extra)"
migcast record --xen guest --name {name} --out /tmp/{name} --duration {seconds}s --cpu-limit 50% > /dev/null 2> /tmp/record.log ||
    {{ echo "lab: failed: $(tr '\n' ' ' < /tmp/record.log)"; exit; }}
sed 's/^/lab: recorder: /' /tmp/record.log
give_up_if_gone
send /tmp {name}
into={into}
for rate in {rates}; do
    run=0
    while [ $run -lt {runs} ]; do
        run=$((run + 1))
        before=$(last_tick)
        rm -f /tmp/rounds
        if [ $into = 1 ]; then
            {{ migcast record --xen guest --name into --out /tmp/into --cpu-limit 50% > /dev/null 2> /tmp/into.log
               echo "lab: gave-way $? $(tr '\n' ' ' < /tmp/into.log)"; }} &
            sleep 5
        fi
        {{
            echo asked
            timeout $((60 + {PASSES} * {memory_mib} * 1048576 / rate)) \
                xl -vvv migrate -s '' guest "throttle $rate /tmp/rounds | xl migrate-receive" 2>&1
            echo ended $?
        }} | stamp > /tmp/xl.log
        sleep 4
        [ $into = 1 ] && wait && into=0
        echo "lab: migration $rate $before $(last_tick) $(stood_since $before)"
        grep -E ' (asked|ended [0-9]*)$|igration |save-helper|uspend|xc: |rror' /tmp/xl.log | sed 's/^/lab: xl /'
        [ -f /tmp/rounds ] && sed 's/^/lab: /' /tmp/rounds
        give_up_if_gone
    done
done
grep -h '^lab: STALE' /tmp/guest-guest*.log | tr -d '\r'
# What else the guest said.
cat /tmp/guest-guest*.log | tr -d '\r' | grep -v '^lab: tick' | grep . | tail -20 | sed 's/^/lab: console /'
"#
    )
}
