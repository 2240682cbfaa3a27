//! Rules about documents.

use super::Broken;
use super::files::Files;

const ENTRIES: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// A document nobody links is not read; a link that leads nowhere is worse.
pub(crate) fn documents(files: &Files) -> Broken {
    let mut broken = Broken::new();
    let mut linked = Vec::new();
    for (path, text) in files.iter().filter(|(path, _)| path.ends_with(".md")) {
        for target in targets(text) {
            let target = resolve(path, target);
            // A folder is there if anything lies in it.
            let below = format!("{target}/");
            if !files.iter().any(|(file, _)| file == target || file.starts_with(&below)) {
                broken.push(format!("{path}: the link to {target} leads nowhere"));
            }
            if ENTRIES.contains(&path) {
                linked.push(target);
            }
        }
    }
    for (path, _) in files.iter().filter(|(path, _)| path.starts_with("docs/") && path.ends_with(".md")) {
        if !linked.iter().any(|target| target == path) {
            broken.push(format!("{path}: linked neither from README.md nor from ARCHITECTURE.md"));
        }
    }
    for entry in ENTRIES.iter().filter(|entry| files.get(entry).is_none()) {
        broken.push(format!("{entry}: missing"));
    }
    broken
}

/// The targets of `[text](target)` within the repository, without the part after `#`.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let path = after.map(|target| target.split('#').next().unwrap_or_default());
    path.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

/// A link in the document `path`, as a path from the top.
fn resolve(path: &str, target: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlinked_document_and_a_dead_link_are_found() {
        let files = Files::of(&[
            ("README.md", "See [model](docs/model.md#rules), [gone](docs/gone.md), [web](https://example.org/x)."),
            ("ARCHITECTURE.md", "[lab](crates/lab)"),
            ("crates/lab/src/lib.rs", ""),
            ("docs/model.md", "[up](../README.md)"),
            ("docs/lost.md", ""),
        ]);
        let expected = [
            "README.md: the link to docs/gone.md leads nowhere",
            "docs/lost.md: linked neither from README.md nor from ARCHITECTURE.md",
        ];
        assert_eq!(documents(&files), expected);
    }

    #[test]
    fn a_missing_entry_is_found() {
        assert_eq!(documents(&Files::of(&[("README.md", "")])), ["ARCHITECTURE.md: missing"]);
    }
}
