//! Rules about which crate may use which.

use super::Broken;
use super::files::Files;

/// Every crate of the workspace with those of the workspace it may use. What is not listed here does not belong.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("migcast-model", &[]),
    ("migcast-dirty", &[]),
    ("migcast-history", &["migcast-model"]),
    ("migcast-record", &["migcast-model", "migcast-history"]),
    ("migcast-plan", &["migcast-model"]),
    ("migcast", &["migcast-model", "migcast-history", "migcast-record", "migcast-plan"]),
    ("migcast-lab", &["migcast-model", "migcast-history", "migcast-record", "migcast-dirty"]),
    // No member of the workspace: see fuzz/Cargo.toml.
    ("migcast-fuzz", &["migcast-model", "migcast-history", "migcast-record"]),
    ("xtask", &[]),
];

/// What the model may use from elsewhere; anything else is argued for here first.
const MODEL_USES: [&str; 7] = ["libm", "rayon", "thiserror", "proptest", "humantime", "strsim", "dyn-clone"];

/// Data goes one way: a crate uses only crates above it.
pub(crate) fn direction(files: &Files) -> Broken {
    let mut broken = Broken::new();
    for (path, name, uses) in manifests(files) {
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            broken.push(format!("{path}: crate '{name}' has no place among the crates yet"));
            continue;
        };
        for used in uses.iter().filter(|used| ALLOWED.iter().any(|(known, _)| known == *used)) {
            if !allowed.contains(&used.as_str()) {
                broken.push(format!("{path}: uses {used}, allowed are {allowed:?}"));
            }
        }
    }
    broken
}

/// A clock, a file or a socket in the model would make the same input give different output.
pub(crate) fn pure_model(files: &Files) -> Broken {
    let mut broken = Broken::new();
    for (path, _, uses) in manifests(files).filter(|(_, name, _)| name == "migcast-model") {
        for used in uses.iter().filter(|used| !MODEL_USES.contains(&used.as_str())) {
            broken.push(format!("{path}: uses {used}, allowed are {MODEL_USES:?}"));
        }
    }
    broken
}

/// Path, package name and all dependencies (also for tests and builds) of each crate.
fn manifests(files: &Files) -> impl Iterator<Item = (&str, String, Vec<String>)> {
    files.iter().filter_map(|(path, text)| {
        let file = path.rsplit('/').next()?;
        let name = (file == "Cargo.toml").then(|| text.lines().find_map(|line| line.strip_prefix("name = \"")))??;
        let mut uses = Vec::new();
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
                // `[dependencies.NAME]` is a dependency by itself.
                if let Some((_, used)) = section.split_once("dependencies.") {
                    uses.push(used.to_owned());
                }
            } else if section.ends_with("dependencies") {
                let used = line.split(['=', '.', ' ']).next().filter(|used| !used.is_empty() && !used.starts_with('#'));
                uses.extend(used.map(str::to_owned));
            }
        }
        Some((path, name.trim_end_matches('"').to_owned(), uses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, uses: &str) -> String {
        format!("[package]\nname = \"{name}\"\n\n[dependencies]\n{uses}\n\n[lints]\nworkspace = true\n")
    }

    #[test]
    fn using_a_crate_below_is_found() {
        let text = manifest("migcast-history", "migcast-model.workspace = true\nmigcast-record = { path = \"x\" }");
        let broken = direction(&Files::of(&[("crates/migcast-history/Cargo.toml", &text)]));
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("uses migcast-record"));
    }

    #[test]
    fn a_use_in_tests_only_counts_too() {
        let text = "[package]\nname = \"migcast-model\"\n[dev-dependencies]\nmigcast-history.workspace = true\n";
        assert_eq!(direction(&Files::of(&[("Cargo.toml", text)])).len(), 1);
        let text = "[package]\nname = \"migcast-model\"\n[dependencies.migcast-history]\npath = \"x\"\n";
        assert_eq!(direction(&Files::of(&[("Cargo.toml", text)])).len(), 1);
    }

    #[test]
    fn an_unknown_crate_is_found() {
        let text = manifest("migcast-extra", "");
        assert_eq!(direction(&Files::of(&[("crates/migcast-extra/Cargo.toml", &text)])).len(), 1);
    }

    #[test]
    fn a_model_that_uses_a_clock_is_found() {
        let text = manifest("migcast-model", "# why\nthiserror.workspace = true\njiff.workspace = true");
        let broken = pure_model(&Files::of(&[("crates/migcast-model/Cargo.toml", &text)]));
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("uses jiff"));
    }
}
