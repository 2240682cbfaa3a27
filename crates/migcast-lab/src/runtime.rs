//! Folders for sockets of running guests. They go with their guest; what a killed laboratory left is swept by the
//! next one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::getuid;

/// A private folder, removed when this value is dropped.
#[derive(Debug)]
pub struct RuntimeDir {
    path: PathBuf,
    _lock: File,
}

impl RuntimeDir {
    /// Makes a folder below `$XDG_RUNTIME_DIR` or the temporary folder, after sweeping those whose owner is gone.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn make() -> Result<RuntimeDir> {
        let base = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_dir()).map(PathBuf::from);
        let base = base.unwrap_or_else(std::env::temp_dir).join(format!("migcast-lab-{}", getuid().as_raw()));
        RuntimeDir::make_below(&base)
    }

    fn make_below(base: &Path) -> Result<RuntimeDir> {
        fs::create_dir_all(base).with_context(|| format!("making {}", base.display()))?;
        // Nobody sweeps between the making of a folder and the locking of it.
        let door = File::create(base.join("lock")).with_context(|| format!("making {}", base.display()))?;
        flock(&door, FlockOperation::LockExclusive).context("locking the runtime folder")?;
        sweep(base)?;
        let mut number = 0;
        loop {
            let path = base.join(number.to_string());
            number += 1;
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = File::create(path.join("lock")).with_context(|| format!("making {}", path.display()))?;
                    flock(&lock, FlockOperation::LockExclusive)
                        .with_context(|| format!("locking {}", path.display()))?;
                    return Ok(RuntimeDir { path, _lock: lock });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("making {}", path.display())),
            }
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // If it cannot be removed now the next laboratory sweeps it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes the folders nobody holds.
fn sweep(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base).with_context(|| format!("reading {}", base.display()))? {
        let path = entry.with_context(|| format!("reading {}", base.display()))?.path();
        if !path.is_dir() {
            continue;
        }
        let held = File::open(path.join("lock"))
            .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
        if !held {
            fs::remove_dir_all(&path).with_context(|| format!("sweeping {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_with_their_owner_and_left_ones_are_swept() {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("0")).unwrap();
        fs::write(base.path().join("0/lock"), "").unwrap();
        fs::write(base.path().join("0/left"), "").unwrap();
        let first = RuntimeDir::make_below(base.path()).unwrap();
        let second = RuntimeDir::make_below(base.path()).unwrap();
        assert!(!first.path().join("left").exists());
        assert!(first.path().exists() && second.path() != first.path());
        let gone = first.path().to_owned();
        drop(first);
        assert!(!gone.exists() && second.path().exists());
    }
}
