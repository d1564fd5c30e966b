//! Users and rights, as a Kubernetes API server knows them: for the servers that stand behind it.
//!
//! Goes in: bearer tokens, and questions whether somebody may do something. Comes out: what TokenReviews
//! and SubjectAccessReviews say, and whose client certificates the cluster trusts, from the ConfigMap
//! `kube-system/extension-apiserver-authentication`, which is followed. Invariants: answers are remembered
//! for a short, bounded time and in bounded number; the same question is asked once at a time; what gets no
//! answer is an error, never a yes. Deliberately absent: what the answers are for ([`apiserver`]).
//! Start reading at [`Kubernetes`].

mod cache;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use apiserver::{Delegate, Namespace, Target, Trust, Unanswered, User};
use datastore::Backoff;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace as NamespaceObject};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use tokio::sync::Semaphore;

use cache::{Cache, Key};

/// Where the cluster publishes whose certificates it trusts.
const PUBLISHED: (&str, &str) = ("kube-system", "extension-apiserver-authentication");
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often is tried before a question has no answer.
const ATTEMPTS: usize = 2;
/// How many questions may be under way at once.
const AT_ONCE: usize = 64;
/// How long it is remembered that there was no answer: all who wait for it are told at once, and the next
/// ask anew.
const SILENCE: Duration = Duration::from_millis(500);

/// What is remembered, and for how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an answer is good. Default 10 s, as with Kubernetes' own servers.
    pub ttl: Duration,
    /// Tokens that are remembered. Default 4,096.
    pub tokens: usize,
    /// Questions about rights that are remembered. Default 16,384.
    pub rights: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(10), tokens: 4_096, rights: 16_384 }
    }
}

/// A Kubernetes API server that is asked.
pub struct Kubernetes {
    client: kube::Client,
    options: Options,
    tokens: Cache<Option<User>>,
    rights: Cache<Option<String>>,
    namespaces: Cache<Namespace>,
    trust: RwLock<Option<Arc<Trust>>>,
    gate: Semaphore,
}

impl Kubernetes {
    /// Asks over `client`. Certificates are trusted as soon as [`Kubernetes::follow`] has learnt which.
    pub fn new(client: kube::Client, options: Options) -> Self {
        Self {
            client,
            tokens: Cache::new(options.tokens),
            rights: Cache::new(options.rights),
            namespaces: Cache::new(options.tokens),
            trust: RwLock::default(),
            gate: Semaphore::new(AT_ONCE),
            options,
        }
    }

    /// Follows what the cluster publishes of client certificates. Never ends.
    pub async fn follow(&self) {
        let (namespace, name) = PUBLISHED;
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let mut seen = None;
        let mut states = std::pin::pin!(watch_object(maps, name).default_backoff());
        loop {
            match states.next().await {
                Some(Ok(Some(map))) => {
                    let data = map.data.unwrap_or_default();
                    if seen.as_ref() != Some(&data) {
                        self.take(&data);
                        seen = Some(data);
                    }
                }
                Some(Ok(None)) => {
                    tracing::warn!(
                        "there is no ConfigMap {namespace}/{name}: certificates stay trusted as before"
                    );
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the ConfigMap {namespace}/{name} cannot be followed");
                }
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// Takes over what is published, if it can be read.
    fn take(&self, data: &BTreeMap<String, String>) {
        match Trust::read(data) {
            Ok(trust) => {
                tracing::info!(?trust, "whose client certificates are good is known");
                *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(trust));
            }
            Err(error) => {
                let (namespace, name) = PUBLISHED;
                tracing::error!(%error, "the ConfigMap {namespace}/{name} cannot be used: certificates stay trusted as before");
            }
        }
    }

    /// Asks, again if it is worth it. The answer, or why there is none.
    async fn ask<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = kube::Result<T>>,
    {
        let Ok(place) = tokio::time::timeout(PATIENCE, self.gate.acquire()).await else {
            return Err(Unanswered(format!(
                "{what} could not be asked: too many questions at once"
            )));
        };
        let _place = place;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let mut why = String::new();
        for tries in 1..=ATTEMPTS {
            match tokio::time::timeout(PATIENCE, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => {
                    why = error.to_string();
                    if !passing(&error) {
                        break;
                    }
                }
                Err(_) => why = format!("no answer within {} s", PATIENCE.as_secs()),
            }
            if tries < ATTEMPTS {
                backoff.wait().await;
            }
        }
        tracing::warn!(what, error = why, "the Kubernetes API server does not answer");
        Err(Unanswered(format!("{what} could not be asked of the Kubernetes API server: {why}")))
    }

    async fn review_token(&self, token: &str) -> Result<Option<User>, Unanswered> {
        let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let ask = || reviews.create(&params, &review);
        let answer = self.ask("whose token it is", ask).await?.status.unwrap_or_default();
        let user = answer.user.filter(|_| answer.authenticated == Some(true));
        Ok(user.map(known).filter(|user| !user.name.is_empty()))
    }

    async fn review_access(
        &self,
        user: &User,
        verb: &str,
        target: Target<'_>,
    ) -> Result<Option<String>, Unanswered> {
        let review = access_review(user, verb, target);
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let ask = || reviews.create(&params, &review);
        let answer = self.ask("what the user may do", ask).await?.status.unwrap_or_default();
        let allowed = answer.allowed && answer.denied != Some(true);
        Ok(allowed.then(|| answer.reason.unwrap_or_default()))
    }

    async fn look_at_namespace(&self, name: &str) -> Result<Namespace, Unanswered> {
        let namespaces: Api<NamespaceObject> = Api::all(self.client.clone());
        let what = format!("whether there is a namespace {name:?}");
        let found = self.ask(&what, || namespaces.get_metadata_opt(name)).await?;
        Ok(match found {
            None => Namespace::Missing,
            Some(found) if found.metadata.deletion_timestamp.is_some() => Namespace::Ending,
            Some(_) => Namespace::Open,
        })
    }

    /// How long an answer is remembered.
    fn keep<T>(&self, answer: &Result<T, Unanswered>) -> Duration {
        if answer.is_ok() { self.options.ttl } else { SILENCE }
    }
}

impl Delegate for Kubernetes {
    fn user<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, Unanswered>> {
        let ask = async move {
            let answer = self.review_token(token).await;
            (self.keep(&answer), answer)
        };
        self.tokens.get(Key::of(&[token]), ask).boxed()
    }

    fn allowed<'a>(
        &'a self,
        user: &'a User,
        verb: &'a str,
        target: Target<'a>,
    ) -> BoxFuture<'a, Result<Option<String>, Unanswered>> {
        let ask = async move {
            let answer = self.review_access(user, verb, target).await;
            (self.keep(&answer), answer)
        };
        self.rights.get(question(user, verb, target), ask).boxed()
    }

    fn namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Namespace, Unanswered>> {
        let ask = async move {
            let answer = self.look_at_namespace(name).await;
            // One that is missing may be made the next moment.
            let keep = match answer {
                Ok(Namespace::Missing) => Duration::ZERO,
                Ok(Namespace::Ending) => self.options.ttl.min(Duration::from_secs(1)),
                _ => self.keep(&answer),
            };
            (keep, answer)
        };
        self.namespaces.get(Key::of(&[name]), ask).boxed()
    }

    fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether an error may be gone the next moment.
fn passing(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        kube::Error::Service(_) | kube::Error::HyperError(_) | kube::Error::ReadEvents(_) => true,
        _ => false,
    }
}

fn known(info: UserInfo) -> User {
    User {
        name: info.username.unwrap_or_default(),
        uid: info.uid.unwrap_or_default(),
        groups: info.groups.unwrap_or_default(),
        extra: info.extra.unwrap_or_default().into_iter().collect(),
    }
}

fn access_review(user: &User, verb: &str, target: Target<'_>) -> SubjectAccessReview {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut spec = SubjectAccessReviewSpec {
        user: given(&user.name),
        uid: given(&user.uid),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone().into_iter().collect()),
        ..SubjectAccessReviewSpec::default()
    };
    match target {
        Target::Path(path) => {
            let attributes =
                NonResourceAttributes { path: given(path), verb: Some(verb.to_owned()) };
            spec.non_resource_attributes = Some(attributes);
        }
        Target::Resource { group, resource, namespace, name } => {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            spec.resource_attributes = Some(ResourceAttributes {
                group: given(group),
                resource: given(resource),
                subresource: given(subresource),
                namespace: namespace.and_then(given),
                name: given(name),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            });
        }
    }
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

/// What tells one question from another.
fn question(user: &User, verb: &str, target: Target<'_>) -> Key {
    let counts = [user.groups.len().to_string(), user.extra.len().to_string()];
    let mut parts = vec![user.name.as_str(), &user.uid, verb, &counts[0], &counts[1]];
    parts.extend(user.groups.iter().map(String::as_str));
    let sizes: Vec<_> = user.extra.values().map(|values| values.len().to_string()).collect();
    for ((key, values), size) in user.extra.iter().zip(&sizes) {
        parts.extend([key.as_str(), size.as_str()]);
        parts.extend(values.iter().map(String::as_str));
    }
    match target {
        Target::Path(path) => parts.extend(["path", path]),
        Target::Resource { group, resource, namespace, name } => {
            parts.extend(["resource", group, resource, namespace.unwrap_or_default(), name]);
        }
    }
    Key::of(&parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_differ_when_anything_does() {
        let on = |resource, namespace, name| Target::Resource {
            group: "g",
            resource,
            namespace: Some(namespace),
            name,
        };
        let mut users = vec![User { name: "eve".into(), ..User::default() }];
        users.push(User { groups: vec!["a".into(), "b".into()], ..users[0].clone() });
        users.push(User { groups: vec!["ab".into()], ..users[0].clone() });
        let extra = [("a".to_owned(), vec!["b".to_owned()])].into();
        users.push(User { extra, ..users[0].clone() });
        let targets = [
            on("r", "n", ""),
            on("r", "", "n"),
            on("r/s", "n", ""),
            Target::Path("/r"),
            on("rn", "", ""),
        ];
        let mut keys = std::collections::HashSet::new();
        for user in &users {
            for target in targets {
                assert!(keys.insert(question(user, "get", target)), "{user:?} {target:?}");
            }
        }
        assert!(!keys.insert(question(&users[1], "get", targets[0])));
    }

    #[test]
    fn reviews_say_all_that_is_known() {
        let user = User {
            name: "eve".into(),
            uid: "7".into(),
            groups: vec!["dev".into()],
            extra: [("k".to_owned(), vec!["v".to_owned()])].into(),
        };
        let target = Target::Resource {
            group: "projectcalico.org",
            resource: "tier.networkpolicies/status",
            namespace: None,
            name: "t.*",
        };
        let spec = access_review(&user, "update", target).spec;
        assert_eq!((spec.user.as_deref(), spec.uid.as_deref()), (Some("eve"), Some("7")));
        assert_eq!(spec.extra.unwrap()["k"], ["v"]);
        let asked = spec.resource_attributes.unwrap();
        assert_eq!(asked.resource.as_deref(), Some("tier.networkpolicies"));
        assert_eq!(asked.subresource.as_deref(), Some("status"));
        assert_eq!((asked.name.as_deref(), asked.namespace), (Some("t.*"), None));
        let spec = access_review(&user, "get", Target::Path("/openapi/v3")).spec;
        assert!(spec.resource_attributes.is_none());
        assert_eq!(spec.non_resource_attributes.unwrap().path.as_deref(), Some("/openapi/v3"));
    }
}
