//! CSV: a header line whose columns have the keys of `migcast.observed/1`, then one migration a line.
//!
//! Columns that are left out, and cells that are empty, are as the command line says (guest, version, link, …) or unknown.
//! `requested` and one of the two migration times are needed; `completed` is true where nothing is said. `settings` are
//! several, with blanks between them.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::super::checked;
use crate::import::Splitter;
use crate::observed::{Known, Observed, ObservedError};

/// Keys whose values are text; all other ones are numbers but `completed` and `settings`.
const TEXTS: [&str; 7] = ["format", "requested", "guest", "history", "hypervisor", "hypervisor_version", "accelerator"];

/// Reads the migrations of a table, those of no stated hypervisor as `hypervisor`'s.
pub(super) fn read(text: &str, hypervisor: &str, known: &Known, path: &Path) -> Result<Vec<Observed>, ObservedError> {
    let malformed = |line: usize, message: String| ObservedError::Malformed {
        path: path.to_owned(),
        line,
        source: <serde_json::Error as serde::de::Error>::custom(message).into(),
    };
    let mut splitter = Splitter::new();
    let mut header: Option<Vec<String>> = None;
    let mut all = Vec::new();
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    for (line, text) in lines.filter(|(_, text)| !text.trim().is_empty() && !text.starts_with('#')) {
        let cells = splitter.split(text).ok_or_else(|| malformed(line, "a quotation mark does not end".to_owned()))?;
        let Some(names) = &header else {
            header = Some(cells.iter().map(|name| name.trim().to_owned()).collect());
            continue;
        };
        if cells.len() != names.len() {
            let message = format!("{} columns, the header line has {}", cells.len(), names.len());
            return Err(malformed(line, message));
        }
        let mut row = blank(hypervisor, known).map_err(|error| malformed(line, error.to_string()))?;
        for (name, cell) in names.iter().zip(cells).filter(|(_, cell)| !cell.trim().is_empty()) {
            row.insert(name.clone(), value(name, cell.trim()));
        }
        all.push(checked(serde_json::from_value(Value::Object(row)), line, path)?);
    }
    if all.is_empty() {
        let message = "no migration in it; CSV with the keys of migcast.observed/1 as columns is wanted".to_owned();
        return Err(malformed(1, message));
    }
    Ok(all)
}

/// What is known before a line is read; when it was is not.
fn blank(hypervisor: &str, known: &Known) -> Result<serde_json::Map<String, Value>, serde_json::Error> {
    let unseen = Observed { completed: true, ..Observed::unseen(hypervisor, known, Timestamp::UNIX_EPOCH) };
    let Value::Object(mut row) = serde_json::to_value(unseen)? else { return Ok(serde_json::Map::new()) };
    row.remove("requested");
    Ok(row)
}

/// A cell as JSON; what is no number where one belongs stays text, which the reader refuses with its name.
fn value(name: &str, cell: &str) -> Value {
    match name {
        name if TEXTS.contains(&name) => cell.into(),
        "settings" => cell.split_whitespace().collect(),
        _ => serde_json::from_str(cell).unwrap_or_else(|_| cell.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::known;
    use super::*;

    const HEADER: &str = "requested,guest,migration_time_seconds,downtime_seconds,sent_bytes,settings,completed\n";

    fn of(lines: &str) -> Result<Vec<Observed>, ObservedError> {
        read(&format!("{HEADER}{lines}"), "qemu", &known(), Path::new("t"))
    }

    #[test]
    fn cells_override_what_is_known() {
        let all = of("2026-11-24T08:00:00Z,db,4.5,0.2,1000,downtime-limit=300ms multifd=on,\n\
            2026-11-24T09:00:00Z,,60,,,,false\n")
        .unwrap();
        assert_eq!((all[0].guest.as_str(), all[1].guest.as_str()), ("db", "web"));
        assert_eq!(all[0].settings, ["downtime-limit=300ms", "multifd=on"]);
        assert_eq!((all[0].sent_bytes, all[1].sent_bytes), (Some(1000), None));
        assert_eq!((all[0].completed, all[1].completed), (true, false));
        assert_eq!(all[1].migration_time_seconds, Some(60.0));
        let text = format!("{HEADER}2026-11-24T08:00:00Z,db,4.5,,,,\n");
        assert_eq!(read(&text, "xen", &known(), Path::new("t")).unwrap()[0].hypervisor, "xen");
    }

    #[test]
    fn what_is_wrong_is_named_in_one_line() {
        let cases = [
            ("2026-11-24T08:00:00Z,db,fast,0.2,1,,\n", "line 2: invalid type: string \"fast\""),
            ("2026-11-24T08:00:00Z,db,-1,0.2,1,,\n", "line 2: migration_time_seconds is -1, allowed: 0 to 10^9"),
            ("2026-11-24T08:00:00Z,db,,,,,\n", "line 2: migration_time_seconds or"),
            ("yesterday,db,1,,,,\n", "line 2: "),
            (",db,1,,,,\n", "line 2: missing field `requested`"),
            ("a,b\n", "line 2: 2 columns, the header line has 7"),
            ("", "line 1: no migration in it"),
        ];
        for (lines, expected) in cases {
            let error = of(lines).unwrap_err();
            crate::fuzzing::one_line(&error);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
