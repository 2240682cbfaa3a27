//! 9 XBZRLE (save_xbzrle_page, migration/page_cache.c). Pages 0 to 299 of 1000 are written all the time for 3 s.

use migcast_model::algorithm::qemu::{Version, Xbzrle};
use migcast_model::outcome::Completed;
use migcast_model::units::ByteCount;

use crate::{PAGE_BYTES, Run, SECTION, Trace};

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
    moved.settings.postcopy.after = Some(crate::ms(1_800));
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
