//! How chosen settings are made known to whatever migrates the guest.

use std::time::Duration;

use migcast_model::quantity::{parse_duration, parse_rate};

use crate::report::Prediction;

/// Nova's smallest downtime limit, in milliseconds.
const NOVA_DOWNTIME_MIN: u128 = 100;

/// What is done with one tool.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Commands {
    /// The tool.
    pub(super) tool: &'static str,
    /// Lines to run, or to put into a file that the first of them names.
    pub(super) lines: Vec<String>,
}

/// What the chosen settings are in the tools that migrate such guests; what a tool cannot be told is said.
pub(super) fn commands(prediction: &Prediction, settings: &[(String, String)]) -> Vec<Commands> {
    if settings.is_empty() {
        return Vec::new();
    }
    let algorithm = &prediction.scenario.algorithm;
    let of = Settings { settings, guest: &prediction.scenario.guest.name };
    match (algorithm.manager().map(|manager| manager.name()), algorithm.name()) {
        (Some("nova"), _) => vec![of.nova_own()],
        (Some(name), _) if name.starts_with("kubevirt") => vec![of.kubevirt_own()],
        (Some("proxmox"), _) => vec![of.proxmox()],
        (Some("libvirt"), _) => vec![of.virsh()],
        (Some(_), _) => vec![of.plain("vdsm.conf")],
        (None, name) if name.starts_with("qemu") => {
            vec![of.virsh(), of.qmp(), of.kubevirt(), of.nova(), of.proxmox()]
        }
        (None, name) if name.starts_with("xen") => vec![of.xl()],
        (None, name) if name.starts_with("cloud-hypervisor") => vec![of.ch_remote()],
        (None, _) => vec![of.plain("settings")],
    }
}

struct Settings<'a> {
    settings: &'a [(String, String)],
    guest: &'a str,
}

impl Settings<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(set, _)| set == key).map(|(_, value)| value.as_str())
    }

    fn is_on(&self, key: &str) -> bool {
        self.value(key) == Some("on")
    }

    fn span(&self, key: &str) -> Option<Duration> {
        self.value(key).and_then(|value| parse_duration(value).ok())
    }

    /// In bytes a second; `Some(None)` is no cap.
    fn cap(&self) -> Option<Option<u64>> {
        self.value("max-bandwidth").map(|value| parse_rate(value).ok().map(|rate| rate.get()))
    }

    /// What of the settings is none of these.
    fn others(&self, told: &[&str]) -> Option<String> {
        let others = self.settings.iter().filter(|(key, _)| !told.contains(&key.as_str()));
        let others: Vec<String> = others.map(|(key, value)| format!("{key}={value}")).collect();
        (!others.is_empty()).then(|| format!("# has no option for {}", others.join(", ")))
    }

    fn virsh(&self) -> Commands {
        let guest = self.guest;
        let mut lines = Vec::new();
        if let Some(limit) = self.span("downtime-limit") {
            lines.push(format!("virsh migrate-setmaxdowntime {guest} {}", limit.as_millis()));
        }
        if let Some(Some(cap)) = self.cap() {
            lines.push(format!("virsh migrate-setspeed {guest} {}", (cap >> 20).max(1)));
        }
        let mut migrate = "virsh migrate --live".to_owned();
        if self.is_on("auto-converge") {
            migrate += " --auto-converge";
        }
        // A timeout of virsh counts from the request on, in whole seconds.
        if let Some(after) = self.span("postcopy-after") {
            migrate += &format!(" --postcopy --timeout {} --timeout-postcopy", after.as_secs().max(1));
        }
        if let Some(after) = self.span("timeout") {
            let postcopy = self.value("timeout-action") == Some("postcopy");
            let action = if postcopy { "--postcopy --timeout-postcopy" } else { "--timeout-suspend" };
            migrate += &format!(" {action} --timeout {}", after.as_secs().max(1));
        }
        lines.push(format!("{migrate} {guest} qemu+ssh://TARGET/system"));
        let told = ["downtime-limit", "max-bandwidth", "auto-converge", "postcopy-after", "timeout", "timeout-action"];
        lines.extend(self.others(&told));
        Commands { tool: "virsh", lines }
    }

    fn qmp(&self) -> Commands {
        let mut lines = Vec::new();
        let mut parameters = Vec::new();
        if let Some(limit) = self.span("downtime-limit") {
            parameters.push(format!(r#""downtime-limit": {}"#, limit.as_millis()));
        }
        if let Some(cap) = self.cap() {
            // None is 0 to QEMU.
            parameters.push(format!(r#""max-bandwidth": {}"#, cap.unwrap_or_default()));
        }
        if !parameters.is_empty() {
            let arguments = parameters.join(", ");
            lines.push(format!(r#"{{"execute": "migrate-set-parameters", "arguments": {{{arguments}}}}}"#));
        }
        let wanted =
            [("auto-converge", self.is_on("auto-converge")), ("postcopy-ram", self.value("postcopy-after").is_some())];
        let wanted = wanted.iter().filter(|(_, wanted)| *wanted);
        let capabilities: Vec<String> =
            wanted.map(|(name, _)| format!(r#"{{"capability": "{name}", "state": true}}"#)).collect();
        if !capabilities.is_empty() {
            let capabilities = capabilities.join(", ");
            lines.push(format!(
                r#"{{"execute": "migrate-set-capabilities", "arguments": {{"capabilities": [{capabilities}]}}}}"#
            ));
        }
        if let Some(after) = self.value("postcopy-after") {
            lines.push(format!(r#"{{"execute": "migrate-start-postcopy"}} after {after}"#));
        }
        lines.extend(self.others(&["downtime-limit", "max-bandwidth", "auto-converge", "postcopy-after"]));
        Commands { tool: "QMP", lines }
    }

    fn policy(&self, fields: Vec<String>) -> Commands {
        let head = ["apiVersion: migrations.kubevirt.io/v1alpha1", "kind: MigrationPolicy", "metadata:"];
        let mut lines: Vec<String> = head.map(str::to_owned).to_vec();
        lines.push(format!("  name: {}", self.guest));
        lines.push("spec:".to_owned());
        lines.extend(fields.into_iter().map(|field| format!("  {field}")));
        lines.push("  selectors: {virtualMachineInstanceSelector: {LABEL: VALUE}}".to_owned());
        Commands { tool: "KubeVirt", lines }
    }

    fn kubevirt(&self) -> Commands {
        let mut fields = Vec::new();
        if let Some(cap) = self.cap() {
            fields.push(format!(
                "bandwidthPerMigration: {}",
                cap.map_or("0".to_owned(), |cap| format!("{}Mi", (cap >> 20).max(1)))
            ));
        }
        if self.is_on("auto-converge") {
            fields.push("allowAutoConverge: true".to_owned());
        }
        if self.value("postcopy-after").is_some() {
            fields.push("allowPostCopy: true".to_owned());
        }
        fields.extend(self.others(&["max-bandwidth", "auto-converge"]));
        self.policy(fields)
    }

    fn kubevirt_own(&self) -> Commands {
        let value = |value: &str| match value {
            "on" => "true".to_owned(),
            "off" => "false".to_owned(),
            other => other.to_owned(),
        };
        let told = ["allowAutoConverge", "allowPostCopy", "bandwidthPerMigration", "completionTimeoutPerGiB"];
        let told_here = self.settings.iter().filter(|(key, _)| told.contains(&key.as_str()));
        let mut fields: Vec<String> = told_here.map(|(key, text)| format!("{key}: {}", value(text))).collect();
        fields.extend(self.others(&told));
        self.policy(fields)
    }

    fn nova(&self) -> Commands {
        let mut lines = vec!["[libvirt]".to_owned()];
        if let Some(limit) = self.span("downtime-limit") {
            lines.push(format!("live_migration_downtime = {}", limit.as_millis().max(NOVA_DOWNTIME_MIN)));
            if limit.as_millis() < NOVA_DOWNTIME_MIN {
                lines.push(format!(
                    "# Nova takes no less than {NOVA_DOWNTIME_MIN}, and reaches it in steps: try --manager nova"
                ));
            }
        }
        if let Some(cap) = self.cap() {
            lines.push(format!("live_migration_bandwidth = {}", cap.map_or(0, |cap| (cap >> 20).max(1))));
        }
        if self.is_on("auto-converge") {
            lines.push("live_migration_permit_auto_converge = true".to_owned());
        }
        if self.value("postcopy-after").is_some() {
            lines.push("live_migration_permit_post_copy = true".to_owned());
        }
        lines.extend(self.others(&["downtime-limit", "max-bandwidth", "auto-converge", "postcopy-after"]));
        Commands { tool: "nova.conf", lines }
    }

    fn nova_own(&self) -> Commands {
        let written = |key: &String, value: &String| {
            let value = match (value.as_str(), parse_duration(value)) {
                ("on", _) => "true".to_owned(),
                ("off", _) => "false".to_owned(),
                (_, Ok(span)) if key == "live_migration_downtime" => span.as_millis().to_string(),
                (_, Ok(span)) => span.as_secs().to_string(),
                (text, Err(_)) => text.to_owned(),
            };
            format!("{key} = {value}")
        };
        let lines = self.settings.iter().map(|(key, value)| written(key, value));
        Commands { tool: "nova.conf", lines: std::iter::once("[libvirt]".to_owned()).chain(lines).collect() }
    }

    fn proxmox(&self) -> Commands {
        let mut options = String::new();
        if let Some(limit) = self.span("downtime-limit").or_else(|| self.span("migrate_downtime")) {
            options += &format!(" --migrate_downtime {}", limit.as_secs_f64());
        }
        if let Some(cap) = self.cap() {
            options += &format!(" --migrate_speed {}", cap.map_or(0, |cap| (cap >> 20).max(1)));
        }
        let mut lines = Vec::new();
        if !options.is_empty() {
            lines.push(format!("qm set VMID{options}"));
        }
        // It always turns that on.
        lines.extend(self.others(&["downtime-limit", "migrate_downtime", "max-bandwidth", "auto-converge"]));
        Commands { tool: "Proxmox VE", lines }
    }

    fn xl(&self) -> Commands {
        let lines = vec![
            "# xl of Xen has no options for them: they are constants of libxc, or a policy of another toolstack"
                .to_owned(),
        ];
        let settings = self.settings.iter().map(|(key, value)| format!("# {key}={value}"));
        Commands { tool: "xl", lines: lines.into_iter().chain(settings).collect() }
    }

    fn ch_remote(&self) -> Commands {
        let mut options = String::new();
        if let Some(limit) = self.span("downtime") {
            options += &format!(",downtime_ms={}", limit.as_millis());
        }
        if let Some(timeout) = self.span("timeout") {
            options += &format!(",timeout_s={}", timeout.as_secs().max(1));
        }
        if let Some(strategy) = self.value("timeout-strategy") {
            options += &format!(",timeout_strategy={strategy}");
        }
        let mut lines =
            vec![format!("ch-remote --api-socket SOCKET send-migration destination_url=tcp:TARGET:PORT{options}")];
        lines.extend(self.others(&["downtime", "timeout", "timeout-strategy"]));
        Commands { tool: "ch-remote", lines }
    }

    fn plain(&self, tool: &'static str) -> Commands {
        Commands { tool, lines: self.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_tool_is_told_in_its_own_units() {
        let settings = settings(&[("downtime-limit", "120ms"), ("max-bandwidth", "64MiB/s"), ("auto-converge", "on")]);
        let of = Settings { settings: &settings, guest: "web" };
        let virsh = [
            "virsh migrate-setmaxdowntime web 120",
            "virsh migrate-setspeed web 64",
            "virsh migrate --live --auto-converge web qemu+ssh://TARGET/system",
        ];
        assert_eq!(of.virsh().lines, virsh);
        assert_eq!(
            of.qmp().lines[0],
            r#"{"execute": "migrate-set-parameters", "arguments": {"downtime-limit": 120, "max-bandwidth": 67108864}}"#
        );
        assert_eq!(of.proxmox().lines, ["qm set VMID --migrate_downtime 0.12 --migrate_speed 64"]);
        assert_eq!(of.nova().lines[1..3], ["live_migration_downtime = 120", "live_migration_bandwidth = 64"]);
        let policy = of.kubevirt().lines;
        assert!(policy.contains(&"  bandwidthPerMigration: 64Mi".to_owned()));
        assert!(policy.contains(&"  # has no option for downtime-limit=120ms".to_owned()));
    }

    #[test]
    fn what_is_sent_to_qemu_is_json() {
        let settings = settings(&[("max-bandwidth", "none"), ("auto-converge", "on"), ("postcopy-after", "15s")]);
        let lines = Settings { settings: &settings, guest: "web" }.qmp().lines;
        for line in &lines[..2] {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert!(lines[0].contains(r#""max-bandwidth": 0"#) && lines[1].contains("postcopy-ram"));
    }

    #[test]
    fn a_managers_own_settings_go_into_its_own_file() {
        let nova = settings(&[("live_migration_downtime", "250ms"), ("live_migration_permit_auto_converge", "on")]);
        let lines = Settings { settings: &nova, guest: "web" }.nova_own().lines;
        assert_eq!(lines[1..], ["live_migration_downtime = 250", "live_migration_permit_auto_converge = true"]);
        let kubevirt = settings(&[("allowPostCopy", "on"), ("maxDowntime", "200ms")]);
        let lines = Settings { settings: &kubevirt, guest: "web" }.kubevirt_own().lines;
        assert!(lines.contains(&"  allowPostCopy: true".to_owned()), "{lines:?}");
        assert!(lines.contains(&"  # has no option for maxDowntime=200ms".to_owned()), "{lines:?}");
    }
}
