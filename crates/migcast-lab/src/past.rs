//! A guest's past at some moment: what a forecast that is made then can know of it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use migcast_history::reader::History;
use migcast_history::trim::trim;

use crate::runtime::RuntimeDir;

/// A recording that ended no longer ago tells what the guest is doing.
const FRESH_MAX: Duration = Duration::from_secs(2);

/// What had been recorded of a guest by some moment.
#[derive(Debug)]
pub struct Past {
    dir: PathBuf,
    /// Where `dir` lies, if it is a copy.
    _folder: Option<RuntimeDir>,
    is_fresh: bool,
}

impl Past {
    /// Of what `history` holds, the windows that had ended at `moment`: the history itself, where all had.
    ///
    /// # Errors
    /// It cannot be read, or nothing had been recorded yet.
    pub fn at(history: &Path, moment: Timestamp) -> Result<Past> {
        let opened = History::open(history)?;
        let timeline = opened.timeline()?;
        let moment = i64::try_from(moment.as_nanosecond())?;
        let before = timeline.recorded().map(|entry| entry.window.end_unix_ns).take_while(|end| *end <= moment);
        let last = before.last().with_context(|| format!("{}: nothing was recorded by then", history.display()))?;
        let is_fresh = moment - last <= FRESH_MAX.as_nanos() as i64;
        if timeline.end_unix_ns() <= moment {
            return Ok(Past { dir: history.to_owned(), _folder: None, is_fresh });
        }
        Past::copy(&opened, timeline.start_unix_ns()..last, is_fresh)
    }

    /// The end of it alone.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn last(&self, span: Duration) -> Result<Past> {
        let opened = History::open(&self.dir)?;
        let end = opened.timeline()?.end_unix_ns();
        Past::copy(&opened, end - span.as_nanos() as i64..end, self.is_fresh)
    }

    fn copy(history: &History, unix_ns: Range<i64>, is_fresh: bool) -> Result<Past> {
        let folder = RuntimeDir::make()?;
        let dir = folder.path().join("history");
        trim(history, unix_ns, &dir)?;
        Ok(Past { dir, _folder: Some(folder), is_fresh })
    }

    /// The history's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it goes on until the moment, so that its end tells what the guest is doing.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/histories/steady")
    }

    #[test]
    fn what_came_later_is_not_known() {
        let whole = History::open(&shipped()).unwrap().timeline().unwrap();
        let after = |start: Timestamp, millis: u64| start + Duration::from_millis(millis);
        let at_once = Past::at(&shipped(), after(whole.end(), 500)).unwrap();
        assert!(at_once.is_fresh() && at_once.dir() == shipped());
        assert!(!Past::at(&shipped(), after(whole.end(), 5_000)).unwrap().is_fresh());

        let moment = after(whole.start(), 20_050);
        let past = Past::at(&shipped(), moment).unwrap();
        let known = History::open(past.dir()).unwrap().timeline().unwrap();
        assert!(past.is_fresh() && known.end() <= moment && known.start() == whole.start(), "{}", known.end());
        let end = History::open(past.last(Duration::from_secs(5)).unwrap().dir()).unwrap().timeline().unwrap();
        assert!(
            end.end() == known.end() && (4.5..=5.0).contains(&end.duration().as_secs_f64()),
            "{:?}",
            end.duration()
        );
        assert!(Past::at(&shipped(), whole.start()).is_err());
    }
}
