//! The verbs of a resource, from a taken-apart request to an answer.

pub(crate) mod create;
pub(crate) mod delete;
mod json_patch;
pub(crate) mod modify;
pub(crate) mod read;
pub(crate) mod subresource;
pub(crate) mod watch;

use std::sync::Arc;

use hyper::Method;
use serde_json::Value;

use crate::api::Api;
use crate::derived;
use crate::request::Call;
use crate::status::{ApiError, Result};
use crate::storage::Object;
use crate::system;
use crate::tier_rights;
use crate::view::View;

/// What a verb answers with.
pub(crate) enum Answer {
    /// One object, in shown form.
    Object(u16, Value),
    /// One object as stored; only for resources shown as they are stored.
    Stored(u16, Arc<Object>),
    /// A `Status` or another object that is not of the resource.
    Other(u16, Value),
    /// A list.
    List(read::Page),
    /// A watch.
    Watch(Box<watch::Watch>),
}

/// An answer and the warnings that go with it.
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) warnings: Vec<String>,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self { answer, warnings: Vec::new() }
    }
}

/// Performs a request.
pub(crate) async fn perform(api: &Arc<Api>, call: &Call) -> Result<Outcome> {
    check_scope(call)?;
    let reads = matches!(call.method, Method::GET | Method::HEAD);
    if !reads {
        derived::check_write(&call.resource, call.name.as_deref())?;
        if call.resource.is(tier_rights::GROUP, "clusterinformations") && api.delegate().is_some() {
            system::check_cluster_information(&call.user, &api.options.system_namespaces)?;
        }
    }
    derived::settle(api, call).await?;
    let confined = match call.verb {
        "list" | "watch" | "deletecollection" => tier_rights::confine(api, call).await?,
        _ => None,
    };
    let confined = confined.map(|tiers| Call { tiers: Some(tiers), ..call.clone() });
    let call = confined.as_ref().unwrap_or(call);
    if let Some(subresource) = call.subresource.as_deref() {
        return subresource::perform(api, call, subresource).await;
    }
    match (&call.method, &call.name) {
        (&Method::GET | &Method::HEAD, _) if call.query.flag("watch")? => {
            watch::start(api, call).map(Outcome::from)
        }
        (&Method::GET | &Method::HEAD, Some(_)) => read::get(api, call).await.map(Outcome::from),
        (&Method::GET | &Method::HEAD, None) => read::list(api, call).map(Outcome::from),
        (&Method::POST, None) => create::create(api, call).await,
        (&Method::PUT, Some(_)) => modify::update(api, call).await,
        (&Method::PATCH, Some(_)) => modify::patch(api, call).await,
        (&Method::DELETE, Some(_)) => delete::delete(api, call).await.map(Outcome::from),
        (&Method::DELETE, None) => delete::collection(api, call).await.map(Outcome::from),
        _ => Err(ApiError::method_not_allowed("this resource")),
    }
}

/// Namespaced resources are written inside a namespace, others never.
fn check_scope(call: &Call) -> Result<()> {
    let resource = &call.resource;
    match (resource.namespaced, &call.namespace) {
        (false, Some(_)) => Err(ApiError::no_such_resource()),
        (true, None) if call.name.is_some() => Err(ApiError::no_such_resource()),
        (true, None) if call.method == Method::POST => Err(ApiError::bad_request(format!(
            "an empty namespace may not be set during creation of {}",
            resource.plural
        ))),
        _ => Ok(()),
    }
}

/// The shown form of a stored object.
pub(crate) fn show(call: &Call, object: &Value) -> Value {
    call.resource.view.show(object, &call.resource.api_version(), &call.resource.kind)
}

/// An object as the answer to the request that read or wrote it.
pub(crate) fn answer_with(call: &Call, code: u16, object: Arc<Object>) -> Answer {
    match call.resource.view {
        View::Same => Answer::Stored(code, object),
        _ => Answer::Object(code, show(call, object.value())),
    }
}
