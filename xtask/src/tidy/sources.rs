//! Rules about single source files.

use super::Broken;
use super::files::Files;

const LINES_MAX: usize = 800;
const NAMES_BANNED: [&str; 4] = ["utils", "common", "helpers", "types"];

/// A longer file holds more than one noun.
pub(crate) fn length(files: &Files) -> Broken {
    let lines = files.rust().map(|(path, text)| (path, text.lines().count()));
    let long = lines.filter(|(_, count)| *count > LINES_MAX);
    long.map(|(path, count)| format!("{path}: {count} lines, allowed are {LINES_MAX}")).collect()
}

/// Such a name says nothing about what is inside.
pub(crate) fn names(files: &Files) -> Broken {
    let mut broken = Broken::new();
    for (path, text) in files.rust() {
        let mut parts = path.trim_end_matches(".rs").split('/');
        if let Some(name) = parts.find(|part| NAMES_BANNED.contains(part)) {
            broken.push(format!("{path}: '{name}' says nothing about what is inside"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let module = line.trim_start().trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            let inline = module.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {"));
            if let Some(name) = inline.filter(|name| NAMES_BANNED.contains(name)) {
                broken.push(format!("{path}:{number}: module '{name}' says nothing about what is inside"));
            }
        }
    }
    broken
}

/// A test that does not run promises what nobody checks.
pub(crate) fn ignored_tests(files: &Files) -> Broken {
    // Put together so that this file does not break its own rule.
    let marks = [concat!("#[", "ignore]"), concat!("#[", "ignore =")];
    let found = lines_with(files, |path| path.ends_with(".rs"), &marks);
    found.map(|place| format!("{place}: a test is ignored; make it run or remove it")).collect()
}

/// What names a folder of one machine works on that machine only.
pub(crate) fn host_paths(files: &Files) -> Broken {
    let marks = [concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/"), concat!("/", "work/main")];
    // In a recording's own words (MADE.md) and in documents such a path would mislead as much as in code.
    let found = lines_with(files, |path| path != "Cargo.lock", &marks);
    found.map(|place| format!("{place}: a path of one machine")).collect()
}

fn lines_with<'a>(files: &'a Files, of: fn(&str) -> bool, marks: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    files.iter().filter(move |(path, _)| of(path)).flat_map(move |(path, text)| {
        let lines = (1..).zip(text.lines());
        let found = lines.filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)));
        found.map(move |(number, _): (usize, _)| format!("{path}:{number}")).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_is_found_and_a_full_one_is_not() {
        let files = [("a.rs", "\n".repeat(801)), ("b.rs", "\n".repeat(800)), ("c.md", "\n".repeat(900))];
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(length(&Files::of(&files)), ["a.rs: 801 lines, allowed are 800"]);
    }

    #[test]
    fn empty_names_are_found_as_file_folder_and_module() {
        let files = Files::of(&[
            ("a/src/utils.rs", ""),
            ("a/src/common/mod.rs", ""),
            ("a/src/lib.rs", "pub mod helpers {\n}\nmod typesetting {\n}"),
            ("a/src/types.md", ""),
        ]);
        let broken = names(&files);
        assert_eq!(broken.len(), 3, "{broken:?}");
        assert!(broken[2].starts_with("a/src/lib.rs:1: module 'helpers'"));
    }

    #[test]
    fn ignored_tests_are_found() {
        let text = format!("#[test]\n#[{}]\nfn a() {{}}\n#[{} = \"slow\"]", "ignore", "ignore");
        let broken = ignored_tests(&Files::of(&[("a.rs", &text), ("b.md", &text)]));
        assert_eq!(broken.len(), 2, "{broken:?}");
    }

    #[test]
    fn paths_of_one_machine_are_found_everywhere() {
        let path = format!("see /{}/x", "root");
        let broken = host_paths(&Files::of(&[("a.rs", &path), ("docs/b.md", &path), ("c.rs", "/proc/self")]));
        assert_eq!(broken.len(), 2, "{broken:?}");
    }
}
