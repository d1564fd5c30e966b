//! Admission webhooks for a Kubernetes API server that stores Calico's kinds itself: what our own API
//! server refuses by itself, these refuse there.
//!
//! `/rbac` holds writes of policies against the rights in their tiers, `/cluster-info` keeps
//! ClusterInformation for Calico's own programs. Whatever cannot be understood or asked is refused.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{Method, Request, Response, header};
use serde_json::{Value, json};

use crate::auth::User;
use crate::body;
use crate::certificate::ServingFiles;
use crate::connections;
use crate::http::{self, Body, Incoming, Peer};
use crate::limits::{Class, Gate, Limits, Permit};
use crate::rights::{Delegate, Rights};
use crate::server::{Service, Tls, serve};
use crate::status::{ApiError, Result};
use crate::system;
use crate::tier_rights::{self, Act};
use crate::tls::{Identity, IdentityError, standard_names};

/// A review holds an object as it was and as it is to be.
const LIMIT: usize = 2 * body::LIMIT + (64 << 10);
const VERSION: &str = "admission.k8s.io/v1";

/// How webhooks are served.
#[derive(Clone, Debug)]
pub struct HookOptions {
    /// The folder of an authority of our own, which signs the certificate if `serving` names none.
    pub identity_dir: PathBuf,
    /// DNS names and addresses under which the API server reaches us, besides localhost.
    pub names: Vec<String>,
    /// The certificate to serve with.
    pub serving: Option<ServingFiles>,
    /// Authorities (PEM), one of which must have signed the certificate of whoever asks.
    pub client_authorities: Option<PathBuf>,
    /// What clients may use up.
    pub limits: Limits,
    /// Where the service accounts of Calico's own programs are.
    pub system_namespaces: Vec<String>,
}

/// The webhooks.
pub struct HookServer {
    identity: Identity,
    hooks: Arc<Hooks>,
    tls: Arc<Tls>,
}

impl HookServer {
    /// Prepares them; rights are asked of `delegate`.
    pub fn new(delegate: Arc<dyn Delegate>, options: HookOptions) -> Result<Self, IdentityError> {
        let identity = Identity::open(&options.identity_dir)?;
        let names = standard_names(&options.names, None);
        let clients = identity.known_clients(options.client_authorities.as_deref())?;
        let acceptor = identity.acceptor(&names, options.serving.clone(), clients)?;
        let hooks = Hooks {
            gate: Arc::new(Gate::new(options.limits.clone())),
            rights: Rights::Delegated(delegate),
            certificates: options.client_authorities.is_some(),
            namespaces: options.system_namespaces,
        };
        Ok(Self { identity, hooks: Arc::new(hooks), tls: Arc::new(Tls { acceptor, own: None }) })
    }

    /// Our own certificate authority, in PEM. It signed the serving certificate, unless that comes from files.
    pub fn authority(&self) -> &str {
        self.identity.ca_pem()
    }

    /// Serves the listeners until `shutdown` is ready.
    pub async fn serve(
        self,
        listeners: Vec<TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let tasks = tokio::task::JoinSet::new();
        serve(Service::Hooks(self.hooks), self.tls, listeners, tasks, shutdown).await
    }
}

/// What every request shares.
pub(crate) struct Hooks {
    pub(crate) gate: Arc<Gate>,
    rights: Rights,
    /// Whether whoever asks must show a certificate.
    certificates: bool,
    namespaces: Vec<String>,
}

/// The hook that a review is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Tiers,
    ClusterInformation,
}

impl Hooks {
    /// Answers a request, always.
    pub(crate) async fn answer<B: Incoming>(
        &self,
        peer: &Peer,
        request: Request<B>,
    ) -> Response<connections::Answer> {
        let in_flight = peer.tracker.request();
        let mut permit = None;
        let outcome = self.handle(peer, request, &mut permit).await;
        let response = outcome.unwrap_or_else(|error| {
            tracing::warn!(code = error.code, message = error.message, "a review is refused");
            http::refusal(&error)
        });
        response.map(|body| connections::Answer::new(body, in_flight, (permit, None)))
    }

    async fn handle<B: Incoming>(
        &self,
        peer: &Peer,
        request: Request<B>,
        permit: &mut Option<Permit>,
    ) -> Result<Response<Body>> {
        let hook = match request.uri().path() {
            "/healthz" | "/livez" | "/readyz" => return Ok(http::ok()),
            "/rbac" => Hook::Tiers,
            "/cluster-info" => Hook::ClusterInformation,
            _ => return Err(ApiError::no_such_resource()),
        };
        if request.method() != Method::POST {
            return Err(ApiError::method_not_allowed("a webhook"));
        }
        if self.certificates && !peer.certificates.any() {
            return Err(ApiError::unauthorized());
        }
        peer.tracker.authenticated();
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let media = media.and_then(|text| text.split(';').next()).unwrap_or_default().trim();
        if media != "application/json" {
            return Err(crate::request::unsupported(media, "application/json"));
        }
        *permit = Some(self.gate.enter(Class::Write, "admission")?);
        let (bytes, _upload) = http::collect(&self.gate, request.into_body(), LIMIT).await?;
        let review = body::parse(&bytes, body::Encoding::Json)?.value;
        let answer = self.review(hook, &review).await?;
        Ok(http::json(200, "application/json", Bytes::from(answer.to_string())))
    }

    /// The answer to a review. An error if it is none: the API server takes that for a refusal, too.
    async fn review(&self, hook: Hook, review: &Value) -> Result<Value> {
        if review["apiVersion"] != VERSION || review["kind"] != "AdmissionReview" {
            return Err(ApiError::bad_request(format!(
                "the body is {} of {}, wanted AdmissionReview of {VERSION}",
                review["kind"], review["apiVersion"]
            )));
        }
        let request = &review["request"];
        let uid = request["uid"].as_str().filter(|uid| !uid.is_empty());
        let uid = uid.ok_or_else(|| ApiError::bad_request("request.uid: wanted a string"))?;
        let user = user(&request["userInfo"])?;
        let verdict = match hook {
            Hook::Tiers => self.tiers(&user, request).await,
            Hook::ClusterInformation => system::check_cluster_information(&user, &self.namespaces),
        };
        let mut response = json!({"uid": uid, "allowed": verdict.is_ok()});
        if let Err(error) = verdict {
            tracing::info!(user = user.name, message = error.message, "a write is refused");
            response["status"] = error.status();
        }
        Ok(json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response}))
    }

    /// Holds the write of a policy against the rights in the tier that it is in, and in that which it goes to.
    async fn tiers(&self, user: &User, request: &Value) -> Result<()> {
        let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
        let (group, plural) =
            (text(&request["resource"]["group"]), text(&request["resource"]["resource"]));
        if !tier_rights::tiered(&group, &plural) {
            return Err(ApiError::bad_request(format!(
                "objects of {plural}.{group} are in no tier: take them out of the rules of this webhook"
            )));
        }
        let verb = text(&request["operation"]).to_lowercase();
        if !matches!(verb.as_str(), "create" | "update" | "delete") {
            return Err(ApiError::bad_request(format!(
                "request.operation: got {}, wanted CREATE, UPDATE or DELETE",
                request["operation"]
            )));
        }
        let (after, before) = (tier(request, "object")?, tier(request, "oldObject")?);
        let namespace = text(&request["namespace"]);
        let named = [&request["object"], &request["oldObject"]]
            .into_iter()
            .find_map(|object| object["metadata"]["name"].as_str());
        let name = named.map_or_else(|| text(&request["name"]), str::to_owned);
        let act = Act {
            user,
            verb: &verb,
            plural: &plural,
            subresource: None,
            namespace: Some(namespace.as_str()).filter(|n| !n.is_empty()),
            name: &name,
        };
        if after.is_none() && before.is_none() {
            return Err(ApiError::bad_request("request: wanted object or oldObject"));
        }
        for tier in [after, before.filter(|before| after != Some(*before))].into_iter().flatten() {
            tier_rights::authorize(&self.rights, act, tier).await?;
        }
        Ok(())
    }
}

/// The tier of the policy under `field`, if one is there.
fn tier<'a>(request: &'a Value, field: &str) -> Result<Option<&'a str>> {
    let object = &request[field];
    let given = &object["spec"]["tier"];
    match object {
        Value::Null => Ok(None),
        Value::Object(_) if given.is_null() || given.is_string() => {
            Ok(Some(tier_rights::of(object)))
        }
        Value::Object(_) => {
            Err(ApiError::bad_request(format!("request.{field}.spec.tier: wanted a string")))
        }
        _ => Err(ApiError::bad_request(format!("request.{field}: wanted an object"))),
    }
}

fn user(info: &Value) -> Result<User> {
    let bad = |error| ApiError::bad_request(format!("request.userInfo: {error}"));
    let user: User = serde_json::from_value::<Info>(info.clone()).map_err(bad)?.into();
    if user.name.is_empty() {
        return Err(ApiError::bad_request("request.userInfo.username: wanted a name"));
    }
    Ok(user)
}

#[derive(serde::Deserialize)]
struct Info {
    username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

impl From<Info> for User {
    fn from(info: Info) -> Self {
        Self { name: info.username, uid: info.uid, groups: info.groups, extra: info.extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier_rights::tests::Table;
    use futures_util::FutureExt as _;

    const ROWS: &[(&str, &str, &str)] = &[
        ("get", "tiers", "ops"),
        ("update", "tier.networkpolicies", "ops.*"),
        ("get", "tiers", "sec"),
        ("update", "tier.networkpolicies", "sec.moved"),
    ];

    fn review(hook: Hook, request: &Value) -> Result<Value> {
        let hooks = Hooks {
            gate: Arc::new(Gate::new(Limits::default())),
            rights: Rights::Delegated(Arc::new(Table(ROWS))),
            certificates: false,
            namespaces: vec!["calico-system".into()],
        };
        let review = json!({"apiVersion": VERSION, "kind": "AdmissionReview", "request": request});
        hooks.review(hook, &review).now_or_never().unwrap()
    }

    fn policy(name: &str, tier: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"tier": tier}})
    }

    fn update(before: Value, after: Value) -> Value {
        json!({"uid": "u", "operation": "UPDATE", "namespace": "shop", "name": "n",
            "resource": {"group": "projectcalico.org", "version": "v3", "resource": "networkpolicies"},
            "userInfo": {"username": "eve", "groups": ["dev"], "extra": {"a": ["b"]}},
            "oldObject": before, "object": after})
    }

    #[test]
    fn writes_are_held_against_the_rights_in_both_tiers() {
        for (why, before, after, refused) in [
            ("stays", policy("p", "ops"), policy("p", "ops"), None),
            ("may be moved", policy("moved", "ops"), policy("moved", "sec"), None),
            ("into a tier", policy("p", "ops"), policy("p", "sec"), Some("in tier \"sec\"")),
            ("out of one", policy("p", "sec"), policy("p", "ops"), Some("in tier \"sec\"")),
            ("no tier named", json!({}), json!({}), Some("in tier \"default\"")),
            ("gone", policy("p", "ops"), Value::Null, None),
        ] {
            let answer = review(Hook::Tiers, &update(before, after)).unwrap();
            let response = &answer["response"];
            assert_eq!(response["uid"], "u");
            assert_eq!(response["allowed"], refused.is_none(), "{why}: {answer}");
            if let Some(part) = refused {
                assert_eq!(response["status"]["code"], 403, "{why}");
                let told = response["status"]["message"].as_str().unwrap();
                assert!(told.contains(part) && told.contains("\"eve\""), "{why}: {told}");
            }
        }
    }

    #[test]
    fn what_is_not_understood_or_not_answered_is_refused() {
        let good = update(policy("p", "ops"), policy("p", "ops"));
        let with = |pointer: &str, value: Value| {
            let mut request = good.clone();
            *request.pointer_mut(pointer).unwrap() = value;
            request
        };
        for (request, part) in [
            (with("/resource/resource", "tiers".into()), "tiers.projectcalico.org are in no tier"),
            (with("/resource/group", "apps".into()), "in no tier"),
            (with("/operation", "CONNECT".into()), "wanted CREATE, UPDATE or DELETE"),
            (with("/object/spec/tier", json!(1)), "request.object.spec.tier: wanted a string"),
            (with("/oldObject", json!([])), "request.oldObject: wanted an object"),
            (update(Value::Null, Value::Null), "wanted object or oldObject"),
        ] {
            let answer = review(Hook::Tiers, &request).unwrap();
            assert_eq!(answer["response"]["allowed"], false, "{part}");
            let told = answer["response"]["status"]["message"].as_str().unwrap();
            assert!(told.contains(part), "{told}");
        }
        for (request, part) in [
            (with("/uid", "".into()), "request.uid"),
            (with("/uid", json!(7)), "request.uid"),
            (with("/userInfo", json!({})), "request.userInfo"),
            (with("/userInfo/username", "".into()), "request.userInfo.username"),
            (with("/userInfo/groups", json!("dev")), "request.userInfo"),
            (Value::Null, "request.uid"),
        ] {
            let error = review(Hook::Tiers, &request).expect_err(part);
            assert!(error.code == 400 && error.message.contains(part), "{}", error.message);
        }
        let mut away = good;
        away["operation"] = "UPDATE".into();
        away["userInfo"]["username"] = "nobody answers".into();
        let answer = review(Hook::Tiers, &away).unwrap();
        assert_eq!(answer["response"]["status"]["code"], 503, "{answer}");
    }

    #[test]
    fn cluster_information_is_for_own_programs() {
        let mut request = update(policy("default", ""), policy("default", ""));
        let answer = review(Hook::ClusterInformation, &request).unwrap();
        assert_eq!(answer["response"]["status"]["reason"], "MethodNotAllowed");
        request["userInfo"]["username"] =
            "system:serviceaccount:calico-system:calico-kube-controllers".into();
        let answer = review(Hook::ClusterInformation, &request).unwrap();
        assert_eq!(answer["response"], json!({"uid": "u", "allowed": true}));
    }
}
