//! Many migrations at once: sets of guests simulated together, against each of them simulated alone. Run by
//! `cargo xtask bench`.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

use std::time::{Duration, Instant};

use migcast_model::algorithm::Algorithm;
use migcast_model::dirty::{WwsIndex, WwsIndexBuilder};
use migcast_model::due::DueSource;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{BytesPerSec, PageCount};
use migcast_model::world::{self, Job, Limits, NodeId, Topology};

const WINDOW: Duration = Duration::from_millis(100);
const WINDOWS: u64 = 600;
/// 1 GiB.
const PAGES: u64 = 1 << 18;
const HOSTS: usize = 100;
/// Writes a window of the kinds of guests: 0 to 20,000 pages a second.
const WRITES: [u64; 4] = [0, 100, 500, 2_000];

fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A minute of a guest that writes into a tenth of its memory.
fn index(writes: u64) -> WwsIndex {
    let mut builder = WwsIndexBuilder::new(PageCount::new(PAGES), PageCount::new(PAGES));
    for window in 0..WINDOWS {
        let mut written: Vec<u32> =
            (0..writes).map(|write| (mixed((window << 20) + write) % (PAGES / 10)) as u32).collect();
        written.sort_unstable();
        written.dedup();
        builder.window(WINDOW, &written, &[]);
    }
    builder.build().expect("it has windows")
}

fn main() {
    let sources: Vec<WwsIndex> = WRITES.map(index).into();
    let line = BytesPerSec::from_bits(10_000_000_000);
    let scenario = Scenario {
        guest: Guest::new("g", PageCount::new(PAGES).bytes(Guest::PAGE_SIZE)),
        link: Link::ethernet(line),
        platform: Platform::default(),
        algorithm: Algorithm::named("qemu")
            .and_then(|mut qemu| qemu.set("max-bandwidth", "none").map(|()| qemu))
            .expect("QEMU"),
        horizon: Duration::from_secs(600),
    };
    let (star, hosts) = Topology::star(HOSTS, scenario.link.goodput());
    println!("{:>8}{:>26}{:>14}{:>14}{:>14}{:>8}", "guests", "limits", "alone", "together", "a guest", "ratio");
    let policies = [
        ("one after the other", Limits::ONE),
        ("2 a host, 5 in all", Limits::KUBEVIRT),
        ("2 a host", Limits { in_all: usize::MAX, ..Limits::KUBEVIRT }),
    ];
    for count in [100, 1_000, 10_000] {
        let job = |number: u64| {
            let from = (mixed(number) % HOSTS as u64) as usize;
            let by = 1 + (mixed(number << 32) % (HOSTS as u64 - 1)) as usize;
            let source: &dyn DueSource = &sources[(mixed(number << 16) % WRITES.len() as u64) as usize];
            let ends: [NodeId; 2] = [hosts[from], hosts[(from + by) % HOSTS]];
            let start = WINDOW * (mixed(number) % WINDOWS) as u32;
            Job { start, ..Job::new(&scenario, source, ends[0], ends[1]) }
        };
        let jobs: Vec<Job<'_>> = (0..count).map(job).collect();
        let began = Instant::now();
        let ended = jobs.iter().filter(|job| scenario.run(job.source, job.start).completed().is_some()).count();
        let alone = began.elapsed();
        assert!(ended > 0, "some converge");
        for (name, limits) in policies {
            let began = Instant::now();
            let done = world::simulate(&star, limits, &[], &jobs).expect("all may begin");
            let together = began.elapsed();
            println!(
                "{count:>8}{name:>26}{:>12.3} s{:>12.3} s{:>11.1} µs{:>8.1}",
                alone.as_secs_f64(),
                together.as_secs_f64(),
                together.as_secs_f64() * 1e6 / done.len() as f64,
                together.as_secs_f64() / alone.as_secs_f64(),
            );
        }
    }
}
