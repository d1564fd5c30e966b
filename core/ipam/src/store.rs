//! What the protocol asks of the datastore.

use std::future::Future;

use crate::objects::Kind;

/// An object together with what a compare-and-swap needs to know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored<K> {
    /// The object.
    pub value: K,
    /// Identity of this incarnation.
    pub uid: String,
    /// Revision that it was read at.
    pub revision: String,
}

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Create: there is one already.
    #[error("the object exists already")]
    Exists,
    /// Update, delete: somebody was faster, or it is gone.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// The datastore does not answer, or refuses.
    #[error("{0}")]
    Failed(String),
}

/// Compare-and-swap storage of the IPAM kinds. Objects marked as deleted are absent to readers.
pub trait Store: Sync {
    /// One object.
    fn get<K: Kind>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<Stored<K>>, StoreError>> + Send;
    /// Every object of the kind.
    fn list<K: Kind>(&self) -> impl Future<Output = Result<Vec<Stored<K>>, StoreError>> + Send;
    /// A new object; [`StoreError::Exists`] if there is one.
    fn create<K: Kind>(
        &self,
        value: K,
    ) -> impl Future<Output = Result<Stored<K>, StoreError>> + Send;
    /// Replaces the object at the revision it was read at.
    fn update<K: Kind>(
        &self,
        object: Stored<K>,
    ) -> impl Future<Output = Result<Stored<K>, StoreError>> + Send;
    /// Deletes the object at the revision it was read at.
    fn delete<K: Kind>(
        &self,
        object: Stored<K>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
