//! Replies to QMP's `query-migrate`, asked of the source when the migration is over: one JSON object or several, each
//! bare (`virsh qemu-monitor-command --pretty` without its envelope) or in `{"return": …}`.
//!
//! ```text
//!  total-time       migration_time_reported_seconds      ram.transferred        sent_bytes
//!  downtime         downtime_reported_seconds            ram.normal, duplicate  data_pages, zero_pages
//!  setup-time       setup_seconds                        ram.dirty-sync-count   iterations
//! ```
//! QEMU does not say when it was. A migration that failed or was cancelled has no times in it.
//!
//! Source: QEMU, qapi/migration.json `MigrationInfo`; migration/migration.c `populate_time_info`.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Unreadable, end_to_end};
use crate::observed::{Known, Observed};

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "return")]
    reply: Reply,
}

/// What is used of a reply. QEMU adds keys with every version.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Reply {
    status: String,
    total_time: Option<u64>,
    downtime: Option<u64>,
    setup_time: Option<u64>,
    ram: Option<Ram>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ram {
    transferred: u64,
    normal: Option<u64>,
    duplicate: Option<u64>,
    dirty_sync_count: Option<u64>,
}

const WANTED: &str = "a reply to `query-migrate` of the source with status completed";

/// Reads replies in the order of their migrations, the last of which ended at `ended`.
pub(super) fn read(text: &str, known: &Known, ended: Timestamp) -> Result<Vec<Observed>, Unreadable> {
    let mut all = Vec::new();
    let line_at = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    while let Some(value) = values.next() {
        let line = line_at(values.byte_offset());
        let value = value.map_err(|error| Unreadable::value(line, "the reply", &error.to_string(), "JSON"))?;
        let is_enveloped = value.get("return").is_some();
        let reply = if is_enveloped {
            serde_json::from_value::<Envelope>(value).map(|envelope| envelope.reply)
        } else {
            serde_json::from_value(value)
        };
        let reply: Reply = reply.map_err(|error| Unreadable::value(line, "the reply", &error.to_string(), WANTED))?;
        if reply.status != "completed" {
            return Err(Unreadable::value(line, "status", &reply.status, "completed"));
        }
        let seconds = |millis: Option<u64>| millis.map(|millis| millis as f64 / 1e3);
        let took = seconds(reply.total_time).ok_or(Unreadable::Timeless(all.len() + 1, "total-time is wanted"))?;
        let ram = reply.ram.as_ref();
        all.push(Observed {
            completed: true,
            migration_time_reported_seconds: Some(took),
            downtime_reported_seconds: seconds(reply.downtime),
            setup_seconds: seconds(reply.setup_time),
            sent_bytes: ram.map(|ram| ram.transferred),
            data_pages: ram.and_then(|ram| ram.normal),
            zero_pages: ram.and_then(|ram| ram.duplicate),
            iterations: ram.and_then(|ram| ram.dirty_sync_count),
            ..Observed::unseen("qemu", known, ended)
        });
    }
    end_to_end(&mut all, ended);
    if all.is_empty() { Err(Unreadable::Nothing(WANTED)) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known;
    use super::*;

    /// What QEMU 10.0.2 answered after a real migration.
    const REPLY: &str = include_str!("../../../../../testdata/lab/life/query-migrate-00.json");

    #[test]
    fn a_reply_gives_times_bytes_and_pages() {
        let ended: Timestamp = "2026-11-24T08:00:10Z".parse().unwrap();
        for text in [REPLY.to_owned(), format!("{{\"return\": {REPLY}, \"id\": \"libvirt-32\"}}")] {
            let observed = read(&text, &known(), ended).unwrap();
            let one = &observed[0];
            assert_eq!(observed.len(), 1);
            assert_eq!(one.migration_time_seconds, None);
            let took = one.migration_time_reported_seconds.unwrap();
            assert!((one.requested.as_second() as f64 - (ended.as_second() as f64 - took)).abs() < 1.0);
            assert!(one.downtime_reported_seconds.unwrap() < took && one.setup_seconds.unwrap() < took);
            let (data, zero) = (one.data_pages.unwrap(), one.zero_pages.unwrap());
            let pages = data * 4_104 + zero * 9;
            // The rest is device state.
            assert!((pages..pages + (1 << 20)).contains(&one.sent_bytes.unwrap()), "{one:?}");
        }
    }

    #[test]
    fn only_what_is_over_counts() {
        let error = read("{\"status\": \"active\"}", &known(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.to_string(), "line 1: status is `active`, allowed: completed");
        let error = read("{\"status\": \"completed\"}", &known(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.to_string(), "migration 1 has no times; total-time is wanted");
    }
}
