//! A kept history in which one file is replaced by what a fuzzer made.
use std::fs;
use std::path::{Path, PathBuf};

use super::one_line;
use crate::damage::Problem;
use crate::export::{pages_csv, windows_csv};
use crate::index::{BANDS, IndexRow};
use crate::reader::History;
use crate::seal;
use crate::segment::{self, Commit, FileMark, TABLES, WWS};
use crate::table::{Table, Values, encode};

/// The history that is kept for ever, with its first segment to be spoilt.
///
/// Hashes stand before everything else in the reader's way, and nobody finds a hash by chance. So the stage forges them:
/// a made-up file gets a right seal where it has a place for one, and a commit mark that vouches for it. The reader under
/// test is the one that ships, hashes and all.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    manifest: crate::format::Manifest,
    /// The first segment's files, in the order of [`TABLES`].
    kept: Vec<Vec<u8>>,
    commit: Commit,
    index: Vec<IndexRow>,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format/v1/history")
}

impl Stage {
    /// Copies the kept history's manifest and first segment to `dir`, an empty directory.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new(dir: &Path) -> Stage {
        let kept = TABLES.map(|table| fs::read(segment::path(&corpus(), table, 0)).expect("the kept history is there"));
        fs::copy(corpus().join("manifest.json"), dir.join("manifest.json")).expect("the directory can be written");
        for (table, bytes) in TABLES.iter().zip(&kept) {
            fs::create_dir(dir.join(table.name)).expect("the directory is empty");
            put(dir, table, bytes);
        }
        let history = History::open(dir).expect("the kept history opens");
        let commit = crate::files::commit(dir, history.manifest(), 0).expect("its segment is closed").commit;
        let index = history.index(&history.segments()[0]).expect("it has an index");
        Stage { dir: dir.into(), manifest: history.manifest().clone(), kept: kept.into(), commit, index }
    }

    /// The first segment's file of `TABLES[which]`.
    #[cfg(test)]
    pub(crate) fn kept(&self, which: usize) -> &[u8] {
        &self.kept[which]
    }

    /// Puts `data` in the place of one of the segment's files (the first byte says which, the rest is the file) and reads
    /// the history in every way there is. See [`Self::survives`].
    ///
    /// # Panics
    /// Where the reader does, or breaks a promise.
    pub fn check(&self, data: &[u8]) {
        if let Some((&which, bytes)) = data.split_first() {
            self.survives(usize::from(which) % TABLES.len(), bytes.to_vec());
        }
    }

    /// Reads the history with `bytes` for the file of `TABLES[which]`; true if the segment stays in use. A segment is
    /// either left out, with one line that says why, or everything about it can be read.
    pub(crate) fn survives(&self, which: usize, mut bytes: Vec<u8>) -> bool {
        seal_anew(&mut bytes);
        put(&self.dir, TABLES[which], &bytes);
        if which < self.commit.files.len() {
            let mut commit = self.commit.clone();
            commit.files[which] = FileMark::of(TABLES[which], &bytes);
            put(&self.dir, &WWS, &self.commit_mark(&commit));
        }
        let history = History::open(&self.dir).expect("the manifest is good").without_damaged();
        let survives = !history.segments().is_empty();
        assert_eq!(survives, history.problems().is_empty(), "left out without a reason, or used despite one");
        history.problems().iter().for_each(reason);
        if survives {
            read_all(&history);
        }
        put(&self.dir, TABLES[which], &self.kept[which]);
        put(&self.dir, &WWS, &self.kept[TABLES.len() - 1]);
        survives
    }

    /// A `wws` file with the kept rows and this commit record.
    fn commit_mark(&self, commit: &Commit) -> Vec<u8> {
        let column =
            |value: fn(&IndexRow) -> u32| Values::U32(self.index.iter().map(|row| value(row).cast_signed()).collect());
        let values = [
            column(|row| row.window),
            column(|row| row.band.into()),
            column(|row| row.bucket.into()),
            column(|row| row.events),
        ];
        let metadata = [
            (segment::KEY_VERSION, "1".to_owned()),
            (segment::KEY_GUEST, self.manifest.guest_id.to_string()),
            (segment::KEY_SEGMENT, "0".to_owned()),
            (segment::KEY_BANDS, BANDS.to_string()),
            (segment::KEY_EDGES, segment::edges()),
            (segment::KEY_COMMIT, serde_json::to_string(commit).expect("a commit record is plain JSON")),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        encode(&WWS, &values, metadata).expect("the rows were read from such a table")
    }
}

fn put(dir: &Path, table: &Table, bytes: &[u8]) {
    fs::write(segment::path(dir, table, 0), bytes).expect("the stage can be written");
}

/// Seals changed bytes anew, if the place for it is still there; without one the reader refuses them.
pub(crate) fn seal_anew(bytes: &mut [u8]) {
    if let Some(place) = seal::place(bytes) {
        bytes[place].copy_from_slice(seal::OPEN.as_bytes());
        seal::seal(bytes);
    }
}

fn reason(problem: &Problem) {
    let Problem::Damaged { error, .. } = problem else { panic!("only damage is to be found: {problem:?}") };
    let line = problem.to_string();
    assert!(!line.contains(char::is_control), "{line:?}");
    one_line(error);
}

/// What was found undamaged can be read in every way, and the ways agree.
fn read_all(history: &History) {
    let timeline = history.timeline().expect("no damage was found");
    let summary = history.summary(7).expect("no damage was found");
    assert!(summary.pages_per_second.is_finite());
    let recorded = timeline.recorded().count();
    match history.page_replay(timeline.all()) {
        Ok(replay) => assert_eq!(replay.windows(), recorded),
        Err(error) => {
            assert_eq!(recorded, 0, "{error}");
            one_line(&error);
        }
    }
    for segment in history.segments() {
        history.index(segment).expect("no damage was found");
    }
    let mut text = Vec::new();
    windows_csv(history, &mut text).expect("no damage was found");
    pages_csv(history, &mut text).expect("no damage was found");
    let written: u64 = timeline.entries().iter().map(|entry| u64::from(entry.window.written)).sum();
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(lines, 2 + timeline.entries().len() as u64 + written);
}
