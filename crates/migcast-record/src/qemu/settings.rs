//! A guest's migration settings: what they are, what a migration to nowhere needs, and how they become again what they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use qapi::Command;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::is_calm;
use crate::monitor::{Monitor, MonitorError, QueryMigrate, ask};
use crate::qmp::QmpSocket;

/// Capabilities that a migration to nowhere needs: the target's word before the guest is stopped, which never comes.
const NEEDED: [&str; 2] = ["return-path", "switchover-ack"];
/// Tells only what happens, to whoever asked for it.
const HARMLESS: &str = "events";
/// Bytes per second: no limit that anybody reaches, and no more than QEMU takes.
const NO_LIMIT: u64 = 1 << 50;
/// With a downtime of 1 ms: the dirty log is read anew when less than 1,000 bytes are left, so when all pages are sent.
const SWITCHOVER_BYTES_PER_SECOND: u64 = 1_000_000;
/// How often QEMU is asked whether a migration is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How long, and how often, a child waits for a monitor that somebody else holds, or for somebody else's migration to end.
const CHILD_PATIENCE: Duration = Duration::from_secs(3600);
const CHILD_INTERVAL: Duration = Duration::from_secs(1);

/// Migration settings, as they were before a migration to nowhere changed them. Their JSON is handed to the child that
/// restores them if this process is killed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    capabilities: Vec<Capability>,
    parameters: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Capability {
    capability: String,
    state: bool,
}

impl Settings {
    /// What differs from what a migration to nowhere needs.
    pub(super) fn of(monitor: &mut dyn Monitor) -> Result<Settings, MonitorError> {
        let mut capabilities = ask(monitor, QueryCapabilities {})?;
        capabilities.retain(|now| now.state != now.is_needed() && now.capability != HARMLESS);
        let mut parameters = ask(monitor, QueryParameters {})?;
        let ours = ours();
        parameters.retain(|name, value| ours.get(name).is_some_and(|ours| ours != value));
        Ok(Settings { capabilities, parameters })
    }

    /// Sets what a migration to nowhere needs.
    pub(super) fn replace(&self, monitor: &mut dyn Monitor) -> Result<(), MonitorError> {
        let turned = |now: &Capability| Capability { capability: now.capability.clone(), state: !now.state };
        ask(monitor, SetCapabilities { capabilities: self.capabilities.iter().map(turned).collect() })?;
        let mut ours = ours();
        ours.retain(|name, _| self.parameters.contains_key(name));
        ask(monitor, SetParameters(ours)).map(drop)
    }

    /// Gives back what was, wherever it still is what a migration to nowhere needs: what is otherwise by now was set by
    /// somebody else since. Capabilities cannot be set while the guest migrates; for the end of that this waits for `span`.
    /// Says whether all was given back.
    pub(super) fn give_back(&self, monitor: &mut dyn Monitor, span: Duration) -> Result<bool, MonitorError> {
        let (now, ours) = (ask(monitor, QueryParameters {})?, ours());
        let mut parameters = self.parameters.clone();
        parameters.retain(|name, _| now.get(name) == ours.get(name));
        ask(monitor, SetParameters(parameters))?;
        let deadline = Instant::now() + span;
        while !is_calm(&ask(monitor, QueryMigrate {})?.status) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let now = ask(monitor, QueryCapabilities {})?;
        let now: BTreeMap<&str, bool> = now.iter().map(|now| (now.capability.as_str(), now.state)).collect();
        let mut capabilities = self.capabilities.clone();
        capabilities.retain(|before| now.get(before.capability.as_str()) == Some(&!before.state));
        ask(monitor, SetCapabilities { capabilities }).map(|_| true)
    }
}

impl Capability {
    fn is_needed(&self) -> bool {
        NEEDED.contains(&self.capability.as_str())
    }
}

/// The parameters of a migration to nowhere.
fn ours() -> Map<String, Value> {
    let parameters = [
        ("max-bandwidth", json!(NO_LIMIT)),
        ("avail-switchover-bandwidth", json!(SWITCHOVER_BYTES_PER_SECOND)),
        ("downtime-limit", json!(1)),
        ("tls-creds", json!("")),
        // Others stop the guest at once, or do not say which pages are zero.
        ("mode", json!("normal")),
        ("zero-page-detection", json!("legacy")),
    ];
    parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Gives back the settings of a guest whose recorder was killed, and waits where somebody else holds its monitor or
/// migrates it. `settings` is what the recorder handed to its watchdog.
///
/// # Errors
/// [`MonitorError`]: nobody there; settings that are none.
pub fn restore(socket: &Path, settings: &str) -> Result<(), MonitorError> {
    let settings: Settings = serde_json::from_str(settings).map_err(|error| MonitorError::Answer {
        command: SetParameters::NAME.to_owned(),
        what: format!("settings that are none: {error}"),
    })?;
    let mut monitor = QmpSocket::new(socket);
    let deadline = Instant::now() + CHILD_PATIENCE;
    loop {
        // The stream was closed with the recorder, which ends its migration.
        let given_back = settings.give_back(&mut monitor, CHILD_INTERVAL);
        monitor.release();
        match given_back {
            Ok(true) => return Ok(()),
            Ok(false) | Err(MonitorError::Busy { .. } | MonitorError::Io { .. }) if Instant::now() < deadline => {
                std::thread::sleep(CHILD_INTERVAL);
            }
            Ok(false) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// `query-migrate-capabilities`, by name, so that one of a newer QEMU is no error. Likewise the others below.
#[derive(Debug, Serialize)]
struct QueryCapabilities {}

#[derive(Debug, Serialize)]
struct SetCapabilities {
    capabilities: Vec<Capability>,
}

#[derive(Debug, Serialize)]
struct QueryParameters {}

#[derive(Debug, Serialize)]
struct SetParameters(Map<String, Value>);

impl Command for QueryCapabilities {
    type Ok = Vec<Capability>;
    const NAME: &'static str = "query-migrate-capabilities";
    const ALLOW_OOB: bool = false;
}

impl Command for SetCapabilities {
    type Ok = Value;
    const NAME: &'static str = "migrate-set-capabilities";
    const ALLOW_OOB: bool = false;
}

impl Command for QueryParameters {
    type Ok = Map<String, Value>;
    const NAME: &'static str = "query-migrate-parameters";
    const ALLOW_OOB: bool = false;
}

impl Command for SetParameters {
    type Ok = Value;
    const NAME: &'static str = "migrate-set-parameters";
    const ALLOW_OOB: bool = false;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::fake::FakeMonitor;

    fn monitor() -> FakeMonitor {
        let mut monitor = FakeMonitor::default();
        let capability = |name: &str, state: bool| json!({ "capability": name, "state": state });
        let answers = [
            (
                "query-migrate-capabilities",
                json!([
                    capability("events", true),
                    capability("xbzrle", false),
                    capability("auto-converge", true),
                    capability("return-path", true),
                    capability("switchover-ack", false),
                ]),
            ),
            (
                "query-migrate-parameters",
                json!({ "max-bandwidth": 134_217_728, "downtime-limit": 1, "tls-creds": "", "announce-rounds": 5 }),
            ),
            ("migrate-set-capabilities", json!({})),
            ("migrate-set-parameters", json!({})),
        ];
        monitor.answers.extend(answers.map(|(name, answer)| (name.to_owned(), answer)));
        monitor
    }

    /// The last arguments of a command that was sent.
    fn sent(monitor: &FakeMonitor, command: &str) -> Value {
        let sent = monitor.requests.iter().rfind(|request| request["execute"] == command);
        sent.map(|request| request["arguments"].clone()).unwrap_or_default()
    }

    #[test]
    fn only_what_differs_is_kept_and_survives_its_json() {
        let settings = Settings::of(&mut monitor()).unwrap();
        let kept: Vec<(&str, bool)> =
            settings.capabilities.iter().map(|now| (now.capability.as_str(), now.state)).collect();
        assert_eq!(kept, [("auto-converge", true), ("switchover-ack", false)]);
        assert_eq!(settings.parameters.keys().collect::<Vec<_>>(), ["max-bandwidth"]);
        let mut replaced = monitor();
        settings.replace(&mut replaced).unwrap();
        let turned = json!({ "capabilities": [
            { "capability": "auto-converge", "state": false }, { "capability": "switchover-ack", "state": true },
        ] });
        assert_eq!(sent(&replaced, "migrate-set-capabilities"), turned);
        assert_eq!(sent(&replaced, "migrate-set-parameters"), json!({ "max-bandwidth": NO_LIMIT }));
        let json = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
    }

    #[test]
    fn what_somebody_else_has_set_since_is_theirs() {
        let settings = Settings::of(&mut monitor()).unwrap();
        let mut later = monitor();
        let capability = |name: &str, state: bool| json!({ "capability": name, "state": state });
        let capabilities = json!([capability("auto-converge", true), capability("switchover-ack", true)]);
        later.answers.insert("query-migrate-capabilities".to_owned(), capabilities);
        later.answers.insert("query-migrate".to_owned(), json!({ "status": "failed" }));
        assert!(settings.give_back(&mut later, Duration::ZERO).unwrap());
        assert_eq!(sent(&later, "migrate-set-parameters"), json!({}), "max-bandwidth is not ours any more");
        let only = json!({ "capabilities": [{ "capability": "switchover-ack", "state": false }] });
        assert_eq!(sent(&later, "migrate-set-capabilities"), only);

        later.answers.insert("query-migrate-parameters".to_owned(), json!({ "max-bandwidth": NO_LIMIT }));
        later.answers.insert("query-migrate".to_owned(), json!({ "status": "active" }));
        later.requests.clear();
        assert!(!settings.give_back(&mut later, Duration::ZERO).unwrap(), "it migrates");
        assert_eq!(sent(&later, "migrate-set-parameters"), json!({ "max-bandwidth": 134_217_728 }));
        assert_eq!(sent(&later, "migrate-set-capabilities"), Value::Null);
    }

    #[test]
    fn commands_are_what_qemu_takes() {
        let set = SetCapabilities { capabilities: vec![Capability { capability: "xbzrle".to_owned(), state: false }] };
        let line = crate::monitor::request(set).unwrap();
        let expected = json!({ "execute": "migrate-set-capabilities",
            "arguments": { "capabilities": [{ "capability": "xbzrle", "state": false }] } });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
        let line = crate::monitor::request(SetParameters(ours())).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["arguments"]["downtime-limit"], 1);
    }
}
