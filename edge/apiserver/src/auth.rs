//! Who asks: by the administrator's bearer token, a service account's signed one, one of the token file,
//! a client certificate, or a front proxy's word for him; else by whoever knows the tokens of the cluster.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{HeaderMap, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::Api;
use crate::rights::Unanswered;
use crate::status::{ApiError, Result};
use crate::storage::Storage;
use crate::tls::IdentityError;
use crate::trust::Certificates;

/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";
const ACCOUNT: &str = "system:serviceaccount:";
/// The longest bearer token that is looked at.
const TOKEN: usize = 16 << 10;

/// The user behind a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Such as `eve` or `system:serviceaccount:shop:robot`.
    pub name: String,
    /// Empty if there is none.
    pub uid: String,
    /// Groups he is in.
    pub groups: Vec<String>,
    /// What else whoever authenticated him has to say.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user who has shown who he is.
    pub(crate) fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().copied().chain([AUTHENTICATED]).map(str::to_owned).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// As one who has shown who he is, unless it was said that he has not.
    pub(crate) fn known(mut self) -> Self {
        let told = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
        if self.name != ANONYMOUS && !self.groups.iter().any(told) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// The user that the token in the kubeconfig stands for.
    pub(crate) fn administrator() -> Self {
        Self::new("kubernetes-admin", &[MASTERS])
    }

    /// The server itself.
    pub(crate) fn server() -> Self {
        Self::new("system:apiserver", &[MASTERS])
    }

    /// A user by name: service accounts have groups of their own.
    pub(crate) fn named(name: &str, groups: &[&str]) -> Self {
        let namespace = name.strip_prefix(ACCOUNT).and_then(|rest| rest.split_once(':'));
        let Some((namespace, _)) = namespace else { return Self::new(name, groups) };
        let own = format!("system:serviceaccounts:{namespace}");
        let groups = [&["system:serviceaccounts", &own], groups].concat();
        Self::new(name, &groups)
    }

    pub(crate) fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == MASTERS)
    }

    /// As audit events and reviews show it.
    pub(crate) fn show(&self) -> Value {
        let mut user = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            user["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            user["extra"] = json!(self.extra);
        }
        user
    }
}

/// The users of a token file, by the digest of their token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tokens(HashMap<[u8; 32], User>);

impl Tokens {
    /// Reads lines of `token,user,uid` or `token,user,uid,"group,group"`.
    pub(crate) fn read(path: &Path) -> Result<Self, IdentityError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| IdentityError::File { path: path.into(), source })?;
        let mut users = HashMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, user) = token_line(line).ok_or_else(|| IdentityError::Damaged {
                path: path.into(),
                detail: format!(
                    "line {}: wanted token,user,uid or token,user,uid,\"group,group\"",
                    at + 1
                ),
            })?;
            users.insert(Sha256::digest(token).into(), user);
        }
        Ok(Self(users))
    }
}

fn token_line(line: &str) -> Option<(&str, User)> {
    let mut parts = line.splitn(4, ',').map(str::trim);
    let (token, name, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let groups = parts.next().unwrap_or_default().trim_matches('"');
    let groups: Vec<_> = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
    if token.len() < 16 || name.is_empty() {
        return None;
    }
    let user = User { uid: uid.to_owned(), ..User::named(name, &groups) };
    Some((token, user))
}

/// The user behind a request, that of the connection's certificate if it has one.
pub(crate) async fn authenticate(
    api: &Api,
    certificates: &Certificates,
    headers: &HeaderMap,
) -> Result<User> {
    let trust = api.delegate().and_then(|delegate| delegate.trust());
    if let Some(user) = certificates.user(trust.as_ref(), headers) {
        return Ok(user);
    }
    let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = header.and_then(|text| {
        let (scheme, given) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    let Some(token) = given.filter(|token| !token.is_empty() && token.len() <= TOKEN) else {
        return Err(not_known(api, certificates, trust.is_some()));
    };
    match (by_token(api, token), api.delegate()) {
        (Some(user), _) => Ok(user),
        (None, Some(delegate)) => delegate.user(token).await?.ok_or_else(ApiError::unauthorized),
        (None, None) => Err(ApiError::unauthorized()),
    }
}

/// 401, or 503 as long as it is not known whose certificates are good.
fn not_known(api: &Api, certificates: &Certificates, trusting: bool) -> ApiError {
    if api.delegate().is_some() && !trusting && certificates.any() {
        let why = "whose client certificates are good is not known yet: the ConfigMap \
                   kube-system/extension-apiserver-authentication could not be read";
        return Unanswered(why.to_owned()).into();
    }
    ApiError::unauthorized()
}

/// The user that a token stands for.
pub(crate) fn by_token(api: &Api, token: &str) -> Option<User> {
    if equal(token, &api.options.token) {
        return Some(User::administrator());
    }
    let digest: [u8; 32] = Sha256::digest(token).into();
    if let Some(user) = api.tokens.0.get(&digest) {
        return Some(user.clone());
    }
    let now = jiff::Timestamp::now().as_second();
    let claim = check(&api.options.token, token, now)?;
    account(&*api.storage, &claim)
}

/// The service account of a token, if it is still the one that the token was made for.
fn account(storage: &dyn Storage, claim: &Claim) -> Option<User> {
    let (namespace, name) = claim.user.strip_prefix(ACCOUNT)?.split_once(':')?;
    let account = storage.get(&format!("core/serviceaccounts/{namespace}/{name}"))?;
    let uid = account.value()["metadata"]["uid"].as_str()?;
    (uid == claim.uid).then(|| User { uid: claim.uid.clone(), ..User::named(&claim.user, &[]) })
}

/// Compares in a time that does not depend on where the texts differ.
fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

/// What a token of ours says.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    user: String,
    uid: String,
}

/// A token for `user` of that `uid` that is good until `until`, in seconds since 1970.
pub(crate) fn issue(key: &str, user: &str, uid: &str, until: i64) -> String {
    let claim = URL_SAFE_NO_PAD.encode(format!("{until} {uid} {user}"));
    let seal = URL_SAFE_NO_PAD.encode(seal(key, &claim));
    format!("calico.{claim}.{seal}")
}

fn check(key: &str, token: &str, now: i64) -> Option<Claim> {
    let (claim, given) = token.strip_prefix("calico.")?.split_once('.')?;
    if !equal(given, &URL_SAFE_NO_PAD.encode(seal(key, claim))) {
        return None;
    }
    let claim = String::from_utf8(URL_SAFE_NO_PAD.decode(claim).ok()?).ok()?;
    let mut parts = claim.splitn(3, ' ').map(str::to_owned);
    let (until, uid, user) = (parts.next()?, parts.next()?, parts.next()?);
    (until.parse::<i64>().ok()? > now).then_some(Claim { user, uid })
}

/// HMAC-SHA-256 (RFC 2104).
fn seal(key: &str, text: &str) -> [u8; 32] {
    let digest = Sha256::digest(key);
    let mut block = [0; 64];
    block[..32].copy_from_slice(&digest);
    let pad = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_tokens() {
        let issued = issue("secret", "system:serviceaccount:a:b", "u-1", 100);
        let claim = check("secret", &issued, 99).unwrap();
        assert_eq!(claim.user, "system:serviceaccount:a:b");
        assert_eq!(claim.uid, "u-1");
        assert_eq!(check("secret", &issued, 100), None, "expired");
        assert_eq!(check("other", &issued, 99), None, "foreign key");
        assert_eq!(check("secret", &issued.replace("calico.", "calico.A"), 99), None, "changed");
    }

    #[test]
    fn token_lines() {
        let (token, user) = token_line("0123456789abcdef,eve,7,\"dev,ops\"").unwrap();
        assert_eq!(token, "0123456789abcdef");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("eve", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert!(token_line("0123456789abcdef,eve").is_none());
        assert!(token_line("short,eve,7").is_none());
        let account = User::named("system:serviceaccount:a:b", &[]);
        let groups = ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"];
        assert_eq!(account.groups, groups);
    }
}
