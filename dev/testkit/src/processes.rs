//! Processes that a test starts and ends.

use std::ops::{Deref, DerefMut};
use std::process::Child;

/// Places for processes, some of them taken. What runs when this is dropped is killed and waited for: it stands
/// before what the processes use.
#[derive(Debug)]
pub struct Processes(Vec<Option<Child>>);

impl Processes {
    /// So many places, all free.
    pub fn new(places: usize) -> Self {
        Self((0..places).map(|_| None).collect())
    }
}

impl Deref for Processes {
    type Target = [Option<Child>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Processes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.0.iter_mut().flatten() {
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
