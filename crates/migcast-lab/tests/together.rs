//! Several guests in one go: kept trials read again, and a small real form of two guests, whose bounds are loose because
//! the machine may be busy. The full form is `migcast-lab together`; what it found stands in docs/accuracy.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;
use std::time::Duration;

use migcast_lab::accel::Accel;
use migcast_lab::cache::Cache;
use migcast_lab::features::Features;
use migcast_lab::guest::Guest;
use migcast_lab::interrupt::Interrupt;
use migcast_lab::link::{End, ShapedLink};
use migcast_lab::machine::{Images, Spec};
use migcast_lab::migration::{NO_CAP, Terms};
use migcast_lab::recording;
use migcast_lab::together::kept::Trial;
use migcast_lab::together::member::{self, About, Member};
use migcast_lab::together::plan::Plan;
use migcast_lab::together::trial::{self, Tried};
use migcast_lab::together::{comparison, fleet, kept};
use migcast_model::units::BytesPerSec;
use serde_json::{Value, json};

/// Trials as the laboratory keeps them, shortened, with forecasts made up to lie beside them.
const KEPT: &str = "tests/together";

#[test]
fn kept_trials_are_read_again_with_the_forecasts_made_before_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    let (cases, faults) = comparison::sound(comparison::read(&folder).unwrap());
    assert_eq!((cases.len(), faults.len()), (3, 2));
    assert!(
        faults[0].ends_with(": void, the guests alone used 1.52 of 2 cores, allowed is less than 1.40"),
        "{faults:?}"
    );
    assert!(faults[1].ends_with(": left out, 1.25 cores were used by others"), "{faults:?}");
    let table = comparison::table(&cases);
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[2].starts_with("| planned | 1 | 40.40 / 41.00 (38.95 to 43.05) / +1.5 %; 1 of 1 | "), "{table}");
    assert!(table.contains("| one-after-the-other | skewed | 28.14 / 28.00 "), "{table}");
    // Three policies, then four guests of each.
    assert_eq!(rows.len(), 2 + 3 + 1 + 2 + 3 * 4, "{table}");
    let summary = comparison::summary(&cases);
    let expected = "makespan of planned: +1.5 %, within 10 %\nmakespan of one-after-the-other: -2.9 %, within 10 %\n\
                    makespan of all-at-once: +7.3 %, within 10 %\n\
                    order of the policies: all-at-once, planned, one-after-the-other; as far as the forecast tells them apart as \
                    forecast, which was planned, all-at-once, one-after-the-other\n- all-at-once came before planned; they have bands that overlap\n";
    assert_eq!(summary, expected);
}

/// Four guests by three policies, three times each (docs/accuracy.md), forecast anew from what was recorded before.
#[test]
fn four_guests_that_were_really_moved_together_are_forecast_within_a_tenth() {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab");
    let (folder, platform) = (lab.join("together"), lab.join("platform.json"));
    let program = recording::program().unwrap();
    let (mut cases, faults) = comparison::sound(comparison::read(&folder).unwrap());
    assert_eq!((cases.len(), faults.len()), (9, 0), "{faults:?}");
    let ask = |trial: &Trial| {
        let fleet = folder.join(fleet::of_plan(&trial.plan)?);
        Plan::parse(&fleet::ask(&program, &fleet, &trial.settings, Some(&platform))?)
    };
    comparison::forecast_again(&mut cases, ask).unwrap();
    let summary = comparison::summary(&cases);
    assert_eq!(summary.matches(", within 10 %").count(), 3, "{summary}");
    assert!(
        summary.contains("order of the policies: planned, all-at-once, one-after-the-other, as forecast"),
        "{summary}"
    );
}

#[test]
fn a_trial_is_written_as_it_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    let trials = kept::read(&folder).unwrap();
    let out = tempfile::tempdir().unwrap();
    trials.iter().for_each(|trial| kept::append(out.path(), trial).unwrap());
    assert_eq!(kept::read(out.path()).unwrap(), trials);
    std::fs::write(out.path().join(kept::FILE), "{}\n{").unwrap();
    let error = format!("{:#}", kept::read(out.path()).unwrap_err());
    assert!(error.contains("together.jsonl, line 1: missing field `format`") && !error.contains('\n'), "{error}");
}

const TERMS: Terms = Terms {
    link: BytesPerSec::new(200_000_000 / 8),
    downtime_limit: Duration::from_millis(300),
    max_bandwidth: BytesPerSec::new(NO_CAP),
    give_up: Duration::from_secs(120),
    features: Features { auto_converge: false, multifd: false, postcopy_after_passes: None, max_bandwidth: None },
};

const NAMES: [&str; 2] = ["first", "second"];

/// Both at once, and one after the other in the other order.
fn plan() -> Plan {
    let one = |guest: &str, after: &[&str]| {
        json!({
            "guest": guest, "from": "a", "to": "b", "path": ["a out", "b in"], "reserve_bits_per_second": 0,
            "after": after, "not_with": [], "not_before_seconds": 0, "begins_seconds": {}, "ends_seconds": {},
            "migration_time_seconds": {}, "downtime_seconds": {}, "sent_bytes": {},
        })
    };
    let policy = |name: &str, moves: [Value; 2]| {
        json!({
            "name": name, "limits": {}, "makespan_seconds": {}, "downtime_sum_seconds": {}, "sent_bytes": {}, "moves": moves,
        })
    };
    let policies = [
        policy("together", [one(NAMES[0], &[]), one(NAMES[1], &[])]),
        policy("apart", [one(NAMES[0], &[NAMES[1]]), one(NAMES[1], &[])]),
    ];
    let pipes = ["a out", "b in"].map(|name| json!({ "name": name, "bits_per_second": 191_000_000 }));
    Plan::parse(&json!({ "format": "migcast.plan/1", "pipes": pipes, "policies": policies }).to_string()).unwrap()
}

/// Boots two guests with little memory.
fn boot(interrupt: &Interrupt) -> Vec<Member> {
    let guest = Guest::named("steady").unwrap();
    // Without QEMU, network or root this fails rather than passing without a look; the message names the cure.
    let images = Images::obtain(&Cache::open().unwrap(), guest).unwrap_or_else(|error| panic!("{error:#}"));
    let about = |name: &&str| {
        let pattern = Some("uniform:rate=200,pages=4000".parse().unwrap());
        let spec = Spec { pattern, memory_mib: 128, ..Spec::of(guest, Accel::from_environment().unwrap()) };
        About { name: (*name).to_owned(), spec, images: images.clone() }
    };
    member::boot(NAMES.iter().map(about).collect(), interrupt).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn two_real_guests_go_to_and_fro_as_a_plan_says() {
    let (interrupt, plan) = (Interrupt::default(), plan());
    let link = ShapedLink::make(TERMS.link).unwrap_or_else(|error| panic!("{error:#}"));
    let mut members = boot(&interrupt);
    let load = member::own_load(&mut members, Duration::from_secs(1), &interrupt).unwrap();
    assert!(load > 0.0 && load < 2.5, "{load} cores");
    let mut try_policy = |name: &str| {
        let tried = Tried { plan: &plan, policy: plan.policy(name).unwrap() };
        let trial = trial::carry_out(tried, &mut members, &link, TERMS, &interrupt);
        let trial = trial.unwrap_or_else(|error| panic!("{error:#}"));
        (trial, members.iter().map(|member| member.at).collect::<Vec<End>>())
    };
    let guests = |trial: &Trial| trial.moves.iter().map(|moved| moved.observed.guest.clone()).collect::<Vec<_>>();
    let (trial, ends) = try_policy("together");
    assert_eq!((ends, trial.from.as_str()), (vec![End::There; 2], "here"));
    assert_eq!(guests(&trial), NAMES);
    assert!(trial.moves[1].begun_seconds < trial.moves[0].ended_seconds, "{trial:?}");
    let (trial, ends) = try_policy("apart");
    assert_eq!((ends, trial.from.as_str()), (vec![End::Here; 2], "there"));
    assert_eq!(guests(&trial), [NAMES[1], NAMES[0]]);
    assert!(trial.moves[1].begun_seconds >= trial.moves[0].ended_seconds, "{trial:?}");
    let last = trial.moves.iter().map(|moved| moved.ended_seconds).fold(0.0, f64::max);
    assert_eq!(trial.makespan_seconds, Some(last));
    for moved in &trial.moves {
        assert!(moved.observed.completed && !moved.tcp.is_empty(), "{moved:?}");
        // What the kernel has seen through is at most what QEMU has sent, its headers and the last of it aside.
        let acked = moved.tcp.last().unwrap().acked_bytes;
        assert!(acked <= moved.observed.sent_bytes.unwrap() * 11 / 10, "{moved:?}");
    }
}
