//! Questions about who one is and what one may do. They are answered, not stored.

use hyper::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::{self, User};
use crate::rbac::{self, Target};
use crate::request::Path;
use crate::status::{ApiError, Result};

/// A kind of review.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Review {
    OwnAccess,
    Access,
    LocalAccess,
    OwnRules,
    OwnSelf,
    Token,
}

impl Review {
    /// The review at a path, if there is one.
    pub(crate) fn at(path: &Path, method: &Method) -> Option<Self> {
        if method != Method::POST {
            return None;
        }
        match (path.group.as_str(), path.resource.as_str()) {
            ("authorization.k8s.io", "selfsubjectaccessreviews") => Some(Self::OwnAccess),
            ("authorization.k8s.io", "subjectaccessreviews") => Some(Self::Access),
            ("authorization.k8s.io", "localsubjectaccessreviews") => Some(Self::LocalAccess),
            ("authorization.k8s.io", "selfsubjectrulesreviews") => Some(Self::OwnRules),
            ("authentication.k8s.io", "selfsubjectreviews") => Some(Self::OwnSelf),
            ("authentication.k8s.io", "tokenreviews") => Some(Self::Token),
            _ => None,
        }
    }

    /// Answers what `user` asks at `path`: the review with its status.
    pub(crate) fn answer(
        self,
        api: &Api,
        user: &User,
        mut asked: Value,
        path: &Path,
    ) -> Result<Value> {
        asked["status"] = match self {
            Self::OwnAccess => decide(api, user, &asked["spec"])?,
            Self::Access => access(api, &asked["spec"])?,
            Self::LocalAccess => {
                let namespace = asked["spec"]["resourceAttributes"]["namespace"].as_str();
                if namespace != path.namespace.as_deref() {
                    return Err(ApiError::bad_request(
                        "spec.resourceAttributes.namespace: wanted the namespace of the address",
                    ));
                }
                access(api, &asked["spec"])?
            }
            Self::OwnRules => own_rules(api, user, &asked["spec"]),
            Self::OwnSelf => json!({"userInfo": user.show()}),
            Self::Token => token(api, &asked["spec"]),
        };
        Ok(asked)
    }
}

fn access(api: &Api, spec: &Value) -> Result<Value> {
    let groups: Vec<_> =
        spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let name = spec["user"].as_str().unwrap_or_default();
    if name.is_empty() && groups.is_empty() {
        return Err(ApiError::bad_request("spec.user: wanted the name of a user, or spec.groups"));
    }
    // Only what was asked about: who is asked for need not have shown who he is.
    let groups = groups.into_iter().map(str::to_owned).collect();
    let user = User { name: name.to_owned(), groups, ..User::default() };
    decide(api, &user, spec)
}

fn decide(api: &Api, user: &User, spec: &Value) -> Result<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let why = if let Some(attributes) = spec.get("resourceAttributes").filter(|a| a.is_object()) {
        let of = |field: &str| text(&attributes[field]);
        let (group, namespace, name) = (of("group"), of("namespace"), of("name"));
        let resource = match of("subresource") {
            sub if sub.is_empty() => of("resource"),
            sub => format!("{}/{sub}", of("resource")),
        };
        let (group, namespace) = (group.as_str(), Some(namespace.as_str()));
        let target = Target::Resource { group, resource: &resource, namespace, name: &name };
        rbac::allowed(&*api.storage, user, &of("verb"), target)
    } else if let Some(attributes) = spec.get("nonResourceAttributes").filter(|a| a.is_object()) {
        let (path, verb) = (text(&attributes["path"]), text(&attributes["verb"]));
        rbac::allowed(&*api.storage, user, &verb, Target::Path(&path))
    } else {
        return Err(ApiError::bad_request(
            "spec: wanted resourceAttributes or nonResourceAttributes",
        ));
    };
    let mut status = json!({"allowed": why.is_some()});
    if let Some(why) = why.filter(|why| !why.is_empty()) {
        status["reason"] = why.into();
    }
    Ok(status)
}

fn own_rules(api: &Api, user: &User, spec: &Value) -> Value {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    let rules = rbac::rules(&*api.storage, user, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|rule| rule["nonResourceURLs"].is_array());
    json!({"incomplete": false, "resourceRules": resources, "nonResourceRules": paths})
}

fn token(api: &Api, spec: &Value) -> Value {
    match auth::by_token(api, spec["token"].as_str().unwrap_or_default()) {
        Some(user) => json!({"authenticated": true, "user": user.show()}),
        None => json!({"authenticated": false, "error": "the token is not known here"}),
    }
}
