//! The captured migrations that are kept in testdata/lab/streams, simulated from their guests' own logs: QEMU's rules held
//! against QEMU page by page, without booting anything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_lab::evidence::Evidence;
use migcast_lab::retrace::{Hosts, Retraced, Row, retrace};

/// Pages an iteration may be off by: the kernel's own pages are about a hundred, and the log does not hold them.
const PAGES_OFF_MAX: u64 = 64;
/// The same as a share of the iteration, whichever is more.
const SHARE_OFF_MAX: f64 = 0.02;
/// From so many pages on, an iteration's pages have to be the same ones.
const MANY: usize = 1000;
/// As a share of the pages either side sent.
const OVERLAP_MIN: f64 = 0.95;

/// MAX_WAIT is 50 ms, and more than 50 whole ones must have passed.
const MAX_WAIT: Duration = Duration::from_millis(51);

fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab")
}

/// Limited by the link: a step of QEMU's ended at another look at the clock than the simulation's, which milliseconds of the
/// sender's buffer decide, and so the log was read at another moment (testdata/lab/streams/README.md).
const STEPS_FALL_ELSEWHERE: [&str; 5] = [
    "hot-cold-150Mbps.txt.zst",
    "hot-cold-200Mbps-300ms.txt.zst",
    "hot-cold-200Mbps.txt.zst",
    "kernel-sized-buffer.txt.zst",
    "phases-200Mbps.txt.zst",
];
/// Of these, by how much all pages together may be off, as a share.
const TOTAL_OFF_MAX: f64 = 0.002;

/// The kept migrations, with their names: those whose steps fall elsewhere, or the others.
fn retraced(elsewhere: bool) -> Vec<(String, Retraced)> {
    let hosts = Hosts::read(&lab().join("platform.json")).unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(lab().join("streams")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "zst"));
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.retain(|path| STEPS_FALL_ELSEWHERE.contains(&name(path).as_str()) == elsewhere);
    let retraced = |path: &PathBuf| {
        let evidence = Evidence::load(path)?;
        assert_eq!(evidence.about.hypervisor_version.split('.').next(), Some("10"), "rules of another version");
        retrace(&evidence, &hosts)
    };
    let retraced = |path: &PathBuf| retraced(path).unwrap_or_else(|error| panic!("{error:#}"));
    files.iter().map(|path| (name(path), retraced(path))).collect()
}

fn is_close(simulated: u64, real: u64) -> bool {
    let off = simulated.abs_diff(real);
    off <= PAGES_OFF_MAX || off as f64 <= SHARE_OFF_MAX * real as f64
}

/// Of one side's pages, those of zeros.
fn zeros(row: &Row) -> [u64; 2] {
    [&row.real, &row.simulated].map(|pages| pages.iter().filter(|page| page.zero).count() as u64)
}

#[test]
fn every_iteration_sends_the_pages_qemu_sent() {
    let runs = retraced(false);
    assert!(runs.len() >= 8, "{} runs", runs.len());
    for (name, run) in &runs {
        assert_eq!(run.simulated, run.real, "iterations of {name}\n{run}");
        for (number, row) in (1..).zip(&run.rows) {
            let (real, simulated) = (row.real.len() as u64, row.simulated.len() as u64);
            assert!(is_close(simulated, real), "iteration {number} of {name}\n{run}");
            let [real_zero, simulated_zero] = zeros(row);
            assert!(is_close(simulated_zero, real_zero), "zero pages of iteration {number} of {name}\n{run}");
            let alike = row.real.len() <= MANY || row.overlap() >= OVERLAP_MIN;
            assert!(alike, "the pages of iteration {number} of {name}\n{run}");
        }
    }
}

#[test]
fn where_steps_fall_elsewhere_the_whole_is_still_the_same() {
    let runs = retraced(true);
    assert_eq!(runs.len(), STEPS_FALL_ELSEWHERE.len());
    for (name, run) in &runs {
        assert!(run.simulated.abs_diff(run.real) <= 1, "iterations of {name}\n{run}");
        let sum = |pages: fn(&Row) -> usize| run.rows.iter().map(pages).sum::<usize>() as f64;
        let (real, simulated) = (sum(|row| row.real.len()), sum(|row| row.simulated.len()));
        assert!((simulated / real - 1.0).abs() <= TOTAL_OFF_MAX, "{simulated} of {real} pages of {name}\n{run}");
        assert!(run.rows[0].overlap() >= 0.99, "the first pass of {name}\n{run}");
    }
}

/// QEMU's rule 4.1 in its stream: a step looks at the clock after its 1st page and every 64th from there on, and ends at
/// the first look after 50 ms.
#[test]
fn steps_the_clock_ended_have_one_page_more_than_a_multiple_of_64() {
    let mut long = 0;
    for entry in fs::read_dir(lab().join("streams")).unwrap() {
        let path = entry.unwrap().path();
        let Some("zst") = path.extension().and_then(|extension| extension.to_str()) else { continue };
        let evidence = Evidence::load(&path).unwrap();
        // The last iteration is one step without a clock.
        for iteration in evidence.iterations.split_last().unwrap().1 {
            for step in iteration.steps.iter().filter(|step| step.span.ended - step.span.began > MAX_WAIT) {
                assert_eq!(step.pages.len() % 64, 1, "{}: {:?}", path.display(), step.span);
                long += 1;
            }
        }
    }
    assert!(long > 400, "{long} steps");
}
