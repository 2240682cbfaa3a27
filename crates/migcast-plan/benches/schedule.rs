//! Plans for fleets that are made up, beside what platforms do and the lower bound. Run by `cargo xtask bench schedule`.

use std::time::{Duration, Instant};

use migcast_model::world::Limits;
use migcast_plan::schedule::Schedule;
use migcast_plan::schedule::fleet::{Draw, Run};
use migcast_plan::schedule::generated::{Generated, Mix, TASKS, Task};
use migcast_plan::schedule::objective::Objective;
use migcast_plan::schedule::planner::Planner;
use migcast_plan::schedule::policy::POLICIES;

/// What `migcast plan` allows a search if nobody says.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// In how many ways plan and policies are carried out.
const DRAWS: usize = 8;
const SEED: u64 = 2010;

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A fleet's plan: its length over that of the best policy, of KubeVirt's limits, and of the bound; and how long it took.
struct Row {
    to_best: f64,
    to_kubevirt: f64,
    to_bound: f64,
    seconds: f64,
}

fn plan(task: Task, mix: Mix, guests: usize, seed: u64) -> Row {
    let generated = Generated::new(task, mix, guests, seed);
    let began = Instant::now();
    let Ok(planner) = Planner::new(generated.fleet()) else { panic!("{task:?} {guests} {seed} cannot be placed") };
    let go_on = |_, _, _| began.elapsed() < TIME_LIMIT;
    let searched = planner.search(Objective::Makespan, Limits::NONE, SEED, &go_on).expect("it can be carried out");
    let draws: Vec<Draw> = planner.draws(DRAWS);
    let runs = |schedule: &Schedule| planner.runs(schedule, &draws).expect("it can be carried out");
    let length = |runs: &[Run]| median(runs.iter().map(Run::makespan).collect());
    let policies = POLICIES.map(|policy| runs(&planner.by_policy(&policy, Limits::NONE)));
    // As `migcast plan` does: what turns out best is the plan.
    let is_better = |best: Vec<Run>, one: &Vec<Run>| {
        if planner.is_better(Objective::Makespan, one, &best) { one.clone() } else { best }
    };
    let planned = length(&policies.iter().fold(runs(&searched.found.schedule), is_better));
    let others: Vec<f64> = policies.iter().map(|runs| length(runs)).collect();
    let seconds = began.elapsed().as_secs_f64();
    let best = others.iter().copied().fold(f64::INFINITY, f64::min);
    let kubevirt = POLICIES.iter().position(|policy| policy.name == "kubevirt").expect("it is among them");
    let row = Row {
        to_best: planned / best,
        to_kubevirt: planned / others[kubevirt],
        to_bound: planned / planner.bound.seconds,
        seconds,
    };
    println!(
        "{guests:>8} {task:16}{planned:>10.1} s{:>14.3}{:>14}{:>14.3}{:>10}{seconds:>10.1} s",
        row.to_best,
        // Guests that do not converge on their share are never moved.
        if others[kubevirt].is_finite() { format!("{:.3}", row.to_kubevirt) } else { "never ends".to_owned() },
        row.to_bound,
        searched.found.judged,
        task = format!("{mix:?} {task:?}"),
    );
    row
}

fn main() {
    println!(
        "{:>8} {:16}{:>12}{:>14}{:>14}{:>14}{:>10}{:>12}",
        "guests", "task", "planned", "÷ best policy", "÷ kubevirt", "÷ bound", "judged", "took"
    );
    let sets =
        [(Mix::Calm, 10, 5), (Mix::Busy, 10, 2), (Mix::Calm, 100, 2), (Mix::Busy, 100, 1), (Mix::Calm, 1_000, 1)];
    // Arguments say how many guests the sets have that are planned for; all of them without any.
    let wanted: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    for (mix, guests, seeds) in sets.into_iter().filter(|(_, guests, _)| wanted.is_empty() || wanted.contains(guests)) {
        let each = TASKS.iter().flat_map(|task| (1..=seeds).map(move |seed| plan(*task, mix, guests, seed)));
        let rows: Vec<Row> = each.collect();
        let of = |value: fn(&Row) -> f64| median(rows.iter().map(value).collect());
        let most = |value: fn(&Row) -> f64| rows.iter().map(value).fold(0.0, f64::max);
        println!(
            "{guests:>8} median            {:>10}{:>14.3}{:>14.3}{:>14.3}; worst ÷ best policy {:.3}, longest {:.1} s\n",
            "",
            of(|row| row.to_best),
            of(|row| row.to_kubevirt),
            of(|row| row.to_bound),
            most(|row| row.to_best),
            most(|row| row.seconds),
        );
    }
}
