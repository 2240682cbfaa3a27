//! The inventory file of `migcast consolidate`, `migcast plan` and `migcast drain-time`: hosts, the links between them, and
//! guests, as TOML or JSON, `migcast.inventory/1`. One file answers all of them; each asks for what it needs.

mod fields;
mod moving;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fields::{bytes, named, percent, rate, span, unique, within};
use migcast_model::quantity;
use migcast_model::units::{ByteCount, BytesPerSec, PagesPerSec};
pub(crate) use moving::{Moving, Place, Switch, Traffic};
use moving::{SwitchRow, TrafficRow};
use serde::Deserialize;

/// Longer than anybody plans.
const HORIZON_MAX: Duration = Duration::from_secs(366 * 86_400);
/// More than any host takes, in watts, and than any guest or host has, in cores.
const WATTS_MAX: f64 = 1e5;
const CORES_MAX: f64 = 1e5;
/// Energy of a migration on the hosts of Liu, Jin, Xu and Liao, HPDC 2011: joules for each megabyte and for each migration.
const JOULES_PER_MEGABYTE: f64 = 0.512;
const JOULES_PER_MIGRATION: f64 = 20.165;

/// What is asked of an inventory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Which hosts are worth emptying: power and CPU count.
    Consolidate,
    /// How guests are moved: links count.
    Move,
}

/// What the file says, read and found to hang together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Inventory {
    /// How long emptied hosts stay off; zero where that is not asked.
    pub(crate) horizon: Duration,
    /// Line rate of a host's link that says none of its own.
    pub(crate) link: BytesPerSec,
    /// Switches between the hosts, besides the one in the middle.
    pub(crate) switches: Vec<Switch>,
    /// What others send.
    pub(crate) traffic: Vec<Traffic>,
    /// Share of each host's memory and CPU that is to stay free.
    pub(crate) keep_free: f64,
    pub(crate) joules_per_megabyte: f64,
    pub(crate) joules_per_migration: f64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) guests: Vec<Guest>,
}

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) memory: ByteCount,
    /// Line rate of its link; that of all links if none.
    pub(crate) nic: Option<BytesPerSec>,
    /// Place of the switch it is at; the one in the middle if none.
    pub(crate) switch: Option<usize>,
    /// Zero, as all of the following, where nothing is said and nothing is asked.
    pub(crate) cores: f64,
    pub(crate) idle_watts: f64,
    pub(crate) full_watts: f64,
    pub(crate) off_watts: f64,
    pub(crate) switch_off: Duration,
    pub(crate) boot: Duration,
}

impl Host {
    /// Energy to switch it off and to boot it, in joules: booting takes full power, switching off idle power.
    pub(crate) fn switch_joules(&self) -> f64 {
        self.idle_watts * self.switch_off.as_secs_f64() + self.full_watts * self.boot.as_secs_f64()
    }
}

/// A guest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Guest {
    pub(crate) name: String,
    /// Place of its host among the hosts.
    pub(crate) host: usize,
    pub(crate) memory: ByteCount,
    pub(crate) cores: f64,
    /// What is known of its writes; `None` only of a guest that stays.
    pub(crate) writes: Option<Writes>,
    pub(crate) is_pinned: bool,
    /// Share of a month in which it is to be available.
    pub(crate) availability: Option<f64>,
    /// What holds for its migration.
    pub(crate) moving: Moving,
}

/// What is known of a guest's writes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Writes {
    /// A history, relative to the file's folder.
    History(PathBuf),
    /// A constant rate over a part of its memory.
    Rate { rate: PagesPerSec, working_set: Option<ByteCount> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an inventory: horizon, link, and tables host and guest")]
struct File {
    #[serde(default)]
    format: Option<String>,
    horizon: Option<String>,
    link: String,
    #[serde(default)]
    keep_free: Option<String>,
    #[serde(default)]
    migration: Migration,
    #[serde(default)]
    switch: Vec<SwitchRow>,
    #[serde(default)]
    traffic: Vec<TrafficRow>,
    #[serde(default)]
    host: Vec<HostRow>,
    #[serde(default)]
    guest: Vec<GuestRow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Migration {
    joules_per_megabyte: Option<f64>,
    joules_per_migration: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostRow {
    name: String,
    memory: String,
    nic: Option<String>,
    switch: Option<String>,
    cores: Option<f64>,
    idle_watts: Option<f64>,
    full_watts: Option<f64>,
    #[serde(default)]
    off_watts: f64,
    switch_off: Option<String>,
    boot: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestRow {
    name: String,
    host: String,
    memory: String,
    cores: Option<f64>,
    history: Option<PathBuf>,
    dirty_rate: Option<String>,
    wws: Option<String>,
    #[serde(default)]
    pinned: bool,
    availability: Option<String>,
    to: Option<String>,
    #[serde(default)]
    after: Vec<String>,
    #[serde(default)]
    not_with: Vec<String>,
    not_before: Option<String>,
    apart: Option<String>,
    max_downtime: Option<String>,
    #[serde(default)]
    set: Vec<String>,
}

const FORMAT: &str = "migcast.inventory/1";

/// Why an inventory was refused: the file, and what is wrong in it.
#[derive(Debug, thiserror::Error)]
#[error("inventory {}: {what}", path.display())]
pub(crate) struct InventoryError {
    path: PathBuf,
    what: String,
}

impl Inventory {
    /// Reads a file for a question: JSON if it is called so, else TOML.
    pub(crate) fn read(path: &Path, question: Question) -> Result<Inventory, InventoryError> {
        let wrong = |what: String| InventoryError { path: path.to_owned(), what };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = if path.extension().is_some_and(|ending| ending == "json") {
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?
        } else {
            toml::from_str(&text).map_err(|error| {
                // The message alone is one line; where it is follows from the span.
                let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
                let place = line.map_or(String::new(), |line| format!("line {line}: "));
                wrong(format!("{place}{}", error.message().replace('\n', "; ")))
            })?
        };
        Inventory::checked(file, path.parent().unwrap_or(Path::new(".")), question).map_err(wrong)
    }

    fn checked(file: File, folder: &Path, question: Question) -> Result<Inventory, String> {
        if let Some(format) = file.format.filter(|format| format != FORMAT) {
            return Err(format!("format is `{format}`, this program reads `{FORMAT}`"));
        }
        let horizon = match (&file.horizon, question) {
            (Some(text), _) => {
                let horizon = span("horizon", text)?;
                within("horizon", horizon.as_secs_f64(), 1.0..=HORIZON_MAX.as_secs_f64(), "1s to a year")?;
                horizon
            }
            (None, Question::Move) => Duration::ZERO,
            (None, Question::Consolidate) => {
                return Err("horizon is missing: how long emptied hosts stay off".to_owned());
            }
        };
        let link = rate("link", &file.link, 1e3)?;
        let keep_free = file.keep_free.as_deref().map_or(Ok(0.0), |text| percent("keep_free", text, 0.0..=0.9))?;
        let energy = |name: &str, value: Option<f64>, default: f64| {
            let value = value.unwrap_or(default);
            within(name, value, 0.0..=1e6, "0 to 1,000,000").map(|()| value)
        };
        let Migration { joules_per_megabyte, joules_per_migration } = file.migration;
        let joules_per_megabyte = energy("joules_per_megabyte", joules_per_megabyte, JOULES_PER_MEGABYTE)?;
        let joules_per_migration = energy("joules_per_migration", joules_per_migration, JOULES_PER_MIGRATION)?;
        if file.host.is_empty() {
            return Err("no host: write [[host]] and what it has".to_owned());
        }
        unique("host", file.host.iter().map(|host| host.name.as_str()))?;
        unique("guest", file.guest.iter().map(|guest| guest.name.as_str()))?;
        let switches = Switch::checked(file.switch)?;
        let host = |row| Host::checked(row, &switches, question);
        let hosts = file.host.into_iter().map(host).collect::<Result<Vec<Host>, String>>()?;
        let traffic = file.traffic.iter().map(|row| Traffic::checked(row, &hosts, &switches));
        let traffic = traffic.collect::<Result<Vec<Traffic>, String>>()?;
        let names: Vec<String> = file.guest.iter().map(|guest| guest.name.clone()).collect();
        let guests = file.guest.into_iter().map(|row| Guest::checked(row, &hosts, &names, (folder, question)));
        let mut guests = guests.collect::<Result<Vec<Guest>, String>>()?;
        Moving::name_each_other(&mut guests);
        let inventory = Inventory {
            horizon,
            link,
            switches,
            traffic,
            keep_free,
            joules_per_megabyte,
            joules_per_migration,
            hosts,
            guests,
        };
        inventory.refuse_overfull()?;
        Ok(inventory)
    }

    /// Line rate of a host's link.
    pub(crate) fn nic(&self, host: &Host) -> BytesPerSec {
        host.nic.unwrap_or(self.link)
    }

    /// Memory is never lent twice here; CPU may be more than there is today.
    fn refuse_overfull(&self) -> Result<(), String> {
        for (index, host) in self.hosts.iter().enumerate() {
            let on_it = self.guests.iter().filter(|guest| guest.host == index);
            let used: u64 = on_it.map(|guest| guest.memory.get()).sum();
            if used > host.memory.get() {
                let (used, has) = (quantity::show_bytes(ByteCount::new(used)), quantity::show_bytes(host.memory));
                return Err(format!("host {}: its guests have {used} of memory, it has {has}", host.name));
            }
        }
        Ok(())
    }
}

impl Host {
    fn checked(row: HostRow, switches: &[Switch], question: Question) -> Result<Host, String> {
        let of = |field: &str| format!("host {}: {field}", row.name);
        let needed = |field: &str, value: Option<f64>| match (value, question) {
            (Some(value), _) => Ok(value),
            (None, Question::Move) => Ok(0.0),
            (None, Question::Consolidate) => Err(format!("{} is missing", of(field))),
        };
        let memory = bytes(&of("memory"), &row.memory)?;
        let cores = needed("cores", row.cores)?;
        if row.cores.is_some() {
            within(&of("cores"), cores, 0.01..=CORES_MAX, "0.01 to 100,000")?;
        }
        let idle_watts = needed("idle_watts", row.idle_watts)?;
        let full_watts = needed("full_watts", row.full_watts)?;
        let off_watts = row.off_watts;
        for (field, watts) in [("idle_watts", idle_watts), ("full_watts", full_watts), ("off_watts", off_watts)] {
            within(&of(field), watts, 0.0..=WATTS_MAX, "0 to 100,000")?;
        }
        if row.idle_watts.is_some() && (full_watts < idle_watts || idle_watts < off_watts) {
            let watts = format!("{off_watts} off, {idle_watts} idle, {full_watts} full");
            return Err(format!("{}: {watts}: none may be less than the one before", of("watts")));
        }
        let lasts = |field: &str, text: &Option<String>| {
            text.as_ref().map_or(Ok(Duration::ZERO), |text| span(&of(field), text))
        };
        let names = switches.iter().map(|switch| switch.name.as_str());
        let switch = row.switch.as_ref().map(|name| named(&of("switch"), name, names)).transpose()?;
        Ok(Host {
            memory,
            nic: row.nic.as_ref().map(|text| rate(&of("nic"), text, 1e3)).transpose()?,
            switch,
            cores,
            idle_watts,
            full_watts,
            off_watts,
            switch_off: lasts("switch_off", &row.switch_off)?,
            boot: lasts("boot", &row.boot)?,
            name: row.name,
        })
    }
}

impl Guest {
    fn checked(
        row: GuestRow,
        hosts: &[Host],
        names: &[String],
        (folder, question): (&Path, Question),
    ) -> Result<Guest, String> {
        let of = |field: &str| format!("guest {}: {field}", row.name);
        let memory = bytes(&of("memory"), &row.memory)?;
        let cores = match (row.cores, question) {
            (Some(cores), _) => cores,
            (None, Question::Move) => 0.0,
            (None, Question::Consolidate) => return Err(format!("{} is missing", of("cores"))),
        };
        within(&of("cores"), cores, 0.0..=CORES_MAX, "0 to 100,000")?;
        let host = named(&of("host"), &row.host, hosts.iter().map(|host| host.name.as_str()))?;
        let moving = Moving::checked(&row, hosts, names)?;
        if hosts.iter().all(|host| host.memory < memory) {
            let memory = quantity::show_bytes(memory);
            return Err(format!("{}: {memory} are more than any host has", of("memory")));
        }
        let writes = match (&row.history, &row.dirty_rate) {
            (Some(_), Some(_)) => return Err(format!("{}: one of history and dirty_rate, not both", of("writes"))),
            (Some(history), None) => Some(Writes::History(folder.join(history))),
            (None, Some(rate)) => {
                let rate = quantity::parse_page_rate(rate, migcast_model::guest::Guest::PAGE_SIZE);
                let rate = rate.map_err(|error| format!("{}: {error}", of("dirty_rate")))?;
                let working_set = row.wws.as_ref().map(|text| bytes(&of("wws"), text)).transpose()?;
                Some(Writes::Rate { rate, working_set })
            }
            (None, None) if row.pinned || question == Question::Move => None,
            (None, None) => {
                return Err(format!("{}: history or dirty_rate is missing, or pinned = true", of("writes")));
            }
        };
        if row.wws.is_some() && row.dirty_rate.is_none() {
            return Err(format!("{}: it belongs to a dirty_rate", of("wws")));
        }
        let availability = row.availability.as_deref();
        let availability =
            availability.map(|text| percent(&of("availability"), text, 0.0..=1.0 - 1e-12)).transpose()?;
        Ok(Guest { host, memory, cores, writes, is_pinned: row.pinned, availability, moving, name: row.name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
horizon = "8h"
link = "10Gbit/s"
keep_free = "10%"

[[host]]
name = "a"
memory = "64GiB"
cores = 16
idle_watts = 120
full_watts = 300
off_watts = 4
switch_off = "1m"
boot = "4m"

[[guest]]
name = "web"
host = "a"
memory = "8GiB"
cores = 1.5
dirty_rate = "2000pages/s"
wws = "400MiB"
availability = "99.95%"
"#;

    fn said(text: &str) -> String {
        let file: Result<File, _> = toml::from_str(text);
        match file {
            Ok(file) => Inventory::checked(file, Path::new("x"), Question::Consolidate)
                .map_or_else(|error| error, |_| "fine".to_owned()),
            Err(error) => error.message().to_owned(),
        }
    }

    #[test]
    fn a_good_file_is_read() {
        assert_eq!(said(GOOD), "fine");
        let inventory =
            Inventory::checked(toml::from_str(GOOD).unwrap(), Path::new("x"), Question::Consolidate).unwrap();
        let host = &inventory.hosts[0];
        assert!((host.switch_joules() - (120.0 * 60.0 + 300.0 * 240.0)).abs() < 1e-9);
        assert!((inventory.keep_free - 0.1).abs() < 1e-12);
        assert!((inventory.guests[0].availability.unwrap() - 0.9995).abs() < 1e-12);
        let with_history = GOOD.replace("dirty_rate = \"2000pages/s\"\nwws = \"400MiB\"", "history = \"web.history\"");
        let inventory =
            Inventory::checked(toml::from_str(&with_history).unwrap(), Path::new("x"), Question::Consolidate).unwrap();
        assert_eq!(inventory.guests[0].writes, Some(Writes::History(PathBuf::from("x/web.history"))));
    }

    #[test]
    fn what_is_absurd_gets_one_line() {
        for (from, to, expected) in [
            ("idle_watts = 120", "idle_watts = -120", "host a: idle_watts: -120 is not allowed: 0 to 100,000"),
            ("full_watts = 300", "full_watts = 100", "none may be less than the one before"),
            ("memory = \"8GiB\"", "memory = \"80GiB\"", "guest web: memory: 80 GiB are more than any host has"),
            ("host = \"a\"", "host = \"b\"", "guest web: host: there is no `b`: a"),
            ("99.95%", "101%", "guest web: availability: `101%` is not a share"),
            ("dirty_rate = \"2000pages/s\"\nwws = \"400MiB\"", "", "history or dirty_rate is missing"),
            ("\"8h\"", "\"soon\"", "horizon: "),
            ("cores = 16", "cores = nan", "host a: cores: NaN is not allowed"),
            ("off_watts = 4", "of_watts = 4", "unknown field `of_watts`"),
            ("10%", "95%", "keep_free: `95%` is not a share: 0% to 90%"),
        ] {
            let found = said(&GOOD.replacen(from, to, 1));
            assert!(found.contains(expected), "{to}: {found}");
            assert!(!found.contains('\n') || expected.starts_with("unknown"), "{found}");
        }
        let twice = format!("{GOOD}{}", &GOOD[GOOD.find("[[guest]]").unwrap()..]);
        assert_eq!(said(&twice), "guest web: the name is given twice");
        let many: String =
            GOOD.replace("64GiB", "8GiB") + &GOOD[GOOD.find("[[guest]]").unwrap()..].replace("\"web\"", "\"db\"");
        assert_eq!(said(&many), "host a: its guests have 16 GiB of memory, it has 8 GiB");
    }
}
