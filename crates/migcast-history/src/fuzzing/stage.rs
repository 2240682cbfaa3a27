//! A kept history in which one file is replaced by what a fuzzer made.
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_model::dirty::{CountedSource, SpanCounts};
use migcast_model::units::GuestTime;

use super::one_line;
use crate::damage::Problem;
use crate::export::{pages_csv, windows_csv};
use crate::files::Files;
use crate::index::{BANDS, Beside, IndexRow};
use crate::reader::History;
use crate::seal;
use crate::segment::{self, Commit, FileMark, WWS};
use crate::table::{Table, encode};

/// The histories that are kept for ever, one of each version, with their first segments to be spoilt.
///
/// Hashes stand before everything else in the reader's way, and nobody finds a hash by chance. So the stage forges them:
/// a made-up file gets a right seal where it has a place for one, and a commit mark that vouches for it. The reader under
/// test is the one that ships, hashes and all.
#[derive(Debug)]
pub struct Stage {
    first: Spoilt,
    now: Spoilt,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Spoilt {
    dir: PathBuf,
    manifest: crate::format::Manifest,
    tables: &'static [&'static Table],
    /// The first segment's files, in the order of `tables`.
    kept: Vec<Vec<u8>>,
    commit: Commit,
    index: Vec<IndexRow>,
    /// Of a history that has one.
    beside: Option<Beside>,
}

impl Stage {
    /// Copies the manifests and first segments of the kept histories to `dir`, an empty directory.
    ///
    /// # Panics
    /// Where that fails.
    pub fn new(dir: &Path) -> Stage {
        Stage { first: Spoilt::new(&dir.join("v1")), now: Spoilt::new(&dir.join("v3")) }
    }

    /// Puts `data` in the place of one of a segment's files (the first byte says which, its highest bit of which version;
    /// the rest is the file) and reads the history in every way there is. See [`Spoilt::survives`].
    ///
    /// # Panics
    /// Where the reader does, or breaks a promise.
    pub fn check(&self, data: &[u8]) {
        if let Some((&which, bytes)) = data.split_first() {
            let spoilt = if which < 0x80 { &self.first } else { &self.now };
            spoilt.survives(usize::from(which & 0x7f) % spoilt.tables.len(), bytes.to_vec());
        }
    }

    /// The history of the first version.
    #[cfg(test)]
    pub(crate) fn first(&self) -> &Spoilt {
        &self.first
    }

    /// The history of the version that is written now.
    #[cfg(test)]
    pub(crate) fn now(&self) -> &Spoilt {
        &self.now
    }
}

impl Spoilt {
    /// Of the version that is the last part of `dir`.
    fn new(dir: &Path) -> Spoilt {
        let version = dir.file_name().expect("it has a name");
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/format").join(version).join("history");
        fs::create_dir(dir).expect("the directory is empty");
        fs::copy(corpus.join("manifest.json"), dir.join("manifest.json")).expect("the directory can be written");
        let manifest = crate::format::Manifest::read(dir).expect("the kept manifest is good");
        let tables = segment::tables(manifest.version());
        let read = |table: &&Table| fs::read(segment::path(&corpus, table, 0)).expect("the kept history is there");
        let kept: Vec<Vec<u8>> = tables.iter().map(read).collect();
        for (table, bytes) in tables.iter().zip(&kept) {
            fs::create_dir(dir.join(table.name)).expect("the directory is empty");
            put(dir, table, bytes);
        }
        let commit = crate::files::commit(dir, &manifest, 0).expect("its segment is closed").commit;
        let (index, beside) = Files::new(dir, &manifest, 0, &commit).index_and_beside();
        Spoilt { dir: dir.into(), manifest, tables, kept, commit, index, beside }
    }

    /// How many files there are to be spoilt.
    #[cfg(test)]
    pub(crate) fn files(&self) -> usize {
        self.tables.len()
    }

    /// The first segment's file of this number.
    #[cfg(test)]
    pub(crate) fn kept(&self, which: usize) -> &[u8] {
        &self.kept[which]
    }

    /// Reads the history with `bytes` for one of its files; true if the segment stays in use. A segment is either left
    /// out, with one line that says why, or everything about it can be read.
    pub(crate) fn survives(&self, which: usize, mut bytes: Vec<u8>) -> bool {
        seal_anew(&mut bytes);
        put(&self.dir, self.tables[which], &bytes);
        if which < self.commit.files.len() {
            let mut commit = self.commit.clone();
            commit.files[which] = FileMark::of(self.tables[which], &bytes);
            put(&self.dir, &WWS, &self.commit_mark(&commit));
        }
        let history = History::open(&self.dir).expect("the manifest is good").without_damaged();
        let survives = !history.segments().is_empty();
        assert_eq!(survives, history.problems().is_empty(), "left out without a reason, or used despite one");
        history.problems().iter().for_each(reason);
        if survives {
            read_all(&history);
        }
        put(&self.dir, self.tables[which], &self.kept[which]);
        put(&self.dir, &WWS, &self.kept[self.tables.len() - 1]);
        survives
    }

    /// A `wws` file with the kept rows and this commit record.
    fn commit_mark(&self, commit: &Commit) -> Vec<u8> {
        let json = "what was read from JSON makes JSON";
        let mut metadata = vec![
            (segment::KEY_VERSION, self.manifest.version().to_string()),
            (segment::KEY_GUEST, self.manifest.guest_id.to_string()),
            (segment::KEY_SEGMENT, "0".to_owned()),
            (segment::KEY_BANDS, BANDS.to_string()),
            (segment::KEY_EDGES, segment::edges()),
            (segment::KEY_COMMIT, serde_json::to_string(commit).expect(json)),
        ];
        let beside = self.beside.as_ref().map(|beside| serde_json::to_string(beside).expect(json));
        metadata.extend(beside.map(|text| (segment::KEY_INDEX, text)));
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        encode(&WWS, &IndexRow::columns(&self.index), metadata).expect("the rows were read from such a table")
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
    match history.wws_index(timeline.all()) {
        Ok(index) => {
            assert_eq!(index.windows(), recorded);
            let counts = index.counts(Duration::ZERO);
            for nanos in [1, 1 << 20, 1 << 28, 1 << 34] {
                let until = GuestTime::from_nanos(nanos);
                assert!(counts.written(GuestTime::ZERO, until) >= 0.0);
                assert!(counts.written_per_band(GuestTime::ZERO, until).iter().all(|pages| pages.is_finite()));
            }
        }
        Err(error) => {
            assert_eq!(recorded, 0, "{error}");
            one_line(&error);
        }
    }
    let mut text = Vec::new();
    windows_csv(history, &mut text).expect("no damage was found");
    pages_csv(history, &mut text).expect("no damage was found");
    let written: u64 = timeline.entries().iter().map(|entry| u64::from(entry.window.written)).sum();
    let lines = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    assert_eq!(lines, 2 + timeline.entries().len() as u64 + written);
}
