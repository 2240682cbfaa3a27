//! Rule: what README.md tells the reader to type exists.

use super::Broken;
use super::files::Files;

/// A command's program and the file that declares its subcommands.
const PROGRAMS: [(&str, &str); 3] = [
    ("migcast", "crates/migcast/src/cli/mod.rs"),
    ("migcast-lab", "crates/migcast-lab/src/cli/mod.rs"),
    ("cargo xtask", "xtask/src/main.rs"),
];

/// Looks at the lines of code blocks (and after a prompt) that begin with one of the programs.
pub(crate) fn in_readme(files: &Files) -> Broken {
    let mut broken = Broken::new();
    for line in code_lines(files.get("README.md").unwrap_or("")) {
        for (program, declared_in) in PROGRAMS {
            let Some(subcommand) = subcommand(line, program) else { continue };
            let declared = files.get(declared_in).is_some_and(|text| declares(text, subcommand));
            if !declared {
                broken.push(format!("README.md: `{program} {subcommand}` is not declared in {declared_in}"));
            }
        }
    }
    broken
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.flat_map(|block| block.lines().skip(1)).map(|line| line.trim_start_matches(['$', '#', ' ']))
}

/// The word after the program, where the line calls it: by itself, by path, or through `cargo run`.
fn subcommand<'a>(line: &'a str, program: &str) -> Option<&'a str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let after = match program.split_once(' ') {
        Some((first, second)) => (words.first() == Some(&first) && words.get(1) == Some(&second)).then_some(2)?,
        None if words.first() == Some(&"cargo") => {
            let package = words.iter().position(|word| *word == "-p" || *word == "--package");
            let named = package.map_or("migcast", |at| words.get(at + 1).copied().unwrap_or(""));
            let runs = words.get(1) == Some(&"run") && named == program;
            runs.then(|| words.iter().position(|word| *word == "--"))?? + 1
        }
        None => (words.first()?.rsplit('/').next() == Some(program)).then_some(1)?,
    };
    words.get(after).copied().filter(|word| !word.starts_with('-'))
}

/// Whether a clap enum in `text` has a variant of this name.
fn declares(text: &str, subcommand: &str) -> bool {
    let camel = |part: &str| part.get(..1).unwrap_or("").to_uppercase() + part.get(1..).unwrap_or("");
    let variant: String = subcommand.split('-').map(camel).collect();
    text.lines().map(str::trim).any(|line| {
        let rest = line.strip_prefix(&variant);
        rest.is_some_and(|rest| rest.starts_with(['(', ',', ' ']) && !rest.contains("=>"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(readme: &str) -> Broken {
        in_readme(&Files::of(&[
            ("README.md", readme),
            ("crates/migcast/src/cli/mod.rs", "enum Command {\n    Predict(Args),\n}\nCommand::Record(a) => {}"),
            ("xtask/src/main.rs", "enum Task {\n    Ci(ci::Args),\n    Tidy,\n}"),
        ]))
    }

    #[test]
    fn a_command_that_does_not_exist_is_found() {
        let readme = "Try:\n```console\n$ migcast predict DIR\n$ migcast record --pid 1\ncargo xtask cu\n```\n";
        let broken = findings(readme);
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("migcast record") && broken[1].contains("cargo xtask cu"));
    }

    #[test]
    fn commands_through_cargo_run_are_looked_at_too() {
        let readme = "\n```\ncargo run --release -- predict x\ncargo run -p migcast -- guess x\ncargo xtask ci\n```\n";
        let broken = findings(readme);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("migcast guess"));
    }

    #[test]
    fn prose_is_left_alone() {
        assert_eq!(findings("migcast dreams\n```\nls\n```\nmigcast sleeps"), Broken::new());
    }
}
