#![no_main]
use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use migcast_fuzz::{set_up, watched};
use migcast_history::fuzzing::Stage;
use tempfile::TempDir;

thread_local! {
    static STAGE: OnceCell<(TempDir, Stage)> = const { OnceCell::new() };
}

fn stage() -> (TempDir, Stage) {
    let dir = tempfile::tempdir().expect("a folder for the history under test");
    let stage = Stage::new(dir.path());
    (dir, stage)
}

fuzz_target!(init: set_up(), |data: &[u8]| STAGE.with(|cell| watched(|| cell.get_or_init(stage).1.check(data))));
