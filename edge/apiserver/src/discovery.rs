//! What there is: `/api`, `/apis`, and the resources of each group version, in the aggregated form and
//! the older one.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::registry::{Registry, Resource, api_version};

const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn verbs_of(resource: &Resource) -> &'static [&'static str] {
    if resource.origins.writable() { &VERBS } else { &["get", "list", "watch"] }
}

/// The media type of aggregated discovery.
pub(crate) const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` in the older form.
pub(crate) fn versions(registry: &Registry) -> Value {
    let groups = registry.groups();
    let core = groups.into_iter().find(|(group, _)| group.is_empty()).unwrap_or_default();
    json!({"kind": "APIVersions", "versions": core.1,
        "serverAddressByClientCIDRs": []})
}

/// `/apis` in the older form.
pub(crate) fn groups(registry: &Registry) -> Value {
    let groups: Vec<_> = registry
        .groups()
        .iter()
        .filter(|(g, _)| !g.is_empty())
        .map(|(g, v)| describe(g, v))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(crate) fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (name, versions) = registry.groups().into_iter().find(|(group, _)| group == name)?;
    let mut group = describe(&name, &versions);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn describe(group: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": api_version(group, v), "version": v});
    let all: Vec<_> = versions.iter().map(version).collect();
    json!({"name": group, "versions": all, "preferredVersion": all[0]})
}

fn of<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Arc<Resource>> {
    registry.resources.iter().filter(move |r| r.group == group && r.version == version)
}

/// `/api/v1` or `/apis/GROUP/VERSION` in the older form.
pub(crate) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in of(registry, group, version) {
        list.push(json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs_of(resource), "shortNames": resource.short_names,
            "categories": resource.categories,
        }));
        for (name, kind, verbs) in subresources(resource) {
            list.push(json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind.2, "group": kind.0, "version": kind.1,
                "verbs": verbs,
            }));
        }
    }
    (!list.is_empty()).then(|| {
        json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": api_version(group, version), "resources": list})
    })
}

type Kind = (String, String, String);

fn subresources(resource: &Resource) -> Vec<(&'static str, Kind, Vec<&'static str>)> {
    let own = || (resource.group.clone(), resource.version.clone(), resource.kind.clone());
    let kind = |g: &str, v: &str, k: &str| (g.to_owned(), v.to_owned(), k.to_owned());
    let mut all = Vec::new();
    if resource.status {
        all.push(("status", own(), vec!["get", "patch", "update"]));
    }
    for name in &resource.subresources {
        all.push(match *name {
            "binding" => (*name, kind("", "v1", "Binding"), vec!["create"]),
            "eviction" => (*name, kind("policy", "v1", "Eviction"), vec!["create"]),
            "token" => (*name, kind("authentication.k8s.io", "v1", "TokenRequest"), vec!["create"]),
            _ => (*name, own(), vec!["update"]),
        });
    }
    all
}

/// `/api` (core) or `/apis` (all other groups), everything in one document.
pub(crate) fn aggregated(registry: &Registry, core: bool) -> Value {
    let groups = registry.groups();
    let items: Vec<_> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<_> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<_> =
                        of(registry, group, version).map(|r| entry(r)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items})
}

fn entry(resource: &Resource) -> Value {
    let kind =
        |(group, version, kind): &Kind| json!({"group": group, "version": version, "kind": kind});
    let own = (resource.group.clone(), resource.version.clone(), resource.kind.clone());
    let subresources: Vec<_> = subresources(resource)
        .iter()
        .map(|(name, of, verbs)| json!({"subresource": name, "responseKind": kind(of), "verbs": verbs}))
        .collect();
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind(&own),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": verbs_of(resource),
    });
    let lists = [("shortNames", &resource.short_names), ("categories", &resource.categories)];
    for (field, list) in lists {
        if !list.is_empty() {
            entry[field] = list.clone().into();
        }
    }
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
