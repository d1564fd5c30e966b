//! One HTTP request: authentication, the addresses that are no resources, and writing the answer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::access::{self, Trail};
use crate::api::Api;
use crate::audit;
use crate::body;
use crate::connections::{self, Tracker};
use crate::discovery;
use crate::document;
use crate::limits::{Class, Gate, Permit, Upload};
use crate::negotiate::{self, Form, metadata_only};
use crate::proto;
use crate::rbac::Target;
use crate::request::{Call, Path, Query, decode};
use crate::reviews::Review;
use crate::status::{ApiError, Result};
use crate::storage::Object;
use crate::table;
use crate::trust::Certificates;
use crate::verbs::read::Page;
use crate::verbs::{self, Answer, Outcome, show};
use crate::view::View;

/// Lists of more objects are made while they are sent, in parts of this size.
const AT_ONCE: usize = 64;
const PART: usize = 64 << 10;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The body of a request: from a connection, or of this process.
pub(crate) trait Incoming:
    hyper::body::Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin
{
}

impl<B> Incoming for B where
    B: hyper::body::Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin
{
}

/// Who is at the other end of a connection.
pub(crate) struct Peer {
    pub(crate) tracker: Arc<Tracker>,
    pub(crate) address: IpAddr,
    /// What the client has shown of itself.
    pub(crate) certificates: Certificates,
}

/// Answers a request, always.
pub(crate) async fn answer<B: Incoming>(
    api: Arc<Api>,
    peer: &Peer,
    request: Request<B>,
) -> Response<connections::Answer> {
    let in_flight = peer.tracker.request();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut entry = api.audit.clone().map(|log| {
        let agent = request.headers().get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        audit::Entry::new(log, &uri, agent.unwrap_or_default(), peer.address)
    });
    let (mut permit, mut trail) = (None, Trail::default());
    let response =
        handle(&api, peer, request, &mut permit, &mut trail).await.unwrap_or_else(|error| {
            let path = uri.path();
            tracing::debug!(%method, path, code = error.code, message = error.message, "refused");
            refusal(&error)
        });
    let code = response.status().as_u16();
    tracing::trace!(%method, path = uri.path(), code, "request");
    let watch = trail.verb == "watch" && code == 200;
    if let Some(entry) = &mut entry {
        entry.answered(&trail, method.as_str(), code, watch);
    }
    let ending = entry.filter(|_| watch).map(audit::Ending);
    response.map(|body| connections::Answer::new(body, in_flight, (permit, ending)))
}

pub(crate) fn refusal(error: &ApiError) -> Response<Body> {
    let text = Bytes::from(error.status().to_string());
    let mut response = json(error.code, "application/json", text);
    if let Some(seconds) = error.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

pub(crate) fn json(code: u16, media: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let media = header::HeaderValue::from_static(media);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

fn plain(value: &Value) -> Response<Body> {
    json(200, "application/json", Bytes::from(value.to_string()))
}

async fn handle<B: Incoming>(
    api: &Arc<Api>,
    peer: &Peer,
    request: Request<B>,
    permit: &mut Option<Permit>,
    trail: &mut Trail,
) -> Result<Response<Body>> {
    let segments = request.uri().path().split('/').filter(|part| !part.is_empty());
    let parts = segments.map(|part| decode(part, false)).collect::<Result<Vec<_>>>()?;
    if let Some(response) = open_to_all(api, &parts) {
        return Ok(response);
    }
    let user = trail.identify(api, &peer.certificates, request.headers()).await?;
    peer.tracker.authenticated();
    let names: Vec<&str> = parts.iter().map(String::as_str).collect();
    if request.method() == Method::GET
        && let Some(response) = about(api, &names, request.headers())?
    {
        trail.verb = "get";
        trail.authorize(api, &user, Target::Path(request.uri().path())).await?;
        return Ok(response);
    }
    let path = Path::parse(&parts).ok_or_else(ApiError::no_such_resource)?;
    let mut query = Query::parse(request.uri().query().unwrap_or_default())?;
    if path.watch {
        query.set("watch", "true");
    }
    trail.verb = access::verb(request.method(), &path, &query)?;
    trail.path = Some(path.clone());
    trail.authorize_path(api, &user, &query).await?;
    let (head, incoming) = request.into_parts();
    // Whoever knows users and rights answers questions about them, too.
    let review = Review::at(&path, &head.method).filter(|_| api.delegate().is_none());
    if let Some(review) = review {
        let (bytes, _upload) = collect(&api.gate, incoming, body::LIMIT).await?;
        *permit = Some(api.gate.enter(Class::Read, &user.name)?);
        let media = head.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let asked = match media {
            Some(proto::MEDIA) => proto::parse(&bytes)?,
            _ => body::parse(&bytes, body::Encoding::Json)?.value,
        };
        let answer = review.answer(api, &user, asked, &path)?;
        return Ok(json(201, "application/json", Bytes::from(answer.to_string())));
    }
    let resource = api
        .registry()
        .find(&path.group, &path.version, &path.resource)
        .ok_or_else(|| instead(&path))?;
    let (body, _upload) = collect(&api.gate, incoming, body::LIMIT).await?;
    let class = match trail.verb {
        "watch" => Class::Watch,
        "get" | "list" => Class::Read,
        _ => Class::Write,
    };
    *permit = Some(api.gate.enter(class, &user.name)?);
    let call = Call {
        method: head.method,
        verb: trail.verb,
        tiers: None,
        user: Arc::new(user),
        resource,
        namespace: path.namespace,
        name: path.name,
        subresource: path.subresource,
        query,
        headers: head.headers,
        body,
    };
    let form = negotiate::form(&call.headers)?;
    let outcome = verbs::perform(api, &call).await?;
    Ok(write(&call, form, outcome))
}

/// Reads a body, as far as size, time and the other bodies in memory allow.
pub(crate) async fn collect(
    gate: &Arc<Gate>,
    mut incoming: impl Incoming,
    limit: usize,
) -> Result<(Bytes, Upload)> {
    let limits = &gate.limits;
    match tokio::time::timeout(limits.body, read_body(gate, &mut incoming, limit)).await {
        Ok(Err(error)) if error.code != 400 => {
            drop(tokio::time::timeout(limits.body, discard(incoming)).await);
            Err(error)
        }
        Ok(outcome) => outcome,
        Err(_) => Err(ApiError::new(
            408,
            "Timeout",
            format!("the body of the request did not come within {} s", limits.body.as_secs()),
        )),
    }
}

async fn read_body(
    gate: &Arc<Gate>,
    incoming: &mut impl Incoming,
    limit: usize,
) -> Result<(Bytes, Upload)> {
    let mut upload = gate.upload();
    let mut bytes = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::bad_request(format!("the body could not be read: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(body::too_large(limit));
        }
        upload.take(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes.freeze(), upload))
}

/// Reads on, within reason: a client that is still sending when the connection is closed does not
/// see the answer.
async fn discard(mut incoming: impl Incoming) {
    let mut left = 4 * body::LIMIT;
    while let Some(Ok(frame)) = incoming.frame().await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        if read > left {
            return;
        }
        left -= read;
    }
}

/// What a healthy server answers.
pub(crate) fn ok() -> Response<Body> {
    json(200, "text/plain; charset=utf-8", Bytes::from_static(b"ok"))
}

/// Health and version, for which no token is needed.
fn open_to_all(api: &Api, parts: &[String]) -> Option<Response<Body>> {
    let first = parts.first()?.as_str();
    match first {
        "readyz" if api.delegate().is_some_and(|delegate| delegate.trust().is_none()) => {
            let why = "not ready: whose client certificates are good is not known yet\n";
            Some(json(503, "text/plain; charset=utf-8", Bytes::from_static(why.as_bytes())))
        }
        "healthz" | "livez" | "readyz" => Some(ok()),
        "version" if parts.len() == 1 => Some(plain(&json!({
            "major": "1", "minor": "35", "gitVersion": "v1.35.0+calico", "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
            "compiler": "rustc", "platform": format!("linux/{}", std::env::consts::ARCH),
        }))),
        _ => None,
    }
}

/// Addresses that tell about the server: discovery and the OpenAPI documents.
fn about(api: &Api, parts: &[&str], headers: &hyper::HeaderMap) -> Result<Option<Response<Body>>> {
    let registry = api.registry();
    let accepts = negotiate::alternatives(headers);
    let aggregated = accepts
        .iter()
        .find(|a| a.json() && (a.get("as").is_none() || a.get("v") == Some("v2")))
        .is_some_and(|a| a.get("as") == Some("APIGroupDiscoveryList"));
    let found = match parts {
        [] => Some(
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
        ),
        ["api" | "apis"] if aggregated => {
            let document = discovery::aggregated(&registry, parts == ["api"]);
            return Ok(Some(json(200, discovery::AGGREGATED, Bytes::from(document.to_string()))));
        }
        ["api"] => Some(discovery::versions(&registry)),
        ["apis"] => Some(discovery::groups(&registry)),
        ["api", version] => discovery::resources(&registry, "", version),
        ["apis", group] => discovery::group(&registry, group),
        ["apis", group, version] => discovery::resources(&registry, group, version),
        ["openapi", rest @ ..] => {
            if rest == ["v2"] && accepts.first().is_some_and(|a| a.media == document::V2_BINARY) {
                let document = Bytes::from(openapi::document::v2_binary());
                return Ok(Some(json(200, document::V2_BINARY_ANSWER, document)));
            }
            if !accepts.iter().any(negotiate::Alternative::json) {
                return Err(negotiate::not_acceptable("application/json"));
            }
            let document = document::find(&registry, rest);
            let document = document.ok_or_else(ApiError::no_such_resource)?;
            return Ok(Some(json(200, "application/json", document)));
        }
        _ => return Ok(None),
    };
    let found = found.ok_or_else(|| match parts {
        ["apis", group, ..] => instead_group(group),
        _ => ApiError::no_such_resource(),
    })?;
    Ok(Some(plain(&found)))
}

/// What to use instead of a resource that only a full Kubernetes serves.
fn instead(path: &Path) -> ApiError {
    match path.group.as_str() {
        "" if path.resource == "replicationcontrollers" => instead_group("apps"),
        "" if matches!(path.resource.as_str(), "persistentvolumes" | "persistentvolumeclaims") => {
            ApiError::not_served(
                404,
                "storage is not served here: pods of the sandbox have no volumes",
            )
        }
        group => instead_group(group),
    }
}

fn instead_group(group: &str) -> ApiError {
    let text = match group {
        "apps" | "batch" | "autoscaling" => {
            "Deployments, Jobs and other controllers of pods are not served here: create the pods themselves (kubectl run, or kubectl apply of kind Pod)"
        }
        "crd.projectcalico.org" => {
            "crd.projectcalico.org is not served here: use the same kinds of projectcalico.org/v3"
        }
        "storage.k8s.io" => "storage is not served here: pods of the sandbox have no volumes",
        "policy" => "disruption budgets are not served here",
        _ => return ApiError::no_such_resource(),
    };
    ApiError::not_served(404, text)
}

fn write(call: &Call, form: Form, outcome: Outcome) -> Response<Body> {
    let include = call.query.get("includeObject").unwrap_or("Metadata");
    let mut response = match outcome.answer {
        Answer::Other(code, value) => {
            json(code, "application/json", Bytes::from(value.to_string()))
        }
        Answer::Object(code, value) => one(call, form, code, &value, include),
        Answer::Stored(code, object) if form == Form::Plain => {
            json(code, "application/json", object.json().clone())
        }
        Answer::Stored(code, object) => one(call, form, code, object.value(), include),
        Answer::List(page) if form == Form::Plain && page.objects.len() > AT_ONCE => {
            let media = header::HeaderValue::from_static("application/json");
            let mut response = json(200, "application/json", Bytes::new());
            *response.body_mut() = StreamBody::new(stream::iter(parts(call, page))).boxed_unsync();
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            response
        }
        Answer::List(page) => json(200, "application/json", list(call, form, &page, include)),
        Answer::Watch(watch) => {
            let lines = stream::unfold(watch, |mut watch| async move {
                let line = watch.next().await?;
                Some((Ok::<_, Infallible>(Frame::data(line)), watch))
            });
            let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
            let media = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, media);
            response
        }
    };
    for warning in &outcome.warnings {
        let clean: String =
            warning.chars().filter(|c| c.is_ascii() && !c.is_ascii_control()).collect();
        let text = format!("299 - \"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = header::HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

fn one(call: &Call, form: Form, code: u16, value: &Value, include: &str) -> Response<Body> {
    let text = match form {
        Form::Plain => value.to_string(),
        Form::Metadata => metadata_only(value).to_string(),
        Form::Table => {
            let mut table =
                table::table(&call.resource, std::slice::from_ref(value), include, true);
            table["metadata"] = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
            table.to_string()
        }
    };
    json(code, "application/json", Bytes::from(text))
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

fn list(call: &Call, form: Form, page: &Page, include: &str) -> Bytes {
    let metadata = list_metadata(page);
    let shown = || page.objects.iter().map(|object| show(call, object.value()));
    match form {
        Form::Table => {
            let mut table =
                table::table(&call.resource, &shown().collect::<Vec<_>>(), include, true);
            table["metadata"] = metadata;
            Bytes::from(table.to_string())
        }
        Form::Metadata => {
            let items: Vec<_> = shown().map(|object| metadata_only(&object)).collect();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items});
            Bytes::from(list.to_string())
        }
        Form::Plain => {
            let mut text = BytesMut::from(head(call, page).as_slice());
            for (at, object) in page.objects.iter().enumerate() {
                put(&mut text, call, object, at == 0);
            }
            text.put_slice(b"]}");
            text.freeze()
        }
    }
}

/// A large list, made piece by piece as the client takes it.
fn parts(
    call: &Call,
    page: Page,
) -> impl Iterator<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static {
    let mut text = Some(BytesMut::from(head(call, &page).as_slice()));
    let (call, mut objects) = (call.clone(), page.objects.into_iter().enumerate());
    std::iter::from_fn(move || {
        let mut part = text.take()?;
        for (at, object) in objects.by_ref() {
            put(&mut part, &call, &object, at == 0);
            if part.len() >= PART {
                text = Some(BytesMut::new());
                return Some(Ok(Frame::data(part.freeze())));
            }
        }
        part.put_slice(b"]}");
        Some(Ok(Frame::data(part.freeze())))
    })
}

/// The beginning of a list, up to its first object.
fn head(call: &Call, page: &Page) -> Vec<u8> {
    let head = json!({"kind": call.resource.list_kind,
        "apiVersion": call.resource.api_version(), "metadata": list_metadata(page)});
    let mut text = head.to_string().into_bytes();
    // The brace at the end.
    text.pop();
    text.extend_from_slice(b",\"items\":[");
    text
}

/// Adds one object, as it was stored if it is shown so: that text is not made again.
fn put(text: &mut BytesMut, call: &Call, object: &Object, first: bool) {
    if !first {
        text.put_u8(b',');
    }
    match call.resource.view {
        View::Same => text.put_slice(object.json()),
        _ => text.put_slice(show(call, object.value()).to_string().as_bytes()),
    }
}
