//! Field ownership: which manager set which field, kept in `metadata.managedFields`. Works on objects as
//! they are stored, with the schema of the resource they are stored under.

use openapi::managed::{ApplyError, apply as apply_fields, track as track_fields};
use serde_json::{Value, json};

use crate::api::Api;
use crate::request::Call;
use crate::status::{ApiError, Result};

/// Records who wrote what in `after`, a write other than server-side apply.
pub(crate) fn track(api: &Api, call: &Call, before: Option<&Value>, after: &mut Value, time: &str) {
    if !api.options.ownership {
        return;
    }
    let home = api.home(&call.resource);
    if let Some(schema) = &home.shape.schema {
        let subresource = call.subresource.as_deref().unwrap_or_default();
        track_fields(schema, before, after, &call.manager(), subresource, time);
    }
}

/// Server-side apply of a shown `body` onto the stored `live`. Returns the result in shown form.
pub(crate) fn apply(
    api: &Api,
    call: &Call,
    live: Option<&Value>,
    body: &Value,
    time: &str,
) -> Result<Value> {
    let home = api.home(&call.resource);
    let Some(schema) = &home.shape.schema else {
        return Err(ApiError::internal(format!("no schema for {}", home.kind)));
    };
    let view = call.resource.view;
    let applied = view.configuration(body);
    let subresource = call.subresource.as_deref().unwrap_or_default();
    let (manager, force) = (call.manager(), call.query.flag("force")?);
    let object =
        apply_fields(schema, live, &applied, &manager, force, subresource, time).map_err(refuse)?;
    Ok(view.show(&object, &call.resource.api_version(), &call.resource.kind))
}

fn refuse(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Invalid(message) => ApiError::bad_request(message),
        ApplyError::Conflict { message, causes } => {
            let cause = |c: &openapi::managed::Conflict| json!({"reason": "FieldManagerConflict", "message": c.message, "field": c.field});
            let causes: Vec<_> = causes.iter().map(cause).collect();
            ApiError::new(409, "Conflict", message).with_details(json!({"causes": causes}))
        }
    }
}
