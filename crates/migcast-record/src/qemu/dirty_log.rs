//! QEMU's dirty log, as a migration to nowhere tells it: pages by the history's numbers, and which of them are zero.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use migcast_history::format::Block;
use migcast_history::writer::ZeroChange;

use super::nowhere::{LogError, Nowhere};
use super::settings::Settings;
use super::stream::{self, Event, Page};
use crate::guest::Life;
use crate::memory::{MemoryError, PAGE_SIZE};
use crate::monitor::Monitor;
use crate::qmp::QmpSocket;
use crate::scan::Scan;
use crate::watchdog::Watchdog;
use crate::write_log::{Claim, WriteLog};

/// How long a guest that ends may outlive its migration's stream.
const END_GRACE: Duration = Duration::from_millis(500);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long QEMU may take to notice that its stream has nobody at the other end.
const NOTICE_MAX: Duration = Duration::from_secs(5);
/// How long QEMU may wait for a question.
const WAIT_MAX: Duration = Duration::from_millis(900);

/// The dirty log of one guest.
pub(super) struct DirtyLog {
    monitor: QmpSocket,
    place: PathBuf,
    pid: u32,
    life: Life,
    claim: Rc<Cell<Claim>>,
    /// Makes the command of the child that gives the settings back if this process is killed.
    watchdog: Box<dyn Fn() -> Command>,
    migration: Option<Migration>,
    pages: Pages,
    /// What passes over all memory cost, and what came after them.
    first: (Duration, u64),
    later: (Duration, u64),
    readings: u64,
}

/// A migration to nowhere that goes on.
struct Migration {
    nowhere: Nowhere,
    settings: Settings,
    watchdog: Watchdog,
    began: Instant,
    /// When its pass over all memory was over, and the bytes and sections until then.
    first: Option<(Instant, u64, u64)>,
    asked: Instant,
}

impl DirtyLog {
    /// A log that is off. `blocks` are numbered as the history numbers them.
    pub(super) fn new(
        socket: &Path,
        pid: u32,
        blocks: &[Block],
        watchdog: Box<dyn Fn() -> Command>,
        claim: &Rc<Cell<Claim>>,
    ) -> Result<DirtyLog, MemoryError> {
        Ok(DirtyLog {
            monitor: QmpSocket::new(socket),
            place: socket.to_owned(),
            pid,
            life: Life::of(pid)?,
            claim: Rc::clone(claim),
            watchdog,
            migration: None,
            pages: Pages::new(blocks),
            first: (Duration::ZERO, 0),
            later: (Duration::ZERO, 0),
            readings: 0,
        })
    }

    fn begin(&mut self) -> Result<(), LogError> {
        let settings = Settings::of(&mut self.monitor)?;
        let json = serde_json::to_string(&settings).map_err(|error| LogError::Io(error.into()))?;
        let mut command = (self.watchdog)();
        command.arg(&self.place).arg(json);
        let watchdog = Watchdog::start(command).map_err(|source| LogError::NoWatchdog { source })?;
        let begun = settings
            .replace(&mut self.monitor)
            .map_err(LogError::from)
            .and_then(|()| Nowhere::begin(&mut self.monitor, self.life.descriptor()));
        match begun {
            Ok(nowhere) => {
                self.monitor.release();
                self.claim.set(Claim::Ours);
                let now = Instant::now();
                self.migration = Some(Migration { nowhere, settings, watchdog, began: now, first: None, asked: now });
                self.pages.begin();
                Ok(())
            }
            Err(error) => {
                let given_back = settings.give_back(&mut self.monitor, NOTICE_MAX);
                self.monitor.release();
                if matches!(given_back, Ok(true)) {
                    watchdog.dismiss();
                }
                Err(error)
            }
        }
    }

    /// Hangs up, gives the guest's settings back, and tells what could not be.
    fn end(&mut self) -> Option<String> {
        let Migration { nowhere, settings, watchdog, began, first, .. } = self.migration.take()?;
        if let Some((at, bytes, sections)) = first {
            self.first = (self.first.0 + (at - began), self.first.1 + bytes);
            self.later = (self.later.0 + at.elapsed(), self.later.1 + nowhere.taken_bytes() - bytes);
            self.readings += nowhere.sections() - sections;
        }
        drop(nowhere);
        if self.claim.get() == Claim::Ours {
            self.claim.set(Claim::None);
        }
        if self.life.ended() {
            watchdog.dismiss();
            return None;
        }
        let given_back = settings.give_back(&mut self.monitor, NOTICE_MAX);
        self.monitor.release();
        let why = match given_back {
            Ok(true) => {
                watchdog.dismiss();
                return None;
            }
            Ok(false) => "it is being migrated".to_owned(),
            Err(error) => crate::monitor::one_line(&error),
        };
        // Without a word it takes the recorder for killed, and goes on trying.
        drop(watchdog);
        Some(format!(
            "the guest's migration settings cannot be given back now ({why}); this is tried again for an hour"
        ))
    }

    /// What became of the guest when its stream broke off.
    fn broke_off(&mut self, error: LogError) -> MemoryError {
        let is_over = matches!(error, LogError::Over);
        let deadline = Instant::now() + END_GRACE;
        while is_over && !self.life.ended() && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
        }
        if self.life.ended() {
            return MemoryError::Ended { pid: self.pid };
        }
        match error {
            LogError::Over => {
                self.claim.set(Claim::Lost);
                MemoryError::Migrating
            }
            LogError::Standing => MemoryError::Standing,
            error => MemoryError::Qemu(Box::new(error)),
        }
    }

    /// Asks for what was written, which is added to what is known.
    fn ask(&mut self) -> Result<(), MemoryError> {
        let Some(Migration { nowhere, asked, .. }) = &mut self.migration else {
            return Err(if self.claim.get() == Claim::Lost { MemoryError::Migrating } else { MemoryError::Standing });
        };
        let pages = &mut self.pages;
        let answered = nowhere.ask(|event| pages.take(event));
        *asked = Instant::now();
        answered.map_err(|error| self.broke_off(error))
    }
}

impl WriteLog for DirtyLog {
    /// Begins the migration and takes its pass over all memory.
    fn prepare(&mut self, span: Duration) -> Result<bool, MemoryError> {
        let Some(migration) = &mut self.migration else {
            return self.begin().map(|()| false).map_err(|error| self.broke_off(error));
        };
        if migration.first.is_some() {
            return Ok(true);
        }
        let before = (self.pages.came, self.pages.unseen);
        let pages = &mut self.pages;
        let taken = migration.nowhere.take_for(span, |event| pages.take(event));
        taken.map_err(|error| self.broke_off(error))?;
        self.pages.fit()?;
        if !self.pages.is_complete(before) {
            return Ok(false);
        }
        // What has come ahead is no window's.
        self.ask()?;
        self.pages.complete();
        if let Some(Migration { nowhere, first, .. }) = &mut self.migration {
            *first = Some((Instant::now(), nowhere.taken_bytes(), nowhere.sections()));
        }
        Ok(true)
    }

    fn stand_by(&mut self) -> Vec<String> {
        self.end().into_iter().collect()
    }

    fn read(&mut self) -> Result<Scan, MemoryError> {
        self.ask()?;
        Ok(self.pages.written())
    }

    /// Does not let QEMU wait for long: it holds memory that it wants to free, and at a migration's end its main loop.
    fn refresh(&mut self) -> Result<Vec<String>, MemoryError> {
        let waits = self.migration.as_ref().is_some_and(|migration| migration.asked.elapsed() > WAIT_MAX);
        match if waits { self.ask() } else { Ok(()) } {
            // The next reading tells, too.
            Err(MemoryError::Standing) => Ok(self.stand_by()),
            other => other.map(|()| Vec::new()),
        }
    }

    fn tracked(&self) -> u32 {
        u32::try_from(self.pages.count).unwrap_or(u32::MAX)
    }

    fn memory_pages(&self) -> u64 {
        self.pages.count
    }

    fn zero_pages(&self) -> Vec<u64> {
        self.pages.zero.ones()
    }

    fn release(&mut self) -> Vec<String> {
        let warning = self.end();
        let (first, later) = (self.first.0.as_secs_f64(), self.later.0.as_secs_f64());
        let told = (later > 0.0).then(|| {
            let (first_mb, rate) = (self.first.1 as f64 / 1e6, self.later.1 as f64 / 1e6 / later);
            let readings = self.readings as f64 / later;
            format!(
                "QEMU's migration to nowhere passed over all memory, {first_mb:.0} MB in {first:.1} s, then sent \
                 {rate:.1} MB/s in {readings:.0} readings of the log a second"
            )
        });
        warning.into_iter().chain(told).collect()
    }
}

impl Drop for DirtyLog {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the stream says of each page.
#[derive(Debug)]
struct Pages {
    blocks: Vec<(String, u64)>,
    count: u64,
    /// For each block of the stream, its first page there and in the history, and how many it has.
    numbers: Vec<(u64, u64, u64)>,
    /// A block that the history has not, or not so long.
    unknown_block: Option<stream::Block>,
    /// Whether the pass over all memory is over, and what comes has been written.
    begun: bool,
    /// Whether it was over once, and so it is known which pages are zero.
    known: bool,
    /// Pages that have come so far, each as often as it did; those that came; those of the stream that did not.
    came: u64,
    seen: Bits,
    unseen: u64,
    zero: Bits,
    written: Vec<u64>,
    /// Pages that became zero or ceased to be, once for each time.
    zero_toggles: Vec<u64>,
}

impl Pages {
    fn new(blocks: &[Block]) -> Pages {
        let blocks: Vec<(String, u64)> =
            blocks.iter().map(|block| (block.name.clone(), block.length_bytes / PAGE_SIZE)).collect();
        let count = blocks.iter().map(|(_, pages)| pages).sum();
        Pages {
            blocks,
            count,
            numbers: Vec::new(),
            unknown_block: None,
            begun: false,
            known: false,
            came: 0,
            seen: Bits::new(count),
            unseen: count,
            zero: Bits::new(count),
            written: Vec::new(),
            zero_toggles: Vec::new(),
        }
    }

    /// A migration begins with its list of blocks and a pass over all memory.
    fn begin(&mut self) {
        self.numbers.clear();
        (self.begun, self.seen, self.unseen) = (false, Bits::new(self.count), self.count);
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Blocks(blocks) => self.number(blocks),
            Event::Page(page) => self.page(page),
            _ => {}
        }
    }

    /// Blocks that are not in the stream are not migrated, so what is written there counts for nothing.
    fn number(&mut self, blocks: Vec<stream::Block>) {
        let mut first = 0;
        self.unseen = blocks.iter().map(|block| block.pages).sum();
        for block in blocks {
            let at = self.blocks.iter().position(|(name, pages)| *name == block.name && *pages == block.pages);
            let Some(at) = at else {
                self.unknown_block = Some(block);
                return;
            };
            let ours = self.blocks[..at].iter().map(|(_, pages)| pages).sum();
            self.numbers.push((first, ours, block.pages));
            first += block.pages;
        }
    }

    fn page(&mut self, Page { index, zero }: Page) {
        let block = self.numbers.partition_point(|(first, ..)| *first <= index).checked_sub(1);
        let block = block.map(|block| self.numbers[block]).filter(|(first, _, pages)| index - first < *pages);
        let Some((first, ours, _)) = block else { return };
        let page = ours + (index - first);
        self.came += 1;
        self.unseen -= u64::from(self.seen.set(page, true));
        if self.begun {
            self.written.push(page);
        }
        self.set_zero(page, zero);
    }

    fn set_zero(&mut self, page: u64, zero: bool) {
        if self.zero.set(page, zero) && self.known {
            self.zero_toggles.push(page);
        }
    }

    fn fit(&self) -> Result<(), MemoryError> {
        self.unknown_block.as_ref().map_or(Ok(()), |stream::Block { name, pages }| {
            Err(MemoryError::Qemu(Box::new(LogError::Block { name: name.clone(), pages: *pages })))
        })
    }

    /// Whether every page has come once; or, since so many had come and so many had not, some came and none for the first
    /// time: what the guest has given back (virtio-mem, free page hints) QEMU leaves out.
    fn is_complete(&self, (came, unseen): (u64, u64)) -> bool {
        !self.numbers.is_empty() && (self.unseen == 0 || self.unseen == unseen && self.came > came)
    }

    /// The recording begins, or goes on, here. What was left out is as good as zero.
    fn complete(&mut self) {
        if self.unseen > 0 {
            for (_, ours, pages) in self.numbers.clone() {
                let unseen: Vec<u64> = (ours..ours + pages).filter(|page| !self.seen.get(*page)).collect();
                unseen.into_iter().for_each(|page| self.set_zero(page, true));
            }
        }
        (self.begun, self.known) = (true, true);
    }

    /// What was written since this was last asked.
    fn written(&mut self) -> Scan {
        let mut written = std::mem::take(&mut self.written);
        written.sort_unstable();
        written.dedup();
        let mut toggles = std::mem::take(&mut self.zero_toggles);
        toggles.sort_unstable();
        // Twice is as it was.
        let odd = toggles.chunk_by(|a, b| a == b).filter(|times| times.len() % 2 == 1);
        let change = |times: &[u64]| ZeroChange { page: times[0], zero: self.zero.get(times[0]) };
        Scan { zero_changes: odd.map(change).collect(), written, ..Scan::default() }
    }
}

/// A bit for each page.
#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u64) -> Bits {
        Bits(vec![0; usize::try_from(count.div_ceil(64)).unwrap_or(usize::MAX)])
    }

    fn get(&self, at: u64) -> bool {
        self.0[(at / 64) as usize] >> (at % 64) & 1 == 1
    }

    /// Says whether that is a change.
    fn set(&mut self, at: u64, to: bool) -> bool {
        let (word, bit) = (&mut self.0[(at / 64) as usize], 1 << (at % 64));
        let before = *word & bit != 0;
        *word = if to { *word | bit } else { *word & !bit };
        before != to
    }

    /// Where bits are set, ascending.
    fn ones(&self) -> Vec<u64> {
        let all = 0..self.0.len() as u64 * 64;
        all.filter(|at| self.get(*at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, pages: u64) -> Block {
        Block { name: name.to_owned(), length_bytes: pages * PAGE_SIZE, guest_physical_address: None }
    }

    fn theirs(name: &str, pages: u64) -> Event {
        Event::Blocks(vec![
            stream::Block { name: name.to_owned(), pages },
            stream::Block { name: "ram".to_owned(), pages: 70 },
        ])
    }

    fn page(index: u64, zero: bool) -> Event {
        Event::Page(Page { index, zero })
    }

    /// The history's blocks are `ram`, `local`, `vga`; the stream has `vga` before `ram`, and no `local`.
    fn pages() -> Pages {
        let mut pages = Pages::new(&[block("ram", 70), block("local", 5), block("vga", 2)]);
        pages.take(theirs("vga", 2));
        (0..72).for_each(|index| pages.take(page(index, index == 1 || index == 71)));
        assert!(pages.is_complete((0, 72)));
        pages.complete();
        pages
    }

    #[test]
    fn the_pass_over_all_memory_is_where_a_recording_begins() {
        let mut pages = pages();
        assert_eq!(pages.zero.ones(), [69, 76], "page 69 of ram, page 1 of vga");
        assert_eq!(pages.written(), Scan::default());
    }

    #[test]
    fn a_page_counts_once_and_what_is_zero_is_followed() {
        let mut pages = pages();
        for (index, zero) in [(71, false), (2, true), (71, false), (2, false), (0, true)] {
            pages.take(page(index, zero));
        }
        let scan = pages.written();
        assert_eq!(scan.written, [0, 69, 75]);
        let changes: Vec<(u64, bool)> = scan.zero_changes.iter().map(|change| (change.page, change.zero)).collect();
        assert_eq!(changes, [(69, false), (75, true)], "page 0 was zero for a moment only");
        assert_eq!(pages.written(), Scan::default());
    }

    #[test]
    fn a_block_that_nobody_told_of_is_named() {
        let mut pages = Pages::new(&[block("ram", 70)]);
        pages.take(theirs("dimm", 9));
        assert!(pages.fit().unwrap_err().to_string().contains("memory block 'dimm' of 9 pages"));
        assert!(!pages.is_complete((0, 70)));
        // Nor does what comes after it count, or fall into another block.
        pages.take(page(0, false));
        assert_eq!(pages.came, 0);
    }

    #[test]
    fn what_never_comes_is_as_good_as_zero() {
        let mut pages = Pages::new(&[block("ram", 70), block("vga", 2)]);
        pages.take(theirs("vga", 2));
        (0..50).for_each(|index| pages.take(page(index, false)));
        assert!(!pages.is_complete((0, 72)), "some came for the first time");
        assert!(!pages.is_complete((50, 22)), "nothing came");
        pages.take(page(49, false));
        assert!(pages.is_complete((50, 22)), "one came again");
        pages.complete();
        assert_eq!(pages.zero.ones(), (48..70).collect::<Vec<_>>());
        pages.take(page(50, false));
        let scan = pages.written();
        assert_eq!((scan.written, scan.zero_changes.len()), (vec![48], 1));
    }

    #[test]
    fn a_later_pass_over_all_memory_tells_what_became_zero_meanwhile() {
        let mut pages = pages();
        pages.begin();
        pages.take(theirs("vga", 2));
        (0..72).for_each(|index| pages.take(page(index, index == 71)));
        pages.complete();
        let scan = pages.written();
        assert_eq!(scan.written, Vec::<u64>::new());
        assert_eq!(scan.zero_changes, [ZeroChange { page: 76, zero: false }]);
    }
}
