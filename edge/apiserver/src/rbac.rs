//! Who may do what: roles and bindings of `rbac.authorization.k8s.io`, evaluated as Kubernetes does.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::auth::User;
use crate::registry::Resource;
use crate::status::{ApiError, Cause, Result, qualified};
use crate::storage::{Object, Storage};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// A role that grants more single things than this is not checked one by one: it is refused.
const GRANTS: usize = 2_000;

/// What a user wants to act on.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// A resource, or one object of it.
    Resource {
        /// Empty for the core group.
        group: &'a str,
        /// `pods`, or `pods/status`.
        resource: &'a str,
        /// None for all, and for what is in none.
        namespace: Option<&'a str>,
        /// Empty for all.
        name: &'a str,
    },
    /// An address that is no resource.
    Path(&'a str),
}

impl Target<'_> {
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Resource { namespace, .. } => namespace.filter(|n| !n.is_empty()),
            Self::Path(_) => None,
        }
    }

    /// Whether a rule of a role speaks of this.
    fn covered(&self, rule: &Value, verb: &str) -> bool {
        let among =
            |field: &str, wanted: &str| texts(&rule[field]).any(|t| t == "*" || t == wanted);
        if !among("verbs", verb) {
            return false;
        }
        match *self {
            Self::Path(path) => {
                texts(&rule["nonResourceURLs"]).any(|url| match url.strip_suffix('*') {
                    Some(start) => path.starts_with(start),
                    None => path == url,
                })
            }
            Self::Resource { group, resource, name, .. } => {
                let subresource = resource.split_once('/').map(|(_, sub)| sub);
                let any_with =
                    |text: &str| text.strip_prefix("*/").is_some_and(|s| Some(s) == subresource);
                let names = &rule["resourceNames"];
                among("apiGroups", group)
                    && texts(&rule["resources"]).any(|t| t == "*" || t == resource || any_with(t))
                    && (texts(names).next().is_none()
                        || (!name.is_empty() && texts(names).any(|t| t == name)))
            }
        }
    }

    /// 403 in the words that clients know.
    pub(crate) fn forbidden(&self, user: &User, verb: &str) -> ApiError {
        let name = &user.name;
        let Self::Resource { group, resource, namespace, name: object } = *self else {
            let Self::Path(path) = *self else { unreachable!("there are two kinds of target") };
            let message = format!("forbidden: User {name:?} cannot {verb} path {path:?}");
            return ApiError::forbidden(message);
        };
        let plural = resource.split('/').next().unwrap_or_default();
        let mut what = qualified(plural, group);
        if !object.is_empty() {
            what = format!("{what} {object:?}");
        }
        let place = match namespace.filter(|n| !n.is_empty()) {
            Some(namespace) => format!("in the namespace {namespace:?}"),
            None => "at the cluster scope".to_owned(),
        };
        let mut details = json!({"kind": plural});
        for (field, text) in [("name", object), ("group", group)] {
            if !text.is_empty() {
                details[field] = text.into();
            }
        }
        ApiError::forbidden(format!(
            "{what} is forbidden: User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
        ))
        .with_details(details)
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Why `user` may do it; `None` if he may not.
pub(crate) fn allowed(
    storage: &dyn Storage,
    user: &User,
    verb: &str,
    target: Target<'_>,
) -> Option<String> {
    if user.is_master() {
        return Some(String::new());
    }
    let mut why = None;
    visit(storage, user, target.namespace(), &mut |rule, reason| {
        let covered = target.covered(rule, verb);
        if covered {
            why = Some(reason());
        }
        covered
    });
    why
}

/// Every rule that speaks for `user`, for selfsubjectrulesreviews.
pub(crate) fn rules(storage: &dyn Storage, user: &User, namespace: &str) -> Vec<Value> {
    let mut all = Vec::new();
    if user.is_master() {
        all.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        all.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    visit(storage, user, Some(namespace), &mut |rule, _| {
        all.push(rule.clone());
        false
    });
    all
}

type Visitor<'a> = dyn FnMut(&Value, &dyn Fn() -> String) -> bool + 'a;

/// Shows every rule bound to `user`, cluster-wide and in `namespace`, until the visitor has seen enough.
fn visit(storage: &dyn Storage, user: &User, namespace: Option<&str>, visitor: &mut Visitor<'_>) {
    let mut places = vec![("ClusterRoleBinding", format!("{GROUP}/clusterrolebindings/"), None)];
    if let Some(namespace) = namespace {
        let prefix = format!("{GROUP}/rolebindings/{namespace}/");
        places.push(("RoleBinding", prefix, Some(namespace)));
    }
    for (kind, prefix, namespace) in places {
        for binding in list(storage, &prefix) {
            let binding = binding.value();
            let Some(subject) = subject(binding, user, namespace) else { continue };
            let reference = &binding["roleRef"];
            let reason = || {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                format!(
                    "RBAC: allowed by {kind} {:?} of {} {:?} to {} {:?}",
                    text(&binding["metadata"]["name"]),
                    text(&reference["kind"]),
                    text(&reference["name"]),
                    text(&subject["kind"]),
                    text(&subject["name"])
                )
            };
            for role in roles(storage, reference, namespace) {
                let rules = role.value()["rules"].as_array();
                if rules.into_iter().flatten().any(|rule| visitor(rule, &reason)) {
                    return;
                }
            }
        }
    }
}

fn list(storage: &dyn Storage, prefix: &str) -> Vec<Arc<Object>> {
    storage.list(prefix, None).map(|listing| listing.objects).unwrap_or_default()
}

/// The subject of a binding that `user` is.
fn subject<'a>(binding: &'a Value, user: &User, namespace: Option<&str>) -> Option<&'a Value> {
    let is = |subject: &&Value| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => name == user.name,
            Some("Group") => user.groups.iter().any(|group| group == name),
            Some("ServiceAccount") => {
                let own = subject["namespace"].as_str().filter(|n| !n.is_empty()).or(namespace);
                own.is_some_and(|own| user.name == format!("system:serviceaccount:{own}:{name}"))
            }
            _ => false,
        }
    };
    binding["subjects"].as_array().into_iter().flatten().find(is)
}

/// The role that is referred to, and those that it aggregates.
fn roles(storage: &dyn Storage, reference: &Value, namespace: Option<&str>) -> Vec<Arc<Object>> {
    let name = reference["name"].as_str().unwrap_or_default();
    let key = match (reference["kind"].as_str(), namespace) {
        (Some("ClusterRole"), _) => format!("{GROUP}/clusterroles/{name}"),
        (Some("Role"), Some(namespace)) => format!("{GROUP}/roles/{namespace}/{name}"),
        _ => return Vec::new(),
    };
    let Some(role) = storage.get(&key) else { return Vec::new() };
    let selectors = role.value()["aggregationRule"]["clusterRoleSelectors"].as_array().cloned();
    let mut all = vec![role];
    if let Some(selectors) = selectors {
        let chosen = |role: &Arc<Object>| selectors.iter().any(|s| selects(s, role.value()));
        all.extend(list(storage, &format!("{GROUP}/clusterroles/")).into_iter().filter(chosen));
    }
    all
}

/// Whether a label selector, as objects have it, matches.
fn selects(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let mut expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    wanted.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && expressions.all(|expression| {
            let found = expression["key"].as_str().and_then(|key| labels.get(key)?.as_str());
            let among = |text: &str| texts(&expression["values"]).any(|t| t == text);
            match expression["operator"].as_str() {
                Some("In") => found.is_some_and(among),
                Some("NotIn") => !found.is_some_and(among),
                Some("Exists") => found.is_some(),
                Some("DoesNotExist") => found.is_none(),
                _ => false,
            }
        })
}

/// Nobody grants more than he has: refuses a role, or a binding to one, that goes beyond what `user`
/// may do, unless he may `escalate` roles or `bind` this one. What a binding refers to stays.
pub(crate) fn check_grant(
    storage: &dyn Storage,
    user: &User,
    resource: &Resource,
    before: Option<&Value>,
    after: &Value,
) -> Result<()> {
    if resource.group != GROUP {
        return Ok(());
    }
    let name = after["metadata"]["name"].as_str().unwrap_or_default();
    let binding = resource.plural.ends_with("bindings");
    if binding && before.is_some_and(|before| before["roleRef"] != after["roleRef"]) {
        let cause = Cause::invalid("roleRef", "Invalid value: cannot change roleRef");
        return Err(ApiError::invalid(&resource.kind, GROUP, name, &[cause]));
    }
    let fields: &[&str] = if binding { &["subjects"] } else { &["rules", "aggregationRule"] };
    let unchanged = |before: &Value| fields.iter().all(|f| before.get(f) == after.get(f));
    if user.is_master() || before.is_some_and(unchanged) {
        return Ok(());
    }
    let namespace = after["metadata"]["namespace"].as_str();
    let (verb, about, role) = if binding {
        let kind = if after["roleRef"]["kind"] == "Role" { "roles" } else { "clusterroles" };
        ("bind", kind, after["roleRef"]["name"].as_str().unwrap_or_default())
    } else {
        ("escalate", resource.plural.as_str(), name)
    };
    let target = Target::Resource { group: GROUP, resource: about, namespace, name: role };
    if allowed(storage, user, verb, target).is_some() {
        return Ok(());
    }
    let granted: Vec<Value> = if binding {
        let roles = roles(storage, &after["roleRef"], namespace);
        let rules = |role: &Arc<Object>| role.value()["rules"].as_array().cloned();
        roles.iter().filter_map(rules).flatten().collect()
    } else {
        after["rules"].as_array().cloned().unwrap_or_default()
    };
    let aggregates = !binding && after.get("aggregationRule").is_some();
    let missing = if aggregates {
        Some(json!("aggregationRule"))
    } else {
        beyond(storage, user, namespace, &granted)
    };
    match missing {
        None => Ok(()),
        Some(rule) => Err(ApiError::forbidden(format!(
            "{} {name:?} is forbidden: user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held: {rule}",
            qualified(&resource.plural, GROUP),
            user.name,
            user.groups
        ))),
    }
}

/// The first of `rules` that `user` does not have wholly.
fn beyond(
    storage: &dyn Storage,
    user: &User,
    namespace: Option<&str>,
    rules: &[Value],
) -> Option<Value> {
    let mut left = GRANTS;
    let mut has = |verb: &str, target: Target<'_>| {
        left = left.saturating_sub(1);
        left > 0 && allowed(storage, user, verb, target).is_some()
    };
    let mut covered = |rule: &Value| {
        let mut names: Vec<_> = texts(&rule["resourceNames"]).collect();
        if names.is_empty() {
            names.push("");
        }
        texts(&rule["verbs"]).all(|verb| {
            texts(&rule["nonResourceURLs"]).all(|url| has(verb, Target::Path(url)))
                && texts(&rule["apiGroups"]).all(|group| {
                    texts(&rule["resources"]).all(|resource| {
                        names.iter().all(|name| {
                            has(verb, Target::Resource { group, resource, namespace, name })
                        })
                    })
                })
        })
    };
    rules.iter().find(|rule| !covered(rule)).cloned()
}

/// The roles and bindings that every cluster has.
pub(crate) fn standard() -> Vec<Value> {
    let role = |name: &str, rules: Value| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}, "rules": rules})
    };
    let binding = |name: &str, groups: &[&str]| {
        let subject = |group: &&str| json!({"apiGroup": GROUP, "kind": "Group", "name": group});
        let subjects: Vec<_> = groups.iter().map(subject).collect();
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}, "subjects": subjects})
    };
    let on = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
    let everything =
        ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    let read = ["get", "list", "watch"];
    let core = [
        "configmaps",
        "endpoints",
        "pods",
        "pods/status",
        "serviceaccounts",
        "services",
        "services/status",
    ];
    let policies = [
        "networkpolicies",
        "networksets",
        "stagednetworkpolicies",
        "stagedkubernetesnetworkpolicies",
    ];
    let in_tiers = ["tier.networkpolicies", "tier.stagednetworkpolicies"];
    let ours = |verbs: &[&str]| {
        vec![
            on(&[""], &core, verbs),
            on(&["projectcalico.org"], &policies, verbs),
            on(&["networking.k8s.io"], &["networkpolicies"], verbs),
        ]
    };
    let view = || {
        let mut rules = ours(&read);
        rules.push(on(&[""], &["events", "namespaces", "namespaces/status"], &read));
        rules.push(on(&["discovery.k8s.io"], &["endpointslices"], &read));
        rules.push(on(&["projectcalico.org"], &["workloadendpoints", "tiers"], &read));
        rules.push(on(&["projectcalico.org"], &in_tiers, &read));
        rules
    };
    let mut edit = view();
    edit.extend(ours(&everything));
    // Other tiers are for those who say what others may do.
    let mut own_tier = on(&["projectcalico.org"], &in_tiers, &everything);
    own_tier["resourceNames"] = json!(["default.*"]);
    edit.push(own_tier);
    edit.push(on(&[""], &["secrets"], &everything));
    edit.push(on(&[""], &["pods/eviction", "serviceaccounts/token"], &["create"]));
    let mut admin = edit.clone();
    admin.push(on(&[GROUP], &["roles", "rolebindings"], &everything));
    admin.push(on(&["authorization.k8s.io"], &["localsubjectaccessreviews"], &["create"]));
    let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
    vec![
        role(
            "cluster-admin",
            json!([on(&["*"], &["*"], &["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        role("admin", admin.into()),
        role("edit", edit.into()),
        role("view", view().into()),
        role(
            "system:basic-user",
            json!([
                on(&["authorization.k8s.io"], &reviews, &["create"]),
                on(&["authentication.k8s.io"], &["selfsubjectreviews"], &["create"])
            ]),
        ),
        role(
            "system:discovery",
            json!([{"verbs": ["get"], "nonResourceURLs": ["/", "/api", "/api/*",
            "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}]),
        ),
        role(
            "calico-default-tier",
            json!([{"apiGroups": ["projectcalico.org"], "resources": ["tiers"],
                "resourceNames": ["default"], "verbs": ["get"]}]),
        ),
        binding("cluster-admin", &[crate::auth::MASTERS]),
        binding("calico-default-tier", &["system:authenticated"]),
        binding("system:basic-user", &["system:authenticated"]),
        binding("system:discovery", &["system:authenticated"]),
    ]
}

/// The schemas of the kinds: kind, and the properties beside the metadata.
pub(crate) fn schemas() -> [(&'static str, Value); 4] {
    let strings = || json!({"type": "array", "items": {"type": "string"}});
    let rule = json!({"type": "object", "required": ["verbs"], "properties": {
        "apiGroups": strings(), "nonResourceURLs": strings(), "resourceNames": strings(),
        "resources": strings(), "verbs": strings()}});
    let rules = json!({"type": "array", "items": rule});
    let requirement = json!({"type": "object", "required": ["key", "operator"], "properties": {
        "key": {"type": "string"}, "operator": {"type": "string"}, "values": strings()}});
    let selector = json!({"type": "object", "properties": {
        "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
        "matchExpressions": {"type": "array", "items": requirement}}});
    let aggregation = json!({"type": "object", "properties": {
        "clusterRoleSelectors": {"type": "array", "items": selector}}});
    let reference = json!({"type": "object", "required": ["kind", "name"], "properties": {
        "apiGroup": {"type": "string", "enum": [GROUP], "default": GROUP},
        "kind": {"type": "string", "enum": ["ClusterRole", "Role"]}, "name": {"type": "string", "minLength": 1}}});
    let subject = json!({"type": "object", "required": ["kind", "name"], "properties": {
        "apiGroup": {"type": "string"}, "kind": {"type": "string", "enum": ["User", "Group", "ServiceAccount"]},
        "name": {"type": "string", "minLength": 1}, "namespace": {"type": "string"}}});
    let object = |required: &[&str], properties: Value| {
        let mut all = json!({"apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object"}});
        for (name, schema) in properties.as_object().into_iter().flatten() {
            all[name] = schema.clone();
        }
        json!({"type": "object", "required": required, "properties": all})
    };
    let role = object(&[], json!({"rules": rules}));
    let cluster_role = object(&[], json!({"rules": rules, "aggregationRule": aggregation}));
    let binding = object(
        &["roleRef"],
        json!({"roleRef": reference, "subjects": {"type": "array", "items": subject}}),
    );
    [
        ("ClusterRole", cluster_role),
        ("Role", role),
        ("ClusterRoleBinding", binding.clone()),
        ("RoleBinding", binding),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on<'a>(group: &'a str, resource: &'a str, name: &'a str) -> Target<'a> {
        Target::Resource { group, resource, namespace: Some("a"), name }
    }

    #[test]
    fn rules_cover_what_they_name() {
        let rule = json!({"verbs": ["get", "list"], "apiGroups": ["", "x.io"],
            "resources": ["pods", "*/status"], "resourceNames": []});
        assert!(on("", "pods", "p").covered(&rule, "get"));
        assert!(on("x.io", "things/status", "").covered(&rule, "list"));
        for (target, verb) in [
            (on("", "pods", ""), "watch"),
            (on("apps", "pods", ""), "get"),
            (on("", "pods/log", ""), "get"),
            (on("", "secrets", ""), "get"),
        ] {
            assert!(!target.covered(&rule, verb), "{target:?} {verb}");
        }
        let named =
            json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["n"]});
        assert!(on("any", "pods/log", "n").covered(&named, "any"));
        assert!(!on("any", "pods", "m").covered(&named, "any"));
        assert!(!on("any", "pods", "").covered(&named, "list"));
        let paths = json!({"verbs": ["get"], "nonResourceURLs": ["/api", "/apis/*"]});
        for (path, yes) in [("/api", true), ("/api/v1", false), ("/apis/x", true), ("/", false)] {
            assert_eq!(Target::Path(path).covered(&paths, "get"), yes, "{path}");
        }
        assert!(!Target::Path("/api").covered(&named, "get"));
    }

    #[test]
    fn subjects_are_found() {
        let binding = json!({"subjects": [{"kind": "User", "name": "eve"}, {"kind": "Group", "name": "dev"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}, {"kind": "ServiceAccount", "name": "here"}]});
        let is = |user: User, namespace| subject(&binding, &user, namespace).is_some();
        assert!(is(User::new("eve", &[]), None) && is(User::new("x", &["dev"]), None));
        assert!(is(User::new("system:serviceaccount:n:s", &[]), None));
        assert!(is(User::new("system:serviceaccount:a:here", &[]), Some("a")));
        assert!(!is(User::new("system:serviceaccount:b:here", &[]), Some("a")));
        assert!(!is(User::new("dev", &["eve"]), None));
    }
}
