//! A plan as a script that carries it out.
//!
//! The script decides as the simulation does: whenever a migration ends, it goes through the moves that wait, in order, and
//! begins each that may begin. So it needs no clock, and is right however long migrations really take. What begins a
//! migration and waits for it is the only part that knows the platform.

use std::collections::BTreeSet;
use std::fmt::Write;

use migcast_model::quantity::{parse_duration, parse_rate};
use migcast_model::world::Limits;
use migcast_plan::schedule::Schedule;

use super::{Plan, PlanAnswer};

/// What carries a plan out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Export {
    /// A script that calls virsh
    Virsh,
    /// A script that makes KubeVirt migrations
    Kubevirt,
}

/// More than any link carries, and than there are migrations.
const NO_LIMIT: &str = "999999999";

/// Begins a move and returns when it has ended: well, or not.
const VIRSH: &str = r#"# Other flags, or another way to the target: here.
move_guest() { # guest, source, target, downtime limit in ms or "", bandwidth in MiB/s or ""
    local try
    if [ -n "$4" ]; then
        # Only a migration that runs can be told.
        (for try in 1 2 3 4 5 6 7 8 9 10; do
            sleep 0.5
            virsh -c "qemu+ssh://$2/system" migrate-setmaxdowntime --domain "$1" --downtime "$4" && break
        done) >/dev/null 2>&1 &
    fi
    virsh -c "qemu+ssh://$2/system" migrate --live --persistent --undefinesource ${5:+--bandwidth "$5"} \
        --domain "$1" --desturi "qemu+ssh://$3/system"
}
"#;

const KUBEVIRT: &str = r#"namespace=${NAMESPACE:-default}
# Since KubeVirt 1.6 a migration can name its target's labels (addedNodeSelector).
move_guest() { # guest, source, target
    local job phase silent=0
    job=$(kubectl -n "$namespace" create -o name -f - <<MANIFEST
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata:
  generateName: migcast-$1-
spec:
  vmiName: "$1"
  addedNodeSelector:
    kubernetes.io/hostname: "$3"
MANIFEST
    ) || return 1
    while sleep 0.5; do
        if phase=$(kubectl -n "$namespace" get "$job" -o "jsonpath={.status.phase}"); then silent=0; else
            # Nobody answers, or it is gone.
            silent=$((silent + 1))
            [ "$silent" -lt 20 ] || return 1
        fi
        case $phase in
            Succeeded) return 0 ;;
            Failed) return 1 ;;
        esac
    done
}
"#;

/// Who may begin when, for any platform. Guests and links go by their numbers, so that a name may be anything.
const DISPATCH: &str = r#"state=() kept=() timed=()
declare -A pid_of out in
running=0
begun=$SECONDS

may_begin() { # number
    local guest=$1 other pipe
    [ $((SECONDS - begun)) -ge "${not_before[guest]:-0}" ] || return 1
    [ "$running" -lt "$in_all" ] || return 1
    [ "${out[${from[guest]}]:-0}" -lt "$out_of_host" ] || return 1
    [ "${in[${to[guest]}]:-0}" -lt "$into_host" ] || return 1
    for other in ${after[guest]:-}; do
        [ "${state[other]:-}" = moved ] || return 1
    done
    for other in ${not_with[guest]:-}; do
        [ "${state[other]:-}" != running ] || return 1
    done
    [ "${memory[guest]}" -le "${room[${to[guest]}]}" ] || return 1
    [ "${reserve[guest]}" -gt 0 ] || return 0
    for pipe in ${path[guest]}; do
        [ "${kept[pipe]:-0}" -eq 0 ] || [ $((${kept[pipe]} + ${reserve[guest]})) -le "${rate[pipe]}" ] || return 1
    done
}

count() { # number, 1 or -1
    local pipe
    running=$((running + $2))
    out[${from[$1]}]=$((${out[${from[$1]}]:-0} + $2))
    in[${to[$1]}]=$((${in[${to[$1]}]:-0} + $2))
    for pipe in ${path[$1]}; do
        kept[pipe]=$((${kept[pipe]:-0} + $2 * ${reserve[$1]}))
    done
}

failed=0
while :; do
    comes=0
    for guest in "${!names[@]}"; do
        [ -z "${state[guest]:-}" ] || continue
        if may_begin "$guest"; then
            count "$guest" 1
            room[${to[guest]}]=$((${room[${to[guest]}]} - ${memory[guest]}))
            state[guest]=running
            echo "$((SECONDS - begun)) s: ${names[guest]} from ${hosts[${from[guest]}]} to ${hosts[${to[guest]}]}"
            move_guest "${names[guest]}" "${hosts[${from[guest]}]}" "${hosts[${to[guest]}]}" \
                "${downtime_limit[guest]:-}" "${bandwidth[guest]:-}" &
            pid_of[$!]=$guest
        elif [ $((SECONDS - begun)) -lt "${not_before[guest]:-0}" ]; then
            # Its time will come, whether a migration ends then or not.
            comes=1
            if [ -z "${timed[guest]:-}" ]; then
                sleep $((${not_before[guest]} - (SECONDS - begun))) &
                timed[guest]=1
            fi
        fi
    done
    [ "$running" -gt 0 ] || [ "$comes" -gt 0 ] || break
    if wait -n -p ended; then result=moved; else result=failed; fi
    [ -n "${ended:-}" ] || break
    guest=${pid_of[$ended]:-}
    [ -n "$guest" ] || continue
    count "$guest" -1
    # Where the guest is not, its memory is free.
    if [ "$result" = moved ]; then left=${from[guest]}; else left=${to[guest]}; fi
    room[$left]=$((${room[$left]} + ${memory[guest]}))
    state[guest]=$result
    echo "$((SECONDS - begun)) s: ${names[guest]} $result"
    [ "$result" = moved ] || failed=1
done
for guest in "${!names[@]}"; do
    [ -n "${state[guest]:-}" ] || { echo "${names[guest]} was not moved: what it waits for, or its room, did not come" >&2; failed=1; }
done
exit "$failed"
"#;

/// The plan as such a script.
pub(crate) fn exported(export: Export, of: &PlanAnswer<'_>) -> String {
    let plan = of.plan();
    let mut script = String::from("#!/usr/bin/env bash\n");
    let say = |script: &mut String, line: String| {
        // A string takes whatever is written.
        let _ = writeln!(script, "{line}");
    };
    say(
        &mut script,
        format!("# A plan of migcast {}: {} guests. Needs bash 5.1.", env!("CARGO_PKG_VERSION"), of.guests.len()),
    );
    if export == Export::Kubevirt {
        for line in kubevirt_limits(plan, of) {
            say(&mut script, line);
        }
    }
    for line in not_carried_over(export, of) {
        say(&mut script, line);
    }
    say(&mut script, "set -u".to_owned());
    let Schedule { order, limits, .. } = &plan.schedule;
    let words = |all: Vec<String>| all.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
    say(&mut script, format!("names=({})", words(order.iter().map(|place| of.guest(*place).name.clone()).collect())));
    say(&mut script, format!("hosts=({})", words(of.inventory.hosts.iter().map(|host| host.name.clone()).collect())));
    let limit = |limit: usize| if limit == usize::MAX { NO_LIMIT.to_owned() } else { limit.to_string() };
    let Limits { out_of_host, into_host, in_all } = *limits;
    let [out, into, all] = [out_of_host, into_host, in_all].map(limit);
    say(&mut script, format!("out_of_host={out} into_host={into} in_all={all}"));
    let mut table = |name: &str, value: &dyn Fn(usize) -> String| {
        let rows: Vec<String> = order
            .iter()
            .enumerate()
            .map(|(number, place)| (number, value(*place)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(number, value)| format!("[{number}]={}", quoted(&value)))
            .collect();
        say(&mut script, format!("{name}=({})", rows.join(" ")));
    };
    let numbers = |places: &[usize]| -> String {
        let number = |place: &usize| order.iter().position(|other| other == place).unwrap_or_default().to_string();
        places.iter().map(number).collect::<Vec<_>>().join(" ")
    };
    let wanted = |place: usize| &of.problem.moves[place];
    table("from", &|place| wanted(place).from.to_string());
    table("to", &|place| wanted(place).ways[plan.schedule.way[place]].to.to_string());
    table("after", &|place| numbers(&wanted(place).after));
    table("not_with", &|place| numbers(&wanted(place).not_with));
    table("not_before", &|place| {
        let seconds = wanted(place).not_before.ceil();
        if seconds > 0.0 { seconds.to_string() } else { String::new() }
    });
    table("reserve", &|place| of.reserved(plan, place).get().to_string());
    table("path", &|place| {
        let path = &wanted(place).ways[plan.schedule.way[place]].path;
        path.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
    });
    table("memory", &|place| kib(wanted(place).memory, f64::ceil));
    table("downtime_limit", &|place| {
        let limit = of.setting(place, "downtime-limit").and_then(|limit| parse_duration(limit).ok());
        limit.map_or_else(String::new, |limit| limit.as_millis().to_string())
    });
    table("bandwidth", &|place| {
        let cap = of.setting(place, "max-bandwidth").and_then(|cap| parse_rate(cap).ok());
        cap.map_or_else(String::new, |cap| (cap.get() >> 20).max(1).to_string())
    });
    let rooms: Vec<String> = of.problem.rooms.iter().map(|room| kib(*room, f64::floor)).collect();
    say(&mut script, format!("room=({}) # KiB, like memory", rooms.join(" ")));
    let rates: Vec<String> = of.pipes.iter().map(|pipe| pipe.rate.get().to_string()).collect();
    say(&mut script, format!("rate=({}) # bytes/s of payload, like reserve\n", rates.join(" ")));
    script + if export == Export::Virsh { VIRSH } else { KUBEVIRT } + "\n" + DISPATCH
}

/// Settings that were simulated and are not told to the platform.
fn not_carried_over(export: Export, of: &PlanAnswer<'_>) -> Vec<String> {
    let told: &[&str] = if export == Export::Virsh { &["downtime-limit", "max-bandwidth"] } else { &[] };
    let settings = of.settings.iter().flatten().filter(|(key, _)| !told.contains(&key.as_str()));
    let settings: BTreeSet<String> = settings.map(|(key, value)| format!("{key}={value}")).collect();
    settings.into_iter().map(|setting| format!("# Not carried over, set it yourself: {setting}")).collect()
}

/// What the cluster has to allow, or it holds migrations back that the plan would begin.
fn kubevirt_limits(plan: &Plan, of: &PlanAnswer<'_>) -> Vec<String> {
    let most =
        |counts: &dyn Fn(usize) -> bool| plan.runs.iter().map(|run| run.most_at_once(counts)).max().unwrap_or_default();
    let out_of = |host: usize| most(&|place| of.guest(place).host == host);
    let out_of_any = (0..of.inventory.hosts.len()).map(out_of).max().unwrap_or_default();
    vec![
        "# KubeVirt's own limits have to allow what the plan begins at once, in spec.configuration.migrations:"
            .to_owned(),
        format!("#   parallelOutboundMigrationsPerNode: {}", out_of_any),
        format!("#   parallelMigrationsPerCluster: {}", most(&|_| true)),
    ]
}

fn kib(bytes: f64, round: fn(f64) -> f64) -> String {
    (round(bytes / 1024.0) as u64).to_string()
}

/// A word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_holds_it_stays_a_word() {
        assert_eq!(quoted("web-1"), "web-1");
        assert_eq!(quoted("a b$(rm)'"), "'a b$(rm)'\\'''");
        assert_eq!(quoted(""), "''");
    }
}
