//! What all targets set up: how panics are judged, and how much memory there is.
use std::cell::RefCell;
use std::panic;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Address space of a fuzzer, in bytes. A thousand bytes of input that make a reader reserve more than this end the
/// process, which libFuzzer notes as a crash.
const ADDRESS_SPACE: u64 = 2 << 30;

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Prepares the process. To be called once, before the first input.
///
/// libFuzzer's crate ends the process at every panic, also at one that the reader catches by design (Parquet's decoder
/// panics on pages that no writer makes). Its hook is replaced by one that takes a note; a panic that comes out of a
/// target ends the process in [`watched`].
pub fn set_up() {
    panic::set_hook(Box::new(|panic| LAST_PANIC.set(panic.to_string())));
    let limit = Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    setrlimit(Resource::As, limit).expect("a limit may always be lowered");
}

/// Runs a target on one input.
pub fn watched(target: impl FnOnce()) {
    if panic::catch_unwind(panic::AssertUnwindSafe(target)).is_err() {
        eprintln!("{}", LAST_PANIC.take());
        std::process::abort();
    }
}
