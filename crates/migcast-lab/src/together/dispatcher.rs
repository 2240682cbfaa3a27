//! Who may begin: the rule by which a plan is carried out, without a clock and without a guest.
//!
//! Whenever a migration ends or somebody's time comes, the waiting moves are gone through in their order, and each begins
//! that may. One that may not yet does not hold up the ones behind it.

use std::time::Duration;

use super::plan::{Move, Plan, Policy};

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Ended,
}

/// The moves of a policy, and how far each is.
#[derive(Clone, Debug)]
pub struct Dispatcher<'a> {
    plan: &'a Plan,
    policy: &'a Policy,
    states: Vec<State>,
}

impl<'a> Dispatcher<'a> {
    /// Nothing has begun yet.
    pub fn new(plan: &'a Plan, policy: &'a Policy) -> Dispatcher<'a> {
        Dispatcher { plan, policy, states: vec![State::Waiting; policy.moves.len()] }
    }

    /// Begins what may begin so long after the beginning of all; returns the moves' places in their order.
    pub fn begin(&mut self, elapsed: Duration) -> Vec<usize> {
        let mut begun = Vec::new();
        for place in 0..self.states.len() {
            if self.states[place] == State::Waiting && self.may_begin(&self.policy.moves[place], elapsed) {
                self.states[place] = State::Running;
                begun.push(place);
            }
        }
        begun
    }

    /// The move at this place has ended: its guest has arrived, or stays for good.
    ///
    /// # Panics
    /// It is not running.
    pub fn end(&mut self, place: usize) {
        assert_eq!(self.states[place], State::Running, "only what runs can end");
        self.states[place] = State::Ended;
    }

    /// Whether all have ended.
    pub fn is_done(&self) -> bool {
        self.states.iter().all(|state| *state == State::Ended)
    }

    /// Whether nothing runs, something waits, and no passing of time changes that. Asked after [`Dispatcher::begin`].
    pub fn is_stuck(&self, elapsed: Duration) -> bool {
        let waits_for_its_time =
            |(one, state): (&Move, &State)| *state == State::Waiting && one.not_before_seconds > elapsed.as_secs_f64();
        !self.is_done()
            && !self.states.contains(&State::Running)
            && !self.policy.moves.iter().zip(&self.states).any(waits_for_its_time)
    }

    fn running(&self) -> impl Iterator<Item = &'a Move> {
        let moves = self.policy.moves.iter().zip(&self.states);
        moves.filter(|(_, state)| **state == State::Running).map(|(one, _)| one)
    }

    fn may_begin(&self, one: &Move, elapsed: Duration) -> bool {
        let limits = &self.policy.limits;
        let below = |running: usize, limit: Option<usize>| limit.is_none_or(|limit| running < limit);
        let has_ended =
            |guest: &String| self.policy.place(guest).is_some_and(|place| self.states[place] == State::Ended);
        one.not_before_seconds <= elapsed.as_secs_f64()
            && one.after.iter().all(has_ended)
            && !self.running().any(|other| one.not_with.contains(&other.guest))
            && below(self.running().count(), limits.in_all)
            && below(self.running().filter(|other| other.from == one.from).count(), limits.out_of_host)
            && below(self.running().filter(|other| other.to == one.to).count(), limits.into_host)
            && (one.reserve_bits_per_second == 0 || one.path.iter().all(|pipe| self.is_kept_free(pipe, one)))
    }

    /// Whether what is kept on a pipe leaves room for what this move asks; a pipe of which nothing is kept always does.
    fn is_kept_free(&self, pipe: &str, one: &Move) -> bool {
        let takes = |other: &&Move| other.path.iter().any(|name| name == pipe);
        let kept: u64 = self.running().filter(takes).map(|other| other.reserve_bits_per_second).sum();
        let rate = self.plan.pipes.iter().find(|known| known.name == pipe).map_or(0, |known| known.bits_per_second);
        kept == 0 || kept.saturating_add(one.reserve_bits_per_second) <= rate
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::together::plan::tests::{a_move, plan};

    /// Carries a plan out in which each move takes as long as `lasts` says, in seconds; returns who began when.
    fn carry_out(limits: Value, moves: &[Value], lasts: &[u64]) -> Vec<(String, u64)> {
        let plan = plan(limits, moves).unwrap();
        let policy = plan.policy("planned").unwrap();
        let mut dispatcher = Dispatcher::new(&plan, policy);
        let (mut running, mut begun) = (Vec::new(), Vec::new());
        for now in 0.. {
            for place in running.extract_if(.., |(_, end)| *end == now) {
                dispatcher.end(place.0);
            }
            for place in dispatcher.begin(Duration::from_secs(now)) {
                begun.push((policy.moves[place].guest.clone(), now));
                running.push((place, now + lasts[place]));
            }
            if dispatcher.is_done() {
                break;
            }
            assert!(!dispatcher.is_stuck(Duration::from_secs(now)), "{dispatcher:?}");
        }
        begun
    }

    fn begun(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|(guest, at)| ((*guest).to_owned(), *at)).collect()
    }

    fn plain(guest: &str, from: &str, to: &str) -> Value {
        a_move(guest, from, to, |_| {})
    }

    #[test]
    fn without_limits_all_begin_at_once_and_with_one_in_all_one_after_the_other() {
        let moves = [plain("x", "a", "b"), plain("y", "a", "b"), plain("z", "a", "b")];
        assert_eq!(carry_out(json!({}), &moves, &[3, 1, 2]), begun(&[("x", 0), ("y", 0), ("z", 0)]));
        assert_eq!(carry_out(json!({ "in_all": 1 }), &moves, &[3, 1, 2]), begun(&[("x", 0), ("y", 3), ("z", 4)]));
    }

    #[test]
    fn one_that_may_not_yet_does_not_hold_up_the_ones_behind_it() {
        let moves = [plain("x", "a", "b"), plain("y", "a", "c"), plain("z", "c", "b"), plain("w", "b", "c")];
        let out = carry_out(json!({ "out_of_host": 1 }), &moves, &[5, 1, 1, 1]);
        assert_eq!(out, begun(&[("x", 0), ("z", 0), ("w", 0), ("y", 5)]));
        let into = carry_out(json!({ "into_host": 1 }), &moves, &[5, 1, 1, 1]);
        assert_eq!(into, begun(&[("x", 0), ("y", 0), ("w", 1), ("z", 5)]));
    }

    #[test]
    fn a_move_waits_for_those_before_it_and_for_its_time() {
        let moves = [
            a_move("x", "a", "b", |one| one["after"] = json!(["y", "z"])),
            plain("y", "a", "b"),
            a_move("z", "a", "b", |one| one["not_before_seconds"] = json!(1.5)),
        ];
        assert_eq!(carry_out(json!({}), &moves, &[1, 3, 2]), begun(&[("y", 0), ("z", 2), ("x", 4)]));
    }

    #[test]
    fn moves_that_must_not_run_together_do_not() {
        let moves = [
            a_move("x", "a", "b", |one| one["not_with"] = json!(["y"])),
            a_move("y", "a", "b", |one| one["not_with"] = json!(["x"])),
            plain("z", "a", "b"),
        ];
        assert_eq!(carry_out(json!({}), &moves, &[2, 1, 9]), begun(&[("x", 0), ("z", 0), ("y", 2)]));
    }

    #[test]
    fn what_is_kept_fits_into_each_pipe_unless_nothing_else_is_kept_there() {
        let keeps = |guest: &str, to: &str, bits: u64| {
            a_move(guest, "a", to, |one| one["reserve_bits_per_second"] = json!(bits))
        };
        let moves = [keeps("x", "b", 60), keeps("y", "c", 60), keeps("z", "b", 40), keeps("free", "b", 0)];
        assert_eq!(carry_out(json!({}), &moves, &[3, 1, 2, 9]), begun(&[("x", 0), ("z", 0), ("free", 0), ("y", 3)]));
        // More than the pipe carries: alone it goes all the same.
        let moves = [keeps("x", "b", 150), keeps("y", "b", 1)];
        assert_eq!(carry_out(json!({}), &moves, &[3, 1]), begun(&[("x", 0), ("y", 3)]));
    }

    #[test]
    fn a_circle_is_noticed() {
        let moves = [
            a_move("x", "a", "b", |one| one["after"] = json!(["y"])),
            a_move("y", "a", "b", |one| one["after"] = json!(["x"])),
        ];
        let plan = plan(json!({}), &moves).unwrap();
        let mut dispatcher = Dispatcher::new(&plan, plan.policy("planned").unwrap());
        assert!(dispatcher.begin(Duration::ZERO).is_empty());
        assert!(dispatcher.is_stuck(Duration::ZERO));
    }
}
