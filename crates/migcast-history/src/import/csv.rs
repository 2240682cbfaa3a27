//! CSV: a header line, then one measurement a line.
use std::io::BufRead;

use csv_core::ReadRecordResult;

use super::lines::{LINE_BYTES_MAX, Lines};
use super::{File, ImportError, Imported, Measured, Place, RateUnit};
use crate::quote::quoted;

/// Names a column of times may have, whatever the case.
const TIMES: [&str; 9] =
    ["time", "timestamp", "start", "start_time", "date", "datetime", "time_unix", "unix_time", "epoch"];

/// Columns a line may have.
const COLUMNS_MAX: usize = 1_024;

/// The name of the column that says what was going on, and the words of it that mean a measurement.
const STATE: &str = "state";
const MEASURED: [&str; 3] = ["", "recorded", "measured"];
const LEFT_OUT: [&str; 3] = ["migrating", "gap", "unmeasured"];

/// Where the columns are.
struct Columns {
    count: usize,
    time: usize,
    rate: usize,
    state: Option<usize>,
    unit: RateUnit,
    names: Vec<String>,
}

pub(super) fn read(input: &mut dyn BufRead, file: File<'_>) -> Result<Imported, ImportError> {
    let mut lines = Lines::new(input, file);
    let mut splitter = Splitter::new();
    let mut columns: Option<Columns> = None;
    let mut imported = Imported::default();
    while let Some((line, text)) = lines.next_line()? {
        let place = Place::Line(line);
        if text.starts_with('#') {
            continue;
        }
        let fields = splitter.split(text).ok_or_else(|| {
            let allowed = format!("up to {COLUMNS_MAX} columns, quotation marks that end in it");
            file.value(place, "the line", text, allowed)
        })?;
        match &columns {
            None => columns = Some(Columns::find(&fields, file)?),
            Some(columns) => file.push(&mut imported.measured, columns.measured(place, &fields, file)?)?,
        }
    }
    Ok(imported)
}

impl Columns {
    fn find(names: &[&str], file: File<'_>) -> Result<Columns, ImportError> {
        let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
        let listed = || super::listed(names.iter().map(String::as_str));
        let named = |wanted: &String, option: &str| {
            let missing = || {
                let wanted = quoted(wanted);
                file.whole(format!("{option}: no column `{wanted}`, the header line has {}", listed()))
            };
            names.iter().position(|name| name == wanted).ok_or_else(missing)
        };
        let one = |found: Vec<usize>, what: &str, option: &str| match found[..] {
            [only] => Ok(only),
            [] => {
                Err(file.whole(format!("no column is known as {what}, name one with {option}; there are {}", listed())))
            }
            _ => Err(file.whole(format!(
                "{} columns could be {what}, name one with {option}: {}",
                found.len(),
                listed()
            ))),
        };
        let which = |is: &dyn Fn(&str) -> bool| (0..names.len()).filter(|index| is(&names[*index])).collect::<Vec<_>>();
        let time = match &file.asked.time_column {
            Some(wanted) => named(wanted, "--time-column")?,
            None => {
                one(which(&|name| TIMES.contains(&name.to_ascii_lowercase().as_str())), "the time", "--time-column")?
            }
        };
        let rate = match &file.asked.rate_column {
            Some(wanted) => named(wanted, "--rate-column")?,
            None => {
                let is = |name: &str| {
                    RateUnit::in_name(name).is_some() || name.to_ascii_lowercase().split('_').any(|word| word == "rate")
                };
                one(which(&is), "the rate", "--rate-column")?
            }
        };
        let unit = file.asked.unit.or_else(|| RateUnit::in_name(&names[rate])).ok_or_else(|| {
            let name = quoted(&names[rate]);
            file.whole(format!("the column `{name}` does not say its unit: give --unit, such as pages/s or MiB/s"))
        })?;
        let state = names.iter().position(|name| name.eq_ignore_ascii_case(STATE));
        Ok(Columns { count: names.len(), time, rate, state, unit, names })
    }

    fn measured(&self, place: Place, fields: &[&str], file: File<'_>) -> Result<Measured, ImportError> {
        if fields.len() != self.count {
            let allowed = format!("{}, as the header line has", self.count);
            return Err(file.value(place, "the number of columns", &fields.len().to_string(), allowed));
        }
        let state = self.state.map_or("", |state| fields[state].trim());
        let left_out = LEFT_OUT.contains(&state);
        if !left_out && !MEASURED.contains(&state) {
            let allowed = "recorded, measured or nothing; migrating, gap or unmeasured leave the line out";
            return Err(file.value(place, &self.names[self.state.unwrap_or_default()], state, allowed));
        }
        let start_unix_ns = file.time(place, &self.names[self.time], fields[self.time].trim())?;
        let span = file.span();
        let rate = (place, self.names[self.rate].as_str(), fields[self.rate].trim());
        let written = if left_out { 0 } else { file.written(rate, self.unit, span)? };
        Ok(Measured { place, start_unix_ns, span, written, left_out })
    }
}

/// Cuts lines into fields. A field in quotation marks does not go over the end of its line.
pub(crate) struct Splitter {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Splitter {
    pub(crate) fn new() -> Splitter {
        Splitter { reader: csv_core::Reader::new(), text: vec![0; LINE_BYTES_MAX + 1], ends: vec![0; COLUMNS_MAX] }
    }

    /// The fields of a line; `None` where a quotation mark does not end, or there are too many.
    pub(crate) fn split(&mut self, line: &str) -> Option<Vec<&str>> {
        // To make a reader anew costs more than a line.
        self.reader.reset();
        let (result, read, text, ends) = self.reader.read_record(line.as_bytes(), &mut self.text, &mut self.ends);
        let (result, written, ended) = match result {
            // The end of the line ends the record, unless it stands between quotation marks: then it becomes text.
            ReadRecordResult::InputEmpty if read == line.len() => {
                let (result, _, more_text, more_ends) =
                    self.reader.read_record(b"\n", &mut self.text[text..], &mut self.ends[ends..]);
                (result, text + more_text, ends + more_ends)
            }
            result => (result, text, ends),
        };
        if result != ReadRecordResult::Record || read != line.len() {
            return None;
        }
        let text = std::str::from_utf8(&self.text[..written]).ok()?;
        let starts = std::iter::once(0).chain(self.ends[..ended].iter().copied());
        starts.zip(&self.ends[..ended]).map(|(start, end)| text.get(start..*end)).collect()
    }
}
