//! What QEMU is told besides link and limits: capabilities that change how it migrates.

use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use migcast_model::algorithm::Algorithm;
use migcast_model::quantity::parse_rate;
use migcast_model::units::BytesPerSec;
use serde_json::{Value, json};

/// The setting that says how busy the vCPUs are. Observations from before histories told that have it.
const VCPU_BUSY: &str = "vcpu-busy";

/// Whether two lists of settings ask for the same; how busy the guest was is not asked for.
pub fn ask_alike(one: &[String], other: &[String]) -> bool {
    let asked = |settings: &[String]| {
        let measured = |setting: &&String| setting.split_once('=').is_some_and(|(key, _)| key == VCPU_BUSY);
        settings.iter().filter(|setting| !measured(setting)).cloned().collect::<Vec<_>>()
    };
    asked(one) == asked(other)
}

/// Capabilities of one migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// `auto-converge`.
    pub auto_converge: bool,
    /// `multifd`, with two channels.
    pub multifd: bool,
    /// `postcopy-ram`, and after how many passes `migrate-start-postcopy` is given.
    pub postcopy_after_passes: Option<u64>,
    /// A cap while the guest runs.
    pub max_bandwidth: Option<BytesPerSec>,
}

impl Features {
    /// Takes one, as `migcast predict --set` writes it.
    ///
    /// # Errors
    /// It is none of those, or its value is not allowed.
    pub fn set(&mut self, setting: &str) -> Result<()> {
        let (key, value) = setting.split_once('=').with_context(|| format!("`{setting}` is not KEY=VALUE"))?;
        // The model knows what is allowed.
        Algorithm::named("qemu")?.set(key, value)?;
        match key {
            "auto-converge" => self.auto_converge = value == "on",
            "multifd" => self.multifd = value == "on",
            "postcopy-after-passes" => self.postcopy_after_passes = value.parse().ok(),
            "max-bandwidth" if value == "none" => self.max_bandwidth = None,
            "max-bandwidth" => self.max_bandwidth = Some(parse_rate(value)?),
            _ => bail!("`{key}`: the laboratory sets auto-converge, multifd, postcopy-after-passes and max-bandwidth"),
        }
        Ok(())
    }

    /// What differs from QEMU's defaults, as `migcast predict --set` takes it; the cap is told with the limits.
    pub(crate) fn settings(&self) -> Vec<String> {
        let mut settings = Vec::new();
        if self.auto_converge {
            settings.push("auto-converge=on".to_owned());
        }
        if self.multifd {
            settings.push("multifd=on".to_owned());
        }
        if let Some(passes) = self.postcopy_after_passes {
            settings.push(format!("postcopy-after-passes={passes}"));
        }
        settings
    }

    /// The capabilities of either end.
    pub(crate) fn capabilities(&self) -> Value {
        let on = |capability: &str, state: bool| json!({ "capability": capability, "state": state });
        json!({ "capabilities": [
            on("events", true),
            on("auto-converge", self.auto_converge),
            on("multifd", self.multifd),
            on("postcopy-ram", self.postcopy_after_passes.is_some()),
        ] })
    }
}

/// Several, as a case has them: `KEY=VALUE+KEY=VALUE`.
impl FromStr for Features {
    type Err = Error;

    fn from_str(text: &str) -> Result<Features> {
        let mut features = Features::default();
        text.split('+').try_for_each(|setting| features.set(setting))?;
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_read_as_predict_takes_them_and_written_so() {
        let features: Features = "auto-converge=on+postcopy-after-passes=1+max-bandwidth=20MB/s".parse().unwrap();
        assert_eq!(features.settings(), ["auto-converge=on", "postcopy-after-passes=1"]);
        assert_eq!(features.max_bandwidth, Some(BytesPerSec::new(20_000_000)));
        let refused = |text: &str| text.parse::<Features>().unwrap_err().to_string();
        assert_eq!(refused("multifd=yes"), "setting `multifd`: `yes` is not allowed: on or off");
        assert!(refused("xbzrle=on").contains("the laboratory sets"));
        assert!(refused("multifd").contains("not KEY=VALUE"));
    }
}
