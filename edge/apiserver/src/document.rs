//! The OpenAPI documents of what is served.

use serde_json::{Value, json};

use crate::registry::Registry;

/// The document at `/openapi/...`.
pub(crate) fn find(registry: &Registry, parts: &[&str]) -> Option<Value> {
    match parts {
        ["v3"] => {
            let groups = registry.groups();
            let path = |group: &str, version: &str| match group {
                "" => format!("api/{version}"),
                group => format!("apis/{group}/{version}"),
            };
            let mut paths = json!({});
            for (group, versions) in &groups {
                for version in versions {
                    let path = path(group, version);
                    paths[&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}")});
                }
            }
            Some(json!({"paths": paths}))
        }
        _ => None,
    }
}
