//! create.

use std::sync::Arc;

use serde_json::Value;

use super::{Answer, Outcome, answer_with, show};
use crate::admission;
use crate::api::{self, Api};
use crate::body;
use crate::derived;
use crate::draft;
use crate::managed;
use crate::rbac;
use crate::request::Call;
use crate::rights::Namespace;
use crate::status::{ApiError, Result};
use crate::storage::{Expect, StorageError};
use crate::tier_rights;

/// How often a generated name is tried again when it is taken.
const TRIES: usize = 8;

pub(crate) async fn create(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    let mut parsed = call.parse_body()?;
    let mut warnings = Vec::new();
    draft::check_body(call, &mut parsed.value, &parsed.duplicates, &mut warnings)?;
    let generated = parsed.value["metadata"]["name"].as_str().is_none_or(str::is_empty);
    // Two services created at once must not choose the same address.
    let _turn = if call.resource.is("", "services") { Some(api.turn.lock().await) } else { None };
    for tries in 1.. {
        let time = api::now();
        let body = if generated { parsed.value.clone() } else { std::mem::take(&mut parsed.value) };
        let mut stored = draft::for_create(api, call, body, &time)?;
        managed::track(api, call, None, &mut stored, &time);
        match insert(api, call, stored).await {
            Err(error) if error.reason == "AlreadyExists" && generated && tries < TRIES => {}
            outcome => return Ok(Outcome { answer: outcome?, warnings }),
        }
    }
    unreachable!("the loop ends by returning")
}

/// Stores a new object, or only says what would be stored.
pub(crate) async fn insert(api: &Api, call: &Call, stored: Value) -> Result<Answer> {
    let name = stored["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    derived::check_write(&call.resource, Some(&name))?;
    derived::check_life(api, &call.resource)?;
    tier_rights::authorize_object(api, call, &stored).await?;
    known_namespace(api, call).await?;
    body::check_extent(&stored)?;
    rbac::check_grant(&*api.storage, &call.user, &call.resource, None, &stored)?;
    let key = call.key(&name);
    let refused = |error| Api::refused(&call.resource, &name, error);
    if call.query.dry_run()? {
        return match api.storage.get(&key) {
            Some(_) => Err(refused(StorageError::Exists { key: key.to_string() })),
            None => Ok(Answer::Object(201, show(call, &stored))),
        };
    }
    let object = api.put(key, Expect::Absent, Some(stored)).await.map_err(refused)?;
    Ok(answer_with(call, 201, object))
}

/// Refuses new objects in a namespace that is not there, or going away, where somebody else has it.
async fn known_namespace(api: &Api, call: &Call) -> Result<()> {
    let (Some(delegate), Some(namespace)) = (api.delegate(), call.namespace.as_deref()) else {
        return Ok(());
    };
    match delegate.namespace(namespace).await? {
        Namespace::Open => Ok(()),
        Namespace::Missing => Err(ApiError::not_found("namespaces", "", namespace)),
        Namespace::Ending => Err(admission::terminating(&call.resource, namespace)),
    }
}
