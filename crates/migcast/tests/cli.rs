//! Golden transcripts of the command line: what is printed where, and the exit code.
//!
//! `cargo xtask golden` writes them anew; read the difference before you commit it.

#[test]
fn transcripts() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}
