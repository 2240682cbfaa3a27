//! Where the pages of this process lie in physical memory, from `/proc/self/pagemap`.
//!
//! Source: Linux, Documentation/admin-guide/mm/pagemap.rst: 64 bits per page, bit 63 present, bits 0–54 the frame
//! number, which only a privileged reader sees (others read 0).

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

/// Size of a page and of a frame in bytes.
pub const PAGE_SIZE: usize = 4096;

const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// Consecutive pages in frames that count up, or down, by one. (The kernel hands frames out both ways.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First page of the working set.
    pub page: u32,
    /// Its frame: guest-physical address ÷ 4096.
    pub frame: u64,
    /// How many, at least 1.
    pub count: u32,
    /// Whether frames count down.
    pub down: bool,
}

impl Run {
    /// The frames of the run's pages, in the pages' order.
    pub fn frames(self) -> impl Iterator<Item = u64> {
        (0..u64::from(self.count)).map(move |n| if self.down { self.frame - n } else { self.frame + n })
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.page, self.frame, self.count, if self.down { "down" } else { "up" })
    }
}

impl FromStr for Run {
    type Err = String;

    fn from_str(text: &str) -> Result<Run, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let run = (|| {
            let [page, frame, count, way] = words[..] else { return None };
            let down = if way == "down" { true } else { (way == "up").then_some(false)? };
            let run = Run { page: page.parse().ok()?, frame: frame.parse().ok()?, count: count.parse().ok()?, down };
            let frames_exist = !down || u64::from(run.count) <= run.frame + 1;
            frames_exist.then_some(run)
        })();
        run.ok_or_else(|| format!("'{text}' is not PAGE FRAME COUNT up|down"))
    }
}

/// The frames of `pages` pages from `address` (a multiple of the page size) on, of the calling process.
///
/// # Errors
/// `/proc` is not mounted, a page is not present, or the caller may not see frame numbers.
pub fn frames(address: usize, pages: u32) -> io::Result<Vec<u64>> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut entries = vec![0_u8; pages as usize * 8];
    pagemap.read_exact_at(&mut entries, (address / PAGE_SIZE * 8) as u64)?;
    let mut frames = Vec::with_capacity(pages as usize);
    for entry in entries.chunks_exact(8) {
        let entry = u64::from_le_bytes(entry.try_into().expect("a chunk of 8 bytes"));
        if entry & PRESENT == 0 || entry & FRAME == 0 {
            return Err(io::Error::other("a page is absent or its frame number hidden (not root?)"));
        }
        frames.push(entry & FRAME);
    }
    Ok(frames)
}

/// Joins neighbouring frames into runs.
pub fn runs(frames: &[u64]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (page, &frame) in (0_u32..).zip(frames) {
        if let Some(run) = runs.last_mut() {
            let span = u64::from(run.count);
            if (run.count == 1 || run.down) && frame.checked_add(span) == Some(run.frame) {
                run.down = true;
                run.count += 1;
                continue;
            }
            if !run.down && run.frame + span == frame {
                run.count += 1;
                continue;
            }
        }
        runs.push(Run { page, frame, count: 1, down: false });
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_go_up_and_down_and_give_the_frames_back() {
        let frames = [5, 6, 7, 3, 9, 8, 7, 8, 20, 2, 1, 0];
        let runs = runs(&frames);
        let shape: Vec<_> = runs.iter().map(|run| (run.page, run.frame, run.count, run.down)).collect();
        let expected =
            [(0, 5, 3, false), (3, 3, 1, false), (4, 9, 3, true), (7, 8, 1, false), (8, 20, 1, false), (9, 2, 3, true)];
        assert_eq!(shape, expected);
        assert_eq!(runs.into_iter().flat_map(Run::frames).collect::<Vec<_>>(), frames);
    }

    #[test]
    fn a_run_is_printed_and_read_back() {
        let run = Run { page: 3, frame: 99, count: 12, down: true };
        assert_eq!(run.to_string().parse(), Ok(run));
        for wrong in ["3 99", "3 99 -1 up", "3 99 1 sideways", "0 3 5 down"] {
            assert!(wrong.parse::<Run>().is_err(), "{wrong}");
        }
    }
}
