//! Lays histories of one guest after each other.
use std::path::{Path, PathBuf};

use migcast_model::dirty as model;

use crate::copy::CopyWriter;
use crate::damage::ReadError;
use crate::format::{Manifest, VERSION_FIRST};
use crate::reader::{History, Segment, View, timestamp};
use crate::runs::RankRuns;
use crate::sample::Tracked;
use crate::splice::Splice;
use crate::vcpu::{VcpuShares, VcpuTime};
use crate::writer::WriteError;

/// Why histories could not be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The merged one cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// They are not of one guest, or not recorded alike.
    #[error("{} and {}: {what} is {first} and {second}, allowed: the same in all{remedy}", a.display(), b.display())]
    Differ {
        /// The first history.
        a: Box<Path>,
        /// One that differs from it.
        b: Box<Path>,
        /// In what.
        what: &'static str,
        /// What the first has.
        first: Box<str>,
        /// What the other has.
        second: Box<str>,
        /// What to do, if something can be done.
        remedy: &'static str,
    },
    /// Two were recorded at one time.
    #[error("{} ends at {end:.3}, after {} begins at {start:.3}; allowed: one after the other (migcast history trim cuts one)", a.display(), b.display())]
    Overlap {
        /// The one that begins first.
        a: PathBuf,
        /// The other.
        b: PathBuf,
        /// End of the first.
        end: jiff::Timestamp,
        /// Start of the other.
        start: jiff::Timestamp,
    },
    /// One of format version 1 beside one whose pages were taken away.
    #[error(
        "{}: of format version 1, which has to be counted anew, and pages of {} were taken away; allowed: later versions \
         (migcast history trim makes one of it)", old.display(), pageless.display()
    )]
    OldBesidePageless {
        /// The one of version 1.
        old: PathBuf,
        /// The one without all of its pages.
        pageless: PathBuf,
    },
    /// More windows than a history can number.
    #[error("{windows} windows together, allowed: up to 4294967295")]
    TooMany {
        /// So many.
        windows: u64,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Windows copied, gaps that were filled in not counted.
    pub windows: u64,
    /// Gaps between histories.
    pub gaps: u32,
    /// Start of the first window, nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// End of the last, likewise.
    pub end_unix_ns: i64,
}

/// Copies all windows of `histories` (at least one, in any order) to a new history at `out`, which must not exist or be
/// empty: in the order of time, with a gap for what lies between two.
///
/// They must be of one guest (unless `same_guest` vouches for it; the merged one is the first one's then), with the same
/// blocks, page size, sample, resource and meaning of written. Windows are numbered from 0 and cut into segments anew,
/// the WWS index is built anew over all. A page that became zero, or ceased to be, between two histories does so in the
/// gap, or in the first window of the later one where there is none. Memory in use is that of one segment read and one
/// written.
///
/// Where pages of one were taken away, all are copied by segments, each with the index that was counted when it was recorded:
/// behind a seam counts begin anew, unless both sides are pieces of one recording, cut there.
///
/// # Errors
/// Histories that differ or overlap; nothing is written then. Damage; a full disk.
///
/// # Panics
/// If there is no history.
pub fn merge(histories: &[History], same_guest: bool, out: &Path) -> Result<Merged, MergeError> {
    let order = in_order(histories)?;
    let first = order[0];
    order.iter().try_for_each(|history| check_alike(&histories[0], history, same_guest))?;
    order.windows(2).try_for_each(|pair| check_apart(pair[0], pair[1]))?;
    let all = order.iter().flat_map(|history| history.segments());
    let (windows, segments) =
        all.fold((0, 0), |(windows, segments), segment| (windows + segment.windows().len() as u64, segments + 1));
    // There is at most one gap before each.
    if windows + segments >= u64::from(u32::MAX) {
        return Err(MergeError::TooMany { windows });
    }
    let manifest = Manifest { created: timestamp(start(first)?), ..histories[0].manifest().clone() };
    if let Some(pageless) = order.iter().find(|history| history.has_lost_pages(&(0..u32::MAX))) {
        return by_segments(&order, pageless, manifest, out);
    }
    let mut merging =
        Merging { out, manifest, copy: None, zero: RankRuns::default(), before: None, windows: 0, gaps: 0 };
    for history in &order {
        merging.history(history)?;
    }
    let Merging { copy, before, windows, gaps, .. } = merging;
    copy.map_or(Ok(()), CopyWriter::finish)?;
    let end_unix_ns = before.map_or(start(first)?, |(_, end)| end);
    Ok(Merged { windows, gaps, start_unix_ns: start(first)?, end_unix_ns })
}

/// As [`merge`], where `pageless`, one of them, has lost pages.
fn by_segments(order: &[&History], pageless: &History, manifest: Manifest, out: &Path) -> Result<Merged, MergeError> {
    if let Some(old) = order.iter().find(|history| history.manifest().version() == VERSION_FIRST) {
        return Err(MergeError::OldBesidePageless { old: old.dir().into(), pageless: pageless.dir().into() });
    }
    // Its segments may be without pages.
    let keep_pages_seconds = pageless.manifest().keep_pages_seconds;
    let mut splice = Splice::create(out, Manifest { keep_pages_seconds, ..manifest })?;
    let mut merged = Merged { windows: 0, gaps: 0, start_unix_ns: start(order[0])?, end_unix_ns: i64::MIN };
    for history in order {
        merged.gaps += u32::from(merged.windows > 0 && start(history)? > merged.end_unix_ns);
        splice.segments::<MergeError>(history, history.segments())?;
        merged.windows += history.segments().iter().map(|segment| segment.windows().len() as u64).sum::<u64>();
        merged.end_unix_ns = history.segments().last().map_or(merged.end_unix_ns, Segment::end_unix_ns);
    }
    Ok(merged)
}

/// Start of a history's first window.
fn start(history: &History) -> Result<i64, ReadError> {
    let first = history.segments().first().ok_or_else(|| ReadError::Empty { dir: history.dir().into() })?;
    Ok(first.start_unix_ns())
}

fn in_order(histories: &[History]) -> Result<Vec<&History>, ReadError> {
    assert!(!histories.is_empty(), "there is something to merge");
    let starts = histories.iter().map(|history| Ok((start(history)?, history)));
    let mut order: Vec<(i64, &History)> = starts.collect::<Result<_, ReadError>>()?;
    order.sort_by_key(|(start, _)| *start);
    Ok(order.into_iter().map(|(_, history)| history).collect())
}

/// Checks that a history can be laid beside the first one that was named.
fn check_alike(first: &History, other: &History, same_guest: bool) -> Result<(), MergeError> {
    let (a, b) = (first.manifest(), other.manifest());
    let blocks = |manifest: &Manifest| {
        let bytes = manifest.memory_bytes();
        format!("{} blocks of {bytes} bytes", manifest.blocks.len())
    };
    let sample = |manifest: &Manifest| format!("1/{} with seed {}", manifest.sample.one_in, manifest.sample.seed);
    let vouch = "; --same-guest vouches for two ids";
    let rules = [
        ("guest_id", a.guest_id == b.guest_id || same_guest, a.guest_id.to_string(), b.guest_id.to_string(), vouch),
        ("resource", a.resource == b.resource, a.resource.clone(), b.resource.clone(), ""),
        (
            "page_size_bytes",
            a.page_size_bytes == b.page_size_bytes,
            a.page_size_bytes.to_string(),
            b.page_size_bytes.to_string(),
            "",
        ),
        ("blocks", a.blocks == b.blocks, blocks(a), blocks(b), " (names, lengths, addresses and order)"),
        ("sample", a.sample == b.sample, sample(a), sample(b), ""),
        (
            "written_means",
            a.written_means == b.written_means,
            format!("{:?}", a.written_means),
            format!("{:?}", b.written_means),
            "",
        ),
    ];
    let differs = rules.into_iter().find(|(_, alike, ..)| !alike);
    differs.map_or(Ok(()), |(what, _, one, two, remedy)| {
        let [first_value, second] = [one, two].map(|value| crate::quote::quoted(&value).into());
        let (a, b) = (first.dir().into(), other.dir().into());
        Err(MergeError::Differ { a, b, what, first: first_value, second, remedy })
    })
}

fn check_apart(a: &History, b: &History) -> Result<(), MergeError> {
    let end = a.segments().last().map_or(i64::MIN, Segment::end_unix_ns);
    let start = start(b)?;
    if end <= start {
        return Ok(());
    }
    let (a, b) = (a.dir().into(), b.dir().into());
    Err(MergeError::Overlap { a, b, end: timestamp(end), start: timestamp(start) })
}

/// Where copying stands.
struct Merging<'a> {
    out: &'a Path,
    manifest: Manifest,
    copy: Option<CopyWriter>,
    /// The zero map after the last window written.
    zero: RankRuns,
    /// Index and end of the last window copied; no index after a history's end.
    before: Option<(Option<u32>, i64)>,
    windows: u64,
    gaps: u32,
}

impl Merging<'_> {
    fn history(&mut self, history: &History) -> Result<(), MergeError> {
        let mut is_first = true;
        let mut shares = VcpuShares::of_history(history);
        let mut stream = history.stream(0..u32::MAX);
        while let Some(view) = stream.next_window()? {
            let vcpu_time = shares.of(view.index, &view.window)?;
            self.window(history.tracked(), &view, is_first, vcpu_time)?;
            is_first = false;
        }
        self.before = self.before.map(|(_, end)| (None, end));
        Ok(())
    }

    /// Copies a window, the first of its history or a later one.
    fn window(
        &mut self,
        tracked: &Tracked,
        view: &View<'_>,
        is_first: bool,
        vcpu_time: Option<VcpuTime>,
    ) -> Result<(), MergeError> {
        let copy = match &mut self.copy {
            Some(copy) => copy,
            None => {
                self.zero = view.zero_at_start.clone();
                self.copy.insert(CopyWriter::create(self.out, self.manifest.clone(), tracked, view)?)
            }
        };
        let (start_unix_ns, end_unix_ns) = (view.window.start_unix_ns, view.window.end_unix_ns);
        let follows = |before: Option<u32>| before.is_some_and(|before| view.index == before + 1);
        if let Some((before, until)) = self.before.filter(|(before, until)| !follows(*before) && start_unix_ns > *until)
        {
            // What changed between two histories did so in the gap.
            let meanwhile = if is_first { self.zero.changes_to(view.zero_at_start) } else { Vec::new() };
            copy.gap(until, start_unix_ns, &meanwhile)?;
            meanwhile.iter().for_each(|change| self.zero.set(change.rank, change.zero));
            self.gaps += u32::from(before.is_none());
        }
        let apart = if is_first { self.zero_of_first(view) } else { None };
        let changes = apart.as_deref().unwrap_or(view.zero_changes);
        changes.iter().for_each(|change| self.zero.set(change.rank, change.zero));
        let copy = self.copy.as_mut().expect("it was made above");
        copy.window(view, changes, vcpu_time)?;
        self.before = Some((Some(view.index), end_unix_ns));
        self.windows += 1;
        Ok(())
    }

    /// What changes in the first window of a history, if that is more than it says: where one history ends just when the
    /// next begins, what changed in no time shows there.
    fn zero_of_first(&self, view: &View<'_>) -> Option<Vec<model::ZeroChange>> {
        (self.zero != *view.zero_at_start).then(|| {
            let mut after = view.zero_at_start.clone();
            view.zero_changes.iter().for_each(|change| after.set(change.rank, change.zero));
            self.zero.changes_to(&after)
        })
    }
}
