//! What a request is allowed to be: who asks, in whose name, for what.

use hyper::{HeaderMap, Method};

use crate::api::Api;
use crate::auth::{self, User};
use crate::rbac::Target;
use crate::request::{Path, Query};
use crate::status::{ApiError, Result};
use crate::trust::Certificates;

/// What is known of a request while it is dealt with; afterwards the audit log has it.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) user: Option<User>,
    /// In whose name.
    pub(crate) acting: Option<User>,
    pub(crate) verb: &'static str,
    pub(crate) path: Option<Path>,
    /// Why it was allowed; `None` if it was not.
    pub(crate) allowed: Option<String>,
}

impl Trail {
    /// Notes who asks, or refuses.
    pub(crate) async fn identify(
        &mut self,
        api: &Api,
        certificates: &Certificates,
        headers: &HeaderMap,
    ) -> Result<User> {
        let user = auth::authenticate(api, certificates, headers).await?;
        self.acting = impersonated(api, &user, headers).await?;
        let subject = self.acting.clone().unwrap_or_else(|| user.clone());
        self.user = Some(user);
        Ok(subject)
    }

    /// Refuses what the user may not do.
    pub(crate) async fn authorize(
        &mut self,
        api: &Api,
        user: &User,
        target: Target<'_>,
    ) -> Result<()> {
        self.allowed = Some(api.rights.authorize(user, self.verb, target).await?);
        Ok(())
    }

    /// The same for a resource.
    pub(crate) async fn authorize_path(
        &mut self,
        api: &Api,
        user: &User,
        query: &Query,
    ) -> Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let resource = match &path.subresource {
            Some(subresource) => format!("{}/{subresource}", path.resource),
            None => path.resource.clone(),
        };
        // A namespace is in itself.
        let itself = path.group.is_empty() && path.resource == "namespaces";
        let namespace = if itself { path.name.as_deref() } else { path.namespace.as_deref() };
        let selected = query.get("fieldSelector").and_then(|s| s.strip_prefix("metadata.name="));
        let selected = selected.map(|s| s.trim_start_matches('=')).filter(|s| !s.contains(','));
        let name = path.name.as_deref().or(selected).unwrap_or_default();
        let target = Target::Resource { group: &path.group, resource: &resource, namespace, name };
        self.authorize(api, user, target).await
    }
}

/// The verb of a request for a resource.
pub(crate) fn verb(method: &Method, path: &Path, query: &Query) -> Result<&'static str> {
    Ok(match *method {
        Method::GET | Method::HEAD if query.flag("watch")? => "watch",
        Method::GET | Method::HEAD if path.name.is_some() => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if path.name.is_some() => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(ApiError::method_not_allowed("this resource")),
    })
}

/// The user in whose name `user` asks, if the headers say so and he may.
async fn impersonated(api: &Api, user: &User, headers: &HeaderMap) -> Result<Option<User>> {
    let texts = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.map(str::to_owned).collect()
    };
    let (name, groups) = (texts("impersonate-user"), texts("impersonate-group"));
    let Some(name) = name.first().filter(|name| !name.is_empty()) else {
        if groups.is_empty() {
            return Ok(None);
        }
        return Err(ApiError::bad_request("requested groups without impersonating a user"));
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|a| a.split_once(':'));
    let first = match account {
        Some((namespace, account)) => ("serviceaccounts", Some(namespace), account),
        None => ("users", None, name.as_str()),
    };
    let rest = groups.iter().map(|group| ("groups", None, group.as_str()));
    for (resource, namespace, name) in std::iter::once(first).chain(rest) {
        let target = Target::Resource { group: "", resource, namespace, name };
        api.rights.authorize(user, "impersonate", target).await?;
    }
    let groups: Vec<_> = groups.iter().map(String::as_str).collect();
    Ok(Some(User::named(name, &groups)))
}
