//! The repository's files, read once.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Paths relative to the top of the repository, with content; files that are not text are left out.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<(String, String)>);

impl Files {
    /// Reads all files git knows or would add.
    pub(crate) fn read(root: &Path) -> Result<Files> {
        let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
        let listed = shell::ask(Command::new("git").args(list).current_dir(root)).context("git ls-files")?;
        let mut files = Vec::new();
        for path in listed.lines() {
            // Not text, or deleted but not yet committed.
            if let Ok(text) = fs::read_to_string(root.join(path)) {
                files.push((path.to_owned(), text));
            }
        }
        files.sort();
        Ok(Files(files))
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Files {
        Files(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }

    /// All files: path and text.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// All Rust sources.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter(|(path, _)| path.ends_with(".rs"))
    }

    /// The text of one file.
    pub(crate) fn get(&self, path: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == path).map(|(_, text)| text)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
