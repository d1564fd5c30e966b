//! One command at a time makes or unmakes a sandbox of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::state::State;

/// Held as long as it lives. The kernel gives it back when its holder ends, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Of this sandbox; an error if somebody has it.
    pub(crate) fn take(state: &State) -> Result<Self> {
        let path = state.lock();
        let cannot = || format!("cannot lock {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(cannot)?;
        }
        loop {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(cannot)?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => bail!(
                    "sandbox {:?} is being started or stopped by another command: try again when that has ended",
                    state.name
                ),
                Err(TryLockError::Error(e)) => return Err(e).with_context(cannot),
                // The last holder may have removed the file between these two steps.
                Ok(()) if is_at(&file, &path) => return Ok(Self { path, _file: file }),
                Ok(()) => (),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let number = |m: std::fs::Metadata| (m.dev(), m.ino());
    let there = std::fs::metadata(path).map(number);
    there.is_ok_and(|there| file.metadata().is_ok_and(|m| number(m) == there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (State::new(folder.path(), "a"), State::new(folder.path(), "b"));
        let held = Lock::take(&a).unwrap();
        let error = Lock::take(&a).unwrap_err().to_string();
        assert!(error.contains("sandbox \"a\" is being started or stopped"), "{error}");
        let other = Lock::take(&b).unwrap();
        drop(held);
        let again = Lock::take(&a).unwrap();
        drop((again, other));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing stays");
    }

    #[test]
    fn a_file_that_a_killed_holder_left_locks_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path(), "a");
        std::fs::write(state.lock(), "").unwrap();
        drop(Lock::take(&state).unwrap());
        assert!(!state.lock().exists());
    }
}
