//! The platform file (`--platform`): what belongs to a pair of hosts, as versioned JSON.

use std::path::{Path, PathBuf};
use std::time::Duration;

use migcast_model::link::Link;
use migcast_model::platform::Platform;
use migcast_model::units::{ByteCount, PageCount};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "migcast.platform/1";
/// More than any device state or socket buffer: 1 TiB.
const BYTES_MAX: u64 = 1 << 40;
/// More than any guest writes to suspend itself.
const STOP_PAGES_MAX: u64 = 1_000_000;

/// A platform file, version 1. Every figure is optional on reading: what is missing keeps its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a platform file, one JSON object")]
pub(crate) struct PlatformFile {
    format: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zero_page_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_seconds_per_gib: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_round_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_round_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_pages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_state_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_state_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resume_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest_speed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_scatter: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downtime_scatter_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    downtime_scatter_common_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_buffer_bytes: Option<u64>,
}

/// Why a platform file was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlatformFileError {
    #[error("platform file {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("platform file {}: {}", path.display(), in_one_line(source))]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("platform file {}: format is `{}`, this program reads `{FORMAT}`", path.display(), in_one_line(found))]
    Foreign { path: PathBuf, found: String },
    #[error("platform file {}: `{field}` is {value}: allowed is {allowed}", path.display())]
    OutOfRange { path: PathBuf, field: &'static str, value: String, allowed: &'static str },
}

/// What repeats a piece of the file, as part of one line: control characters are escaped.
fn in_one_line(text: &impl ToString) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.to_string().chars().map(escape).collect()
}

/// A number as short as it can be written exactly.
fn shown(number: f64) -> String {
    if number.abs() < 1e15 { number.to_string() } else { format!("{number:e}") }
}

impl PlatformFile {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<(Platform, PlatformFile), PlatformFileError> {
        let at = || path.to_owned();
        let text =
            std::fs::read_to_string(path).map_err(|source| PlatformFileError::Unreadable { path: at(), source })?;
        let file: PlatformFile =
            serde_json::from_str(&text).map_err(|source| PlatformFileError::Malformed { path: at(), source })?;
        if file.format != FORMAT {
            return Err(PlatformFileError::Foreign { path: at(), found: file.format });
        }
        let platform = file.platform(path)?;
        Ok((platform, file))
    }

    /// The file that holds a platform and what it says of links.
    pub(crate) fn of(platform: &Platform, link: &Link) -> PlatformFile {
        let seconds = |span: Duration| Some(span.as_secs_f64());
        PlatformFile {
            format: FORMAT.to_owned(),
            name: Some(platform.name.clone()),
            connect_seconds: seconds(platform.connect),
            setup_seconds: seconds(platform.setup),
            page_seconds: seconds(platform.page_cost),
            zero_page_seconds: seconds(platform.zero_page_cost),
            sync_seconds_per_gib: seconds(platform.sync_cost_per_gib),
            first_round_seconds: seconds(platform.first_round).filter(|seconds| *seconds > 0.0),
            first_round_bytes: Some(platform.first_round_bytes.get()).filter(|bytes| *bytes > 0),
            round_seconds: seconds(platform.round).filter(|seconds| *seconds > 0.0),
            stop_seconds: seconds(platform.stop),
            stop_pages: Some(platform.stop_pages.get()).filter(|pages| *pages > 0),
            device_state_bytes: Some(platform.device_state.get()),
            device_state_seconds: seconds(platform.device_state_cost),
            resume_seconds: seconds(platform.resume),
            guest_speed: Some(platform.guest_speed),
            time_scatter: Some(platform.time_scatter),
            downtime_scatter_seconds: seconds(platform.downtime_scatter),
            downtime_scatter_common_seconds: seconds(platform.downtime_scatter_common).filter(|seconds| *seconds > 0.0),
            payload_share: Some(link.payload_share),
            sender_buffer_bytes: Some(link.sender_buffer.get()),
        }
    }

    /// A link of this line rate as this pair of hosts has it.
    pub(crate) fn shape(&self, link: Link) -> Link {
        Link {
            payload_share: self.payload_share.unwrap_or(link.payload_share),
            sender_buffer: self.sender_buffer_bytes.map_or(link.sender_buffer, ByteCount::new),
            ..link
        }
    }

    fn platform(&self, path: &Path) -> Result<Platform, PlatformFileError> {
        let refuse =
            |field, value, allowed| PlatformFileError::OutOfRange { path: path.to_owned(), field, value, allowed };
        let span = |field, value: Option<f64>, default| match value {
            None => Ok(default),
            Some(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
            Some(seconds) => Err(refuse(field, shown(seconds), "0 to 3600 seconds")),
        };
        let share = |field, value: Option<f64>| match value {
            Some(share) if !(share > 0.0 && share <= 1.0) => Err(refuse(field, shown(share), "more than 0, at most 1")),
            _ => Ok(()),
        };
        share("guest_speed", self.guest_speed)?;
        share("payload_share", self.payload_share)?;
        for (field, bytes) in [
            ("first_round_bytes", self.first_round_bytes),
            ("device_state_bytes", self.device_state_bytes),
            ("sender_buffer_bytes", self.sender_buffer_bytes),
        ] {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > BYTES_MAX) {
                return Err(refuse(field, bytes.to_string(), "0 to 2^40"));
            }
        }
        if let Some(pages) = self.stop_pages.filter(|pages| *pages > STOP_PAGES_MAX) {
            return Err(refuse("stop_pages", pages.to_string(), "0 to 1000000"));
        }
        let time_scatter = self.time_scatter.unwrap_or_default();
        if !(0.0..=1.0).contains(&time_scatter) {
            return Err(refuse("time_scatter", shown(time_scatter), "0 to 1"));
        }
        let default = Platform::default();
        Ok(Platform {
            name: self.name.clone().unwrap_or_else(|| path.display().to_string()),
            connect: span("connect_seconds", self.connect_seconds, default.connect)?,
            setup: span("setup_seconds", self.setup_seconds, default.setup)?,
            page_cost: span("page_seconds", self.page_seconds, default.page_cost)?,
            zero_page_cost: span("zero_page_seconds", self.zero_page_seconds, default.zero_page_cost)?,
            sync_cost_per_gib: span("sync_seconds_per_gib", self.sync_seconds_per_gib, default.sync_cost_per_gib)?,
            first_round: span("first_round_seconds", self.first_round_seconds, default.first_round)?,
            first_round_bytes: self.first_round_bytes.map_or(default.first_round_bytes, ByteCount::new),
            round: span("round_seconds", self.round_seconds, default.round)?,
            stop: span("stop_seconds", self.stop_seconds, default.stop)?,
            stop_pages: self.stop_pages.map_or(default.stop_pages, PageCount::new),
            device_state: self.device_state_bytes.map_or(default.device_state, ByteCount::new),
            device_state_cost: span("device_state_seconds", self.device_state_seconds, default.device_state_cost)?,
            resume: span("resume_seconds", self.resume_seconds, default.resume)?,
            guest_speed: self.guest_speed.unwrap_or(default.guest_speed),
            time_scatter,
            downtime_scatter: span(
                "downtime_scatter_seconds",
                self.downtime_scatter_seconds,
                default.downtime_scatter,
            )?,

            downtime_scatter_common: span(
                "downtime_scatter_common_seconds",
                self.downtime_scatter_common_seconds,
                default.downtime_scatter_common,
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use migcast_model::units::BytesPerSec;

    use super::*;

    fn read(text: &str) -> Result<(Platform, PlatformFile), PlatformFileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("platform.json");
        std::fs::write(&path, text).unwrap();
        PlatformFile::read(&path)
    }

    #[test]
    fn a_platform_survives_its_file() {
        let link = Link { payload_share: 0.9, ..Link::ethernet(BytesPerSec::new(1_000)) };
        let platform =
            Platform { resume: Duration::from_millis(77), guest_speed: 0.8, time_scatter: 0.02, ..Platform::default() };
        let platform = Platform {
            first_round: Duration::from_secs(7),
            first_round_bytes: ByteCount::new(8 << 20),
            round: Duration::from_millis(60),
            stop_pages: PageCount::new(250),
            ..platform
        };
        let text = serde_json::to_string(&PlatformFile::of(&platform, &link)).unwrap();
        let (again, file) = read(&text).unwrap();
        assert_eq!(again, platform);
        assert_eq!(file.shape(Link::ethernet(BytesPerSec::new(1_000))), link);
    }

    #[test]
    fn what_is_missing_keeps_its_default() {
        let (platform, _) = read(r#"{"format": "migcast.platform/1", "resume_seconds": 0.2}"#).unwrap();
        assert_eq!(platform.resume, Duration::from_millis(200));
        assert_eq!(platform.page_cost, Platform::default().page_cost);
    }

    #[test]
    fn bad_files_get_one_line_that_says_what_and_where() {
        for (text, wanted) in [
            ("", "EOF while parsing a value at line 1"),
            ("hello", "expected value at line 1"),
            ("[]", "expected a platform file, one JSON object at line 1"),
            ("{}", "missing field `format` at line 1"),
            (r#"{"format": "migcast.platform/2"}"#, "format is `migcast.platform/2`, this program reads `migcast.pl"),
            ("{\"format\": \"two\\nlines\"}", "format is `two\\nlines`"),
            ("{\"two\\nlines\": 1}", "unknown field `two\\nlines`"),
        ] {
            refused(text, wanted);
        }
    }

    #[test]
    fn bad_figures_get_one_line_that_names_the_key_and_what_is_allowed() {
        for (figure, wanted) in [
            (r#""resume": 1"#, "unknown field `resume`"),
            (r#""name": "a", "name": "b""#, "duplicate field `name`"),
            (r#""guest_speed": 0"#, "`guest_speed` is 0: allowed is more than 0, at most 1"),
            (r#""payload_share": 1.01"#, "`payload_share` is 1.01: allowed is more than 0, at most 1"),
            (r#""time_scatter": -0.1"#, "`time_scatter` is -0.1: allowed is 0 to 1"),
            (r#""resume_seconds": -1"#, "`resume_seconds` is -1: allowed is 0 to 3600 seconds"),
            (r#""stop_seconds": 1e300"#, "`stop_seconds` is 1e300: allowed is 0 to 3600 seconds"),
            (r#""stop_seconds": 1e999"#, "number out of range at line 1"),
            (r#""stop_seconds": NaN"#, "expected value at line 1"),
            (r#""stop_seconds": "1s""#, r#"invalid type: string "1s", expected f64"#),
            (r#""name": 7"#, "invalid type: integer `7`, expected a string"),
            (r#""first_round_seconds": -1"#, "`first_round_seconds` is -1: allowed is 0 to 3600 seconds"),
            (r#""stop_pages": 1000001"#, "`stop_pages` is 1000001: allowed is 0 to 1000000"),
            (r#""device_state_bytes": -1"#, "invalid value: integer `-1`, expected u64"),
            (r#""device_state_bytes": 1.5"#, "invalid type: floating point `1.5`, expected u64"),
            (
                r#""sender_buffer_bytes": 18446744073709551615"#,
                "`sender_buffer_bytes` is 18446744073709551615: allowed is 0 to 2^40",
            ),
        ] {
            refused(&format!(r#"{{"format": "migcast.platform/1", {figure}}}"#), wanted);
        }
    }

    #[track_caller]
    fn refused(text: &str, wanted: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.lines().count() == 1, "{text}: {error}");
    }
}
