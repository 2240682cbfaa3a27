use proptest::prelude::*;

use super::*;
use crate::algorithm::Algorithm;
use crate::dirty::{ConstantRate, WritePattern};
use crate::guest::Guest;
use crate::link::Link;
use crate::platform::Platform;
use crate::units::{ByteCount, PageCount, PagesPerSec};

const RATE: BytesPerSec = BytesPerSec::new(100_000_000);

/// A guest of so many pages that writes so many a second, over a link without a buffer between hosts that cost nothing.
fn scenario(pages: u64, algorithm: &str) -> Scenario {
    let mut algorithm = Algorithm::named(algorithm).unwrap();
    let _ = algorithm.set("max-bandwidth", "none");
    Scenario {
        guest: Guest::new("g", ByteCount::new(pages * 4096)),
        link: Link { line_rate: RATE, payload_share: 1.0, sender_buffer: ByteCount::ZERO },
        platform: Platform::free(),
        algorithm,
        horizon: Duration::from_secs(600),
    }
}

fn source(pages: u64, per_second: f64, seed: u64) -> ConstantRate {
    let (memory, rate) = (PageCount::new(pages), PagesPerSec::new(per_second));
    ConstantRate::new(memory, PageCount::new(pages / 2), rate, WritePattern::Uniform, seed)
}

fn job<'a>(scenario: &'a Scenario, source: &'a dyn DueSource, from: NodeId, to: NodeId) -> Job<'a> {
    Job::new(scenario, source, from, to)
}

/// Rates change between batches of 1,024 pages: one that is under way is finished at the old rate.
const BATCH: f64 = 0.03;

fn seconds(at: SimTime) -> f64 {
    at.since(SimTime::ZERO).as_secs_f64()
}

#[test]
fn one_guest_is_migrated_as_it_is_alone() {
    for algorithm in ["qemu-10.0", "qemu-10.0, capped", "xen-4.10", "cloud-hypervisor", "stop-and-copy", "post-copy"] {
        let mut scenario = scenario(50_000, algorithm.trim_end_matches(", capped"));
        if algorithm.ends_with("capped") {
            scenario.algorithm.set("max-bandwidth", "30MB/s").unwrap();
        }
        scenario.platform = Platform::default();
        scenario.link.sender_buffer = Link::LINUX_SENDER_BUFFER;
        let source = source(50_000, 2_000.0, 7);
        let (star, hosts) = Topology::star(2, RATE);
        let done = simulate(&star, Limits::NONE, &[], &[job(&scenario, &source, hosts[0], hosts[1])]).unwrap();
        assert_eq!(done[0].outcome, scenario.run(&source, Duration::ZERO), "{algorithm}");
        let took = done[0].outcome.completed().unwrap().migration_time;
        assert_eq!(done[0].ended, SimTime::ZERO + took);
    }
}

#[test]
fn guests_that_write_nothing_take_what_their_bytes_take() {
    // 4104 bytes a page: 50,000 and 100,000 pages over 100 MB/s, shared while both run.
    let (small, large) = (scenario(50_000, "stop-and-copy"), scenario(100_000, "stop-and-copy"));
    let (still, also) = (source(50_000, 0.0, 0), source(100_000, 0.0, 0));
    let (star, hosts) = Topology::star(3, RATE);
    let jobs = [job(&small, &still, hosts[0], hosts[1]), job(&large, &also, hosts[0], hosts[2])];
    let alone = small.run(&still, Duration::ZERO).completed().unwrap().migration_time.as_secs_f64();
    let together = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    assert!((seconds(together[0].ended) / alone - 2.0).abs() < BATCH, "{:?}", together[0].ended);
    assert!((seconds(together[1].ended) / alone - 3.0).abs() < BATCH, "{:?}", together[1].ended);
    let in_turn = simulate(&star, Limits::ONE, &[], &jobs).unwrap();
    assert!((seconds(in_turn[0].ended) / alone - 1.0).abs() < BATCH && in_turn[1].began == in_turn[0].ended);
    assert!((seconds(in_turn[1].ended) / alone - 3.0).abs() < BATCH, "nothing is lost or won");
    // From and to other hosts they do not meet.
    let (star, hosts) = Topology::star(4, RATE);
    let apart = [job(&small, &still, hosts[0], hosts[1]), job(&large, &also, hosts[2], hosts[3])];
    let apart = simulate(&star, Limits::NONE, &[], &apart).unwrap();
    assert!(
        (seconds(apart[0].ended) / alone - 1.0).abs() < BATCH && (seconds(apart[1].ended) / alone - 2.0).abs() < BATCH
    );
}

#[test]
fn so_many_alike_on_one_link_end_together_after_all_their_bytes() {
    let scenario = scenario(50_000, "qemu-10.0");
    let source = source(50_000, 0.0, 0);
    let (star, hosts) = Topology::star(2, RATE);
    let alone = scenario.run(&source, Duration::ZERO).completed().unwrap().sent_bytes.transfer_time_ceil(RATE);
    for count in [1u32, 2, 5, 20] {
        let jobs = vec![job(&scenario, &source, hosts[0], hosts[1]); count as usize];
        let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
        let closed = (alone * count).as_secs_f64();
        assert!(
            done.iter().all(|done| (seconds(done.ended) / closed - 1.0).abs() < 1e-3),
            "{count}: {closed} s, {done:?}"
        );
    }
}

#[test]
fn guests_that_write_take_longer_together_than_in_turn() {
    let scenario = scenario(50_000, "xen-4.10");
    let sources = [1, 2, 3].map(|seed| source(50_000, 8_000.0, seed));
    let (star, hosts) = Topology::star(2, RATE);
    let jobs: Vec<Job<'_>> = sources.iter().map(|source| job(&scenario, source, hosts[0], hosts[1])).collect();
    let end = |limits| simulate(&star, limits, &[], &jobs).unwrap().iter().map(|done| done.ended).max().unwrap();
    assert!(seconds(end(Limits::NONE)) > 1.05 * seconds(end(Limits::ONE)));
}

#[test]
fn a_cap_leaves_the_rest_to_others_until_the_guest_is_stopped() {
    let mut capped = scenario(50_000, "qemu-10.0");
    capped.algorithm.set("max-bandwidth", "20MB/s").unwrap();
    let free = scenario(50_000, "stop-and-copy");
    let source = source(50_000, 0.0, 0);
    let (star, hosts) = Topology::star(2, RATE);
    let jobs = [job(&capped, &source, hosts[0], hosts[1]), job(&free, &source, hosts[0], hosts[1])];
    let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    let alone = free.run(&source, Duration::ZERO).completed().unwrap().migration_time.as_secs_f64();
    assert!((seconds(done[1].ended) / alone - 1.25).abs() < 1e-3, "80 of 100 MB/s");
    let rates: Vec<u64> = done[0].grants.iter().map(|(_, rate)| rate.get()).collect();
    assert_eq!(rates, [20_000_000, 100_000_000], "its cap while the other takes the rest, then as fast as the link is");
}

#[test]
fn other_traffic_takes_its_part_from_when_it_comes() {
    let scenario = scenario(50_000, "stop-and-copy");
    let source = source(50_000, 0.0, 0);
    let (star, hosts) = Topology::star(2, RATE);
    let jobs = [job(&scenario, &source, hosts[0], hosts[1])];
    let alone = scenario.run(&source, Duration::ZERO).completed().unwrap().migration_time.as_secs_f64();
    let half = SimTime::ZERO + Duration::from_secs_f64(alone / 2.0);
    let pipe = star.down(hosts[1]);
    let all = [
        Background { at: half, pipe, rate: BytesPerSec::new(50_000_000) },
        Background { at: SimTime::MAX, pipe, rate: BytesPerSec::ZERO },
    ];
    let done = simulate(&star, Limits::NONE, &all, &jobs).unwrap();
    assert!((seconds(done[0].ended) / alone - 1.5).abs() < BATCH, "{:?}", done[0].ended);
}

#[test]
fn jobs_wait_for_their_time_and_for_others_and_never_for_themselves() {
    let scenario = scenario(10_000, "stop-and-copy");
    let source = source(10_000, 0.0, 0);
    let (star, hosts) = Topology::star(2, RATE);
    let plain = job(&scenario, &source, hosts[0], hosts[1]);
    let late = SimTime::ZERO + Duration::from_secs(5);
    let jobs = [Job { after: &[1], ..plain }, Job { not_before: late, ..plain }, plain];
    let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    assert_eq!((done[1].began, done[0].began, done[2].began), (late, done[1].ended, SimTime::ZERO));
    let circle = [Job { after: &[1], ..plain }, Job { after: &[0], ..plain }];
    assert_eq!(simulate(&star, Limits::NONE, &[], &circle), Err(WorldError::NeverBegins(0)));
    let nowhere = [Job { to: hosts[0], ..plain }];
    assert_eq!(simulate(&star, Limits::NONE, &[], &nowhere), Err(WorldError::NowhereToGo(0)));
}

#[test]
fn what_is_kept_for_a_migration_decides_who_begins_beside_it() {
    let scenario = scenario(10_000, "stop-and-copy");
    let source = source(10_000, 0.0, 0);
    let (star, hosts) = Topology::star(4, RATE);
    let kept =
        |share: f64, to: usize| Job { reserved: RATE.scale(share), ..job(&scenario, &source, hosts[0], hosts[to]) };
    let begin = |jobs: &[Job<'_>]| {
        let done = simulate(&star, Limits::NONE, &[], jobs).unwrap();
        let ends: Vec<SimTime> = done.iter().map(|done| done.ended).collect();
        (done.iter().map(|done| done.began).collect::<Vec<_>>(), ends)
    };
    let (began, ended) = begin(&[kept(0.6, 1), kept(0.6, 2), kept(0.4, 3)]);
    assert_eq!(began, [SimTime::ZERO, ended[0], SimTime::ZERO], "the small one fits beside the first");
    let (began, ended) = begin(&[kept(2.0, 1), kept(0.1, 2), kept(0.0, 3)]);
    assert_eq!(
        began,
        [SimTime::ZERO, ended[0], SimTime::ZERO],
        "more than there is runs alone; nothing kept, nothing asked"
    );
}

#[test]
fn a_capped_guest_that_is_stopped_ends_before_what_comes_later() {
    // Its cap is more than the link carries, so that nothing changes when it stops; the third ends long after, elsewhere.
    let mut capped = scenario(20_000, "qemu-10.0");
    capped.algorithm.set("max-bandwidth", "200MB/s").unwrap();
    capped.algorithm.set("downtime-limit", "300ms").unwrap();
    let free = scenario(200_000, "stop-and-copy");
    let (small, large) = (source(20_000, 2_000.0, 1), source(200_000, 0.0, 0));
    let (star, hosts) = Topology::star(4, RATE);
    let first = job(&capped, &small, hosts[0], hosts[1]);
    let jobs = [first, Job { after: &[0], ..first }, job(&free, &large, hosts[2], hosts[3])];
    let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    assert_eq!(done[1].began, done[0].ended);
    assert!(done.iter().all(|done| done.grants.is_sorted_by_key(|(at, _)| *at) && done.began <= done.ended));
    let took = done[0].ended.since(SimTime::ZERO).as_secs_f64();
    assert!((0.8..1.6).contains(&took), "82 MB at 100 MB/s: {took}");
}

#[test]
fn what_waits_for_a_guest_that_is_not_moved_is_not_moved_either() {
    let mut never = scenario(50_000, "qemu-10.0");
    never.horizon = Duration::from_secs(60);
    never.algorithm.set("downtime-limit", "1ms").unwrap();
    let calm = scenario(10_000, "stop-and-copy");
    let (busy, still) = (source(50_000, 60_000.0, 1), source(10_000, 0.0, 0));
    let (mut star, hosts) = Topology::star(3, RATE);
    star.set_room(hosts[0], ByteCount::ZERO);
    let plain = job(&calm, &still, hosts[1], hosts[2]);
    let jobs =
        [job(&never, &busy, hosts[0], hosts[1]), Job { after: &[0], ..plain }, Job { to: hosts[0], ..plain }, plain];
    let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    assert!(matches!(done[0].outcome, Outcome::NotConverged(_)));
    for given_up in &done[1..3] {
        assert!(matches!(&given_up.outcome, Outcome::Cancelled(progress) if progress.sent.is_zero()), "{given_up:?}");
        assert_eq!((given_up.began, given_up.ended), (done[0].ended, done[0].ended));
    }
    assert!(done[3].outcome.completed().is_some());
}

#[test]
fn some_do_not_run_together() {
    let scenario = scenario(10_000, "stop-and-copy");
    let source = source(10_000, 0.0, 0);
    let (star, hosts) = Topology::star(2, RATE);
    let plain = job(&scenario, &source, hosts[0], hosts[1]);
    let jobs = [Job { not_with: &[1], ..plain }, Job { not_with: &[0], ..plain }, plain];
    let done = simulate(&star, Limits::NONE, &[], &jobs).unwrap();
    assert_eq!((done[1].began, done[2].began), (done[0].ended, SimTime::ZERO));
}

#[test]
fn a_guest_waits_for_the_memory_that_another_leaves_behind() {
    let scenario = scenario(10_000, "stop-and-copy");
    let source = source(10_000, 0.0, 0);
    let memory = scenario.guest.memory_bytes();
    let (mut star, hosts) = Topology::star(3, RATE);
    star.set_room(hosts[1], ByteCount::ZERO);
    star.set_room(hosts[2], memory);
    let (in_turn, away) = (job(&scenario, &source, hosts[0], hosts[1]), job(&scenario, &source, hosts[1], hosts[2]));
    let done = simulate(&star, Limits::NONE, &[], &[in_turn, away]).unwrap();
    assert_eq!((done[1].began, done[0].began), (SimTime::ZERO, done[1].ended));
    assert_eq!(simulate(&star, Limits::NONE, &[], &[in_turn]), Err(WorldError::NoRoom(0)));
    // Two that would change places: neither has room before the other has left.
    star.set_room(hosts[2], ByteCount::ZERO);
    let swap = [away, job(&scenario, &source, hosts[2], hosts[1])];
    assert_eq!(simulate(&star, Limits::NONE, &[], &swap), Err(WorldError::NoRoom(0)));
}

/// Every other one of QEMU's gets a cap, of more than it writes.
fn capped(mut scenario: Scenario, number: u64) -> Scenario {
    if number.is_multiple_of(2) {
        let _ = scenario.algorithm.set("max-bandwidth", "30MB/s");
    }
    scenario
}

/// Rates of a job at a time, 0 while it does not run; of one with a cap no more than that, as on the whole.
fn rate_at(job: &Job<'_>, done: &Done, at: SimTime) -> u64 {
    if at < done.began || at >= done.ended {
        return 0;
    }
    let cap = job.scenario.algorithm.scheme().cap().map_or(u64::MAX, BytesPerSec::get);
    done.grants.iter().rev().find(|(from, _)| *from <= at).map_or(0, |(_, rate)| rate.get().min(cap))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_link_is_over_its_rate_no_host_over_its_limits_and_no_byte_is_lost(
        racks in 1usize..3,
        rates in proptest::collection::vec(20u64..200, 8),
        asked in proptest::collection::vec((0usize..6, 0usize..5, 1_000u64..12_000, 0.0..3_000.0f64, 0u64..3, 0u64..4_000), 1..8),
        kept in proptest::collection::vec(0u64..150, 8),
        room in 12_000u64..40_000,
        limits in (1usize..4, 1usize..4, 1usize..6),
    ) {
        let rate = |index: usize| BytesPerSec::new(rates[index % rates.len()] * 1_000_000);
        let mut tree = Topology::new();
        let racks: Vec<NodeId> = (0..racks).map(|index| tree.add(tree.core(), rate(index), rate(index + 1))).collect();
        let hosts: Vec<NodeId> = (0..6).map(|index| tree.add(racks[index % racks.len()], rate(index + 2), rate(index + 3))).collect();
        let room = ByteCount::new(room * 4096);
        hosts.iter().for_each(|host| tree.set_room(*host, room));
        let limits = Limits { out_of_host: limits.0, into_host: limits.1, in_all: limits.2 };
        let algorithms = ["qemu-10.0", "xen-4.10", "stop-and-copy"];
        let scenarios: Vec<Scenario> =
            asked.iter().map(|(_, _, pages, _, which, wait)| capped(scenario(*pages, algorithms[*which as usize]), *wait)).collect();
        let sources: Vec<ConstantRate> =
            asked.iter().zip(0..).map(|((_, _, pages, per_second, ..), seed)| source(*pages, *per_second, seed)).collect();
        let jobs: Vec<Job<'_>> = asked
            .iter()
            .zip(scenarios.iter().zip(&sources))
            .zip(&kept)
            .map(|(((from, by, _, _, _, wait), (scenario, source)), kept)| Job {
                not_before: SimTime::ZERO + Duration::from_millis(*wait),
                reserved: BytesPerSec::new(kept * 1_000_000),
                ..job(scenario, source, hosts[*from], hosts[(from + 1 + by) % hosts.len()])
            })
            .collect();
        let done = simulate(&tree, limits, &[], &jobs);
        if matches!(done, Err(WorldError::NoRoom(_))) {
            return Ok(());
        }
        let done = done.unwrap();
        let capacities: Vec<u64> = tree.rates().map(BytesPerSec::get).collect();
        for at in done.iter().flat_map(|done| done.grants.iter().map(|(at, _)| *at)) {
            let mut used = vec![0u64; capacities.len()];
            for (job, done) in jobs.iter().zip(&done) {
                tree.path(job.from, job.to).into_iter().for_each(|pipe| used[pipe] += rate_at(job, done, at));
            }
            prop_assert!(used.iter().zip(&capacities).all(|(used, capacity)| used <= capacity), "{used:?} of {capacities:?}");
            for (pipe, capacity) in capacities.iter().enumerate() {
                let takes = |(job, done): &(&Job<'_>, &Done)| {
                    job.reserved.get() > 0 && done.began <= at && at < done.ended && tree.path(job.from, job.to).contains(&pipe)
                };
                let kept: Vec<u64> = jobs.iter().zip(&done).filter(takes).map(|(job, _)| job.reserved.get()).collect();
                prop_assert!(kept.len() < 2 || kept.iter().sum::<u64>() <= *capacity, "{kept:?} of {capacity}");
            }
            let runs = |same: &dyn Fn(&Job<'_>) -> bool| {
                jobs.iter().zip(&done).filter(|(job, done)| same(job) && done.began <= at && at < done.ended).count()
            };
            prop_assert!(runs(&|_| true) <= limits.in_all);
            for host in &hosts {
                let sum = |takes: &dyn Fn(&Job<'_>, &Done) -> bool| -> u64 {
                    jobs.iter().zip(&done).filter(|(job, done)| takes(job, done)).map(|(job, _)| job.memory.get()).sum()
                };
                let (come, left) = (sum(&|job, done| job.to == *host && done.began <= at), sum(&|job, done| job.from == *host && done.ended <= at));
                prop_assert!(come <= room.get() + left, "{come} came, {left} left, room for {room:?}");
                prop_assert!(runs(&|job| job.from == *host) <= limits.out_of_host && runs(&|job| job.to == *host) <= limits.into_host);
            }
        }
        for ((job, done), asked) in jobs.iter().zip(&done).zip(&asked) {
            // What does not converge on its share ends some other time.
            let Some(completed) = done.outcome.completed() else { continue };
            prop_assert!(done.began >= job.not_before && done.grants[0].0 == done.began, "{asked:?}");
            let ends = done.grants.iter().skip(1).map(|(at, _)| *at).chain([done.ended]);
            let carried: u64 = done.grants.iter().zip(ends).map(|((at, rate), end)| rate.bytes_in(end.since(*at)).get()).sum();
            // A page, or a batch of them, is finished at the rate it was begun with.
            let slack = 2_000_000 * done.grants.len() as u64;
            prop_assert!(completed.sent_bytes.get() <= carried + slack, "{} of {carried}", completed.sent_bytes.get());
            prop_assert_eq!(done.ended, done.began + completed.migration_time);
        }
    }
}
