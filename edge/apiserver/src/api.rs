//! What every request and controller shares: the store, the registry, the settings.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

use crate::Options;
use crate::audit::Log;
use crate::auth::Tokens;
use crate::limits::Gate;
use crate::registry::{Fixed, Registry, Resource};
use crate::rights::{Delegate, Rights};
use crate::status::{ApiError, Result};
use crate::storage::{Expect, Object, Storage, StorageError, Write};

/// The shared state of the server.
pub(crate) struct Api {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tokens: Tokens,
    pub(crate) rights: Rights,
    pub(crate) audit: Option<Arc<Log>>,
    /// Held while an address is chosen and written.
    pub(crate) turn: tokio::sync::Mutex<()>,
    fixed: Fixed,
    registry: RwLock<Arc<Registry>>,
}

impl Api {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        tokens: Tokens,
        audit: Option<Log>,
    ) -> Self {
        let fixed = Fixed::new(options.surface);
        let registry = RwLock::new(Arc::new(Registry::build(&fixed, &definitions(&*storage))));
        let gate = Arc::new(Gate::new(options.limits.clone()));
        let audit = audit.map(Arc::new);
        let rights = match options.delegate.0.clone() {
            Some(delegate) => Rights::Delegated(delegate),
            None => Rights::Roles(storage.clone()),
        };
        Self {
            storage,
            options,
            gate,
            tokens,
            rights,
            audit,
            turn: tokio::sync::Mutex::new(()),
            fixed,
            registry,
        }
    }

    /// Who else knows users and rights, if somebody does.
    pub(crate) fn delegate(&self) -> Option<&Arc<dyn Delegate>> {
        self.options.delegate.0.as_ref()
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in the CustomResourceDefinitions as they are now.
    pub(crate) fn reload(&self) {
        // The guard is held over the listing, so that an older list never replaces a newer one.
        let mut registry = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        *registry = Arc::new(Registry::build(&self.fixed, &definitions(&*self.storage)));
    }

    /// The resource under which objects of `resource` are stored.
    pub(crate) fn home(&self, resource: &Arc<Resource>) -> Arc<Resource> {
        let (group, plural) = &resource.home;
        if resource.is(group, plural) {
            return resource.clone();
        }
        let home = self.registry().resources.iter().find(|r| r.is(group, plural)).cloned();
        home.unwrap_or_else(|| resource.clone())
    }

    /// A built-in resource, by group and plural.
    pub(crate) fn builtin(&self, group: &str, plural: &str) -> Arc<Resource> {
        let found = self.fixed.resources.iter().find(|r| r.is(group, plural)).cloned();
        found.expect("callers name resources of the fixed table")
    }

    /// Writes one object.
    pub(crate) async fn put(
        &self,
        key: Arc<str>,
        expect: Expect,
        value: Option<Value>,
    ) -> Result<Arc<Object>, StorageError> {
        let definition = key.starts_with("apiextensions.k8s.io/");
        let mut objects = self.storage.commit(vec![Write { key, expect, value }]).await?;
        if definition {
            self.reload();
        }
        objects.pop().ok_or_else(|| StorageError::Failed("a commit answered with nothing".into()))
    }

    /// The storage error of a write, as the client of `resource` sees it.
    pub(crate) fn refused(resource: &Resource, name: &str, error: StorageError) -> ApiError {
        let (plural, group) = (resource.plural.as_str(), resource.group.as_str());
        match error {
            StorageError::Exists { .. } => ApiError::exists(plural, group, name),
            StorageError::Missing { .. } => ApiError::not_found(plural, group, name),
            StorageError::Stale { .. } => ApiError::conflict(plural, group, name, MODIFIED),
            other => other.into(),
        }
    }
}

fn definitions(storage: &dyn Storage) -> Vec<Arc<Object>> {
    let prefix = "apiextensions.k8s.io/customresourcedefinitions/";
    storage.list(prefix, None).map(|l| l.objects).unwrap_or_default()
}

/// What Kubernetes says when a compare-and-swap fails.
pub(crate) const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The time now, as objects carry it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
