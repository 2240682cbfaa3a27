//! 9 XBZRLE (save_xbzrle_page, migration/page_cache.c). Pages 0 to 299 of 1000 are written all the time for 3 s.

use migcast_model::algorithm::qemu::{Version, Xbzrle};
use migcast_model::dirty::ZeroChange;
use migcast_model::outcome::Completed;
use migcast_model::units::{ByteCount, BytesPerSec};

use crate::{PAGE_BYTES, Run, SECTION, Trace, ms};

fn completed(xbzrle: Xbzrle) -> Completed {
    let mut run = Run::of(Version::V9_0);
    run.settings.xbzrle = Xbzrle { is_on: true, ..xbzrle };
    run.completed(&Trace::new(1000, &vec![0..300; 30]))
}

fn encoded(completed: &Completed) -> Vec<u64> {
    completed.iterations.iter().map(|iteration| iteration.sent.encoded.get()).collect()
}

#[test]
fn rule_9_1_what_is_in_the_cache_is_sent_encoded_after_the_first_turn() {
    let done = completed(Xbzrle::default());
    let encoded = encoded(&done);
    assert_eq!(encoded[..2], [0, 0], "the first turn, then each page for the first time after it");
    assert!(encoded[2] > 200, "{encoded:?}");
    // A guest that has moved gets whole pages.
    let mut moved = Run::of(Version::V9_0);
    moved.settings.xbzrle = Xbzrle { is_on: true, ..Xbzrle::default() };
    moved.settings.postcopy.after = Some(ms(1_800));
    let moved = moved.completed(&Trace::new(1000, &vec![0..300; 30]));
    assert_eq!((*self::encoded(&moved).last().unwrap(), moved.sent.encoded.get() > 0), (0, true));
    let sections = done.sent_bytes.get() - done.sent.data.get() * PAGE_BYTES - done.sent.encoded.get() * (8 + 3 + 2048);
    assert_eq!(sections % SECTION, 0, "half of a page and eleven bytes each");
}

#[test]
fn rule_9_2_a_page_that_finds_its_slot_taken_is_sent_whole() {
    // One slot for the three hundred: a page keeps it for two readings, in which it is hit.
    let done = completed(Xbzrle { cache: ByteCount::new(4096), ..Xbzrle::default() });
    assert!(encoded(&done).iter().all(|encoded| *encoded <= 1), "{:?}", encoded(&done));
}

#[test]
fn rule_9_3_an_encoded_page_is_as_long_as_stated_and_no_longer_than_a_page() {
    let done = completed(Xbzrle { encoded_percent: 100, ..Xbzrle::default() });
    let pages = done.sent.data.get() + done.sent.encoded.get();
    assert!(done.sent.encoded.get() > 0);
    assert_eq!((done.sent_bytes.get() - pages * PAGE_BYTES) % SECTION, 0);
}

#[test]
fn rule_9_4_a_page_of_zeros_takes_its_slot_too() {
    // Every page takes 1 ms, the threshold is 100 pages. Pages 0 to 299 are zeros, which the guest writes all the time, data
    // from 1300 ms on. The first turn is over at 1000 ms; from then to 1300 ms they go out as zeros again, and have a slot
    // each. So only the other 700 are ever sent whole.
    let data = |rank| (13, ZeroChange { rank, zero: false });
    let mut trace = Trace::new(1000, &vec![0..300; 20]).with_zero(0..300);
    trace.zero_changes = (0..300).map(data).collect();
    let mut run = Run::of(Version::V9_0);
    run.platform.zero_page_cost = ms(1);
    run.settings.avail_switchover_bandwidth = Some(BytesPerSec::new(4_096_000));
    run.settings.xbzrle = Xbzrle { is_on: true, ..Xbzrle::default() };
    let done = run.completed(&trace);
    assert_eq!((done.sent.data.get(), done.sent.zero.get() >= 600, done.sent.encoded.get() >= 300), (700, true, true));
}
