//! 1 Life of a migration: what is due at first, and what is timed from where.

use migcast_model::algorithm::qemu::Version;

use crate::{Run, Trace, data_pages, ms};

#[test]
fn rule_1_1_total_time_counts_from_the_request_so_connecting_is_in_it() {
    let mut run = Run::of(Version::V9_0);
    let without = run.completed(&Trace::idle(10)).migration_time_reported;
    run.platform.connect = ms(70);
    assert_eq!(run.completed(&Trace::idle(10)).migration_time_reported, without + ms(70));
}

#[test]
fn rule_1_2_every_page_is_due_at_the_first_sync_which_counts() {
    let completed = Run::of(Version::V9_0).completed(&Trace::idle(400).with_zero(0..100));
    assert_eq!(completed.iterations[0].due_at_start.get(), 400, "zero pages are due, too");
    assert_eq!(completed.sent.pages().get(), 400);
    // Set-up, one below the threshold, one while stopped.
    assert_eq!(completed.iteration_count, 3);
}

#[test]
fn rule_1_3_the_log_starts_in_set_up_so_what_was_written_while_connecting_is_not_in_it() {
    let trace = Trace::new(10, &[0..5]);
    let mut run = Run::of(Version::V9_0);
    assert!(run.completed(&trace).sent.data.get() > 10, "written from the request on: sent twice");
    run.platform.connect = ms(100);
    assert_eq!(run.completed(&trace).sent.data.get(), 10, "written before the log: sent once");
}

#[test]
fn rule_1_4_the_first_bandwidth_window_opens_before_set_up() {
    // 60 ms of set-up and one step of 65 pages close the first window after 125 ms: 266,778 bytes make 2134.2 B/ms, and
    // with 100 ms a threshold of 213,422 bytes, 52.1 pages. Opened after set-up the window would last another step and
    // no threshold be known; opened at the request, a second earlier, it would give 5.8 pages.
    let mut run = Run::of(Version::V9_0);
    run.platform.connect = ms(1000);
    run.platform.setup = ms(60);
    assert_eq!(data_pages(&run.completed(&Trace::idle(65 + 52))), [65, 0, 52]);
    assert_eq!(data_pages(&run.completed(&Trace::idle(65 + 53))), [118, 0, 0]);
}
