//! What the fuzzers do with an input; the corpora are replayed by the tests below.
mod stage;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

pub use stage::Stage;
#[cfg(test)]
pub(crate) use stage::seal_anew;

use crate::format::Manifest;
use crate::import::{self, Asked, Format, SeriesBuilder};
use crate::observed::log::{self, Clock, Form};
use crate::observed::{self, Known, Observed};
use crate::rates;
use crate::sample::Tracked;

/// Reads a manifest. One that is accepted has pages that can be numbered, and reads the same after it was written; one
/// that is not says why on one line.
///
/// # Panics
/// Where the reader breaks one of these promises.
pub fn manifest(data: &[u8]) {
    let path = Path::new("manifest.json");
    match Manifest::parse(data, path) {
        Ok(manifest) => {
            let tracked = Tracked::of(&manifest).expect("an accepted manifest has a layout");
            for rank in [0, tracked.count() / 2, tracked.count() - 1] {
                assert_eq!(tracked.rank_of_page(tracked.page_of_rank(rank)), Some(rank));
            }
            assert!(manifest.memory_bytes() / manifest.page_size_bytes == tracked.memory());
            let text = serde_json::to_vec(&manifest).expect("a manifest is plain JSON");
            assert_eq!(Manifest::parse(&text, path).expect("its own text is accepted"), manifest);
        }
        Err(error) => one_line(&error),
    }
}

/// Reads observed migrations. Those that are accepted read the same after they were written; what is not says why on
/// one line.
///
/// # Panics
/// Where the reader breaks one of these promises.
pub fn observed(data: &[u8]) {
    let path = Path::new("observed.jsonl");
    match observed::parse(data, path) {
        Ok(all) => read_again(&all),
        Err(error) => one_line(&error),
    }
}

/// Observed migrations read the same after they were written.
fn read_again(all: &[Observed]) {
    let line = |observed| serde_json::to_string(observed).expect("an observed migration is plain JSON") + "\n";
    let text: String = all.iter().map(line).collect();
    let again = observed::parse(text.as_bytes(), Path::new("observed.jsonl"));
    assert_eq!(again.expect("its own text is accepted"), all);
}

/// Reads a log of migrations: the first byte says of which form it is, the rest is the log. What is read keeps the rules of
/// observed migrations and reads the same after it was written; what is not says why on one line.
///
/// # Panics
/// Where a reader breaks one of these promises.
pub fn log(data: &[u8]) {
    let Some((&which, text)) = data.split_first() else { return };
    let known = Known {
        guest: "g".to_owned(),
        history: None,
        version: "1.0".to_owned(),
        accelerator: "kvm".to_owned(),
        link_bits_per_second: 1_000_000_000,
        settings: Vec::new(),
    };
    let clock = Clock { ended: jiff::Timestamp::UNIX_EPOCH, zone: jiff::tz::TimeZone::UTC };
    let form = Form::ALL[usize::from(which) % Form::ALL.len()];
    let path = Path::new("log");
    match log::read(form, "qemu", &String::from_utf8_lossy(text), &known, &clock, path) {
        Ok(all) => read_again(&all),
        Err(error) => one_line(&error),
    }
}

/// Imports rates: the first byte says whose file it is, the rest is the file. What is accepted keeps the rules of a rate
/// series; what is not says why on one line.
///
/// # Panics
/// Where the reader breaks one of these promises.
pub fn import(data: &[u8]) {
    let Some((&which, mut text)) = data.split_first() else { return };
    let formats = [Format::Csv, Format::Qemu, Format::Virsh, Format::Kubevirt];
    let asked = Asked {
        page_size_bytes: 4_096,
        span: Some(Duration::from_secs(1)),
        boot: Some(jiff::Timestamp::UNIX_EPOCH),
        guest: None,
        time_column: None,
        rate_column: None,
        unit: None,
    };
    let path = Path::new("rates");
    let pages = 1 << 40;
    let mut rates = || {
        let imported = import::read(formats[usize::from(which) % formats.len()], &mut text, path, &asked)?;
        let mut builder = SeriesBuilder::new(pages, Duration::from_secs(300), vec![]);
        builder.add(path, &imported.measured)?;
        builder.finish(path)
    };
    match rates() {
        Ok(built) => assert_eq!(rates::first_broken(&built.rates, pages), None),
        Err(error) => one_line(&error),
    }
}

/// Errors reach people as one line, with their causes behind them; a file must not be able to break it.
pub(crate) fn one_line(error: &dyn Error) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let line = error.to_string();
        assert!(!line.contains(char::is_control) && line.len() < 4_000, "{line:?}");
        cause = error.source();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn replay(target: &str, check: impl Fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let inputs: Vec<_> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty());
        inputs.iter().for_each(|input| check(&fs::read(input).unwrap()));
    }

    #[test]
    fn the_corpus_of_manifest_holds() {
        replay("manifest", manifest);
    }

    #[test]
    fn the_corpus_of_observed_holds() {
        replay("observed", observed);
    }

    #[test]
    fn the_corpus_of_log_holds() {
        replay("log", log);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]
        /// Digits, signs and units in other places than a toolstack would put them.
        #[test]
        fn logs_that_were_tampered_with_hold(
            name in prop::sample::select(vec!["query-migrate", "domjobinfo", "cloud-hypervisor", "proxmox", "xl", "csv"]),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, "[-0-9.:eEsMiB,= \"\n]{0,6}"), 1..6),
        ) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/log").join(name);
            let mut input = fs::read(path).unwrap();
            for (at, cut, put) in edits {
                let at = 1 + at.index(input.len() - 1);
                let end = (at + cut).min(input.len());
                input.splice(at..end, put.bytes());
            }
            log(&input);
        }
    }

    #[test]
    fn the_corpus_of_import_holds() {
        replay("import", import);
    }

    #[test]
    fn the_corpus_of_segment_holds() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::new(dir.path());
        replay("segment", |data| stage.check(data));
    }

    #[test]
    fn forged_pages_are_refused_and_honest_ones_of_other_writers_read() {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::new(dir.path());
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/segment");
        let survives = |name| {
            let input = fs::read(corpus.join(name)).unwrap();
            stage.first().survives(input[0].into(), input[1..].to_vec())
        };
        for honest in ["plain-pages", "plain-windows", "plain-zero", "plain-wws", "dictionary-windows"] {
            assert!(survives(honest), "{honest}");
        }
        for forged in ["forged-dictionary-count", "forged-value-count", "forged-page-size"] {
            assert!(!survives(forged), "{forged}");
        }
    }
}
