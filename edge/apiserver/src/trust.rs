//! Client certificates that a Kubernetes cluster trusts: those of its users, and those of its front
//! proxies, who say in headers in whose name they ask.
//!
//! The cluster publishes all of it in the ConfigMap `extension-apiserver-authentication`. Its authorities
//! may change while connections stay, so certificates are held against them at requests, not at handshakes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use crate::auth::User;
use crate::subject;

/// For how long a certificate that was found good on a connection is not looked at again.
const AGAIN: Duration = Duration::from_mins(1);
/// The most characters of all that a front proxy says about one user.
const WORDS: usize = 32 << 10;

pub(crate) type Verifier = Arc<dyn ClientCertVerifier>;

/// Whose client certificates are good, and whom front proxies may speak for.
pub struct Trust {
    users: Option<Verifier>,
    proxies: Option<Proxies>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Trust");
        shown.field("users", &self.users.is_some()).field("proxies", &self.proxies.is_some());
        shown.finish()
    }
}

/// Front proxies, and the headers that they say it in.
struct Proxies {
    verifier: Verifier,
    /// Common names of their certificates; empty for all that the authority signed.
    names: Vec<String>,
    user: Vec<String>,
    uid: Vec<String>,
    group: Vec<String>,
    /// Beginnings of the names of headers with more about the user.
    extra: Vec<String>,
}

impl Trust {
    /// Reads the data of the ConfigMap.
    ///
    /// # Errors
    /// What is wrong, with the key it is under. Nothing is trusted then.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let authorities = |key: &str| -> Result<Option<Verifier>, String> {
            let Some(pem) = data.get(key).filter(|pem| !pem.trim().is_empty()) else {
                return Ok(None);
            };
            verifier(roots(pem).map_err(|why| format!("{key}: {why}"))?).map(Some)
        };
        let list = |key: &str| -> Result<Vec<String>, String> {
            let Some(text) = data.get(key).filter(|text| !text.is_empty()) else {
                return Ok(Vec::new());
            };
            let bad = |error| format!("{key}: wanted a list of strings in JSON: {error}");
            serde_json::from_str::<Option<Vec<String>>>(text)
                .map_err(bad)
                .map(Option::unwrap_or_default)
        };
        let proxies = match authorities("requestheader-client-ca-file")? {
            None => None,
            Some(verifier) => Some(Proxies {
                verifier,
                names: list("requestheader-allowed-names")?,
                user: list("requestheader-username-headers")?,
                uid: list("requestheader-uid-headers")?,
                group: list("requestheader-group-headers")?,
                extra: list("requestheader-extra-headers-prefix")?
                    .iter()
                    .map(|prefix| prefix.to_lowercase())
                    .collect(),
            }),
        };
        Ok(Self { users: authorities("client-ca-file")?, proxies })
    }

    /// What a chain of certificates makes of who shows it.
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Standing {
        let Some(first) = chain.first() else { return Standing::Unknown };
        let user = subject::user(first);
        if let Some(proxies) = &self.proxies
            && good(&proxies.verifier, chain)
        {
            let name = user.as_ref().map(|user| user.name.as_str());
            if proxies.names.is_empty() || proxies.names.iter().any(|n| Some(n.as_str()) == name) {
                return Standing::Proxy;
            }
        }
        match (&self.users, user) {
            (Some(users), Some(user)) if good(users, chain) => Standing::User(user),
            _ => Standing::Unknown,
        }
    }

    /// In whose name a front proxy asks.
    fn spoken_for(&self, headers: &HeaderMap) -> Option<User> {
        let proxies = self.proxies.as_ref()?;
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
        };
        let first = |names: &[String]| all(names).into_iter().find(|text| !text.trim().is_empty());
        let name = first(&proxies.user)?;
        let (groups, mut extra) = (all(&proxies.group), BTreeMap::<_, Vec<_>>::new());
        for (header, value) in headers {
            let key = proxies.extra.iter().find_map(|p| header.as_str().strip_prefix(p.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = crate::request::decode(key, false).unwrap_or_else(|_| key.to_owned());
                extra.entry(key.to_lowercase()).or_default().push(value.to_owned());
            }
        }
        let more = extra.iter().map(|(key, values)| key.len() + length(values));
        if name.len() + length(&groups) + more.sum::<usize>() > WORDS {
            return None;
        }
        let uid = first(&proxies.uid).unwrap_or_default();
        Some(User { name, uid, groups, extra }.known())
    }
}

fn length(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

/// The authorities of a text with certificates in PEM. Those that cannot be used are left out, if there are
/// others.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let mut why = "it holds no certificate".to_owned();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        if let Err(error) = roots.add(certificate) {
            why = error.to_string();
            tracing::warn!(%error, "a certificate authority of clients cannot be used");
        }
    }
    if roots.is_empty() { Err(why) } else { Ok(roots) }
}

pub(crate) fn verifier(roots: RootCertStore) -> Result<Verifier, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    builder.build().map_err(|error| error.to_string())
}

fn good(verifier: &Verifier, chain: &[CertificateDer<'_>]) -> bool {
    let Some((first, rest)) = chain.split_first() else { return false };
    verifier.verify_client_cert(first, rest, UnixTime::now()).is_ok()
}

/// What is made of who shows a certificate.
#[derive(Clone, Debug)]
enum Standing {
    Proxy,
    User(User),
    Unknown,
}

/// The client certificates of a connection.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// The user, where the handshake has verified them.
    verified: Option<User>,
    /// As shown, where it has not.
    chain: Vec<CertificateDer<'static>>,
    judged: Mutex<Option<(Arc<Trust>, Instant, Standing)>>,
}

impl Certificates {
    /// Of a user that is known.
    pub(crate) fn verified(user: Option<User>) -> Self {
        Self { verified: user, ..Self::default() }
    }

    /// Shown, and not yet held against any authority but `own`.
    pub(crate) fn shown(chain: &[CertificateDer<'static>], own: &Verifier) -> Self {
        let verified = good(own, chain).then(|| subject::user(chain.first()?)).flatten();
        Self { verified, chain: chain.to_vec(), ..Self::default() }
    }

    /// Whether any were shown.
    pub(crate) fn any(&self) -> bool {
        self.verified.is_some() || !self.chain.is_empty()
    }

    /// The user that they, or `headers` beside those of a front proxy, tell.
    pub(crate) fn user(&self, trust: Option<&Arc<Trust>>, headers: &HeaderMap) -> Option<User> {
        let told = match (trust, self.chain.is_empty()) {
            (Some(trust), false) => match self.standing(trust) {
                Standing::Proxy => trust.spoken_for(headers),
                Standing::User(user) => Some(user),
                Standing::Unknown => None,
            },
            _ => None,
        };
        told.or_else(|| self.verified.clone())
    }

    /// Whether a front proxy is at the other end, who asks for many.
    pub(crate) fn proxy(&self, trust: &Arc<Trust>) -> bool {
        !self.chain.is_empty() && matches!(self.standing(trust), Standing::Proxy)
    }

    fn standing(&self, trust: &Arc<Trust>) -> Standing {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        match &*judged {
            Some((by, at, standing)) if Arc::ptr_eq(by, trust) && at.elapsed() < AGAIN => {
                standing.clone()
            }
            _ => {
                let standing = trust.judge(&self.chain);
                *judged = Some((trust.clone(), Instant::now(), standing.clone()));
                standing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    struct Authority(CertificateParams, KeyPair);

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "authority");
            Self(params, KeyPair::generate().unwrap())
        }

        fn pem(&self) -> String {
            self.0.self_signed(&self.1).unwrap().pem()
        }

        fn client(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            let issuer = Issuer::from_params(&self.0, &self.1);
            let key = KeyPair::generate().unwrap();
            params.signed_by(&key, &issuer).unwrap().der().clone()
        }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    fn published(proxies: &Authority, users: &Authority) -> BTreeMap<String, String> {
        let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        [
            ("client-ca-file", users.pem().as_str()),
            ("requestheader-client-ca-file", &proxies.pem()),
            ("requestheader-allowed-names", r#"["front"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ]
        .map(text)
        .into()
    }

    #[test]
    fn only_a_front_proxy_speaks_for_others() {
        let (proxies, users, foreign) = (Authority::new(), Authority::new(), Authority::new());
        let trust = Arc::new(Trust::read(&published(&proxies, &users)).unwrap());
        let own = verifier(roots(&Authority::new().pem()).unwrap()).unwrap();
        let said = headers(&[
            ("x-remote-user", "eve"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-a%2fb", "c"),
            ("x-remote-uid", "not one of the headers"),
        ]);
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        let name = |certificate: CertificateDer<'static>| {
            Certificates::shown(&[certificate], &own).user(Some(&trust), &said)
        };
        let eve = name(proxies.client("front", client.clone())).unwrap();
        assert_eq!((eve.name.as_str(), eve.uid.as_str()), ("eve", ""));
        assert_eq!(eve.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(eve.extra["a/b"], ["c"]);
        let is = |certificate, wanted: Option<&str>, why: &str| {
            assert_eq!(name(certificate).map(|user| user.name).as_deref(), wanted, "{why}");
        };
        is(proxies.client("other", client.clone()), None, "a name that is not on the list");
        is(users.client("front", client.clone()), Some("front"), "a user's, whatever he says");
        is(users.client("bob", client.clone()), Some("bob"), "a user's");
        is(foreign.client("front", client.clone()), None, "nobody's");
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        is(proxies.client("front", server), None, "a server's certificate");

        // No user named, or too much said: not authenticated so.
        let front = Certificates::shown(&[proxies.client("front", client)], &own);
        assert!(front.proxy(&trust));
        assert_eq!(front.user(Some(&trust), &HeaderMap::new()), None);
        let long = "x".repeat(WORDS);
        let much = headers(&[("x-remote-user", "eve"), ("x-remote-group", &long)]);
        assert_eq!(front.user(Some(&trust), &much), None);

        // The authority changes while the connection stays.
        let later = Arc::new(Trust::read(&published(&foreign, &users)).unwrap());
        assert_eq!(front.user(Some(&later), &said), None);
        assert!(front.user(Some(&trust), &said).is_some());
        assert_eq!(front.user(None, &said), None);
    }

    #[test]
    fn what_is_published_is_read_whole_or_not_at_all() {
        let (proxies, users) = (Authority::new(), Authority::new());
        let good = published(&proxies, &users);
        for (key, value, part) in [
            ("client-ca-file", "text", "client-ca-file: it holds no certificate"),
            ("requestheader-client-ca-file", "-----BEGIN CERTIFICATE-----\nA\n", "requestheader"),
            ("requestheader-allowed-names", "[1]", "requestheader-allowed-names: wanted a list"),
        ] {
            let mut bad = good.clone();
            bad.insert(key.to_owned(), value.to_owned());
            let why = Trust::read(&bad).expect_err(key);
            assert!(why.contains(part), "{why}");
        }
        let nobody = Trust::read(&BTreeMap::new()).unwrap();
        assert!(nobody.users.is_none() && nobody.proxies.is_none());
    }
}
