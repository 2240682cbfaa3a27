//! `--vary KEY=VALUES`: a list, a range with a step, or a range with a factor.

use crate::report::sweep::{Dimension, Value, Varied};

/// Values of one key at most.
const VALUES_MAX: usize = 10_000;

/// A key with the values it takes, as it was given: which kind of quantity it is depends on the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Vary {
    pub(in crate::cli) key: String,
    values: String,
}

/// Reads `KEY=VALUES`.
pub(in crate::cli) fn parse(text: &str) -> Result<Vary, String> {
    let shape = || format!("`{text}` is not KEY=FROM:TO:STEP or KEY=VALUE,VALUE, such as link=1Gbit/s,10Gbit/s");
    let (key, values) = text.split_once('=').ok_or_else(shape)?;
    let (key, values) = (key.trim(), values.trim());
    if key.is_empty() || values.is_empty() {
        Err(shape())
    } else {
        Ok(Vary { key: key.to_owned(), values: values.to_owned() })
    }
}

impl Vary {
    /// The values, as quantities of this kind, or of the kind they look like.
    ///
    /// # Errors
    /// One line: what is wrong with them and what is allowed.
    pub(in crate::cli) fn values(&self, known: Option<Dimension>) -> Result<Varied, String> {
        let wrong = |reason| format!("{}={}: {reason}", self.key, self.values);
        let (dimension, values) = match self.values.contains(':') {
            true => range(&self.values, known).map_err(wrong)?,
            false => list(&self.values, known).map_err(wrong)?,
        };
        if let Some(twice) = values.iter().enumerate().find(|(index, value)| values[..*index].contains(value)) {
            return Err(wrong(format!("{} comes twice", twice.1.text)));
        }
        Ok(Varied { key: self.key.clone(), dimension, values })
    }
}

/// `V1,V2,V3`.
fn list(text: &str, known: Option<Dimension>) -> Result<(Dimension, Vec<Value>), String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.contains(&"") {
        return Err("a value is missing between two commas, or beside one".to_owned());
    }
    let numbers = with_units(&parts);
    // Not of one kind: then they are names, such as `none,1GB/s`.
    let alike = numbers.as_ref().ok().and_then(|numbers| Some((alike(numbers, known)?, numbers)));
    match (alike, known) {
        (Some((dimension, numbers)), _) if dimension != Dimension::Name => {
            Ok((dimension, numbers.iter().filter_map(|text| Value::quantity(dimension, text)).collect()))
        }
        (_, None | Some(Dimension::Name)) => {
            let name = |part: &&str| Value { text: (*part).to_owned(), number: None };
            Ok((Dimension::Name, parts.iter().map(name).collect()))
        }
        (_, Some(dimension)) => {
            let numbers = numbers?;
            let wrong = numbers.iter().find(|text| dimension.read(text).is_none());
            Err(not_a(dimension, wrong.unwrap_or(&numbers[0])))
        }
    }
}

/// `FROM:TO:STEP` or `FROM:TO:xFACTOR`.
fn range(text: &str, known: Option<Dimension>) -> Result<(Dimension, Vec<Value>), String> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let [from, to, step] = parts[..] else {
        return Err("a range is FROM:TO:STEP, or FROM:TO:xFACTOR for one by factors".to_owned());
    };
    let factor = step.strip_prefix('x');
    let ends = with_units(if factor.is_some() { &parts[..2] } else { &parts })?;
    let dimension = alike(&ends, known).unwrap_or_else(|| known.unwrap_or(Dimension::Count));
    let number = |text: &String| dimension.read(text).ok_or_else(|| not_a(dimension, text));
    let (first, last) = (number(&ends[0])?, number(&ends[1])?);
    if last < first {
        return Err(format!("the range runs backwards: {from} is more than {to}"));
    }
    let numbers = match factor {
        Some(factor) => by_factor(first, last, factor)?,
        None => by_step(first, last, number(&ends[2])?)?,
    };
    let mut values: Vec<Value> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let text = dimension.write(if factor.is_some() { rounded(dimension, number, first) } else { number });
        let value = Value::quantity(dimension, &text).ok_or_else(|| format!("{text} is beyond what can be read"))?;
        // Two steps may round to the same value.
        if values.last() != Some(&value) {
            values.push(value);
        }
    }
    Ok((dimension, values))
}

fn by_step(first: f64, last: f64, step: f64) -> Result<Vec<f64>, String> {
    if step <= 0.0 {
        return Err("a step of 0 leads nowhere: more than 0".to_owned());
    }
    // A hair more, so that 0:1s:100ms ends with 1 s although 0.1 has no exact form.
    let steps = ((last - first) / step + 1e-9).floor();
    let count = bounded(steps + 1.0)?;
    Ok((0..count).map(|index| first + index as f64 * step).collect())
}

fn by_factor(first: f64, last: f64, factor: &str) -> Result<Vec<f64>, String> {
    let number = factor.parse::<f64>().ok().filter(|factor| *factor > 1.0 && factor.is_finite());
    let number = number.ok_or_else(|| format!("`x{factor}` is not a factor: more than 1, such as x2 or x1.5"))?;
    if first <= 0.0 {
        return Err("a range by factors begins above 0".to_owned());
    }
    let steps = ((last / first).ln() / number.ln() + 1e-9).floor();
    let count = bounded(steps + 1.0)?;
    Ok((0..count).map(|index| first * number.powf(f64::from(index))).collect())
}

fn bounded(count: f64) -> Result<u32, String> {
    if count <= VALUES_MAX as f64 {
        Ok(count as u32)
    } else {
        Err(format!("{count:.0} values are too many: at most {VALUES_MAX}"))
    }
}

/// Powers of a factor have many digits. A range of times that begins on a whole millisecond stays on them, as most
/// settings want.
fn rounded(dimension: Dimension, number: f64, first: f64) -> f64 {
    let millis = first * 1e3;
    let on_millis = dimension == Dimension::Time && (millis - millis.round()).abs() < 1e-6;
    if on_millis { (number * 1e3).round() / 1e3 } else { number }
}

/// The one kind all these texts are of.
fn alike(texts: &[String], known: Option<Dimension>) -> Option<Dimension> {
    let candidates = match known {
        Some(known) => vec![known],
        None => {
            use Dimension::{Count, Pages, Percent, Rate, Time};
            vec![Count, Percent, Pages, Time, Rate]
        }
    };
    candidates.into_iter().find(|dimension| texts.iter().all(|text| dimension.read(text).is_some()))
}

/// Gives numbers without a unit the unit of the others: `0:60000pages/s:500`.
fn with_units(parts: &[&str]) -> Result<Vec<String>, String> {
    let is_bare = |part: &&&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit() || c == '.');
    let bares = || parts.iter().filter(is_bare);
    let is_zero = |part: &&str| part.parse() == Ok(0.0);
    let is_unit = |unit: &str| !unit.contains(|c: char| c.is_ascii_digit());
    let Some(bare) = bares().next() else {
        return Ok(parts.iter().map(|part| (*part).to_owned()).collect());
    };
    let unit = |part: &&str| part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim().to_owned();
    let mut units: Vec<String> = parts.iter().map(unit).filter(|unit| !unit.is_empty()).collect();
    units.sort_unstable();
    units.dedup();
    match &units[..] {
        [] => Ok(parts.iter().map(|part| (*part).to_owned()).collect()),
        // `1m30s` is no unit. Zero is the same in every unit.
        [unit, others @ ..] if is_unit(unit) && (others.is_empty() || bares().all(is_zero)) => {
            let whole = |part: &&str| if is_bare(&part) { format!("{part}{unit}") } else { (*part).to_owned() };
            Ok(parts.iter().map(whole).collect())
        }
        _ => Err(format!("the unit of `{bare}` is not clear: give each its own")),
    }
}

fn not_a(dimension: Dimension, text: &str) -> String {
    let (kind, such) = match dimension {
        Dimension::PageRate => ("a dirty rate", "2000pages/s or 80MiB/s"),
        Dimension::Rate => ("a transfer rate", "1Gbit/s or 125MB/s"),
        Dimension::Bytes => ("an amount of memory", "512MiB"),
        Dimension::Time => ("a span of time", "300ms"),
        _ => ("a number of one kind with the others", "10, 20%, 300ms or 1Gbit/s"),
    };
    format!("`{text}` is not {kind}, such as {such}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(vary: &str, known: Option<Dimension>) -> Vec<String> {
        let varied = parse(vary).unwrap().values(known).unwrap();
        varied.values.into_iter().map(|value| value.text).collect()
    }

    fn refusal(vary: &str, known: Option<Dimension>) -> String {
        let error = parse(vary).and_then(|vary| vary.values(known)).unwrap_err();
        assert_eq!(error.lines().count(), 1);
        error
    }

    const RATE: Option<Dimension> = Some(Dimension::PageRate);

    #[test]
    fn a_unit_may_stand_at_any_part_or_at_each() {
        let expected = ["0pages/s", "500pages/s", "1000pages/s"];
        for range in ["0:1000pages/s:500", "0pages/s:1000pages/s:500pages/s", "0:1000:500pages/s", "0pages/s:1000:500"]
        {
            assert_eq!(texts(&format!("dirty-rate={range}"), RATE), expected, "{range}");
        }
        assert_eq!(texts("downtime-limit=100ms:2s:1s", None), ["100ms", "1s100ms"]);
        assert_eq!(texts("link=1,2,3Gbit/s", Some(Dimension::Rate)), ["1Gbit/s", "2Gbit/s", "3Gbit/s"]);
        assert_eq!(texts("x=10:30:10%", None), ["10%", "20%", "30%"]);
        assert_eq!(texts("max-iterations=1:7:3", None), ["1", "4", "7"]);
    }

    #[test]
    fn the_end_belongs_to_the_range_if_a_step_hits_it() {
        assert_eq!(texts("t=0:300ms:0.1s", None).len(), 4, "0.3 ÷ 0.1 is less than 3 in floats, and 0 needs no unit");
        assert_eq!(texts("t=0:1s:300ms", None).last().unwrap(), "900ms");
    }

    #[test]
    fn ranges_by_factors_stay_readable() {
        assert_eq!(texts("dirty-rate=10:100pages/s:x3", RATE), ["10pages/s", "30pages/s", "90pages/s"]);
        assert_eq!(texts("t=50ms:200ms:x1.5", None), ["50ms", "75ms", "113ms", "169ms"]);
        assert_eq!(texts("n=1:4:x1.2", None), ["1", "2", "3", "4"]);
        assert_eq!(texts("dirty-rate=1:1000pages/s:x10", RATE).len(), 4, "the end is hit");
    }

    #[test]
    fn lists_of_other_than_numbers_are_names() {
        let varied = parse("max-bandwidth=none,1GB/s").unwrap().values(None).unwrap();
        assert_eq!((varied.dimension, varied.values[1].number), (Dimension::Name, None));
        let varied = parse("max-bandwidth=1MB/s,1GB/s").unwrap().values(None).unwrap();
        assert_eq!((varied.dimension, varied.values[1].number), (Dimension::Rate, Some(8e9)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_one_line() {
        assert!(refusal("dirty-rate", RATE).contains("is not KEY=FROM:TO:STEP"));
        assert!(refusal("=1", RATE).contains("is not KEY=FROM:TO:STEP"));
        assert!(refusal("dirty-rate=9:1pages/s:1", RATE).contains("runs backwards: 9 is more than 1pages/s"));
        assert!(refusal("dirty-rate=0:1pages/s:0", RATE).contains("a step of 0"));
        assert!(refusal("dirty-rate=0:9pages/s", RATE).contains("a range is FROM:TO:STEP"));
        assert!(refusal("dirty-rate=0:9pages/s:x2", RATE).contains("begins above 0"));
        assert!(refusal("dirty-rate=1:9pages/s:x1", RATE).contains("`x1` is not a factor: more than 1"));
        assert!(refusal("dirty-rate=0:10000pages/s:1", RATE).contains("10001 values are too many: at most 10000"));
        assert!(refusal("dirty-rate=0:1e9pages/s:1", RATE).contains("is not"));
        assert!(refusal("dirty-rate=5,6", RATE).contains("`5` is not a dirty rate, such as 2000pages/s"));
        assert!(refusal("dirty-rate=5pages/s,,6pages/s", RATE).contains("a value is missing"));
        assert!(refusal("dirty-rate=5pages/s,5", RATE).contains("5pages/s comes twice"));
        assert!(refusal("t=5:1m30s:1s", None).contains("the unit of `5` is not clear"));
        assert!(refusal("t=5s:6Mbit/s:1s", None).contains("is not a number of one kind"));
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,20}") {
            for known in [None, RATE, Some(Dimension::Rate), Some(Dimension::Name)] {
                let _ = parse(&format!("key={text}")).and_then(|vary| vary.values(known));
            }
        }

        #[test]
        fn a_range_has_its_steps(first in 0u32..1000, steps in 0u32..50, step in 1u32..100) {
            let last = first + steps * step;
            let values = texts(&format!("dirty-rate={first}:{last}pages/s:{step}"), RATE);
            prop_assert_eq!(values.len(), steps as usize + 1);
            prop_assert_eq!(values.last().unwrap(), &format!("{last}pages/s"));
        }
    }
}
