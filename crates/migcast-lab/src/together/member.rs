//! A guest of a fleet: booted, recorded with the others, and at one end of the link.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::interrupt::Interrupt;
use crate::link::End;
use crate::machine::{Images, Machine, Spec};
use crate::process::{Running, ending};
use crate::recording;

/// What a guest is, wherever it runs.
#[derive(Clone, Debug)]
pub struct About {
    /// What it is called in the fleet.
    pub name: String,
    /// How it is booted.
    pub spec: Spec,
    /// What it is booted from.
    pub images: Images,
}

/// A guest that runs.
#[derive(Debug)]
pub struct Member {
    /// What it is.
    pub about: About,
    /// What runs it now.
    pub machine: Machine,
    /// Its end of the link.
    pub at: End,
}

/// How often recorders are looked after.
const LOOK: Duration = Duration::from_millis(100);
/// How long a recorder may take beyond what it was told: it tries its means first.
const RECORD_SLACK: Duration = Duration::from_secs(60);

/// Boots all guests at once and waits until each is ready.
///
/// # Errors
/// One does not start or get ready, or we are interrupted.
pub fn boot(asked: Vec<About>, interrupt: &Interrupt) -> Result<Vec<Member>> {
    let start = |about: About| {
        let machine = Machine::start(&about.images, &about.spec, interrupt);
        let machine = machine.with_context(|| format!("guest '{}'", about.name))?;
        Ok(Member { about, machine, at: End::Here })
    };
    let members: Vec<Member> = asked.into_iter().map(start).collect::<Result<_>>()?;
    for member in &members {
        member.machine.wait_ready(interrupt).with_context(|| format!("guest '{}'", member.about.name))?;
    }
    Ok(members)
}

/// CPU time that the guests' vCPUs take, in cores: what is left of the machine is there for migrating them.
///
/// # Errors
/// A vCPU's time is not told, or we are interrupted.
pub fn own_load(members: &mut [Member], span: Duration, interrupt: &Interrupt) -> Result<f64> {
    let mut vcpus = Vec::new();
    for member in members {
        vcpus
            .push(member.machine.vcpu().with_context(|| format!("guest '{}': QEMU names no vCPU", member.about.name))?);
    }
    let used = || vcpus.iter().map(|vcpu| vcpu.seconds()).sum::<Option<f64>>().context("/proc does not tell CPU times");
    let (began, before) = (Instant::now(), used()?);
    ensure!(!interrupt.wait(span), "interrupted");
    Ok((used()? - before) / began.elapsed().as_secs_f64())
}

/// Records all guests at the same time with the recorder's defaults, each into a new folder within `out`; returns the
/// folders' names in the guests' order.
///
/// # Errors
/// A recorder fails or does not end, or we are interrupted.
pub fn record(
    members: &[Member],
    program: &Path,
    out: &Path,
    span: Duration,
    interrupt: &Interrupt,
) -> Result<Vec<String>> {
    let mut recorders = Vec::new();
    let mut names = Vec::new();
    for member in members {
        let history = recording::free_folder(out, &member.about.name)?;
        let mut command = recording::command(program, &member.machine, &history, (&member.about.name, span), &[]);
        recorders.push(Running::start("migcast record", &mut command, Signal::TERM)?);
        names.push(history.file_name().context("a history has a name")?.to_string_lossy().into_owned());
    }
    let end = Instant::now() + span + RECORD_SLACK;
    for (recorder, member) in recorders.iter_mut().zip(members) {
        let status = loop {
            if let Some(status) = recorder.ended()? {
                break status;
            }
            ensure!(!interrupt.came(), "interrupted");
            ensure!(Instant::now() < end, "guest '{}': migcast record does not end", member.about.name);
            thread::sleep(LOOK);
        };
        ensure!(status.success(), "guest '{}': migcast record {}", member.about.name, ending(status));
    }
    Ok(names)
}
