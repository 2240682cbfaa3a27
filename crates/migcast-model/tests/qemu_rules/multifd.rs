//! 8 Multifd (migration/multifd.c). 256 pages are two packets; 65, 65 and 65 of them go out live, 61 after the stop.

use migcast_model::algorithm::qemu::{Multifd, Version};
use migcast_model::platform::Platform;
use migcast_model::units::BytesPerSec;

use crate::{Run, SECTION, Trace, millis, ms};

const PACKET: u64 = 1344;

fn run(version: Version) -> Run {
    let mut run = Run::of(version);
    run.settings.multifd = Multifd { is_on: true, channels: 2 };
    run
}

#[test]
fn rule_8_1_128_pages_share_a_packet_s_header() {
    let completed = run(Version::V9_0).completed(&Trace::idle(256));
    // Two packets, and one from each channel at the end; three live sections and the last.
    assert_eq!(completed.sent_bytes.get(), 256 * 4096 + 4 * PACKET + 4 * SECTION);
}

#[test]
fn rule_8_2_up_to_8_0_every_section_closes_its_packet_and_syncs_the_channels() {
    let completed = run(Version::V8_0).completed(&Trace::idle(256));
    assert_eq!(completed.sent_bytes.get(), 256 * 4096 + 4 * 3 * PACKET + 4 * SECTION);
    let completed = run(Version::V8_1).completed(&Trace::idle(256));
    assert_eq!(completed.sent_bytes.get(), 256 * 4096 + 4 * PACKET + 4 * SECTION);
}

#[test]
fn rule_8_3_from_9_0_on_zero_pages_take_a_place_in_a_packet_and_no_bytes() {
    let trace = Trace::idle(256).with_zero(0..128);
    let bytes = |version| run(version).completed(&trace).sent_bytes.get();
    // One packet less, nine bytes for each zero page; as many sections.
    assert_eq!(bytes(Version::V8_2) + PACKET, bytes(Version::V9_0) + 128 * 9);
}

#[test]
fn rule_8_4_channels_share_the_work_on_pages() {
    // Two milliseconds of work a page: the link waits for one thread, but not for two.
    let slow = Platform { page_cost: ms(2), ..Platform::free() };
    let mut run = run(Version::V9_0);
    run.platform = slow;
    assert!(millis(run.completed(&Trace::idle(1000)).migration_time).abs_diff(1000) < 5);
    run.settings.multifd.is_on = false;
    assert!(millis(run.completed(&Trace::idle(1000)).migration_time).abs_diff(2000) < 5);
    // Up to 8.2 it is the main thread that looks for zero pages, alone.
    for (version, expected) in [(Version::V8_2, 2000), (Version::V9_0, 1000)] {
        let mut run = self::run(version);
        run.platform = Platform { zero_page_cost: ms(2), ..Platform::free() };
        let time = millis(run.completed(&Trace::idle(1000).with_zero(0..1000)).migration_time);
        assert!(time.abs_diff(expected) < 5, "{version:?}: {time}");
    }
}

#[test]
fn rule_8_5_each_channel_has_a_sender_s_buffer() {
    let mut run = run(Version::V9_0);
    run.sender_buffer = 90 * 4104;
    let drain = |run: &Run| millis(run.completed(&Trace::idle(1000)).downtime.drain);
    let two = drain(&run);
    run.settings.multifd.is_on = false;
    let one = drain(&run);
    assert!((60..=90).contains(&one), "between two thirds of the buffer and all of it: {one}");
    assert!((150..=180).contains(&two), "one of two buffers is waited for: {two}");
}

#[test]
fn rule_8_6_pages_count_against_the_budget_with_their_packet() {
    // A budget of 65 pages, and an endlessly fast link: page by page the 66th would pass it, but 128 make a packet. So 256
    // pages are two windows, where page by page they would be three and 58 pages.
    for version in [Version::V8_1, Version::V8_2] {
        let mut run = run(version);
        run.settings.max_bandwidth = BytesPerSec::new(65 * 4096 * 10);
        run.settings.downtime_limit = ms(0);
        run.rate = BytesPerSec::new(1 << 50);
        assert_eq!(millis(run.completed(&Trace::idle(256)).migration_time), 200, "{version:?}");
    }
}
