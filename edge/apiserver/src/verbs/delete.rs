//! delete and deletecollection, with grace, finalizers, preconditions and propagation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::modify::replace;
use super::{Answer, read, show};
use crate::api::{self, Api};
use crate::body;
use crate::derived;
use crate::proto;
use crate::request::Call;
use crate::selectors::Filter;
use crate::status::{ApiError, Result, success};
use crate::storage::{Object, StorageError};
use crate::tier_rights;
use crate::tiers;

/// How often a deletion is tried again when somebody came between.
const TRIES: usize = 10;

/// What a client may ask for with a deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) grace: Option<i64>,
    uid: Option<String>,
    revision: Option<String>,
    propagation: Option<String>,
    dry_run: bool,
}

impl DeleteOptions {
    pub(crate) fn read(call: &Call) -> Result<Self> {
        let mut options = Value::Null;
        if !call.body.is_empty() {
            options = match call.content_type() {
                proto::MEDIA => proto::parse(&call.body)?,
                _ => body::parse(&call.body, body::Encoding::Yaml)?.value,
            };
        }
        Self::from_value(&options, call)
    }

    pub(crate) fn from_value(options: &Value, call: &Call) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let grace = call.query.number("gracePeriodSeconds")?.and_then(|n| i64::try_from(n).ok());
        let orphan = match options["orphanDependents"].as_bool() {
            Some(true) => Some("Orphan".to_owned()),
            Some(false) => Some("Background".to_owned()),
            None => None,
        };
        let query = call.query.get("propagationPolicy").map(str::to_owned);
        let propagation = text(&options["propagationPolicy"]).or(orphan).or(query);
        if let Some(policy) = propagation.as_deref()
            && !matches!(policy, "Orphan" | "Background" | "Foreground")
        {
            return Err(ApiError::bad_request(format!(
                "propagationPolicy {policy:?}: wanted Orphan, Background or Foreground"
            )));
        }
        let dry = options["dryRun"].as_array().is_some_and(|d| d.iter().any(|d| d == "All"));
        Ok(Self {
            grace: options["gracePeriodSeconds"].as_i64().or(grace),
            uid: text(&options["preconditions"]["uid"]),
            revision: text(&options["preconditions"]["resourceVersion"]),
            propagation,
            dry_run: dry || call.query.dry_run()?,
        })
    }

    fn check(&self, call: &Call, object: &Object) -> Result<()> {
        let metadata = &object.value()["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let parts =
            [("UID", "uid", &self.uid), ("ResourceVersion", "resourceVersion", &self.revision)];
        for (title, field, wanted) in parts {
            let found = metadata[field].as_str().unwrap_or_default();
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let why = format!(
                    "Precondition failed: {title} in precondition: {wanted}, {title} in object meta: {found}"
                );
                let resource = &call.resource;
                return Err(ApiError::conflict(&resource.plural, &resource.group, name, &why));
            }
        }
        Ok(())
    }
}

pub(crate) async fn delete(api: &Arc<Api>, call: &Call) -> Result<Answer> {
    let options = DeleteOptions::read(call)?;
    delete_one(api, call, &options).await
}

pub(crate) async fn delete_one(
    api: &Arc<Api>,
    call: &Call,
    options: &DeleteOptions,
) -> Result<Answer> {
    let name = call.name()?;
    derived::check_life(api, &call.resource)?;
    tiers::removable(api, &call.resource, name).await?;
    for tries in 1.. {
        let before = read::find(api, call)?;
        tier_rights::authorize_object(api, call, before.value()).await?;
        options.check(call, &before)?;
        let after = marked(&before, options);
        if options.dry_run {
            return Ok(answer(call, &after));
        }
        if after == *before.value() {
            return Ok(answer(call, &after)); // it is on its way out already
        }
        match replace(api, &before, after).await {
            Err(StorageError::Stale { .. }) if tries < TRIES => {}
            outcome => {
                let object = outcome.map_err(|e| Api::refused(&call.resource, name, e))?;
                return Ok(answer(call, object.value()));
            }
        }
    }
    unreachable!("the loop ends by returning")
}

/// Pods, services and service accounts are shown; of others a `Status` unless they are still there.
fn answer(call: &Call, object: &Value) -> Answer {
    let metadata = &object["metadata"];
    let shown = matches!(call.resource.plural.as_str(), "pods" | "services" | "serviceaccounts");
    let held = metadata["finalizers"].as_array().is_some_and(|f| !f.is_empty())
        || call.resource.is("", "namespaces");
    if (shown && call.resource.group.is_empty()) || held {
        return Answer::Object(200, show(call, object));
    }
    let text = |field: &str| metadata[field].as_str().unwrap_or_default();
    Answer::Other(
        200,
        success(&call.resource.plural, &call.resource.group, text("name"), text("uid")),
    )
}

/// The object with the marks of its deletion. If nothing holds it, the caller removes it.
fn marked(before: &Object, options: &DeleteOptions) -> Value {
    let mut after = before.value().clone();
    let grace = grace(&after, options);
    let metadata = &mut after["metadata"];
    let earlier = metadata["deletionGracePeriodSeconds"].as_i64();
    let dying = metadata.get("deletionTimestamp").is_some();
    if !dying || earlier.is_some_and(|earlier| grace < earlier) {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(grace);
        metadata["deletionTimestamp"] = match at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string() {
            _ if grace == 0 && !dying => api::now(),
            at => at,
        }
        .into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    match options.propagation.as_deref() {
        Some("Foreground") => hold(metadata, "foregroundDeletion", "orphan"),
        Some("Orphan") => hold(metadata, "orphan", "foregroundDeletion"),
        _ => {}
    }
    if after["apiVersion"] == "v1" && after["kind"] == "Namespace" {
        after["status"]["phase"] = "Terminating".into();
        if let Some(metadata) = after["metadata"].as_object_mut() {
            metadata.shift_remove("deletionGracePeriodSeconds");
        }
    }
    after
}

fn hold(metadata: &mut Value, add: &str, remove: &str) {
    let mut list = metadata["finalizers"].as_array().cloned().unwrap_or_default();
    list.retain(|f| f != remove && f != add);
    list.push(add.into());
    metadata["finalizers"] = list.into();
}

/// Seconds that a pod has to stop; other objects have none.
fn grace(object: &Value, options: &DeleteOptions) -> i64 {
    let pod = object["apiVersion"] == "v1" && object["kind"] == "Pod";
    let bound = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !pod || !bound || over {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace.unwrap_or(own).max(0)
}

pub(crate) async fn collection(api: &Arc<Api>, call: &Call) -> Result<Answer> {
    let filter = Filter::from_query(&call.query, &call.resource)?;
    let options = DeleteOptions::read(call)?;
    let listing = api.storage.list(&call.prefix(), None)?;
    let mut gone = Vec::new();
    for object in listing.objects {
        if !read::filter_shown(call, &filter, &object) {
            continue;
        }
        let metadata = &object.value()["metadata"];
        let mut one = call.clone();
        one.name = metadata["name"].as_str().map(str::to_owned);
        one.namespace = metadata["namespace"].as_str().map(str::to_owned);
        match delete_one(api, &one, &options).await {
            Err(error) if error.code == 404 => {}
            outcome => drop(outcome?),
        }
        gone.push(show(call, object.value()));
    }
    Ok(Answer::Other(
        200,
        json!({
            "kind": call.resource.list_kind, "apiVersion": call.resource.api_version(),
            "metadata": {"resourceVersion": api.storage.revision(&call.resource.prefix()).to_string()}, "items": gone,
        }),
    ))
}
