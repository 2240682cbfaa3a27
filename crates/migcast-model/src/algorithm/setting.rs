//! Settings as users see them: a key, a value that can be written and read back, what is allowed.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{AlgorithmError, nearest};
use crate::quantity::{
    QuantityError, parse_bytes, parse_duration, parse_rate, show_duration, write_bytes, write_duration, write_rate,
};
use crate::units::{ByteCount, BytesPerSec, PageCount};

/// A setting as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, the hypervisor's own name where it has one.
    pub key: &'static str,
    /// Its value, written so that it can be read back.
    pub value: String,
    /// What it does and where its default comes from.
    pub about: &'static str,
    /// Whether it is worth a reader's time only where it was changed.
    pub is_minor: bool,
}

/// A setting within a settings struct, open for change.
pub struct Field<'a> {
    pub(crate) key: &'static str,
    pub(crate) value: Box<dyn Value + 'a>,
    pub(crate) about: &'static str,
    pub(crate) is_minor: bool,
}

impl<'a> Field<'a> {
    /// The setting `key`, kept in `value`.
    pub fn new(key: &'static str, value: impl Value + 'a, about: &'static str) -> Field<'a> {
        Field { key, value: Box::new(value), about, is_minor: false }
    }

    /// The same, worth a reader's time only where it was changed.
    pub fn minor(self) -> Field<'a> {
        Field { is_minor: true, ..self }
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.key, self.value.write())
    }
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no quantity of the wanted kind.
    Malformed(QuantityError),
    /// It is not what the hypervisor takes; with what that is.
    OutOfRange(String),
}

/// A place of a settings struct that is read and written as text.
pub trait Value {
    /// The value as text that [`Value::read`] takes.
    fn write(&self) -> String;

    /// Takes the value of a text.
    ///
    /// # Errors
    /// The text is no value of this kind, or outside of what is allowed. The old value stays.
    fn read(&mut self, text: &str) -> Result<(), Refusal>;
}

/// The settings behind these fields as they stand.
pub(crate) fn list(fields: Vec<Field<'_>>) -> Vec<Setting> {
    let shown = |field: Field<'_>| Setting {
        key: field.key,
        value: field.value.write(),
        about: field.about,
        is_minor: field.is_minor,
    };
    fields.into_iter().map(shown).collect()
}

/// Changes the setting `key` of what is called `owner` to `value`, as users write them.
pub(crate) fn change(
    owner: &'static str,
    fields: Vec<Field<'_>>,
    key: &str,
    value: &str,
) -> Result<(), AlgorithmError> {
    if fields.is_empty() {
        return Err(AlgorithmError::NoSettings { algorithm: owner, key: key.to_owned() });
    }
    let nearest = nearest(key, fields.iter().map(|field| field.key));
    let Some(mut field) = fields.into_iter().find(|field| field.key == key) else {
        return Err(AlgorithmError::UnknownSetting { algorithm: owner, key: key.to_owned(), nearest });
    };
    field.value.read(value).map_err(|refusal| match refusal {
        Refusal::Malformed(source) => AlgorithmError::Malformed { key: field.key, source },
        Refusal::OutOfRange(allowed) => AlgorithmError::OutOfRange { key: field.key, value: value.to_owned(), allowed },
    })
}

/// A whole number, with the unit it is written with; reading takes it with the unit or without.
#[derive(Debug)]
pub struct Count<'a> {
    value: &'a mut u64,
    range: RangeInclusive<u64>,
    unit: &'static str,
}

impl<'a> Count<'a> {
    /// A number of what the key names.
    pub fn new(value: &'a mut u64, range: RangeInclusive<u64>) -> Count<'a> {
        Count { value, range, unit: "" }
    }

    /// A number of percent.
    pub fn percent(value: &'a mut u64, range: RangeInclusive<u64>) -> Count<'a> {
        Count { value, range, unit: "%" }
    }
}

impl Value for Count<'_> {
    fn write(&self) -> String {
        format!("{}{}", self.value, self.unit)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let digits = text.strip_suffix(self.unit).unwrap_or(text).trim_end();
        let number = digits.parse().ok().filter(|number| self.range.contains(number));
        let (least, most, unit) = (self.range.start(), self.range.end(), self.unit);
        *self.value =
            number.ok_or_else(|| Refusal::OutOfRange(format!("a whole number from {least}{unit} to {most}{unit}")))?;
        Ok(())
    }
}

/// A number of pages, up to 2^32.
#[derive(Debug)]
pub struct Pages<'a>(pub &'a mut PageCount);

impl Value for Pages<'_> {
    fn write(&self) -> String {
        Count { value: &mut self.0.get(), range: 0..=1 << 32, unit: "pages" }.write()
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let mut pages = self.0.get();
        Count { value: &mut pages, range: 0..=1 << 32, unit: "pages" }.read(text)?;
        *self.0 = PageCount::new(pages);
        Ok(())
    }
}

/// A span of time, in whole milliseconds.
#[derive(Debug)]
pub struct Millis<'a> {
    value: &'a mut Duration,
    range: RangeInclusive<Duration>,
}

impl<'a> Millis<'a> {
    /// A span within `range`.
    pub fn new(value: &'a mut Duration, range: RangeInclusive<Duration>) -> Millis<'a> {
        Millis { value, range }
    }
}

impl Value for Millis<'_> {
    fn write(&self) -> String {
        write_duration(*self.value)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let span = parse_duration(text).map_err(Refusal::Malformed)?;
        if !self.range.contains(&span) || span.subsec_nanos() % 1_000_000 != 0 {
            let end = |span: &Duration| if span.is_zero() { "0ms".to_owned() } else { compact(*span) };
            let (least, most) = (end(self.range.start()), end(self.range.end()));
            return Err(Refusal::OutOfRange(format!("{least} to {most}, in whole milliseconds")));
        }
        *self.value = span;
        Ok(())
    }
}

/// A span or `none`.
#[derive(Debug)]
pub struct OptionalMillis<'a> {
    value: &'a mut Option<Duration>,
    range: RangeInclusive<Duration>,
}

impl<'a> OptionalMillis<'a> {
    /// A span within `range`, or `none`.
    pub fn new(value: &'a mut Option<Duration>, range: RangeInclusive<Duration>) -> OptionalMillis<'a> {
        OptionalMillis { value, range }
    }
}

impl Value for OptionalMillis<'_> {
    fn write(&self) -> String {
        self.value.map_or_else(|| "none".to_owned(), write_duration)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let mut span = Duration::ZERO;
        *self.value = match text {
            "none" => None,
            _ => {
                Millis::new(&mut span, self.range.clone()).read(text)?;
                Some(span)
            }
        };
        Ok(())
    }
}

/// A cap of a transfer rate, not absurdly low; `none` is the given rate that never binds.
#[derive(Debug)]
pub struct Cap<'a> {
    value: &'a mut BytesPerSec,
    none: BytesPerSec,
}

impl<'a> Cap<'a> {
    /// Nobody means less, and QEMU takes less than ten bytes a second for no cap at all.
    const LEAST: BytesPerSec = BytesPerSec::new(1_000);

    /// A cap that is written `none` when it is `none`.
    pub fn new(value: &'a mut BytesPerSec, none: BytesPerSec) -> Cap<'a> {
        Cap { value, none }
    }
}

impl Value for Cap<'_> {
    fn write(&self) -> String {
        if *self.value == self.none { "none".to_owned() } else { write_rate(*self.value) }
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let rate = if text == "none" { self.none } else { parse_rate(text).map_err(Refusal::Malformed)? };
        if rate < Cap::LEAST {
            return Err(Refusal::OutOfRange("at least 8kbit/s, or `none`".to_owned()));
        }
        *self.value = rate;
        Ok(())
    }
}

/// A transfer rate, or `none`; zero is none.
#[derive(Debug)]
pub struct OptionalRate<'a>(pub &'a mut Option<BytesPerSec>);

impl Value for OptionalRate<'_> {
    fn write(&self) -> String {
        self.0.map_or_else(|| "none".to_owned(), write_rate)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        *self.0 = match text {
            "none" => None,
            _ => Some(parse_rate(text).map_err(Refusal::Malformed)?).filter(|rate| !rate.is_zero()),
        };
        Ok(())
    }
}

/// An amount of memory that is a power of two, at least a page of 4 KiB.
#[derive(Debug)]
pub struct PowerOfTwoSize<'a>(pub &'a mut ByteCount);

impl Value for PowerOfTwoSize<'_> {
    fn write(&self) -> String {
        write_bytes(*self.0)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let size = parse_bytes(text).map_err(Refusal::Malformed)?;
        if size.get() < 4096 || !size.get().is_power_of_two() {
            return Err(Refusal::OutOfRange("a power of two from 4KiB on, such as 64MiB".to_owned()));
        }
        *self.0 = size;
        Ok(())
    }
}

/// A number that is a power of two.
#[derive(Debug)]
pub struct PowerOfTwo<'a> {
    value: &'a mut u64,
    range: RangeInclusive<u64>,
}

impl<'a> PowerOfTwo<'a> {
    /// A power of two within `range`.
    pub fn new(value: &'a mut u64, range: RangeInclusive<u64>) -> PowerOfTwo<'a> {
        PowerOfTwo { value, range }
    }
}

impl Value for PowerOfTwo<'_> {
    fn write(&self) -> String {
        self.value.to_string()
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let number = text.parse().ok().filter(|number: &u64| self.range.contains(number) && number.is_power_of_two());
        let (least, most) = (self.range.start(), self.range.end());
        *self.value = number.ok_or_else(|| Refusal::OutOfRange(format!("a power of two from {least} to {most}")))?;
        Ok(())
    }
}

/// A number or `none`.
#[derive(Debug)]
pub struct OptionalCount<'a> {
    value: &'a mut Option<u64>,
    range: RangeInclusive<u64>,
    unit: &'static str,
}

impl<'a> OptionalCount<'a> {
    /// A number within `range`, or `none`.
    pub fn new(value: &'a mut Option<u64>, range: RangeInclusive<u64>) -> OptionalCount<'a> {
        OptionalCount { value, range, unit: "" }
    }

    /// A number of percent within `range`, or `none`.
    pub fn percent(value: &'a mut Option<u64>, range: RangeInclusive<u64>) -> OptionalCount<'a> {
        OptionalCount { value, range, unit: "%" }
    }
}

impl Value for OptionalCount<'_> {
    fn write(&self) -> String {
        self.value.map_or_else(|| "none".to_owned(), |number| format!("{number}{}", self.unit))
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let mut number = 0;
        *self.value = match text {
            "none" => None,
            _ => {
                Count { value: &mut number, range: self.range.clone(), unit: self.unit }.read(text)?;
                Some(number)
            }
        };
        Ok(())
    }
}

/// A transfer rate above zero.
#[derive(Debug)]
pub struct Rate<'a>(pub &'a mut BytesPerSec);

impl Value for Rate<'_> {
    fn write(&self) -> String {
        write_rate(*self.0)
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let rate = parse_rate(text).map_err(Refusal::Malformed)?;
        if rate.is_zero() {
            return Err(Refusal::OutOfRange("more than 0".to_owned()));
        }
        *self.0 = rate;
        Ok(())
    }
}

/// One of several values, each with its name.
#[derive(Debug)]
pub struct Choice<'a, T: 'static> {
    value: &'a mut T,
    names: &'static [(&'static str, T)],
}

impl<'a, T> Choice<'a, T> {
    /// One of `names`, the present value among them.
    pub fn new(value: &'a mut T, names: &'static [(&'static str, T)]) -> Choice<'a, T> {
        Choice { value, names }
    }
}

impl<T: Copy + PartialEq> Value for Choice<'_, T> {
    fn write(&self) -> String {
        let named = self.names.iter().find(|(_, value)| *value == *self.value);
        named.expect("every value of a choice has a name").0.to_owned()
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        let named = self.names.iter().find(|(name, _)| *name == text);
        *self.value = named.ok_or_else(|| Refusal::OutOfRange(one_of(self.names.iter().map(|(name, _)| *name))))?.1;
        Ok(())
    }
}

/// A capability: on or off.
#[derive(Debug)]
pub struct Switch<'a>(pub &'a mut bool);

impl Value for Switch<'_> {
    fn write(&self) -> String {
        if *self.0 { "on" } else { "off" }.to_owned()
    }

    fn read(&mut self, text: &str) -> Result<(), Refusal> {
        *self.0 = match text {
            "on" => true,
            "off" => false,
            _ => return Err(Refusal::OutOfRange("on or off".to_owned())),
        };
        Ok(())
    }
}

/// Names as a sentence has them: `a, b or c`.
fn one_of(names: impl Iterator<Item = &'static str>) -> String {
    let mut names: Vec<&str> = names.collect();
    let last = names.pop().expect("a choice has names");
    if names.is_empty() { last.to_owned() } else { format!("{} or {last}", names.join(", ")) }
}

/// As users write a span: `2000s`, not `33m 20s`.
fn compact(span: Duration) -> String {
    if span.subsec_nanos() == 0 { format!("{}s", span.as_secs()) } else { show_duration(span) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(mut value: impl Value, text: &str) -> String {
        match value.read(text).unwrap_err() {
            Refusal::OutOfRange(allowed) => allowed,
            Refusal::Malformed(error) => error.to_string(),
        }
    }

    #[test]
    fn counts_take_their_unit_or_none() {
        let mut value = 20;
        let mut percent = Count::percent(&mut value, 1..=99);
        assert_eq!(percent.write(), "20%");
        percent.read("30%").unwrap();
        percent.read("40").unwrap();
        assert_eq!(refused(Count::percent(&mut 1, 1..=99), "100%"), "a whole number from 1% to 99%");
        assert_eq!(refused(Count::new(&mut 1, 1..=99), "two"), "a whole number from 1 to 99");
        assert_eq!(value, 40);
        let mut pages = PageCount::new(50);
        Pages(&mut pages).read("64 pages").unwrap();
        assert_eq!((pages.get(), Pages(&mut pages).write()), (64, "64pages".to_owned()));
    }

    #[test]
    fn a_choice_names_what_there_is() {
        const NAMES: &[(&str, u8)] = &[("one", 1), ("two", 2), ("three", 3)];
        let mut value = 1;
        Choice::new(&mut value, NAMES).read("two").unwrap();
        assert_eq!(value, 2);
        assert_eq!(refused(Choice::new(&mut value, NAMES), "four"), "one, two or three");
    }

    #[test]
    fn spans_end_where_they_may() {
        let mut span = Duration::ZERO;
        let range = Duration::ZERO..=Duration::from_secs(2000);
        Millis::new(&mut span, range.clone()).read("2000s").unwrap();
        assert_eq!(span, Duration::from_secs(2000));
        for text in ["2001s", "1500us"] {
            assert_eq!(refused(Millis::new(&mut span, range.clone()), text), "0ms to 2000s, in whole milliseconds");
        }
        let mut optional = Some(span);
        OptionalMillis::new(&mut optional, range).read("none").unwrap();
        assert_eq!(optional, None);
    }
}
