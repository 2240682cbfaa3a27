//! What `migcast sla` says of the sum of a few migrations, held against the sums of the real ones in testdata/lab.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where it stopped")]

use std::path::Path;
use std::process::Command;

use migcast_history::observed::{self, Observed};
use migcast_lab::recording;
use serde_json::Value;

/// What the platform was fitted to: these guests over this link.
const FITTED: ([&str; 2], u64) = (["idle", "steady"], 400_000_000);
/// Any period: a sum of downtimes is read off the availability that remains of it.
const PERIOD_SECONDS: f64 = 86_400.0;

/// Migrations of one guest over one link with the same settings.
struct Group {
    runs: Vec<Observed>,
}

impl Group {
    fn downtime(&self) -> f64 {
        self.runs.iter().filter_map(|run| run.downtime_seconds).sum()
    }

    /// The sum of so many downtimes that is not exceeded with this confidence, and its mean, in seconds.
    fn told(&self, folder: &Path, confidence: &str) -> (f64, f64) {
        let first = &self.runs[0];
        let mut command = Command::new(recording::program().unwrap());
        command.arg("sla").arg(folder.join(first.history.as_ref().unwrap())).args(["--json", "--start", "all"]);
        command
            .args(["--link", &format!("{}bit/s", first.link_bits_per_second), "--platform"])
            .arg(folder.join("platform.json"));
        command.args(["--availability", "50%", "--period", "1d", "--confidence", confidence, "--migrations"]);
        command.arg(self.runs.len().to_string());
        for setting in &first.settings {
            command.args(["--set", setting]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = |key: &str| (1.0 - said["with_migrations"][key].as_f64().unwrap()) * PERIOD_SECONDS;
        (of("availability_at_confidence"), of("availability_mean"))
    }
}

#[test]
fn sums_of_real_downtimes_are_what_it_says_they_may_be() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/lab");
    let mut groups: Vec<Group> = Vec::new();
    for run in observed::read(&folder.join("observed.jsonl")).unwrap() {
        let fitted = FITTED.0.contains(&run.guest.as_str()) && run.link_bits_per_second == FITTED.1;
        if fitted || !run.completed {
            continue;
        }
        let alike = |group: &&mut Group| {
            let first = &group.runs[0];
            (&first.history, first.link_bits_per_second, &first.settings)
                == (&run.history, run.link_bits_per_second, &run.settings)
        };
        match groups.iter_mut().find(alike) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { runs: vec![run] }),
        }
    }
    groups.retain(|group| group.runs.len() >= 3);
    let (mut within, mut mean, mut actual) = (0, 0.0, 0.0);
    for group in &groups {
        let (downtime, (most, told)) = (group.downtime(), group.told(&folder, "95%"));
        within += usize::from(downtime <= most);
        (mean, actual) = (mean + told, actual + downtime);
        let Observed { guest, link_bits_per_second, settings, .. } = &group.runs[0];
        println!(
            "{guest} over {} Mbit/s, {}: {} migrations were down for {downtime:.3} s, at most {most:.3} s with 95 %, {told:.3} s on average",
            link_bits_per_second / 1_000_000,
            settings.join(" "),
            group.runs.len(),
        );
    }
    let (count, error) = (groups.len(), mean / actual - 1.0);
    println!("{within} of {count} sums below what 95 % stay below; all together {:+.1} % off", error * 100.0);
    assert!(count >= 25, "{count} groups");
    // Of 29 sums that each stay below with 95 % fewer than 25 do about once in sixty times.
    assert!(within * 100 >= count * 86, "{within} of {count}");
    assert!(error.abs() < 0.1, "{error}");
}
