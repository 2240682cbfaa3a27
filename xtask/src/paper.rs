//! `cargo xtask paper`: the figures and tables of docs/paper.md, from nothing.
//!
//! Everything is asked of the program itself, on the command line, as a reader of the document would. Blocks of the
//! document between `<!-- printed: NAME -->` and `<!-- end -->` are replaced by what was printed; `--check` compares them
//! instead, and draws no figure.

mod document;
mod figures;
mod program;
mod tables;

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use program::{Build, Program};

/// The document, below the top of the repository.
const DOCUMENT: &str = "docs/paper.md";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail if the tables are no longer what the program prints; change nothing
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let program = Program::build(if args.check { Build::AsTested } else { Build::Release })?;
    let begin = Instant::now();
    let mut blocks = tables::all(&program)?;
    blocks.extend(figures::commands());
    let path = crate::root().join(DOCUMENT);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {DOCUMENT}"))?;
    let printed = document::with_blocks(&text, &blocks)?;
    if args.check {
        if let Some(difference) = document::first_difference(&text, &printed) {
            bail!(
                "{DOCUMENT} is not what the program prints; run `cargo xtask paper` and read the change:\n{difference}"
            );
        }
    } else {
        figures::draw(&program)?;
        fs::write(&path, printed).with_context(|| format!("writing {DOCUMENT}"))?;
    }
    println!("paper: {} blocks, took {:.0} s after building", blocks.len(), begin.elapsed().as_secs_f64());
    Ok(())
}
