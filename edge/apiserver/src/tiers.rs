//! Tiers that stay: those that are always there, and those with policies in them.

use model::policy::Tier;

use crate::api::Api;
use crate::registry::Resource;
use crate::status::{ApiError, Result};
use crate::storage::Wanted;

/// Refuses to delete a tier that is built in or not empty; other objects may go. Takes time in proportion to
/// the number of policies.
pub(crate) async fn removable(api: &Api, resource: &Resource, name: &str) -> Result<()> {
    if !resource.is("projectcalico.org", "tiers") {
        return Ok(());
    }
    let refuse = |why: &str| {
        Err(ApiError::forbidden(format!("tiers.projectcalico.org {name:?} is forbidden: {why}")))
    };
    if Tier::built_in(name).is_some() {
        return refuse("this tier is always there and cannot be deleted");
    }
    for plural in api::TIERED {
        let prefix = format!("projectcalico.org/{plural}/");
        api.storage.settle(&prefix, Wanted::Latest).await?;
        let listing = api.storage.list(&prefix, None)?;
        let inside = listing.objects.iter().find(|object| object.value()["spec"]["tier"] == name);
        if let Some(object) = inside {
            let metadata = &object.value()["metadata"];
            let text = |field: &str| metadata[field].as_str().unwrap_or_default();
            let slash = if metadata["namespace"].is_string() { "/" } else { "" };
            let what = format!("{plural} {}{slash}{}", text("namespace"), text("name"));
            return refuse(&format!("it is not empty, delete what is in it first: {what}"));
        }
    }
    Ok(())
}
