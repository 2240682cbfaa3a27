//! Made-up recordings: windows from a seed, written to disk and kept in memory to compare with. And migrations of them.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses its own part

use std::collections::BTreeSet;
use std::path::Path;

use migcast_history::format::{Block, Manifest, WrittenMeans};
use migcast_history::reader::History;
use migcast_history::sample::{Sample, Tracked};
use migcast_history::windows::State;
use migcast_history::writer::{NewWindow, WriteError, Writer, ZeroChange};
use migcast_model::algorithm::Algorithm;
use migcast_model::guest::Guest;
use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::simulate::Scenario;
use migcast_model::units::{BytesPerSec, PageCount};

pub const START_NS: i64 = 1_767_225_600_000_000_000;

/// A manifest over blocks of these sizes in pages.
pub fn manifest(blocks: &[u64], sample: Sample) -> Manifest {
    let block = |(index, pages): (usize, &u64)| Block {
        name: format!("block{index}"),
        length_bytes: pages * 4096,
        guest_physical_address: None,
    };
    Manifest {
        format: Manifest::format_now(),
        created: "2026-01-01T00:00:00Z".parse().unwrap(),
        recorder: "test".into(),
        method: "import".into(),
        written_means: WrittenMeans::DirtyLog,
        resource: "ram".into(),
        guest_name: "guest".into(),
        guest_id: "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap(),
        hypervisor: "qemu".into(),
        hypervisor_version: "10.0.2".into(),
        accelerator: "tcg".into(),
        page_size_bytes: 4096,
        blocks: blocks.iter().enumerate().map(block).collect(),
        window_seconds: 0.1,
        sample,
        keep_pages_seconds: None,
        keep_index_seconds: None,
    }
}

/// splitmix64: enough chance for tests, the same on every machine.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A window as a test knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    pub start_unix_ns: i64,
    pub end_unix_ns: i64,
    pub state: State,
    pub written: Vec<u64>,
    pub zero_changes: Vec<ZeroChange>,
    pub cost_us: u32,
}

impl Made {
    pub fn new_window(&self) -> NewWindow<'_> {
        NewWindow {
            start_unix_ns: self.start_unix_ns,
            end_unix_ns: self.end_unix_ns,
            state: self.state,
            written: &self.written,
            zero_changes: &self.zero_changes,
            cost_us: self.cost_us,
        }
    }
}

/// A recording as a test knows it.
#[derive(Clone, Debug)]
pub struct Recording {
    pub manifest: Manifest,
    pub tracked: Tracked,
    pub zero_at_start: Vec<u64>,
    pub windows: Vec<Made>,
}

impl Recording {
    /// `count` windows of 100 ms with up to `written_max` pages each, some gaps, and zero pages that come and go.
    pub fn made_up(manifest: Manifest, seed: u64, count: usize, written_max: u64) -> Recording {
        Self::made_up_every(manifest, seed, count, written_max, 100_000_000)
    }

    /// The same with a window every `period_ns`.
    pub fn made_up_every(manifest: Manifest, seed: u64, count: usize, written_max: u64, period_ns: i64) -> Recording {
        let tracked = Tracked::of(&manifest).unwrap();
        let mut chance = Chance(seed);
        let pages: Vec<u64> = (0..tracked.count()).map(|rank| tracked.page_of_rank(rank)).collect();
        let mut zero: BTreeSet<u64> = pages.iter().copied().filter(|page| page / 8 % 3 == 1).collect();
        let zero_at_start = zero.iter().copied().collect();
        let mut start_unix_ns = START_NS;
        let windows = (0..count).map(|_| {
            start_unix_ns += period_ns + chance.below(1_000_000) as i64;
            let state = match chance.below(20) {
                0 => State::Gap,
                1 => State::Migrating,
                _ => State::Recorded,
            };
            let wanted = if state == State::Recorded { chance.below(written_max + 1) } else { 0 };
            let pick = |chance: &mut Chance| pages[chance.below(pages.len() as u64) as usize];
            let written: BTreeSet<u64> = (0..wanted).map(|_| pick(&mut chance)).collect();
            let touched: BTreeSet<u64> = (0..chance.below(6)).map(|_| pick(&mut chance)).collect();
            let zero_changes = touched.into_iter().map(|page| {
                let now = zero.insert(page) || !zero.remove(&page);
                ZeroChange { page, zero: now }
            });
            let zero_changes = zero_changes.collect();
            let length = 50_000_000 + chance.below(50_000_000) as i64;
            let cost_us = chance.below(5_000) as u32;
            let written = written.into_iter().collect();
            Made { start_unix_ns, end_unix_ns: start_unix_ns + length, state, written, zero_changes, cost_us }
        });
        let windows = windows.collect();
        Recording { manifest, tracked, zero_at_start, windows }
    }

    /// Has one tracked page in `every` written in each recorded window, but for a few at the beginning and at the end.
    pub fn write_on_end(&mut self, every: u32) {
        let count = self.windows.len();
        let ranks = (0..self.tracked.count()).filter(|rank| rank.is_multiple_of(every));
        let often: Vec<(u64, usize)> =
            ranks.map(|rank| (self.tracked.page_of_rank(rank), rank as usize % 40)).collect();
        for (index, window) in self.windows.iter_mut().enumerate().filter(|(_, made)| made.state == State::Recorded) {
            let goes_on = |(_, edge): &&(u64, usize)| (*edge..count - edge / 2).contains(&index);
            window.written.extend(often.iter().filter(goes_on).map(|(page, _)| *page));
            window.written.sort_unstable();
            window.written.dedup();
        }
    }

    pub fn write(&self, dir: &Path) -> Result<(), WriteError> {
        let mut writer = Writer::create(dir, self.manifest.clone(), &self.zero_at_start)?;
        for window in &self.windows {
            writer.push(window.new_window())?;
        }
        writer.finish()
    }

    /// The zero pages before each window, and after the last.
    pub fn zero_maps(&self) -> Vec<BTreeSet<u64>> {
        let mut map: BTreeSet<u64> = self.zero_at_start.iter().copied().collect();
        let mut maps = vec![map.clone()];
        for window in &self.windows {
            for change in &window.zero_changes {
                if change.zero {
                    map.insert(change.page)
                } else {
                    map.remove(&change.page)
                };
            }
            maps.push(map.clone());
        }
        maps
    }
}

/// Reads windows back as a test knows them; costs nothing in accuracy: ranks become pages again.
pub fn read_back(history: &History) -> Vec<Made> {
    let mut windows = Vec::new();
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window().unwrap() {
        let page = |rank: u32| history.tracked().page_of_rank(rank);
        windows.push(Made {
            start_unix_ns: view.window.start_unix_ns,
            end_unix_ns: view.window.end_unix_ns,
            state: view.window.state,
            written: view.written.iter().map(|rank| page(*rank)).collect(),
            zero_changes: view
                .zero_changes
                .iter()
                .map(|change| ZeroChange { page: page(change.rank), zero: change.zero })
                .collect(),
            cost_us: view.window.cost_us,
        });
    }
    windows
}

/// An error and its causes, as the program shows it.
pub fn line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

/// A migration of so many pages by a named algorithm with these settings, over a link of so many Mbit/s.
pub fn scenario(memory: PageCount, accelerator: &str, name: &str, settings: &[(&str, &str)], mbit: u64) -> Scenario {
    let mut algorithm = Algorithm::named(name).expect("a known algorithm").on_accelerator(accelerator);
    settings.iter().for_each(|(key, value)| algorithm.set(key, value).expect("a known setting"));
    let guest = Guest::new("g", memory.bytes(Guest::PAGE_SIZE));
    let link = Link::ethernet(BytesPerSec::from_bits(mbit * 1_000_000));
    let platform = Platform::default();
    let horizon = Scenario::default_horizon(&guest, &link, &platform, &algorithm);
    Scenario { guest, link, platform, algorithm, horizon }
}
