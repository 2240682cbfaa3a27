//! The folder in which everything built is kept: packages, kernel, disk image, the static program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};

/// The cache folder, locked for as long as this value lives so that two laboratories do not build the same thing.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    _lock: File,
}

impl Cache {
    /// Opens (and makes) `$XDG_CACHE_HOME/migcast-lab` or `~/.cache/migcast-lab`; waits while another one builds.
    ///
    /// # Errors
    /// Neither variable is set, or the folder cannot be made.
    pub fn open() -> Result<Cache> {
        let from_home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let base = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let base = base.or_else(from_home).context("neither XDG_CACHE_HOME nor HOME is set: no place for the cache")?;
        Cache::open_at(base.join("migcast-lab"))
    }

    /// Opens (and makes) the cache at `root`.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub fn open_at(root: PathBuf) -> Result<Cache> {
        fs::create_dir_all(&root).with_context(|| format!("cache {}", root.display()))?;
        let lock = File::create(root.join("lock")).with_context(|| format!("cache {}", root.display()))?;
        flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("locking {}", root.display()))?;
        Ok(Cache { root, _lock: lock })
    }

    /// The cache folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder `name`, made by `build` in an empty folder unless it was already made by the same `recipe`. A
    /// build that fails leaves nothing behind that could be taken for a result.
    ///
    /// # Errors
    /// What `build` reports, or the folder cannot be written.
    pub fn folder(&self, name: &str, recipe: &str, build: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let folder = self.root.join(name);
        let mark = folder.join("recipe");
        if fs::read_to_string(&mark).is_ok_and(|made_by| made_by == recipe) {
            return Ok(folder);
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        build(&folder).with_context(|| format!("building {}", folder.display()))?;
        fs::write(&mark, recipe).with_context(|| format!("marking {}", folder.display()))?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_built_once_per_recipe_and_again_after_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open_at(dir.path().join("cache")).unwrap();
        let failed = cache.folder("a", "1", |folder| {
            fs::write(folder.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(failed.is_err());
        let mut built = 0;
        for recipe in ["1", "1", "2"] {
            let folder = cache.folder("a", recipe, |folder| {
                built += 1;
                assert!(!folder.join("half").exists());
                Ok(fs::write(folder.join("whole"), recipe)?)
            });
            assert_eq!(fs::read_to_string(folder.unwrap().join("whole")).unwrap(), recipe);
        }
        assert_eq!(built, 2);
    }
}
