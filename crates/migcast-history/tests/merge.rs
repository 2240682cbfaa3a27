//! Merged histories hold what each held, in the order of time.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap)] // helpers of tests

mod support;

use std::path::{Path, PathBuf};

use migcast_history::merge::{MergeError, Merged, merge};
use migcast_history::reader::History;
use migcast_history::sample::Sample;
use migcast_history::trim::trim;
use migcast_history::windows::State;
use support::{Made, Recording, manifest, read_back};

const SECOND: i64 = 1_000_000_000;

/// Recordings in folders, opened.
fn written(dir: &Path, all: &[&Recording]) -> Vec<History> {
    let path = |index: usize| -> PathBuf { dir.join(index.to_string()) };
    all.iter().enumerate().for_each(|(index, made)| made.write(&path(index)).unwrap());
    (0..all.len()).map(|index| History::open(&path(index)).unwrap()).collect()
}

fn recording(seed: u64, later_s: i64) -> Recording {
    let mut made = Recording::made_up(manifest(&[300, 100], Sample { one_in: 2, seed: 9 }), seed, 900, 30);
    for window in &mut made.windows {
        window.start_unix_ns += later_s * SECOND;
        window.end_unix_ns += later_s * SECOND;
    }
    made
}

/// The zero maps before each window, as the history tells them.
fn zero_maps(history: &History) -> Vec<Vec<u64>> {
    let mut maps = Vec::new();
    let mut stream = history.stream(0..u32::MAX);
    while let Some(view) = stream.next_window().unwrap() {
        maps.push(view.zero_at_start.iter().flatten().map(|rank| history.tracked().page_of_rank(rank)).collect());
    }
    maps
}

fn plain(windows: &[Made]) -> Vec<(i64, i64, State, Vec<u64>)> {
    windows.iter().map(|w| (w.start_unix_ns, w.end_unix_ns, w.state, w.written.clone())).collect()
}

#[test]
fn windows_and_zero_maps_follow_each_other_with_gaps_between() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (recording(1, 0), recording(2, 600), recording(3, 1_200));
    let histories = written(dir.path(), &[&b, &a, &c]);
    let out = dir.path().join("out");
    let merged = merge(&histories, false, &out).unwrap();
    let end_unix_ns = c.windows[899].end_unix_ns;
    let start_unix_ns = a.windows[0].start_unix_ns;
    assert_eq!(merged, Merged { windows: 2_700, gaps: 2, start_unix_ns, end_unix_ns });
    let history = History::open(&out).unwrap();
    assert!(history.problems().is_empty() && history.verify().is_empty());
    let gap = |from: &Recording, to: &Recording| {
        (from.windows[899].end_unix_ns, to.windows[0].start_unix_ns, State::Gap, vec![])
    };
    let expected: Vec<_> = plain(&a.windows)
        .into_iter()
        .chain([gap(&a, &b)])
        .chain(plain(&b.windows))
        .chain([gap(&b, &c)])
        .chain(plain(&c.windows))
        .collect();
    assert_eq!(plain(&read_back(&history)), expected);
    let maps = zero_maps(&history);
    let all = |made: &Recording| -> Vec<Vec<u64>> {
        made.zero_maps().iter().map(|map| map.iter().copied().collect()).collect()
    };
    assert_eq!(maps[..901], all(&a));
    assert_eq!(maps[901..1_802], all(&b));
    assert_eq!(maps[1_802..], all(&c)[..900]);
}

#[test]
fn what_was_cut_in_two_is_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut made = recording(4, 0);
    // No time between windows: the cut leaves none either.
    for index in 1..made.windows.len() {
        made.windows[index].start_unix_ns = made.windows[index - 1].end_unix_ns;
    }
    let whole = &written(dir.path(), &[&made])[0];
    let cut = made.windows[400].end_unix_ns;
    let [early, late] = ["early", "late"].map(|name| dir.path().join(name));
    trim(whole, i64::MIN..cut, &early).unwrap();
    trim(whole, cut..i64::MAX, &late).unwrap();
    let halves = [History::open(&late).unwrap(), History::open(&early).unwrap()];
    let out = dir.path().join("out");
    let merged = merge(&halves, false, &out).unwrap();
    assert_eq!((merged.windows, merged.gaps), (900, 0));
    let again = History::open(&out).unwrap();
    assert_eq!(read_back(&again), read_back(whole));
    assert_eq!(zero_maps(&again), zero_maps(whole));
    let index = |history: &History| -> Vec<_> {
        history.segments().iter().flat_map(|segment| history.index(segment).unwrap()).collect()
    };
    assert_eq!(index(&again), index(whole));
}

#[test]
fn a_zero_map_that_changed_in_no_time_shows_in_the_first_window() {
    let dir = tempfile::tempdir().unwrap();
    let (a, mut b) = (recording(5, 0), recording(6, 600));
    let shift = b.windows[0].start_unix_ns - a.windows[899].end_unix_ns;
    for window in &mut b.windows {
        window.start_unix_ns -= shift;
        window.end_unix_ns -= shift;
    }
    let histories = written(dir.path(), &[&a, &b]);
    let out = dir.path().join("out");
    assert_eq!(merge(&histories, false, &out).unwrap().gaps, 0);
    let maps = zero_maps(&History::open(&out).unwrap());
    let last: Vec<u64> = b.zero_maps()[899].iter().copied().collect();
    let second: Vec<u64> = b.zero_maps()[1].iter().copied().collect();
    assert_eq!((&maps[901], maps.last()), (&second, Some(&last)));
}

#[test]
fn histories_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let a = recording(1, 0);
    let refusal = |change: &dyn Fn(&mut Recording)| {
        let mut b = recording(2, 600);
        change(&mut b);
        let folder = tempfile::tempdir_in(dir.path()).unwrap();
        let histories = written(folder.path(), &[&a, &b]);
        let out = folder.path().join("out");
        let error = merge(&histories, false, &out).unwrap_err();
        assert!(!out.exists());
        let line = support::line(&error).replace(&folder.path().display().to_string(), "");
        (line, merge(&histories, true, &out).map_err(|error: MergeError| error.to_string()))
    };
    let (line, vouched) = refusal(&|b| b.manifest.guest_id = "00000000-0000-4000-8000-000000000001".parse().unwrap());
    assert_eq!(
        line,
        "/0 and /1: guest_id is 67e55044-10b1-426f-9247-bb680e5fe0c8 and 00000000-0000-4000-8000-000000000001, allowed: the \
         same in all; --same-guest vouches for two ids"
    );
    assert_eq!(vouched.unwrap().windows, 1_800);
    let (line, vouched) = refusal(&|b| b.manifest.resource = "vda".into());
    assert_eq!(line, "/0 and /1: resource is ram and vda, allowed: the same in all");
    assert!(vouched.is_err());
    let (line, _) = refusal(&|b| b.manifest.blocks[0].guest_physical_address = Some(0));
    let line_of_blocks = "/0 and /1: blocks is 2 blocks of 1638400 bytes and 2 blocks of 1638400 bytes, allowed: the same in \
                          all (names, lengths, addresses and order)";
    assert_eq!(line, line_of_blocks);
    let (line, _) = refusal(&|b| *b = recording(2, 30));
    let time = |unix_ns: i64| jiff::Timestamp::from_nanosecond(unix_ns.into()).unwrap();
    let (end, start) = (time(a.windows[899].end_unix_ns), time(recording(2, 30).windows[0].start_unix_ns));
    let expected = format!(
        "/0 ends at {end:.3}, after /1 begins at {start:.3}; allowed: one after the other (migcast history trim cuts one)"
    );
    assert_eq!(line, expected);
}
