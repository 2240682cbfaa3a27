//! `cargo xtask fuzz`: looks for inputs that break what reads others' files and texts.
//!
//! The targets lie in `fuzz/`, which is no member of the workspace; what a target does lies in the crate it belongs to, and
//! the tests there replay `fuzz/corpus/`. So a build and a test need nothing of what is here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target (default: all, one after the other)
    target: Option<String>,
    /// How long for each target
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// First install cargo-fuzz, if it is missing
    #[arg(long)]
    setup: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let room = crate::root().join("fuzz");
    let targets = targets(&room)?;
    let chosen = choose(&targets, args.target.as_deref())?;
    install(args.setup)?;
    // The versions that ship are the ones to look at; cargo adds what only the fuzzers need.
    fs::copy(crate::root().join("Cargo.lock"), room.join("Cargo.lock")).context("fuzz/Cargo.lock")?;
    let build = build_folder();
    let mut broken = Vec::new();
    for target in chosen {
        if let Err(error) = fuzz(&room, &build, target, args.time) {
            eprintln!("fuzz: {error:#}");
            broken.push(target);
        }
    }
    let found = room.join("artifacts");
    if !broken.is_empty() {
        bail!("{} broke; the inputs that did it are in {}/TARGET", broken.join(", "), found.display());
    }
    println!("fuzz: nothing broke (it would lie in {}/TARGET)", found.display());
    println!("fuzz: what was learnt is kept in {}/corpus for the next run", build.display());
    Ok(())
}

/// The targets there are: each has a corpus.
fn targets(room: &Path) -> Result<Vec<String>> {
    let corpora = fs::read_dir(room.join("corpus")).context("fuzz/corpus")?;
    let mut names = Vec::new();
    for corpus in corpora {
        names.push(corpus?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn choose<'a>(targets: &'a [String], wanted: Option<&str>) -> Result<Vec<&'a str>> {
    let all: Vec<&str> = targets.iter().map(String::as_str).collect();
    match wanted {
        None => Ok(all),
        Some(wanted) if all.contains(&wanted) => Ok(all.into_iter().filter(|name| *name == wanted).collect()),
        Some(wanted) => bail!("no fuzz target is named '{wanted}', there are: {}", all.join(", ")),
    }
}

fn install(allowed: bool) -> Result<()> {
    if shell::ask(shell::cargo().args(["fuzz", "--version"])).is_some() {
        return Ok(());
    }
    if !allowed {
        bail!("cargo-fuzz is missing: run `cargo xtask fuzz --setup`, which does `cargo install --locked cargo-fuzz`");
    }
    shell::run(shell::cargo().args(["install", "--locked", "cargo-fuzz"]))
}

/// A folder of its own, so that no other build waits for this one.
fn build_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate::root().join("target"), PathBuf::from);
    target.join("fuzz")
}

/// Runs one target. New inputs go to the build folder; the corpus in the repository is only read.
fn fuzz(room: &Path, build: &Path, target: &str, time: Duration) -> Result<()> {
    let learnt = build.join("corpus").join(target);
    fs::create_dir_all(&learnt).with_context(|| learnt.display().to_string())?;
    // Address sanitizer needs a nightly compiler, and the code is safe Rust; memory is limited by the targets themselves.
    let mut command: Command = shell::cargo();
    command.args(["fuzz", "run", "--sanitizer", "none", "--target-dir"]).arg(build);
    command.arg(target).arg(learnt).arg(room.join("corpus").join(target));
    // libFuzzer takes 0 for no limit.
    command.arg("--").arg(format!("-max_total_time={}", time.as_secs().max(1)));
    shell::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corpus_has_its_target() {
        let room = crate::root().join("fuzz");
        for target in targets(&room).unwrap() {
            assert!(room.join("fuzz_targets").join(format!("{target}.rs")).exists(), "{target}");
        }
    }

    #[test]
    fn the_corpora_stay_small() {
        let room = crate::root().join("fuzz/corpus");
        for target in targets(&crate::root().join("fuzz")).unwrap() {
            let inputs = fs::read_dir(room.join(&target)).unwrap();
            let bytes: u64 = inputs.map(|input| input.unwrap().metadata().unwrap().len()).sum();
            assert!((1..100 << 10).contains(&bytes), "{target} has {bytes} bytes");
        }
    }

    #[test]
    fn an_unknown_target_is_answered_with_those_there_are() {
        let there = ["manifest".to_owned(), "segment".to_owned()];
        assert_eq!(choose(&there, None).unwrap(), ["manifest", "segment"]);
        assert_eq!(choose(&there, Some("segment")).unwrap(), ["segment"]);
        let error = choose(&there, Some("segmnt")).unwrap_err().to_string();
        assert_eq!(error, "no fuzz target is named 'segmnt', there are: manifest, segment");
    }
}
