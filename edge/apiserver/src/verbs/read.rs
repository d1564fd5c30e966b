//! get and list.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Answer, answer_with, show};
use crate::api::Api;
use crate::derived::{self, Origins};
use crate::request::Call;
use crate::selectors::Filter;
use crate::status::{ApiError, Result};
use crate::storage::{Object, StorageError};
use crate::tier_rights;
use crate::view::View;

/// Objects that are looked at in one go where a filter may pass few of them.
const AT_ONCE: usize = 100;

/// A page of a list.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) next: Option<String>,
    pub(crate) remaining: Option<usize>,
}

pub(crate) async fn get(api: &Api, call: &Call) -> Result<Answer> {
    not_newer(api, call)?;
    let object = find(api, call)?;
    tier_rights::authorize_object(api, call, object.value()).await?;
    Ok(answer_with(call, 200, object))
}

/// The stored object that the call names.
pub(crate) fn find(api: &Api, call: &Call) -> Result<Arc<Object>> {
    let name = call.name()?;
    let object = derived::get(api, call, name);
    object.ok_or_else(|| ApiError::not_found(&call.resource.plural, &call.resource.group, name))
}

/// The revision in `resourceVersion`: `None` if unset or 0, which both mean "any".
pub(crate) fn revision(call: &Call) -> Result<Option<u64>> {
    match call.query.get("resourceVersion") {
        None | Some("0") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!("invalid resource version {text:?}: wanted a number"))
        }),
    }
}

/// Refuses to answer from before a revision that has not been reached.
fn not_newer(api: &Api, call: &Call) -> Result<()> {
    let current = derived::revision(&*api.storage, &call.resource);
    match revision(call)? {
        Some(asked) if asked > current => Err(too_large(asked, current)),
        _ => Ok(()),
    }
}

pub(crate) fn too_large(asked: u64, current: u64) -> ApiError {
    let message = format!("Too large resource version: {asked}, current: {current}");
    ApiError::new(504, "Timeout", message).with_details(json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }))
}

pub(crate) fn list(api: &Api, call: &Call) -> Result<Answer> {
    not_newer(api, call)?;
    let filter = Filter::from_query(&call.query, &call.resource)?;
    let limit = call.query.number("limit")?.filter(|limit| *limit > 0);
    let exact = match call.query.get("resourceVersionMatch") {
        None | Some("NotOlderThan") => None,
        Some("Exact") => revision(call)?,
        Some(other) => {
            return Err(ApiError::bad_request(format!(
                "resourceVersionMatch {other:?}: wanted Exact or NotOlderThan"
            )));
        }
    };
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let begun = call.query.get("continue").map(parse_token).transpose()?;
    if let (Some(begun), Some(limit), Origins::Stored) = (&begun, limit, call.resource.origins) {
        return next_page(api, call, &filter, (begun, limit));
    }
    let at = begun.as_ref().map_or(exact, |token| Some(token.revision));
    let listing = derived::list(api, call, at).map_err(|error| match begun {
        Some(_) => too_old(&error),
        None => error.into(),
    })?;
    let start = begun.as_ref().map(|token| &*token.start);
    let begun = |o: &&Arc<Object>| start.is_none_or(|start| &**o.key() > start);
    let ours = |o: &&Arc<Object>| named(call, o) && filter_shown(call, &filter, o);
    let mut objects: Vec<_> = listing.objects.iter().filter(begun).filter(ours).cloned().collect();
    let mut page =
        Page { revision: listing.revision, objects: Vec::new(), next: None, remaining: None };
    if let Some(limit) = limit.filter(|limit| *limit < objects.len()) {
        let rest = objects.split_off(limit);
        page.remaining = (filter.is_empty() && call.tiers.is_none()).then_some(rest.len());
        page.next = objects.last().map(|last| token(listing.revision, last.key(), page.remaining));
    }
    page.objects = objects;
    Ok(Answer::List(page))
}

/// The next page of a list that was begun, without a look at what comes behind it.
fn next_page(
    api: &Api,
    call: &Call,
    filter: &Filter,
    (begun, limit): (&Token, usize),
) -> Result<Answer> {
    let prefixes = call.resource.origins.prefixes(&call.resource, call.namespace.as_deref());
    let prefix = prefixes.first().expect("there is at least one");
    let (mut objects, mut more) = (Vec::new(), false);
    let mut start = begun.start.clone();
    while !more {
        // One more than wanted, which says whether there is more.
        let most = (limit - objects.len()).max(AT_ONCE).saturating_add(1);
        let part = api.storage.part((prefix, &start), begun.revision, most);
        let part = part.map_err(|error| too_old(&error))?;
        let at_the_end = part.len() < most;
        for object in part {
            start = object.key().to_string();
            if named(call, &object) && filter_shown(call, filter, &object) {
                if objects.len() == limit {
                    more = true;
                    break;
                }
                objects.push(object);
            }
        }
        if at_the_end {
            break;
        }
    }
    let remaining = begun.remaining.filter(|_| more).and_then(|n| n.checked_sub(objects.len()));
    let last = objects.last().filter(|_| more);
    let next = last.map(|last| token(begun.revision, last.key(), remaining));
    Ok(Answer::List(Page { revision: begun.revision, objects, next, remaining }))
}

fn too_old(error: &StorageError) -> ApiError {
    ApiError::expired(format!(
        "The provided continue parameter is too old to display a consistent list result: {error}"
    ))
}

/// Whether `object` passes `filter` in the form the client sees, and is in a tier that he may see.
pub(crate) fn filter_shown(call: &Call, filter: &Filter, object: &Object) -> bool {
    if call.tiers.as_ref().is_some_and(|tiers| !tiers.hold(object.value())) {
        return false;
    }
    match call.resource.view {
        // Field selectors of both kinds of event use the core names.
        View::Same | View::Version | View::Event => filter.matches(object.value()),
        View::CalicoNode => filter.is_empty() || filter.matches(&show(call, object.value())),
    }
}

/// Whether the call is for all objects or for this one.
pub(crate) fn named(call: &Call, object: &Object) -> bool {
    call.name.as_deref().is_none_or(|name| object.value()["metadata"]["name"] == name)
}

/// Where a page ended, for the next one.
struct Token {
    revision: u64,
    /// The last key.
    start: String,
    /// How many come behind it, if that was counted.
    remaining: Option<usize>,
}

fn token(revision: u64, last: &str, remaining: Option<usize>) -> String {
    let token = json!({"rv": revision, "start": last, "left": remaining});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn parse_token(text: &str) -> Result<Token> {
    let bad = || ApiError::bad_request("continue key is not valid: not a token of this server");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let start = token["start"].as_str().ok_or_else(bad)?.to_owned();
    let revision = token["rv"].as_u64().ok_or_else(bad)?;
    let remaining = token["left"].as_u64().and_then(|n| n.try_into().ok());
    Ok(Token { revision, start, remaining })
}
