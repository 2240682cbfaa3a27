//! A migration of a QEMU guest to nowhere: the one way in which QEMU tells which pages a guest writes.
//!
//! ```text
//!  QEMU    all memory ─ reading 1 ─ its pages ┊ waits ┊ ─ reading 2 ─ its pages ─ reading 3 ─ … ┊ waits ┊
//!  asked                                              └ here: until two passes are complete ┘
//! ```
//! QEMU reads its dirty log when less is left to send than it could send within the downtime limit, which is set below one
//! page: so when all pages are sent (migration_iteration_run, QEMU 10.0, migration/migration.c). While nobody takes the
//! stream it waits. So whoever takes it says when the log is read. Behind what waits already, the first pass over the dirty
//! bitmap that comes to its end empties it after the question; then the log is read, and the second pass brings all that was
//! written until then. What is behind it waits for the next question.
//!
//! Such a migration does not stop a guest that runs: with the capability `switchover-ack` QEMU does that only when the
//! target has said that it is ready, and this target says nothing. Of a guest that stands still QEMU does not wait for that
//! word (migration_can_switchover, QEMU 8.1 and later); its last section is where this hangs up, and QEMU leaves the guest
//! as it stood. To hang up is the only way in which this ends: it can hit no other migration.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use qapi::Command;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stream::{Event, Parser, Section, StreamError};
use crate::guest::Identity;
use crate::monitor::{Monitor, MonitorError, ask, request, understand};
use crate::qmp::QmpSocket;

/// The name under which QEMU is handed its end of the stream.
const DESCRIPTOR: &str = "migcast-nowhere";
/// The first QEMU with `avail-switchover-bandwidth`.
const VERSION_FIRST: (u32, u32) = (8, 2);
/// What QEMU may send ahead in the pass over all memory, whose pace is its own.
const AHEAD_BYTES_FIRST: usize = 256 << 10;
/// What QEMU may send ahead later, in bytes. Little, since it reads its log for each pass that finds room. Less than a few
/// pages costs a switch between processes for every page.
const AHEAD_BYTES: usize = 16 << 10;
/// Likewise of a guest that writes hardly anything, whose passes find room in anything: as little as Linux allows.
const AHEAD_BYTES_CALM: usize = 2 << 10;
/// A guest is calm that wrote fewer pages since the question before.
const CALM_PAGES: u64 = 64;
const PIECE_BYTES: usize = 256 << 10;
/// QEMU ends a section after 50 ms (MAX_WAIT, migration/ram.c), whatever is left of the pass. One that ends sooner, or not
/// at its 1st, 65th, 129th … page, where it looks at the clock, ended because the pass did. Where this is mistaken (QEMU
/// counts huge pages, not the small ones in them), pages are told a window later.
const QUICK: Duration = Duration::from_millis(40);
const CLOCK_PAGES: u64 = 64;
/// Passes that have to be complete after a question.
const PASSES: u32 = 2;
/// A guest that writes faster than this takes is not waited for longer than this; the rest comes with the next answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// QEMU's migration thread needs the lock of its main loop for a reading, which others may hold for a while.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Why QEMU's dirty log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A QEMU without what this needs.
    #[error(
        "--dirty-log: QEMU {version} cannot be kept from ending a migration to nowhere, 8.2 and later can; without it memory is compared"
    )]
    Old {
        /// The version.
        version: String,
    },
    /// A dirty log that is wrong.
    #[error("--dirty-log: QEMU {version} under TCG misses writes in its dirty log (mended in 9.0)")]
    Wrong {
        /// The version.
        version: String,
    },
    /// The guest cannot be migrated at all.
    #[error("--dirty-log: this guest cannot be migrated, not even to nowhere: {}", reasons.join("; "))]
    Blocked {
        /// What QEMU says.
        reasons: Vec<String>,
    },
    /// The child that would restore the guest's settings cannot be started.
    #[error(
        "--dirty-log: cannot start the child that restores the guest's migration settings if this recorder is killed"
    )]
    NoWatchdog {
        /// Why.
        source: io::Error,
    },
    /// What the monitor said.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
    /// What came is no migration stream that can be followed.
    #[error("--dirty-log: this is not a stream that can be followed")]
    Stream(#[from] StreamError),
    /// The stream has a block of memory that the monitor did not tell of.
    #[error("--dirty-log: the stream has a memory block '{name}' of {pages} pages, of which the monitor knows nothing")]
    Block {
        /// Its name.
        name: String,
        /// Its pages.
        pages: u64,
    },
    /// Nothing came.
    #[error("--dirty-log: QEMU sent nothing for {} s", SILENCE_MAX.as_secs())]
    Silent,
    /// The stream ended.
    #[error("--dirty-log: QEMU ended its migration to nowhere")]
    Over,
    /// The guest stands still, and QEMU comes to the migration's end.
    #[error("--dirty-log: the guest stands still")]
    Standing,
    /// What the kernel said.
    #[error("--dirty-log: cannot take QEMU's stream")]
    Io(#[source] io::Error),
}

/// Refuses a guest of which nothing can be learnt this way.
pub(super) fn refuse(monitor: &mut dyn Monitor, identity: &Identity) -> Result<(), LogError> {
    let version = identity.hypervisor_version.clone();
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let known = numbers.next().zip(numbers.next());
    if known.is_none_or(|known| known < VERSION_FIRST) {
        return Err(LogError::Old { version });
    }
    if identity.accelerator == "tcg" && known.is_some_and(|(major, _)| major < 9) {
        return Err(LogError::Wrong { version });
    }
    let reasons = ask(monitor, QueryBlocked {})?.reasons;
    if reasons.is_empty() { Ok(()) } else { Err(LogError::Blocked { reasons }) }
}

/// Whether a migration in this state is one of ours that goes on.
pub(super) fn goes_on(migration: &str) -> bool {
    matches!(migration, "setup" | "active")
}

/// The stream of a migration to nowhere, which QEMU sends as fast as it is taken.
#[derive(Debug)]
pub(super) struct Nowhere {
    socket: UnixStream,
    /// QEMU's end of it, whose buffer decides how much is sent ahead. As long as this is open too, QEMU's death does not
    /// show at ours.
    their_end: UnixStream,
    /// Becomes readable when QEMU ends.
    life: Option<OwnedFd>,
    ahead_bytes: usize,
    parser: Parser,
    piece: Vec<u8>,
    progress: Progress,
    taken_bytes: u64,
}

/// How far the sections have come.
#[derive(Debug, Default)]
struct Progress {
    /// When the section that is being sent began to come, and its pages so far.
    open: Option<(Instant, u64)>,
    /// Complete passes since the section that was being sent at the question was over; `None` before. Where none has been
    /// seen yet QEMU may still stand at the beginning of one, so the first is taken for that one.
    passes: Option<u32>,
    /// Since the beginning: sections, each of which is a reading of the log or part of one's pages.
    sections: u64,
    pages: u64,
    /// The last section has begun: QEMU takes the guest for stopped.
    at_end: bool,
}

impl Nowhere {
    /// Begins such a migration. The guest's settings are those it needs; `life` becomes readable when QEMU ends.
    ///
    /// # Errors
    /// The monitor refuses.
    pub(super) fn begin(monitor: &mut QmpSocket, life: Option<OwnedFd>) -> Result<Nowhere, LogError> {
        let (socket, their_end) = UnixStream::pair().map_err(LogError::Io)?;
        let mut nowhere = Nowhere::over(socket, their_end, life);
        nowhere.send_ahead(AHEAD_BYTES_FIRST)?;
        let request = request(GetDescriptor { fdname: DESCRIPTOR })?;
        understand::<GetDescriptor>(monitor.exchange_with(&request, Some(nowhere.their_end.as_fd()))?)?;
        if let Err(error) = ask(monitor, Migrate { uri: format!("fd:{DESCRIPTOR}") }) {
            ask(monitor, CloseDescriptor { fdname: DESCRIPTOR })?;
            return Err(error.into());
        }
        Ok(nowhere)
    }

    fn over(socket: UnixStream, their_end: UnixStream, life: Option<OwnedFd>) -> Nowhere {
        let (parser, piece, progress) = (Parser::default(), vec![0; PIECE_BYTES], Progress::default());
        Nowhere { socket, their_end, life, ahead_bytes: 0, parser, piece, progress, taken_bytes: 0 }
    }

    /// Bytes taken so far.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.taken_bytes
    }

    /// Sections taken so far: about as often QEMU has read its log.
    pub(super) fn sections(&self) -> u64 {
        self.progress.sections
    }

    /// Takes what comes within `span` and tells of it.
    ///
    /// # Errors
    /// The stream is over, silent, or none; the guest stands still.
    pub(super) fn take_for(&mut self, span: Duration, mut tell: impl FnMut(Event)) -> Result<(), LogError> {
        let began = Instant::now();
        while began.elapsed() < span {
            self.take(PIECE_BYTES, &mut tell)?;
        }
        Ok(())
    }

    /// Asks for all that was written until now, and a little later.
    ///
    /// # Errors
    /// As [`Nowhere::take_for`].
    pub(super) fn ask(&mut self, mut tell: impl FnMut(Event)) -> Result<(), LogError> {
        let (asked, pages_before) = (Instant::now(), self.progress.pages);
        // What has waited here was read from the log before the question.
        let waiting = rustix::io::ioctl_fionread(&self.socket).map_err(|errno| LogError::Io(errno.into()))?;
        let until = self.taken_bytes + waiting;
        while self.taken_bytes < until {
            let most = usize::try_from(until - self.taken_bytes).unwrap_or(PIECE_BYTES);
            self.take(most.min(PIECE_BYTES), &mut tell)?;
        }
        self.progress.passes = None;
        while self.progress.passes.is_none_or(|passes| passes < PASSES) && asked.elapsed() < ANSWER_MAX {
            self.take(PIECE_BYTES, &mut tell)?;
        }
        let is_calm = self.progress.pages - pages_before < CALM_PAGES;
        self.send_ahead(if is_calm { AHEAD_BYTES_CALM } else { AHEAD_BYTES })
    }

    /// Lets QEMU send so many bytes ahead.
    fn send_ahead(&mut self, bytes: usize) -> Result<(), LogError> {
        if self.ahead_bytes != bytes {
            sockopt::set_socket_send_buffer_size(&self.their_end, bytes).map_err(|errno| LogError::Io(errno.into()))?;
            self.ahead_bytes = bytes;
        }
        Ok(())
    }

    fn take(&mut self, most: usize, tell: &mut impl FnMut(Event)) -> Result<(), LogError> {
        self.wait()?;
        let count = match self.socket.read(&mut self.piece[..most]) {
            Ok(0) => return Err(LogError::Over),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(LogError::Over),
            Err(error) => return Err(LogError::Io(error)),
        };
        self.taken_bytes += count as u64;
        let progress = &mut self.progress;
        self.parser.push(&self.piece[..count], |event| {
            progress.follow(&event, Instant::now());
            tell(event);
        })?;
        if self.progress.at_end { Err(LogError::Standing) } else { Ok(()) }
    }

    /// Until there is something to take, or QEMU has ended.
    fn wait(&self) -> Result<(), LogError> {
        let mut watched = vec![PollFd::new(&self.socket, PollFlags::IN)];
        watched.extend(self.life.as_ref().map(|life| PollFd::new(life, PollFlags::IN)));
        let most = Timespec { tv_sec: SILENCE_MAX.as_secs().cast_signed(), tv_nsec: 0 };
        match poll(&mut watched, Some(&most)) {
            Ok(0) => Err(LogError::Silent),
            Ok(_) if watched[0].revents().is_empty() => Err(LogError::Over),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(LogError::Io(errno.into())),
        }
    }
}

impl Drop for Nowhere {
    /// Hangs up. QEMU's migration fails at that, and the guest stays as it is.
    fn drop(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Progress {
    fn follow(&mut self, event: &Event, now: Instant) {
        match event {
            Event::Began(Section::Part) => self.open = Some((now, 0)),
            Event::Began(Section::End) => self.at_end = true,
            Event::Page(_) => {
                self.pages += 1;
                if let Some((_, pages)) = &mut self.open {
                    *pages += 1;
                }
            }
            Event::Marked(Section::Part) => {
                let Some((began, pages)) = self.open.take() else { return };
                self.sections += 1;
                let complete = pages % CLOCK_PAGES != 1 || now.duration_since(began) < QUICK;
                self.passes = Some(self.passes.map_or(0, |passes| passes + u32::from(complete)));
            }
            _ => {}
        }
    }
}

#[derive(Debug, Serialize)]
struct GetDescriptor {
    fdname: &'static str,
}

#[derive(Debug, Serialize)]
struct CloseDescriptor {
    fdname: &'static str,
}

#[derive(Debug, Serialize)]
struct Migrate {
    uri: String,
}

/// `query-migrate`, reduced to why the guest cannot be migrated.
#[derive(Debug, Serialize)]
struct QueryBlocked {}

#[derive(Debug, Deserialize)]
struct Blocked {
    #[serde(default, rename = "blocked-reasons")]
    reasons: Vec<String>,
}

impl Command for GetDescriptor {
    type Ok = Value;
    const NAME: &'static str = "getfd";
    const ALLOW_OOB: bool = false;
}

impl Command for CloseDescriptor {
    type Ok = Value;
    const NAME: &'static str = "closefd";
    const ALLOW_OOB: bool = false;
}

impl Command for Migrate {
    type Ok = Value;
    const NAME: &'static str = "migrate";
    const ALLOW_OOB: bool = false;
}

impl Command for QueryBlocked {
    type Ok = Blocked;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::thread;

    use serde_json::json;

    use super::*;
    use crate::monitor::fake::FakeMonitor;
    use crate::qemu::stream::Page;

    /// Magic, version, a configuration of nothing, and the list of one block `r` of 200 pages.
    const HEAD: &[u8] = b"QEVM\0\0\0\x03\x07\0\0\0\0\x01\0\0\0\x02\x03ram\0\0\0\0\0\0\0\x04\
        \0\0\0\0\0\x0c\x80\x04\x01r\0\0\0\0\0\x0c\x80\0\0\0\0\0\0\0\0\x10\x7e\0\0\0\x02";
    const FOOTER: &[u8] = b"\x7e\0\0\0\x02";

    /// A section with zero pages from `first` on, without the footer that QEMU keeps for later.
    fn section(first: u64, count: u64) -> Vec<u8> {
        let page = |page: u64| [&(page << 12 | 0x02).to_be_bytes(), b"\x01r\0".as_slice()].concat();
        let pages: Vec<u8> = (first..first + count).flat_map(page).collect();
        [b"\x02\0\0\0\x02".as_slice(), &pages, &0x10_u64.to_be_bytes()].concat()
    }

    fn nowhere() -> (Nowhere, UnixStream) {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let their_end = theirs.try_clone().unwrap();
        (Nowhere::over(socket, their_end, None), theirs)
    }

    fn asked(nowhere: &mut Nowhere) -> Result<Vec<u64>, LogError> {
        let mut pages = Vec::new();
        nowhere.ask(|event| {
            if let Event::Page(page) = event {
                pages.push(page.index);
            }
        })?;
        Ok(pages)
    }

    /// A section of so many pages that took so long.
    fn follow(progress: &mut Progress, pages: u64, took: Duration) -> Option<u32> {
        let began = Instant::now();
        progress.follow(&Event::Began(Section::Part), began);
        (0..pages).for_each(|index| progress.follow(&Event::Page(Page { index, zero: false }), began));
        progress.follow(&Event::Marked(Section::Part), began + took);
        progress.passes
    }

    #[test]
    fn a_section_that_the_clock_may_have_ended_completes_no_pass() {
        let mut progress = Progress::default();
        let (quick, slow) = (Duration::from_millis(1), Duration::from_millis(51));
        assert_eq!(follow(&mut progress, 30, quick), Some(0), "it may be older than the question");
        assert_eq!(follow(&mut progress, 65, slow), Some(0));
        assert_eq!(follow(&mut progress, 1, slow), Some(0));
        assert_eq!(follow(&mut progress, 64, slow), Some(1), "no look at the clock ends there");
        assert_eq!(follow(&mut progress, 1, quick), Some(2), "no clock ends that soon");
        assert_eq!(follow(&mut progress, 0, slow), Some(3), "there was nothing to send");
        assert_eq!((progress.sections, progress.pages), (6, 161));
    }

    #[test]
    fn an_answer_is_what_waited_and_two_complete_passes() {
        let (mut nowhere, mut qemu) = nowhere();
        let waiting = [HEAD, &section(0, 2), FOOTER, &section(2, 1)].concat();
        let later = [section(10, 3), section(20, 30), section(60, 2)].map(|section| [FOOTER, &section].concat());
        qemu.write_all(&waiting).unwrap();
        // QEMU goes on only when what waits has been taken, as its buffer is full.
        let reader = nowhere.socket.try_clone().unwrap();
        let writer = thread::spawn(move || {
            while rustix::io::ioctl_fionread(&reader).unwrap_or_default() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            later.iter().for_each(|section| qemu.write_all(section).unwrap());
            qemu
        });
        let expected: Vec<u64> = (0..3).chain(10..13).chain(20..50).chain(60..62).collect();
        assert_eq!(asked(&mut nowhere).unwrap(), expected);
        let qemu = writer.join().unwrap();
        qemu.shutdown(Shutdown::Both).unwrap();
        assert!(matches!(asked(&mut nowhere), Err(LogError::Over)));
    }

    #[test]
    fn a_guest_that_stands_still_and_what_is_no_stream_are_told_apart() {
        let (mut standing, mut qemu) = nowhere();
        qemu.write_all(&[HEAD, b"\x03\0\0\0\x02".as_slice()].concat()).unwrap();
        assert!(matches!(asked(&mut standing), Err(LogError::Standing)));
        drop(standing);
        assert!(qemu.write_all(FOOTER).is_err(), "it has hung up");
        let (mut strange, mut qemu) = nowhere();
        qemu.write_all(&[0; 8]).unwrap();
        assert!(matches!(asked(&mut strange), Err(LogError::Stream(_))));
    }

    #[test]
    fn who_cannot_be_kept_from_ending_is_refused() {
        let guest = |version: &str, accelerator: &str| Identity {
            method: "qemu",
            name: "g".to_owned(),
            id: None,
            hypervisor: "qemu".to_owned(),
            hypervisor_version: version.to_owned(),
            accelerator: accelerator.to_owned(),
            blocks: Vec::new(),
        };
        let mut monitor = FakeMonitor::default();
        monitor.answers.insert("query-migrate".to_owned(), json!({}));
        let mut said = |version, accelerator| {
            refuse(&mut monitor, &guest(version, accelerator)).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!((said("8.2.0", "kvm"), said("10.0.2", "tcg")), (String::new(), String::new()));
        assert!(said("7.2.1", "kvm").contains("QEMU 7.2.1 cannot be kept from ending"));
        assert!(said("8.2.0", "tcg").contains("misses writes"));
        let blocked = json!({ "blocked-reasons": ["a device", "another"] });
        monitor.answers.insert("query-migrate".to_owned(), blocked);
        let error = refuse(&mut monitor, &guest("9.0.0", "kvm")).unwrap_err().to_string();
        assert!(error.ends_with("not even to nowhere: a device; another"), "{error}");
    }
}
