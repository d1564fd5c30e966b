//! Who says who somebody is and what he may do: the roles in our own store, or a Kubernetes API server
//! that this one stands behind.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::json;

use crate::auth::User;
use crate::rbac::{self, Target};
use crate::status::{ApiError, Result};
use crate::storage::Storage;
use crate::trust::Trust;

/// A question that got no answer: nobody is let in by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unanswered(pub String);

impl From<Unanswered> for ApiError {
    fn from(error: Unanswered) -> Self {
        Self::new(503, "ServiceUnavailable", error.0).with_details(json!({"retryAfterSeconds": 1}))
    }
}

/// Whether there is a namespace that takes new objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// There is none of this name.
    Missing,
    /// It takes new objects.
    Open,
    /// It is being deleted.
    Ending,
}

/// Somebody else who knows users and their rights: the API server of a Kubernetes cluster.
pub trait Delegate: Send + Sync + 'static {
    /// The user of a bearer token, if the token is good.
    fn user<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, Unanswered>>;

    /// Why `user` may do it, if he may. Members of `system:masters` are not asked about.
    fn allowed<'a>(
        &'a self,
        user: &'a User,
        verb: &'a str,
        target: Target<'a>,
    ) -> BoxFuture<'a, Result<Option<String>, Unanswered>>;

    /// What is known of a namespace.
    fn namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Namespace, Unanswered>>;

    /// Whose client certificates are good now. Without it no certificate is.
    fn trust(&self) -> Option<Arc<Trust>>;
}

/// Where rights come from.
#[derive(Clone)]
pub(crate) enum Rights {
    /// Roles and bindings in our own store.
    Roles(Arc<dyn Storage>),
    /// Somebody else.
    Delegated(Arc<dyn Delegate>),
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Roles(_) => "Roles",
            Self::Delegated(_) => "Delegated",
        })
    }
}

impl Rights {
    /// Why `user` may do it; `None` if he may not.
    pub(crate) async fn allowed(
        &self,
        user: &User,
        verb: &str,
        target: Target<'_>,
    ) -> Result<Option<String>> {
        match self {
            _ if user.is_master() => Ok(Some(String::new())),
            Self::Roles(storage) => Ok(rbac::allowed(&**storage, user, verb, target)),
            Self::Delegated(other) => Ok(other.allowed(user, verb, target).await?),
        }
    }

    /// Refuses what the user may not do.
    pub(crate) async fn authorize(
        &self,
        user: &User,
        verb: &str,
        target: Target<'_>,
    ) -> Result<String> {
        let allowed = self.allowed(user, verb, target).await?;
        allowed.ok_or_else(|| target.forbidden(user, verb))
    }
}

/// Somebody else who is asked about users and rights, or nobody.
#[derive(Clone, Default)]
pub struct Delegation(pub(crate) Option<Arc<dyn Delegate>>);

impl From<Arc<dyn Delegate>> for Delegation {
    fn from(delegate: Arc<dyn Delegate>) -> Self {
        Self(Some(delegate))
    }
}

impl fmt::Debug for Delegation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Delegation(Some)" } else { "Delegation(None)" })
    }
}
