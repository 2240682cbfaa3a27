//! Logs of Xen's toolstack as observed migrations: `xl -vvv migrate` of every version, and the statistics that
//! `xc_domain_save` printed before Xen 4.6 (and xend before that).
//!
//! ```text
//!  SECONDS  xl's first line                                request
//!  …        issuing PVH/HVM suspend request via XenBus …    decided: the last live round is over
//!  …        guest has suspended                             stopped
//!  …        libxl-save-helper: debug: complete r=0           source done
//!  …        migration target: Domain started successsfully.  resumed
//!  …        Migration successful.
//! ```
//! xl stamps its lines with whole seconds if asked to (`xl -T`), and some not at all. What stands before a line is read as
//! its time: seconds since 1970 (`xl -vvv migrate … 2>&1 | ts %.s`, moreutils), ISO 8601 with an offset
//! (`journalctl -o short-iso-precise`), or xl's own date (and
//! xend's, in brackets), whose zone cannot be told and does not matter. A line without a
//! stamp is as old as the next one that has one.
//!
//! Of xend's log `xc_save` is read: "Domain 7 suspended." and "Save exit rc=0" stand for the guest's suspension and the end.
//!
//! Sources: Xen, tools/xl/xl_migrate.c, tools/libs/light/libxl_dom_suspend.c, tools/libs/toollog/xtl_logger_stdio.c; Xen
//! 4.4, tools/libxc/xc_domain_save.c `print_stats`.

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::Unreadable;
use crate::observed::{Known, Observed};

/// One migration in a log. Points in time are seconds since 1970; `None` where the log does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Migration {
    /// xl's first line.
    pub requested: Option<f64>,
    /// libxc called for the guest's suspension.
    pub decided: Option<f64>,
    /// The guest was suspended.
    pub stopped: Option<f64>,
    /// libxc had written everything.
    pub source_done: Option<f64>,
    /// The target had started the guest.
    pub resumed: Option<f64>,
    /// Rounds, where their statistics are in the log.
    pub rounds: Vec<Round>,
    /// Whether it ended, and how.
    pub completed: Option<bool>,
}

/// What `xc_domain_save` said of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Pages sent.
    pub sent: u64,
    /// Pages left out because they had been written again.
    pub skipped: u64,
    /// How long it lasted; `None` of the last one.
    pub millis: Option<u64>,
    /// Pages that were found written at its end.
    pub dirtied: Option<u64>,
}

/// Bytes of a page of Xen on x86.
const PAGE_BYTES: u64 = 4096;

/// The migrations of a log, in order; none where it holds none.
pub fn parse(log: &str) -> Vec<Migration> {
    let mut all: Vec<Migration> = Vec::new();
    let mut now = Migration::default();
    let lines: Vec<(Option<f64>, &str)> = log.lines().map(stamped).collect();
    for (at, (_, text)) in lines.iter().enumerate() {
        let time = || lines[at..].iter().find_map(|(time, _)| *time);
        now.requested = now.requested.or_else(time);
        if text.contains("issuing") && text.contains("suspend request") {
            now.decided = time();
        } else if text.contains("guest has suspended") || (is_xend(text) && text.ends_with(" suspended.")) {
            now.stopped = time();
        } else if text.contains("libxl-save-helper") && text.contains("complete r=0") {
            now.source_done = now.source_done.or_else(time);
        } else if text.contains("migration target: Domain started succes") {
            now.resumed = time();
        } else if let Some(completed) = ending(text) {
            if is_xend(text) {
                now.source_done = time();
            }
            now.completed = Some(completed);
            all.push(std::mem::take(&mut now));
        } else {
            statistics(text, &mut now.rounds);
        }
    }
    if now.decided.is_some() || !now.rounds.is_empty() {
        all.push(now);
    }
    all
}

/// Reads a log as observed migrations.
pub(super) fn read(log: &str, known: &Known) -> Result<Vec<Observed>, Unreadable> {
    let all = parse(log);
    if all.is_empty() {
        return Err(Unreadable::Nothing("a log of `xl -vvv migrate … 2>&1`"));
    }
    let one = |(number, migration): (usize, &Migration)| {
        migration.completed.ok_or(Unreadable::Unended(number))?;
        let advice = "stamp the log as it is written: xl -vvv migrate … 2>&1 | ts %.s";
        migration.observed(known).ok_or(Unreadable::Timeless(number, advice))
    };
    (1..).zip(&all).map(one).collect()
}

impl Migration {
    /// As an observed migration; `None` if it did not end, or how long it took is not known.
    pub fn observed(&self, known: &Known) -> Option<Observed> {
        let completed = self.completed?;
        let requested = self.requested?;
        let end = self.resumed.or(self.source_done).or(self.stopped)?;
        let since = |point: Option<f64>| point.map(|point| point - requested);
        let between = |from: Option<f64>, to: Option<f64>| Some(to? - from?);
        let starts = self.rounds.iter().scan(0.0, |start, round| {
            *start += round.millis? as f64 / 1e3;
            Some(*start)
        });
        let pending = self.rounds.iter().map_while(|round| Some(round.dirtied? * PAGE_BYTES));
        let sent = self.rounds.iter().map(|round| round.sent).sum();
        let is_known = !self.rounds.is_empty();
        let requested_at = Timestamp::from_nanosecond((requested * 1e9) as i128).ok()?;
        Some(Observed {
            completed,
            migration_time_seconds: Some(end - requested),
            downtime_seconds: between(self.stopped, self.resumed),
            downtime_reported_seconds: between(self.decided, self.resumed),
            stopped_seconds: since(self.stopped),
            source_done_seconds: since(self.source_done),
            data_pages: is_known.then_some(sent),
            iterations: is_known.then_some(self.rounds.len() as u64),
            iteration_starts_seconds: starts.collect(),
            pending_bytes: pending.collect(),
            ..Observed::unseen("xen", known, requested_at)
        })
    }
}

/// Whether a line ends a migration, and how.
fn ending(text: &str) -> Option<bool> {
    if is_xend(text) {
        return text.split_once("Save exit rc=").map(|(_, status)| status == "0");
    }
    match text.trim_start() {
        ended if ended.starts_with("Migration successful") => Some(true),
        ended if ended.starts_with("Migration failed") => Some(false),
        _ => None,
    }
}

/// Whether xend's log of `xc_save` says so: there a migration is over for the log when the source has written everything.
fn is_xend(text: &str) -> bool {
    text.contains("(XendCheckpoint:")
}

/// Takes a line of `print_stats`, of the progress line before a round, or of xend's log, which has both in one.
fn statistics(text: &str, rounds: &mut Vec<Round>) {
    let number = |after: &str, before: &str| -> Option<u64> {
        let rest = &text[text.find(after)? + after.len()..];
        rest[..rest.find(before)?].trim().parse().ok()
    };
    if let (Some(sent), Some(skipped)) = (number("last sent ", " skipped"), number(" skipped ", ")")) {
        // It announces a round, and tells what the one before it came to.
        if let Some(last) = rounds.last_mut() {
            (last.sent, last.skipped) = (sent, skipped);
        }
        return;
    }
    let sent = number(": sent ", ", skipped").zip(number("skipped ", ","));
    let millis = number("delta ", "ms,");
    if sent.is_none() && millis.is_none() {
        return;
    }
    let (sent, skipped) = sent.unwrap_or_default();
    let dirtied = text.rfind("Mb/s ").map(|at| &text[at + 5..]).and_then(|rest| rest.split(' ').next()?.parse().ok());
    rounds.push(Round { sent, skipped, millis, dirtied: millis.and(dirtied) });
}

/// A line's time, in seconds since 1970, and the rest of it.
fn stamped(line: &str) -> (Option<f64>, &str) {
    let line = line.strip_prefix('[').unwrap_or(line);
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    if first.len() >= 9 && first.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
        if let Ok(seconds) = first.parse::<f64>() {
            return (Some(seconds), rest);
        }
        if let Ok(time) = first.parse::<Timestamp>() {
            return (Some(time.as_nanosecond() as f64 / 1e9), rest);
        }
        // xl's own "YYYY-MM-DD hh:mm:ss ZONE "; xend's "YYYY-MM-DD hh:mm:ss PID] …" within a bracket.
        if let Some(civil) = line.get(..19).and_then(|text| text.parse::<DateTime>().ok())
            && let Ok(time) = civil.in_tz("UTC")
        {
            return (Some(time.timestamp().as_second() as f64), line[19..].trim_start());
        }
    }
    (None, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
1795473495.021757 libxl: debug: libxl_domain.c:2293:libxl_retrieve_domain_configuration: Domain 1:ao 0x1: create
1795473495.283482 Saving to migration stream new xl format (info 0x3/0x0/886)
1795473495.471909 libxl-save-helper: debug: starting save: Success
1795473509.538767 libxl: debug: libxl_dom_suspend.c:203:x: Domain 1:issuing PVH/HVM suspend request via XenBus control node
1795473509.615073 libxl: debug: libxl_dom_suspend.c:358:x: Domain 1:guest has suspended
1795473509.733651 libxl-save-helper: debug: complete r=0: Success
1795473509.976441 migration target: Domain started successsfully.
1795473510.132769 Migration successful.
";

    fn known() -> Known {
        Known {
            guest: "g".to_owned(),
            history: None,
            version: "4.17.7".to_owned(),
            accelerator: "xen".to_owned(),
            link_bits_per_second: 160_000_000,
            settings: Vec::new(),
        }
    }

    fn close(found: Option<f64>, expected: f64) {
        assert!((found.unwrap() - expected).abs() < 1e-4, "{found:?}, not {expected}");
    }

    #[test]
    fn a_stamped_log_gives_times_and_downtime() {
        let observed = read(&LOG.repeat(2), &known()).unwrap();
        assert_eq!(observed.len(), 2, "a log may hold several");
        let first = &observed[0];
        close(first.migration_time_seconds, 14.954_684);
        close(first.stopped_seconds, 14.593_316);
        close(first.downtime_seconds, 0.361_368);
        close(first.downtime_reported_seconds, 0.437_674);
        close(first.source_done_seconds, 14.711_894);
        assert!(first.completed && first.sent_bytes.is_none() && first.iterations.is_none());
        assert_eq!(first.requested.strftime("%F %T").to_string(), "2026-11-23 22:38:15");
    }

    #[test]
    fn xls_own_stamps_serve_and_lines_without_one_take_the_next() {
        let log = "\
2026-11-23 22:32:35 UTC [77] libxl: debug: libxl_domain.c:2293:x: Domain 1:ao 0x1: create
Saving to migration stream new xl format (info 0x3/0x0/886)
2026-11-23 22:32:50 UTC [77] libxl: debug: libxl_dom_suspend.c:203:x: Domain 1:issuing PV suspend request via XenBus control node
2026-11-23 22:32:51 UTC [77] libxl: debug: libxl_dom_suspend.c:358:x: Domain 1:guest has suspended
migration target: Domain started successsfully.
2026-11-23 22:32:53 UTC [77] libxl: debug: libxl_domain.c:1046:libxl_domain_destroy: Domain 1:ao 0x2: create
Migration successful.
";
        let observed = read(log, &known()).unwrap();
        assert_eq!((observed[0].migration_time_seconds, observed[0].downtime_seconds), (Some(18.0), Some(2.0)));
    }

    #[test]
    fn the_rounds_of_xend_and_of_xen_4_4_are_read() {
        let xend = "\
[2012-03-09 13:37:12 xend 3113] INFO (XendCheckpoint:498) 1: sent 28847, skipped 3921, delta 1702ms, dom0 62%, target 32%, sent 555Mb/s, dirtied 116Mb/s 6036 pages
[2012-03-09 13:37:13 xend 3113] INFO (XendCheckpoint:498) 2: sent 3462, skipped 2574, delta 201ms, dom0 60%, target 44%, sent 564Mb/s, dirtied 613Mb/s 3766 pages
[2012-03-09 13:37:14 xend 3113] INFO (XendCheckpoint:498) 3: sent 42, skipped 0, Start last iteration
[2012-03-09 13:37:14 xend 3113] INFO (XendCheckpoint:121) Domain 7 suspended.
[2012-03-09 13:37:15 xend 3113] INFO (XendCheckpoint:498) Save exit rc=0
";
        let rounds = [
            Round { sent: 28_847, skipped: 3_921, millis: Some(1_702), dirtied: Some(6_036) },
            Round { sent: 3_462, skipped: 2_574, millis: Some(201), dirtied: Some(3_766) },
            Round { sent: 42, skipped: 0, millis: None, dirtied: None },
        ];
        assert_eq!(parse(xend)[0].rounds, rounds);
        let of_xend = &read(xend, &known()).unwrap()[0];
        assert_eq!(
            (of_xend.migration_time_seconds, of_xend.stopped_seconds, of_xend.completed),
            (Some(3.0), Some(2.0), true)
        );
        let four = "\
xc: detail: delta 1702ms, dom0 62%, target 32%, sent 555Mb/s, dirtied 116Mb/s 6036 pages
xc: Saving memory: iter 1 (last sent 28847 skipped 3921): 0/32784    0%
xc: detail: delta 201ms, dom0 60%, target 44%, sent 564Mb/s, dirtied 613Mb/s 3766 pages
xc: Saving memory: iter 2 (last sent 3462 skipped 2574): 0/32784    0%
";
        assert_eq!(parse(four)[0].rounds, rounds[..2]);
        let stamped: String = four.lines().map(|line| format!("1795473495.5 {line}\n")).collect();
        let all = format!("{stamped}1795473500.5 x: guest has suspended\n1795473501.0 Migration successful.\n");
        let observed = read(&all, &known()).unwrap();
        assert_eq!(observed[0].iteration_starts_seconds, [1.702, 1.903]);
        assert_eq!(observed[0].pending_bytes, [6_036 * 4_096, 3_766 * 4_096]);
        assert_eq!(observed[0].data_pages, Some(28_847 + 3_462));
    }

    #[test]
    fn what_gives_nothing_says_why() {
        let said = |log: &str| read(log, &known()).unwrap_err();
        assert!(matches!(said("hello\n"), Unreadable::Nothing(_)));
        let unstamped: String = LOG.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect();
        assert!(matches!(said(&unstamped), Unreadable::Timeless(1, advice) if advice.starts_with("stamp the log")));
        let cut: Vec<&str> = LOG.lines().take(5).collect();
        assert!(matches!(said(&cut.join("\n")), Unreadable::Unended(1)));
    }
}
