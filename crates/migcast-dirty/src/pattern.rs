//! The patterns and how they are written down: `uniform:rate=2000,pages=20000`.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Most pages a pattern may span: 4 TiB of 4 KiB pages, so that a page fits 32 bits with room to spare.
pub const PAGES_MAX: u32 = 1 << 30;
/// Fastest rate, in writes per second.
pub const RATE_MAX: u32 = 10_000_000;
/// Most steps of computation between two writes: some seconds of them.
pub const STEPS_MAX: u32 = 1_000_000_000;

/// What is written. Pages are numbered from 0 within the working set; rates are page writes per second.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Nothing.
    Idle,
    /// Each write hits any page of the working set with the same chance.
    Uniform {
        /// Writes per second, at least 1.
        rate: u32,
        /// The working set in pages, at least 1.
        pages: u32,
    },
    /// Page after page, again and again.
    Sequential {
        /// Writes per second, at least 1.
        rate: u32,
        /// The working set in pages, at least 1.
        pages: u32,
    },
    /// A few pages get most of the writes; uniform within the hot and within the cold ones.
    HotCold {
        /// Writes per second, at least 1.
        rate: u32,
        /// The working set in pages, at least 2.
        pages: u32,
        /// The share of the pages that is hot, 0 to 1; at least one page is hot and one cold.
        hot_pages: f64,
        /// The share of the writes that goes to hot pages, 0 to 1.
        hot_writes: f64,
    },
    /// Uniform writing whose rate and working set change, over and over.
    Phases(Vec<Phase>),
    /// Computing without end, and never waiting for a clock: a guest that is slowed writes less. Each write hits any page of
    /// the working set with the same chance.
    Computing {
        /// Steps of the computation from one write to the next, at least 1.
        steps: u32,
        /// The working set in pages, at least 1.
        pages: u32,
    },
}

/// One part of [`Pattern::Phases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// How long it lasts, more than nothing.
    pub length: Duration,
    /// Writes per second; 0 is a pause.
    pub rate: u32,
    /// The working set in pages, at least 1: the first pages of the whole.
    pub pages: u32,
}

impl Pattern {
    /// Pages the pattern can touch; 0 for an idle one.
    pub fn pages(&self) -> u32 {
        match self {
            Pattern::Idle => 0,
            Pattern::Uniform { pages, .. }
            | Pattern::Sequential { pages, .. }
            | Pattern::HotCold { pages, .. }
            | Pattern::Computing { pages, .. } => *pages,
            Pattern::Phases(phases) => phases.iter().map(|phase| phase.pages).max().unwrap_or(0),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Idle => write!(f, "idle"),
            Pattern::Uniform { rate, pages } => write!(f, "uniform:rate={rate},pages={pages}"),
            Pattern::Sequential { rate, pages } => write!(f, "sequential:rate={rate},pages={pages}"),
            Pattern::Computing { steps, pages } => write!(f, "computing:steps={steps},pages={pages}"),
            Pattern::HotCold { rate, pages, hot_pages, hot_writes } => {
                write!(f, "hot-cold:rate={rate},pages={pages},hot-pages={hot_pages},hot-writes={hot_writes}")
            }
            Pattern::Phases(phases) => {
                write!(f, "phases:")?;
                for (index, phase) in phases.iter().enumerate() {
                    let plus = if index == 0 { "" } else { "+" };
                    write!(f, "{plus}{}ms@{}/{}", phase.length.as_millis(), phase.rate, phase.pages)?;
                }
                Ok(())
            }
        }
    }
}

/// Why a pattern could not be read: the field, what it said, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    field: &'static str,
    value: String,
    allowed: &'static str,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pattern: {} '{}': allowed is {}", self.field, self.value, self.allowed)
    }
}

impl Error for PatternError {}

const ALLOWED_KIND: &str = "idle, uniform:…, sequential:…, hot-cold:…, phases:… or computing:…";
const ALLOWED_RATE: &str = "a whole number of writes per second from 1 to 10000000";
const ALLOWED_STEPS: &str = "a whole number of steps from 1 to 1000000000";
const ALLOWED_PAGES: &str = "a whole number of pages from 1 (hot-cold: 2) to 2^30";
const ALLOWED_SHARE: &str = "a share from 0 to 1";
const ALLOWED_PHASE: &str = "LENGTH@RATE/PAGES with a length in ms or s, joined by '+', at least one with a rate";

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "idle" if rest.is_empty() => Ok(Pattern::Idle),
            "uniform" => {
                let fields = Fields::parse(rest, &["rate", "pages"])?;
                Ok(Pattern::Uniform { rate: fields.rate()?, pages: fields.pages(1)? })
            }
            "sequential" => {
                let fields = Fields::parse(rest, &["rate", "pages"])?;
                Ok(Pattern::Sequential { rate: fields.rate()?, pages: fields.pages(1)? })
            }
            "hot-cold" => {
                let fields = Fields::parse(rest, &["rate", "pages", "hot-pages", "hot-writes"])?;
                Ok(Pattern::HotCold {
                    rate: fields.rate()?,
                    pages: fields.pages(2)?,
                    hot_pages: fields.share("hot-pages", 0.1)?,
                    hot_writes: fields.share("hot-writes", 0.9)?,
                })
            }
            "phases" => phases(rest),
            "computing" => {
                let fields = Fields::parse(rest, &["steps", "pages"])?;
                let steps = fields.number("steps", 1, STEPS_MAX, ALLOWED_STEPS)?;
                Ok(Pattern::Computing { steps, pages: fields.pages(1)? })
            }
            _ => Err(PatternError { field: "kind", value: text.to_owned(), allowed: ALLOWED_KIND }),
        }
    }
}

fn phases(text: &str) -> Result<Pattern, PatternError> {
    let wrong = |value: &str| PatternError { field: "phase", value: value.to_owned(), allowed: ALLOWED_PHASE };
    let mut phases = Vec::new();
    for part in text.split('+') {
        let phase = phase(part).ok_or_else(|| wrong(part))?;
        phases.push(phase);
    }
    // Without any write at all the schedule would look for the next one for ever.
    if phases.iter().all(|phase| phase.rate == 0) {
        return Err(wrong(text));
    }
    Ok(Pattern::Phases(phases))
}

fn phase(text: &str) -> Option<Phase> {
    let (length, rest) = text.split_once('@')?;
    let (rate, pages) = rest.split_once('/')?;
    let length = match length.strip_suffix("ms") {
        Some(millis) => Duration::from_millis(millis.parse().ok()?),
        None => Duration::from_secs(length.strip_suffix('s')?.parse().ok()?),
    };
    let (rate, pages) = (rate.parse().ok()?, pages.parse().ok()?);
    let sound = !length.is_zero() && rate <= RATE_MAX && (1..=PAGES_MAX).contains(&pages);
    sound.then_some(Phase { length, rate, pages })
}

/// `key=value` pairs of one pattern.
struct Fields<'a>(Vec<(&'static str, &'a str)>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str, known: &[&'static str]) -> Result<Fields<'a>, PatternError> {
        let mut fields = Vec::new();
        for pair in text.split(',') {
            let found = pair
                .split_once('=')
                .and_then(|(key, value)| known.iter().find(|&&name| name == key).map(|&name| (name, value)));
            let allowed = "rate=…,pages=… (hot-cold also hot-pages=… and hot-writes=…; computing steps=… for the rate)";
            fields.push(found.ok_or_else(|| PatternError { field: "field", value: pair.to_owned(), allowed })?);
        }
        Ok(Fields(fields))
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    fn number(&self, field: &'static str, least: u32, most: u32, allowed: &'static str) -> Result<u32, PatternError> {
        let value = self.get(field).unwrap_or("");
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| PatternError { field, value: value.to_owned(), allowed })
    }

    fn rate(&self) -> Result<u32, PatternError> {
        self.number("rate", 1, RATE_MAX, ALLOWED_RATE)
    }

    fn pages(&self, least: u32) -> Result<u32, PatternError> {
        self.number("pages", least, PAGES_MAX, ALLOWED_PAGES)
    }

    fn share(&self, field: &'static str, default: f64) -> Result<f64, PatternError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| PatternError { field, value: value.to_owned(), allowed: ALLOWED_SHARE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "idle",
            "uniform:rate=2000,pages=20000",
            "sequential:rate=9000,pages=12000",
            "hot-cold:rate=6000,pages=60000,hot-pages=0.1,hot-writes=0.9",
            "phases:20000ms@200/2000+10000ms@6000/40000",
            "computing:steps=20000,pages=60000",
        ] {
            let pattern: Pattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn shares_and_seconds_have_short_forms() {
        let hot: Pattern = "hot-cold:rate=1,pages=10".parse().unwrap();
        assert_eq!(hot, Pattern::HotCold { rate: 1, pages: 10, hot_pages: 0.1, hot_writes: 0.9 });
        let phases: Pattern = "phases:2s@0/1+500ms@3/4".parse().unwrap();
        assert_eq!(phases.pages(), 4);
    }

    #[test]
    fn bad_patterns_name_field_value_and_what_is_allowed() {
        for (text, part) in [
            ("zigzag:rate=1", "kind 'zigzag:rate=1'"),
            ("uniform:rate=0,pages=5", "rate '0'"),
            ("uniform:rate=5", "pages ''"),
            ("uniform:rate=5,pages=5,hot-pages=1", "field 'hot-pages=1'"),
            ("hot-cold:rate=5,pages=1", "pages '1'"),
            ("hot-cold:rate=5,pages=9,hot-writes=1.5", "hot-writes '1.5'"),
            ("phases:5@1/1", "phase '5@1/1'"),
            ("phases:5s@0/1", "phase '5s@0/1'"),
            ("uniform:rate=1,pages=2000000000", "pages '2000000000'"),
            ("computing:steps=0,pages=5", "steps '0'"),
            ("computing:rate=5,pages=5", "field 'rate=5'"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("allowed is"), "{error}");
        }
    }
}
