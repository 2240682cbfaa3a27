//! What an inventory says of moving guests: the links between hosts, traffic on them, and what holds for each migration.

use std::time::Duration;

use migcast_model::units::BytesPerSec;
use serde::Deserialize;

use super::fields::{named, rate, span, unique};
use super::{Guest, GuestRow, Host};

/// A switch between hosts and the one in the middle, or between such switches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) name: String,
    /// Place of the switch above it; the one in the middle if none. It comes before this one.
    pub(crate) below: Option<usize>,
    /// Line rate of its link to that.
    pub(crate) uplink: BytesPerSec,
}

/// What has a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A host, by its place.
    Host(usize),
    /// A switch, by its place.
    Switch(usize),
}

/// What others send over a link from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Since the first migration may begin.
    pub(crate) from: Duration,
    pub(crate) place: Place,
    /// Whether it leaves the place or comes to it.
    pub(crate) is_out: bool,
    pub(crate) rate: BytesPerSec,
}

/// What holds for the migration of a guest; other guests by their place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moving {
    /// The host it goes to; any with room if none.
    pub(crate) to: Option<usize>,
    /// Guests that have to have moved before.
    pub(crate) after: Vec<usize>,
    /// Guests that must not be moved at the same time; each names the other.
    pub(crate) not_with: Vec<usize>,
    /// Since the first migration may begin.
    pub(crate) not_before: Duration,
    /// Guests of one such group must not share a host.
    pub(crate) apart: Option<String>,
    /// The longest downtime it may have.
    pub(crate) downtime_max: Option<Duration>,
    /// Settings of its migration alone.
    pub(crate) settings: Vec<(String, String)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SwitchRow {
    name: String,
    uplink: String,
    below: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrafficRow {
    /// A host or a switch.
    at: String,
    direction: Direction,
    rate: String,
    from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Direction {
    In,
    Out,
}

impl Switch {
    /// Checks all, each of which may only be below one before it.
    pub(super) fn checked(rows: Vec<SwitchRow>) -> Result<Vec<Switch>, String> {
        unique("switch", rows.iter().map(|row| row.name.as_str()))?;
        let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
        let one = |(place, row): (usize, SwitchRow)| {
            let uplink = rate(&format!("switch {}: uplink", row.name), &row.uplink, 1e3)?;
            // Only from what stands before it: so there is no circle.
            let before = names[..place].iter().map(String::as_str);
            let below =
                row.below.map(|name| named(&format!("switch {}: below, a switch before it", row.name), &name, before));
            Ok(Switch { uplink, below: below.transpose()?, name: row.name })
        };
        rows.into_iter().enumerate().map(one).collect()
    }
}

impl Traffic {
    pub(super) fn checked(row: &TrafficRow, hosts: &[Host], switches: &[Switch]) -> Result<Traffic, String> {
        let of = |field: &str| format!("traffic at {}: {field}", row.at);
        let names = hosts.iter().map(|host| &host.name).chain(switches.iter().map(|switch| &switch.name));
        let place = named("traffic: at", &row.at, names.map(String::as_str))?;
        let place = place.checked_sub(hosts.len()).map_or(Place::Host(place), Place::Switch);
        Ok(Traffic {
            from: row.from.as_ref().map_or(Ok(Duration::ZERO), |text| span(&of("from"), text))?,
            place,
            is_out: row.direction == Direction::Out,
            rate: rate(&of("rate"), &row.rate, 0.0)?,
        })
    }
}

impl Moving {
    /// Of a guest's row; other guests are looked for among `names`.
    pub(super) fn checked(row: &GuestRow, hosts: &[Host], names: &[String]) -> Result<Moving, String> {
        let of = |field: &str| format!("guest {}: {field}", row.name);
        let to = row.to.as_ref().map(|name| named(&of("to"), name, hosts.iter().map(|host| host.name.as_str())));
        let others = |field: &str, others: &[String]| -> Result<Vec<usize>, String> {
            let what = of(field);
            others.iter().map(|name| named(&what, name, names.iter().map(String::as_str))).collect()
        };
        let lasts = |field: &str, text: &Option<String>| text.as_ref().map(|text| span(&of(field), text)).transpose();
        let setting = |text: &String| {
            let (key, value) =
                text.split_once('=').ok_or_else(|| format!("{}: `{text}` is not KEY=VALUE", of("set")))?;
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        };
        Ok(Moving {
            to: to.transpose()?,
            after: others("after", &row.after)?,
            not_with: others("not_with", &row.not_with)?,
            not_before: lasts("not_before", &row.not_before)?.unwrap_or_default(),
            apart: row.apart.clone(),
            downtime_max: lasts("max_downtime", &row.max_downtime)?,
            settings: row.set.iter().map(setting).collect::<Result<_, String>>()?,
        })
    }

    /// Makes each guest that another is not to be moved with name that one, too; nobody names itself.
    pub(super) fn name_each_other(guests: &mut [Guest]) {
        let pairs: Vec<(usize, usize)> = guests
            .iter()
            .enumerate()
            .flat_map(|(one, guest)| guest.moving.not_with.iter().flat_map(move |other| [(one, *other), (*other, one)]))
            .collect();
        for (one, other) in pairs {
            let named = &mut guests[one].moving.not_with;
            if one != other && !named.contains(&other) {
                named.push(other);
            }
        }
        guests.iter_mut().enumerate().for_each(|(one, guest)| guest.moving.not_with.retain(|other| *other != one));
    }
}
