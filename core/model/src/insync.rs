//! The witness that the first complete snapshot of the datastore has been processed.

/// Held by whoever may sweep: nothing is removed from the kernel before this exists (law 3).
///
/// Only the syncer's in-sync marker makes one; tests say so with [`InSync::for_tests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InSync(());

impl InSync {
    /// Called where the syncer's in-sync marker is consumed, and nowhere else.
    pub fn after_snapshot() -> Self {
        Self(())
    }
    /// A witness for tests of what happens after the snapshot.
    pub fn for_tests() -> Self {
        Self(())
    }
}
