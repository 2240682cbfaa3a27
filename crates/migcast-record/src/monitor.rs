//! Talking to a QEMU monitor: typed commands over any transport that carries a line there and the answer back.
//!
//! The commands are those of the `qapi` crate. Its own client is not used: it panics on a peer that hangs up before
//! the greeting, and gives up at an event it does not know, which a newer QEMU may send at any time.

use std::io;

use qapi::{Command, Execute, Never};
use serde_json::Value;

/// Carries commands to a monitor.
pub trait Monitor {
    /// Sends one command (a JSON object on one line) and returns the monitor's answer to it: the object with `return`
    /// or `error`, never an event.
    ///
    /// # Errors
    /// [`MonitorError`]: nobody there, no answer in time, not a monitor.
    fn exchange(&mut self, request: &str) -> Result<Value, MonitorError>;

    /// Sends several commands; answers in their order.
    ///
    /// # Errors
    /// As [`Monitor::exchange`].
    fn exchange_all(&mut self, requests: &[String]) -> Result<Vec<Value>, MonitorError> {
        requests.iter().map(|request| self.exchange(request)).collect()
    }

    /// Lets other clients in until the next command.
    fn release(&mut self) {}
}

/// Why a monitor did not answer.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// It accepted us and said nothing: another client holds it.
    #[error(
        "{place}: no greeting within {seconds} s: another client (e.g. libvirt) holds this monitor; \
         use --libvirt DOMAIN, or give QEMU a second -qmp socket"
    )]
    Busy {
        /// The monitor.
        place: String,
        /// How long was waited.
        seconds: f64,
    },
    /// Nobody listens there any more, or never did.
    #[error("{place}: {reason}")]
    Gone {
        /// The monitor.
        place: String,
        /// Why.
        reason: String,
    },
    /// What answers there is not a QEMU monitor.
    #[error("{place}: not a QMP monitor ({what}); --qmp takes the UNIX socket of QEMU's -qmp option")]
    NotQmp {
        /// The monitor.
        place: String,
        /// What it said.
        what: String,
    },
    /// It fell silent or hung up in the middle.
    #[error("{place}: no answer")]
    Io {
        /// The monitor.
        place: String,
        /// What happened.
        source: io::Error,
    },
    /// It refused a command.
    #[error("the monitor refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's error class, e.g. "CommandNotFound".
        class: String,
        /// What QEMU said.
        reason: String,
    },
    /// It answered what this command never answers.
    #[error("the monitor answered {command} with something unexpected: {what}")]
    Answer {
        /// The command.
        command: String,
        /// What did not fit.
        what: String,
    },
}

/// An error with its causes, on one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl MonitorError {
    /// True where this QEMU does not have the command.
    pub(crate) fn is_unknown_command(&self) -> bool {
        matches!(self, MonitorError::Refused { class, .. } if class == "CommandNotFound")
    }
}

/// Runs one command.
pub(crate) fn ask<C: Command>(monitor: &mut dyn Monitor, command: C) -> Result<C::Ok, MonitorError> {
    let answer = monitor.exchange(&request(command)?)?;
    understand::<C>(answer)
}

/// A command as one line of JSON.
pub(crate) fn request<C: Command>(command: C) -> Result<String, MonitorError> {
    serde_json::to_string(&Execute::<C, Never>::new(command, None)).map_err(|error| unexpected::<C>(error.to_string()))
}

/// What the monitor's answer to a command says.
pub(crate) fn understand<C: Command>(mut answer: Value) -> Result<C::Ok, MonitorError> {
    if let Some(error) = answer.get("error") {
        let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
        return Err(MonitorError::Refused {
            command: C::NAME.to_owned(),
            class: field("class"),
            reason: field("desc"),
        });
    }
    let value = answer.get_mut("return").map(Value::take);
    let value = value.ok_or_else(|| unexpected::<C>("neither return nor error".to_owned()))?;
    serde_json::from_value(value).map_err(|error| unexpected::<C>(error.to_string()))
}

fn unexpected<C: Command>(what: String) -> MonitorError {
    MonitorError::Answer { command: C::NAME.to_owned(), what }
}

/// Runs a command of the human monitor.
pub(crate) fn ask_human(monitor: &mut dyn Monitor, line: &str) -> Result<String, MonitorError> {
    ask(monitor, qapi::qmp::human_monitor_command { cpu_index: None, command_line: line.to_owned() })
}

/// `query-status`, reduced to the state's name, so that a state of a newer QEMU is no error.
#[derive(Debug, serde::Serialize)]
pub(crate) struct QueryStatus {}

/// `query-migrate`, likewise.
#[derive(Debug, serde::Serialize)]
pub(crate) struct QueryMigrate {}

/// What a guest does: its run state, e.g. "running".
#[derive(Debug, serde::Deserialize)]
pub(crate) struct RunState {
    pub(crate) status: String,
}

/// What its migration does; empty where there has been none.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct MigrationState {
    #[serde(default)]
    pub(crate) status: String,
}

impl Command for QueryStatus {
    type Ok = RunState;
    const NAME: &'static str = "query-status";
    const ALLOW_OOB: bool = false;
}

impl Command for QueryMigrate {
    type Ok = MigrationState;
    const NAME: &'static str = "query-migrate";
    const ALLOW_OOB: bool = false;
}

#[cfg(test)]
pub(crate) mod fake {
    //! A monitor that answers by rote.

    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::{Monitor, MonitorError};

    /// Answers by command name (for human commands: by the line); anything else is not found.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct FakeMonitor {
        pub(crate) answers: BTreeMap<String, Value>,
        /// What it was asked, in order.
        pub(crate) requests: Vec<Value>,
    }

    impl Monitor for FakeMonitor {
        fn exchange(&mut self, request: &str) -> Result<Value, MonitorError> {
            let request: Value = serde_json::from_str(request).unwrap();
            self.requests.push(request.clone());
            let name = request["execute"].as_str().unwrap();
            let key = request["arguments"]["command-line"].as_str().unwrap_or(name);
            Ok(match self.answers.get(key) {
                Some(answer) => json!({ "return": answer }),
                None => json!({ "error": { "class": "CommandNotFound", "desc": format!("{key} not found") } }),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fake::FakeMonitor;
    use super::*;

    #[test]
    fn answers_are_typed_and_refusals_are_named() {
        let mut monitor = FakeMonitor::default();
        monitor
            .answers
            .insert("query-status".into(), serde_json::json!({ "status": "of a later time", "running": true }));
        assert_eq!(ask(&mut monitor, QueryStatus {}).unwrap().status, "of a later time");
        let error = ask(&mut monitor, QueryMigrate {}).unwrap_err();
        assert!(error.is_unknown_command());
        assert_eq!(error.to_string(), "the monitor refused query-migrate: query-migrate not found");
        monitor.answers.insert("query-migrate".into(), serde_json::json!([1]));
        let error = ask(&mut monitor, QueryMigrate {}).unwrap_err();
        assert!(error.to_string().contains("query-migrate with something unexpected"), "{error}");
    }
}
