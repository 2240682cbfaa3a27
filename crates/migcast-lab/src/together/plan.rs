//! What `migcast plan` says, as far as the laboratory obeys it or holds it against what happens (`migcast.plan/1`).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::prediction::Band;

/// The format's name.
pub const FORMAT: &str = "migcast.plan/1";

/// A plan beside the policies it is compared with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: String,
    /// Each direction of each link.
    pub pipes: Vec<Pipe>,
    /// The plan and what it is compared with.
    pub policies: Vec<Policy>,
}

/// One direction of a link.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Pipe {
    /// What moves call it.
    pub name: String,
    /// What it carries, in bits of payload per second.
    pub bits_per_second: u64,
}

/// A way to migrate all guests, and what it is forecast to come to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Policy {
    /// "planned", "all-at-once", …
    pub name: String,
    /// How many migrations may run.
    pub limits: Limits,
    /// From the first request to the last end, seconds.
    pub makespan_seconds: Band,
    /// All guests' downtimes together, seconds.
    pub downtime_sum_seconds: Band,
    /// Bytes that all of them send.
    pub sent_bytes: Band,
    /// The moves in the order in which they are dispatched.
    pub moves: Vec<Move>,
}

/// How many migrations may run at once; `None`: as many as there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Limits {
    /// Out of one host.
    pub out_of_host: Option<usize>,
    /// Into one host.
    pub into_host: Option<usize>,
    /// In all.
    pub in_all: Option<usize>,
}

/// A guest's migration: when it may begin, and what it is forecast to come to.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Move {
    /// The guest, which moves once.
    pub guest: String,
    /// The host it is on.
    pub from: String,
    /// The host it goes to.
    pub to: String,
    /// The pipes it takes, by their names.
    pub path: Vec<String>,
    /// Kept for it on each of them while it runs; 0 for nothing.
    pub reserve_bits_per_second: u64,
    /// Guests whose moves have to have ended before.
    pub after: Vec<String>,
    /// Guests whose moves must not run at the same time.
    pub not_with: Vec<String>,
    /// It does not begin before, counted from the beginning of all.
    pub not_before_seconds: f64,
    /// When it begins, seconds from the beginning of all.
    pub begins_seconds: Band,
    /// When it ends.
    pub ends_seconds: Band,
    /// From its request until the guest runs on the target, seconds.
    pub migration_time_seconds: Band,
    /// The guest's downtime, seconds.
    pub downtime_seconds: Band,
    /// Bytes.
    pub sent_bytes: Band,
}

impl Plan {
    /// Reads what `migcast plan --json` said.
    ///
    /// # Errors
    /// It is no plan of a version that this program reads, or a policy names what is not there.
    pub fn parse(text: &str) -> Result<Plan> {
        let plan: Plan = serde_json::from_str(text).context("what migcast plan says")?;
        ensure!(plan.format == FORMAT, "the format is '{}', the laboratory reads '{FORMAT}'", plan.format);
        for policy in &plan.policies {
            plan.check(policy).with_context(|| format!("policy '{}'", policy.name))?;
        }
        Ok(plan)
    }

    /// Reads a file that holds what `migcast plan --json` said.
    ///
    /// # Errors
    /// The file cannot be read, or as for [`Plan::parse`].
    pub fn read(path: &Path) -> Result<Plan> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Plan::parse(&text).with_context(|| path.display().to_string())
    }

    /// The policy called `name`.
    ///
    /// # Errors
    /// There is none; the message names those there are.
    pub fn policy(&self, name: &str) -> Result<&Policy> {
        let names = || self.policies.iter().map(|policy| policy.name.as_str()).collect::<Vec<_>>().join(", ");
        self.policies
            .iter()
            .find(|policy| policy.name == name)
            .with_context(|| format!("policy '{name}': the plan has {}", names()))
    }

    fn check(&self, policy: &Policy) -> Result<()> {
        for (index, one) in policy.moves.iter().enumerate() {
            let before = &policy.moves[..index];
            ensure!(before.iter().all(|other| other.guest != one.guest), "guest '{}' moves twice", one.guest);
            for name in one.after.iter().chain(&one.not_with) {
                ensure!(policy.place(name).is_some(), "guest '{}' waits for '{name}', which does not move", one.guest);
            }
            for name in &one.path {
                let known = self.pipes.iter().any(|pipe| pipe.name == *name);
                ensure!(known, "guest '{}' takes the pipe '{name}', which is not there", one.guest);
            }
            ensure!(one.not_before_seconds >= 0.0, "guest '{}': not_before_seconds is negative", one.guest);
        }
        Ok(())
    }
}

impl Move {
    fn is_carried_out_like(&self, other: &Move) -> bool {
        let names = |of: &Move| (of.guest.clone(), of.from.clone(), of.to.clone(), of.path.clone());
        let waits = |of: &Move| (of.after.clone(), of.not_with.clone(), of.not_before_seconds);
        names(self) == names(other)
            && waits(self) == waits(other)
            && self.reserve_bits_per_second == other.reserve_bits_per_second
    }
}

impl Policy {
    /// Whether the dispatcher would do the same with another policy: only what is forecast may differ.
    pub fn is_carried_out_like(&self, other: &Policy) -> bool {
        self.limits == other.limits
            && self.moves.len() == other.moves.len()
            && self.moves.iter().zip(&other.moves).all(|(one, other)| one.is_carried_out_like(other))
    }

    /// Place of a guest's move among the moves; `None` if it stays.
    pub fn place(&self, guest: &str) -> Option<usize> {
        self.moves.iter().position(|one| one.guest == guest)
    }
}

/// Plans for tests, short to write.
#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A move out of a host into another, over the pipe of each.
    pub(crate) fn a_move(guest: &str, from: &str, to: &str, change: impl FnOnce(&mut Value)) -> Value {
        let band = json!({ "mean": 1.0, "p5": 0.9, "p50": 1.0, "p95": 1.1 });
        let mut value = json!({
            "guest": guest, "from": from, "to": to, "path": [format!("{from} out"), format!("{to} in")],
            "reserve_bits_per_second": 0, "after": [], "not_with": [], "not_before_seconds": 0,
            "begins_seconds": band, "ends_seconds": band, "migration_time_seconds": band, "downtime_seconds": band,
            "sent_bytes": band,
        });
        change(&mut value);
        value
    }

    /// A plan with one policy, "planned", over pipes of 100 bit/s between the hosts a, b and c.
    pub(crate) fn plan(limits: Value, moves: &[Value]) -> Result<Plan> {
        let band = json!({ "p5": 9.0, "p50": 10.0, "p95": 11.0 });
        let pipes = ["a", "b", "c"].map(|host| ["out", "in"].map(|way| format!("{host} {way}"))).concat();
        let pipes: Vec<Value> = pipes.iter().map(|name| json!({ "name": name, "bits_per_second": 100 })).collect();
        let policy = json!({
            "name": "planned", "limits": limits, "makespan_seconds": band, "downtime_sum_seconds": band,
            "worst_downtime_seconds": band, "sent_bytes": band, "moves": moves,
        });
        let plan = json!({ "format": FORMAT, "draws": 100, "link_bits_per_second": 104, "pipes": pipes, "policies": [policy] });
        Plan::parse(&plan.to_string())
    }

    #[test]
    fn a_plan_that_does_not_hang_together_is_refused_with_the_guest_at_fault() {
        let refused = |moves: &[Value]| format!("{:#}", plan(json!({}), moves).unwrap_err());
        let with = |key: &str, value: Value| a_move("x", "a", "b", |one| one[key] = value);
        let cases = [
            (with("after", json!(["y"])), "guest 'x' waits for 'y', which does not move"),
            (with("not_with", json!(["y"])), "guest 'x' waits for 'y', which does not move"),
            (with("path", json!(["d in"])), "guest 'x' takes the pipe 'd in', which is not there"),
            (with("not_before_seconds", json!(-1)), "guest 'x': not_before_seconds is negative"),
        ];
        for (one, expected) in cases {
            assert_eq!(refused(&[one]), format!("policy 'planned': {expected}"));
        }
        let twice = a_move("x", "a", "b", |_| {});
        assert_eq!(refused(&[twice.clone(), twice]), "policy 'planned': guest 'x' moves twice");
    }

    #[test]
    fn what_is_forecast_is_no_part_of_how_a_policy_is_carried_out() {
        let policy = |change: fn(&mut Value)| {
            plan(json!({ "in_all": 2 }), &[a_move("x", "a", "b", change)]).unwrap().policies.remove(0)
        };
        let same = policy(|one| one["ends_seconds"] = json!({ "p50": 7.0 }));
        assert!(policy(|_| {}).is_carried_out_like(&same) && policy(|_| {}) != same);
        assert!(!same.is_carried_out_like(&policy(|one| one["not_before_seconds"] = json!(1))));
        assert!(!same.is_carried_out_like(&policy(|one| one["reserve_bits_per_second"] = json!(1))));
        assert!(!same.is_carried_out_like(&Policy { limits: Limits::default(), ..same.clone() }));
    }

    #[test]
    fn another_format_and_another_policy_are_refused() {
        let plan = plan(json!({}), &[]).unwrap();
        assert_eq!(plan.policy("all").unwrap_err().to_string(), "policy 'all': the plan has planned");
        let text = r#"{"format":"migcast.plan/2","pipes":[],"policies":[]}"#;
        let error = Plan::parse(text).unwrap_err().to_string();
        assert_eq!(error, "the format is 'migcast.plan/2', the laboratory reads 'migcast.plan/1'");
    }
}
