//! `cargo xtask golden`: rewrite the expected output that tests compare with.

use anyhow::Result;

use crate::shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut test = shell::cargo();
    test.args(["test", "--package", "migcast"]).args(&args.filter).env("TRYCMD", "overwrite");
    shell::run(&mut test)?;
    println!("golden: rewritten; `git diff` shows what changed");
    Ok(())
}
