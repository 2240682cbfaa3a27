//! A plan as a script that carries it out.
//!
//! The script decides as the simulation does: whenever a migration ends, it goes through the moves that wait, in order, and
//! begins each that may begin. So it needs no clock, and is right however long migrations really take. What begins a
//! migration and waits for it is the only part that knows the platform.

use std::fmt::Write;

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
move_guest() { # guest, source, target, downtime limit in ms or ""
    if [ -n "$4" ]; then
        (sleep 1; virsh -c "qemu+ssh://$2/system" migrate-setmaxdowntime "$1" "$4") &
    fi
    virsh -c "qemu+ssh://$2/system" migrate --live --persistent --undefinesource "$1" "qemu+ssh://$3/system"
}
"#;

const KUBEVIRT: &str = r#"namespace=${NAMESPACE:-default}
# Since KubeVirt 1.6 a migration can name its target's labels (addedNodeSelector).
move_guest() { # guest, source, target
    local job phase
    job=$(kubectl -n "$namespace" create -o name -f - <<MANIFEST
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstanceMigration
metadata:
  generateName: migcast-$1-
spec:
  vmiName: $1
  addedNodeSelector:
    kubernetes.io/hostname: $3
MANIFEST
    ) || return 1
    while sleep 0.5; do
        phase=$(kubectl -n "$namespace" get "$job" -o "jsonpath={.status.phase}")
        case $phase in
            Succeeded) return 0 ;;
            Failed) return 1 ;;
        esac
    done
}
"#;

/// Who may begin when, for any platform.
const DISPATCH: &str = r#"declare -A state pid_of out in kept
running=0
begun=$SECONDS

may_begin() { # guest
    local guest=$1 other pipe
    [ $((SECONDS - begun)) -ge "${not_before[$guest]:-0}" ] || return 1
    [ "$running" -lt "$in_all" ] || return 1
    [ "${out[${from[$guest]}]:-0}" -lt "$out_of_host" ] || return 1
    [ "${in[${to[$guest]}]:-0}" -lt "$into_host" ] || return 1
    for other in ${after[$guest]:-}; do
        [ "${state[$other]:-}" = moved ] || return 1
    done
    for other in ${not_with[$guest]:-}; do
        [ "${state[$other]:-}" != running ] || return 1
    done
    [ "${memory[$guest]}" -le "${room[${to[$guest]}]}" ] || return 1
    [ "${reserve[$guest]}" -gt 0 ] || return 0
    for pipe in ${path[$guest]}; do
        [ "${kept[$pipe]:-0}" -eq 0 ] || [ $((${kept[$pipe]} + ${reserve[$guest]})) -le "${rate[$pipe]}" ] || return 1
    done
}

count() { # guest, 1 or -1
    local pipe
    running=$((running + $2))
    out[${from[$1]}]=$((${out[${from[$1]}]:-0} + $2))
    in[${to[$1]}]=$((${in[${to[$1]}]:-0} + $2))
    for pipe in ${path[$1]}; do
        kept[$pipe]=$((${kept[$pipe]:-0} + $2 * ${reserve[$1]}))
    done
}

failed=0
while :; do
    waiting=0
    for guest in "${guests[@]}"; do
        [ -z "${state[$guest]:-}" ] || continue
        if may_begin "$guest"; then
            count "$guest" 1
            room[${to[$guest]}]=$((${room[${to[$guest]}]} - ${memory[$guest]}))
            state[$guest]=running
            echo "$((SECONDS - begun)) s: $guest from ${from[$guest]} to ${to[$guest]}"
            move_guest "$guest" "${from[$guest]}" "${to[$guest]}" "${downtime_limit[$guest]:-}" &
            pid_of[$!]=$guest
        else
            waiting=$((waiting + 1))
        fi
    done
    if [ "$running" -eq 0 ]; then
        [ "$waiting" -gt 0 ] || break
        # Only a time can still come; what waits for a move that failed never begins.
        soonest=
        for guest in "${guests[@]}"; do
            [ -z "${state[$guest]:-}" ] && [ $((SECONDS - begun)) -lt "${not_before[$guest]:-0}" ] && soonest=$guest
        done
        [ -n "$soonest" ] || break
        sleep 1
        continue
    fi
    if wait -n -p ended; then result=moved; else result=failed; fi
    guest=${pid_of[$ended]:-}
    [ -n "$guest" ] || continue
    count "$guest" -1
    # Where the guest is not, its memory is free.
    if [ "$result" = moved ]; then left=${from[$guest]}; else left=${to[$guest]}; fi
    room[$left]=$((${room[$left]} + ${memory[$guest]}))
    state[$guest]=$result
    echo "$((SECONDS - begun)) s: $guest $result"
    [ "$result" = moved ] || failed=1
done
for guest in "${guests[@]}"; do
    [ -n "${state[$guest]:-}" ] || { echo "$guest was not moved: what it waits for failed" >&2; failed=1; }
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
    say(&mut script, "set -u".to_owned());
    let Schedule { order, limits, .. } = &plan.schedule;
    let names: Vec<String> = order.iter().map(|place| quoted(&of.guest(*place).name)).collect();
    say(&mut script, format!("guests=({})", names.join(" ")));
    let limit = |limit: usize| if limit == usize::MAX { NO_LIMIT.to_owned() } else { limit.to_string() };
    say(
        &mut script,
        format!(
            "out_of_host={} into_host={} in_all={}",
            limit(limits.out_of_host),
            limit(limits.into_host),
            limit(limits.in_all)
        ),
    );
    let mut table = |name: &str, value: &dyn Fn(usize) -> String| {
        let rows: Vec<String> = order
            .iter()
            .map(|place| (quoted(&of.guest(*place).name), value(*place)))
            .filter(|(_, value)| !value.is_empty())
            .map(|(guest, value)| format!("[{guest}]={}", quoted(&value)))
            .collect();
        say(&mut script, format!("declare -A {name}=({})", rows.join(" ")));
    };
    let named = |places: &[usize]| -> String {
        places.iter().map(|place| of.guest(*place).name.as_str()).collect::<Vec<_>>().join(" ")
    };
    table("from", &|place| of.from(place).to_owned());
    table("to", &|place| of.to(plan, place).to_owned());
    table("after", &|place| named(&of.problem.moves[place].after));
    table("not_with", &|place| named(&of.problem.moves[place].not_with));
    table("not_before", &|place| {
        let seconds = of.problem.moves[place].not_before.ceil();
        if seconds > 0.0 { seconds.to_string() } else { String::new() }
    });
    table("reserve", &|place| of.reserved(plan, place).get().to_string());
    table("path", &|place| of.path(plan, place).map(|pipe| pipe_name(&pipe.name)).collect::<Vec<_>>().join(" "));
    table("memory", &|place| kib(of.problem.moves[place].memory, f64::ceil));
    table("downtime_limit", &|place| downtime_limit(of, place).unwrap_or_default());
    let hosts = of.inventory.hosts.iter().zip(&of.problem.rooms);
    let rooms: Vec<String> =
        hosts.map(|(host, room)| format!("[{}]={}", quoted(&host.name), kib(*room, f64::floor))).collect();
    say(&mut script, format!("declare -A room=({}) # KiB, like memory", rooms.join(" ")));
    let pipes = of.pipes.iter().filter(|pipe| !pipe.name.is_empty());
    let rates: Vec<String> =
        pipes.map(|pipe| format!("[{}]={}", quoted(&pipe_name(&pipe.name)), pipe.rate.get())).collect();
    say(&mut script, format!("declare -A rate=({})\n", rates.join(" ")));
    script + if export == Export::Virsh { VIRSH } else { KUBEVIRT } + "\n" + DISPATCH
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

/// In milliseconds, if the guest's migration has one of its own.
fn downtime_limit(of: &PlanAnswer<'_>, place: usize) -> Option<String> {
    let settings = &of.guest(place).moving.settings;
    let (_, limit) = settings.iter().find(|(key, _)| key == "downtime-limit")?;
    migcast_model::quantity::parse_duration(limit).ok().map(|limit| limit.as_millis().to_string())
}

fn kib(bytes: f64, round: fn(f64) -> f64) -> String {
    (round(bytes / 1024.0) as u64).to_string()
}

/// A link's name as one word.
fn pipe_name(name: &str) -> String {
    name.replace(char::is_whitespace, "_")
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
        assert_eq!([quoted(""), pipe_name("rack 1 out")], ["''", "rack_1_out"]);
    }
}
