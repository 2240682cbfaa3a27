//! One trial: every guest of the fleet migrated to the other end of the link, as a policy says.

use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;

use super::dispatcher::Dispatcher;
use super::kept::{FORMAT, Moved, TcpLook, Trial};
use super::member::{About, Member};
use super::plan::{Plan, Policy};
use crate::connection::{self, PORT, Progress, Route};
use crate::interrupt::Interrupt;
use crate::link::{End, ShapedLink};
use crate::load::CpuTime;
use crate::migration::{self, Migrated, Prepared, Terms};

/// How often a move whose time may have come is looked for; ends are told at once.
const LOOK: Duration = Duration::from_millis(20);
/// How often TCP is asked how far it is.
const TCP_LOOK: Duration = Duration::from_secs(1);
/// Downtime that a guest is allowed which did not converge and is brought after the others.
const FETCHED_DOWNTIME: Duration = Duration::from_secs(30);

/// A migration that has ended.
struct Ended {
    /// Place of its move.
    place: usize,
    /// When it was requested.
    requested: SystemTime,
    /// What became of it.
    migrated: Migrated,
}

/// A plan, and which of its policies is tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The policy.
    pub policy: &'a Policy,
}

/// Migrates all `members`, which are at the same end, as the policy says, each with a target that stands ready before the
/// first begins. Returns what happened, without what is not its business: the plan's file and the guests' own load.
///
/// # Errors
/// The policy does not move exactly these guests, a migration fails (which is not the same as giving up), or we are
/// interrupted; the guests are gone then.
pub fn carry_out(
    tried: Tried,
    members: &mut Vec<Member>,
    link: &ShapedLink,
    terms: Terms,
    interrupt: &Interrupt,
) -> Result<Trial> {
    let from = members.first().context("a fleet has guests")?.at;
    ensure!(members.iter().all(|member| member.at == from), "the guests are at different ends");
    let (abouts, prepared) = prepare(tried.policy, members, link, terms, interrupt)?;
    let mut ours: Vec<u32> = prepared.iter().flat_map(Prepared::pids).collect();
    ours.push(std::process::id());
    let (cpu, began, watching) = (CpuTime::now(&ours), Instant::now(), AtomicBool::new(true));
    let (ended, progress) = thread::scope(|scope| {
        let progress = scope.spawn(|| watch_progress(link, from, &watching));
        let ended = dispatch(tried, prepared, &ours, interrupt);
        watching.store(false, Ordering::Relaxed);
        (ended, progress.join().unwrap_or_default())
    });
    let ended = ended?;
    let others = cpu.zip(CpuTime::now(&ours)).map(|(before, after)| after.of_others_since(before));
    let other_cpu_cores = others.map(|seconds| seconds / began.elapsed().as_secs_f64());

    let first = ended.iter().map(|ended| ended.requested).min().context("a policy moves somebody")?;
    let mut moves = Vec::new();
    // Only now the machines that were left are ended: their CPU time counts as ours to the end.
    for Ended { place, requested, migrated } in ended {
        let (about, Migrated { mut observed, machine, at, .. }) = (abouts[place].clone(), migrated);
        observed.guest.clone_from(&about.name);
        members.push(Member { about, machine, at });
        let begun_seconds = seconds(requested, first);
        let tcp = looks(&progress, port(place), first);
        moves.push(Moved { begun_seconds, ended_seconds: begun_seconds + observed.seconds(), observed, tcp });
    }
    moves.sort_by(|one, other| one.begun_seconds.total_cmp(&other.begun_seconds));
    let all_arrived = moves.iter().all(|moved| moved.observed.completed);
    let makespan = moves.iter().map(|moved| moved.ended_seconds).fold(0.0, f64::max);
    Ok(Trial {
        format: FORMAT.to_owned(),
        requested: Timestamp::try_from(first)?,
        policy: tried.policy.name.clone(),
        plan: PathBuf::new(),
        from: if from == End::Here { "here" } else { "there" }.to_owned(),
        link_bits_per_second: terms.link.bits(),
        settings: terms.settings(),
        machine_cores: u32::try_from(thread::available_parallelism()?.get())?,
        guests_cpu_cores: 0.0,
        other_cpu_cores,
        makespan_seconds: all_arrived.then_some(makespan),
        moves,
    })
}

/// Takes the members in the order of the policy's moves and starts a target for each.
fn prepare<'a>(
    policy: &Policy,
    members: &mut Vec<Member>,
    link: &'a ShapedLink,
    terms: Terms,
    interrupt: &Interrupt,
) -> Result<(Vec<About>, Vec<Prepared<'a>>)> {
    let (mut abouts, mut prepared) = (Vec::new(), Vec::new());
    for (place, one) in policy.moves.iter().enumerate() {
        let member = members.iter().position(|member| member.about.name == one.guest);
        let member = member.with_context(|| format!("the plan moves '{}', which is not in the fleet", one.guest))?;
        let Member { about, machine, at } = members.swap_remove(member);
        let route = Route { link, from: at, port: port(place) };
        prepared.push(Prepared::new(machine, route, &about.spec, &about.images, terms, interrupt)?);
        abouts.push(about);
    }
    if let Some(left) = members.first() {
        bail!("the plan leaves '{}' where it is", left.about.name);
    }
    Ok((abouts, prepared))
}

/// Where the target of a move listens.
fn port(place: usize) -> u16 {
    PORT + u16::try_from(place).expect("a fleet of the laboratory has a few guests")
}

/// Requests each migration as soon as it may begin and watches all that run, each in a thread of its own.
fn dispatch(tried: Tried, prepared: Vec<Prepared>, ours: &[u32], interrupt: &Interrupt) -> Result<Vec<Ended>> {
    let mut waiting: Vec<Option<Prepared>> = prepared.into_iter().map(Some).collect();
    let mut dispatcher = Dispatcher::new(tried.plan, tried.policy);
    let (began, mut ended) = (Instant::now(), Vec::new());
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        while !dispatcher.is_done() {
            for place in dispatcher.begin(began.elapsed()) {
                let underway = waiting[place].take().expect("a move begins once").begin(ours)?;
                let (tell, requested) = (tell.clone(), underway.requested());
                scope.spawn(move || {
                    let migrated = underway.finish(interrupt);
                    // If nobody listens any more another one has failed.
                    let _ = tell.send(
                        migrated
                            .map(|migrated| Ended { place, requested, migrated })
                            .map_err(|error| error.context(format!("guest '{}'", tried.policy.moves[place].guest))),
                    );
                });
            }
            ensure!(!dispatcher.is_stuck(began.elapsed()), "the plan lets none of the waiting guests begin");
            match told.recv_timeout(LOOK) {
                Ok(one) => {
                    let one: Ended = one?;
                    dispatcher.end(one.place);
                    ended.push(one);
                }
                Err(_) => ensure!(!interrupt.came(), "interrupted"),
            }
        }
        Ok(ended)
    })
}

/// Asks TCP how far it is, again and again.
fn watch_progress(link: &ShapedLink, from: End, watching: &AtomicBool) -> Vec<(SystemTime, Progress)> {
    let (mut all, mut next) = (Vec::new(), Instant::now());
    while watching.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next += TCP_LOOK;
            let at = SystemTime::now();
            all.extend(connection::progress(link, from).into_iter().map(|progress| (at, progress)));
        }
        thread::sleep(LOOK);
    }
    all
}

/// How far the connection to a port was.
fn looks(progress: &[(SystemTime, Progress)], port: u16, first: SystemTime) -> Vec<TcpLook> {
    let of_port = progress.iter().filter(|(_, progress)| progress.port == port);
    of_port
        .map(|(at, progress)| TcpLook {
            at_seconds: seconds(*at, first),
            acked_bytes: progress.acked_bytes,
            retransmitted_segments: progress.retransmitted_segments,
        })
        .collect()
}

fn seconds(later: SystemTime, earlier: SystemTime) -> f64 {
    later.duration_since(earlier).unwrap_or_default().as_secs_f64()
}

/// Brings those guests after the others, one by one, that were given up: with a downtime that lets any of them arrive.
///
/// # Errors
/// A migration fails or does not end even so.
pub fn fetch(members: &mut Vec<Member>, to: End, link: &ShapedLink, terms: Terms, interrupt: &Interrupt) -> Result<()> {
    let terms = Terms { downtime_limit: FETCHED_DOWNTIME, ..terms };
    for member in mem::take(members) {
        if member.at == to {
            members.push(member);
            continue;
        }
        let Member { about, machine, at } = member;
        let migrated = migration::migrate(machine, at, link, &about.spec, &about.images, terms, interrupt)
            .with_context(|| format!("fetching guest '{}'", about.name))?;
        ensure!(migrated.at == to, "guest '{}' does not arrive even with a downtime of 30 s", about.name);
        members.push(Member { about, machine: migrated.machine, at: to });
    }
    Ok(())
}
