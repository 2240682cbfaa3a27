//! QEMU's pre-copy as a line of the table.

use std::time::Duration;

use super::{Qemu, Settings, UNLIMITED, Version};
use crate::algorithm::setting::Field;
use crate::algorithm::{Ends, Request, Scheme, Terms};
use crate::due::{DirtyLog, DueSet, Tracking};
use crate::guest::Guest;
use crate::migration::Migration;
use crate::units::BytesPerSec;

/// One version of QEMU with its settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Precopy {
    /// Whose rules.
    pub version: Version,
    /// What is set.
    pub settings: Settings,
}

impl Precopy {
    /// This version with QEMU's defaults.
    pub fn of(version: Version) -> Precopy {
        Precopy { version, settings: Settings::default() }
    }
}

impl Scheme for Precopy {
    fn explained(&self) -> String {
        let reads = match self.version {
            Version::V8_0 | Version::V8_1 | Version::V8_2 => "at or below",
            _ => "below",
        };
        let stops = if self.version >= Version::V10_1 { "at or below" } else { "below" };
        format!(
            "One thread sends pages in page order, round and round, in steps of at most 50 ms. Every 100 ms it measures its \
             bandwidth; times downtime-limit that is the threshold. The dirty log is not read at the end of a pass but as soon \
             as what is known to remain is {reads} the threshold: what is unsent then stays due, and the scan goes on from where it was. If what \
             remains after a reading is {stops} the threshold the guest is stopped, the log is read once more and \
             everything is sent without the cap. Otherwise it goes on, for ever if the guest writes faster than the link \
             carries: QEMU never gives up by itself. Zero pages take nine bytes."
        )
    }

    fn fields(&mut self) -> Vec<Field<'_>> {
        self.settings.fields(self.version)
    }

    fn migration<'a>(&self, request: &Request<'a>, due: Box<dyn DueSet + 'a>) -> Box<dyn Migration + 'a> {
        let Request { guest, link, platform, first_pass } = *request;
        let qemu = Qemu::new(self.version.rules(), self.settings, guest.clone(), link, platform.clone(), due);
        Box::new(qemu.sharing(first_pass.cloned()))
    }

    fn tracking(&self) -> Tracking {
        let Settings { dirty_log, xbzrle, multifd, .. } = self.settings;
        // Multifd's channels do not encode.
        let cache = (xbzrle.is_on && !multifd.is_on).then(|| xbzrle.cache.pages_ceil(Guest::PAGE_SIZE));
        Tracking { log: dirty_log, cache, by_position: true, ..Tracking::default() }
    }

    fn run_on(&mut self, accelerator: &str) {
        self.settings.dirty_log = if accelerator == "tcg" { DirtyLog::Tcg } else { DirtyLog::default() };
    }

    fn cap(&self) -> Option<BytesPerSec> {
        Some(self.settings.max_bandwidth).filter(|cap| *cap != UNLIMITED)
    }

    fn downtime_aim(&self) -> Duration {
        self.settings.downtime_limit
    }

    fn ends(&self) -> Ends {
        Ends::Never
    }

    fn may_move_first(&self) -> bool {
        self.settings.postcopy.is_on()
    }

    fn is_managed(&self) -> bool {
        true
    }

    fn terms(&self) -> Terms {
        Terms { reporter: Some("QEMU"), iterations: "dirty syncs" }
    }

    fn contradiction(&self) -> Option<String> {
        let Settings { dirty_log, dirty_limit, auto_converge, .. } = self.settings;
        // Looked at whether the guest is slowed or not (migrate_params_check).
        if auto_converge.max < auto_converge.initial {
            return Some(format!(
                "max-cpu-throttle: `{}%` is less than cpu-throttle-initial: from {}% to 99%",
                auto_converge.max, auto_converge.initial
            ));
        }
        if dirty_limit.is_on && dirty_log != DirtyLog::Ring {
            return Some("dirty-limit: needs KVM's dirty ring: set dirty-log=ring, or dirty-limit=off".to_owned());
        }
        if dirty_limit.is_on && auto_converge.is_on {
            return Some("dirty-limit, auto-converge: QEMU takes one of them: set the other off".to_owned());
        }
        if self.settings.multifd.is_on && self.settings.postcopy.is_on() && self.version < Version::V10_1 {
            return Some("multifd, postcopy-ram: QEMU takes both from 10.1 on: set multifd=off".to_owned());
        }
        None
    }

    fn cautions(&self) -> Vec<String> {
        let mut cautions = Vec::new();
        if self.settings.dirty_log == DirtyLog::Tcg && self.version < Version::V9_0 {
            cautions.push(
                "QEMU before 9.0 misses writes when it migrates an emulated (tcg) guest: it will send less than this; \
                 upgrade it"
                    .to_owned(),
            );
        }
        let Settings { xbzrle, multifd, auto_converge, .. } = self.settings;
        if auto_converge.is_on && auto_converge.busy.is_none() {
            cautions.push(
                "auto-converge: the vCPUs are taken for always busy; if they are idle part of their time they sleep in it \
                 first and write on, so record the guest by its monitor, or state it: --set vcpu-busy=…"
                    .to_owned(),
            );
        }
        if xbzrle.is_on && multifd.is_on {
            cautions.push("xbzrle does nothing beside multifd; turn one of them off".to_owned());
        } else if xbzrle.is_on {
            cautions.push(format!(
                "an encoded page is taken for {} % of a page, which nobody measured on this guest; after a migration state \
                 what query-migrate says: --set xbzrle-encoded-size=…",
                xbzrle.encoded_percent
            ));
        }
        cautions
    }
}

#[cfg(test)]
mod tests {
    use crate::algorithm::Algorithm;

    #[test]
    fn the_most_a_guest_is_slowed_is_no_less_than_its_first_step() {
        let contradiction = |initial, max| {
            let mut qemu = Algorithm::named("qemu").unwrap();
            qemu.set("cpu-throttle-initial", initial).unwrap();
            qemu.set("max-cpu-throttle", max).unwrap();
            qemu.scheme().contradiction()
        };
        assert_eq!(contradiction("40%", "40%"), None);
        let refused = "max-cpu-throttle: `39%` is less than cpu-throttle-initial: from 40% to 99%";
        assert_eq!(contradiction("40%", "39%"), Some(refused.to_owned()));
    }
}
