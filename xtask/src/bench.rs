//! `cargo xtask bench`: how fast things are, part by part, each against something else in the same run.

use anyhow::{Result, bail};

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this part (default: all, one after the other)
    part: Option<String>,
}

/// A bench of one of the crates, which prints a table.
struct Part {
    name: &'static str,
    package: &'static str,
    bench: &'static str,
}

/// All parts there are; `name` is what one asks for.
const PARTS: &[Part] = &[
    // A scan of memory against reading it.
    Part { name: "scan", package: "migcast-record", bench: "scan" },
    // A day of a large guest: recorded, opened, forecast from.
    Part { name: "index", package: "migcast-history", bench: "index" },
    // Forecasts from an index against forecasts page by page.
    Part { name: "forecasts", package: "migcast-model", bench: "forecasts" },
    // Many migrations that share links against each of them alone.
    Part { name: "world", package: "migcast-model", bench: "world" },
    // Plans for fleets that are made up, against what platforms do and the lower bound.
    Part { name: "schedule", package: "migcast-plan", bench: "schedule" },
];

pub(crate) fn run(args: &Args) -> Result<()> {
    for part in choose(args.part.as_deref())? {
        shell::run(shell::cargo().args(["bench", "--quiet", "--package", part.package, "--bench", part.bench]))?;
    }
    Ok(())
}

fn choose(wanted: Option<&str>) -> Result<Vec<&'static Part>> {
    let chosen: Vec<&Part> = PARTS.iter().filter(|part| wanted.is_none_or(|wanted| wanted == part.name)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        bail!("no bench is named '{}', there are: {}", wanted.unwrap_or_default(), names.join(", "));
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_bench() {
        for part in PARTS {
            let path = crate::root().join(format!("crates/{}/benches/{}.rs", part.package, part.bench));
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn an_unknown_part_is_answered_with_those_there_are() {
        assert_eq!(choose(None).unwrap().len(), PARTS.len());
        assert_eq!(choose(Some("scan")).unwrap().len(), 1);
        let error = choose(Some("scam")).err().unwrap().to_string();
        assert!(error.starts_with("no bench is named 'scam', there are: scan"), "{error}");
    }
}
