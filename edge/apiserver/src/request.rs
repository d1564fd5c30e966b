//! Requests as the verbs see them: the path taken apart, the query typed, the headers read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Method, header};

use crate::auth::User;
use crate::body::{self, Encoding, Parsed};
use crate::proto;
use crate::registry::Resource;
use crate::status::{ApiError, Result};
use crate::tier_rights::Tiers;

/// The query part of an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut pairs = HashMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.entry(decode(key, true)?).or_insert(decode(value, true)?);
        }
        Ok(Self(pairs))
    }

    /// The value of `key`, if it is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.0.insert(key.to_owned(), value.to_owned());
    }

    pub(crate) fn flag(&self, key: &str) -> Result<bool> {
        match self.0.get(key).map(String::as_str) {
            None | Some("false" | "0" | "f" | "F" | "False" | "FALSE") => Ok(false),
            Some("" | "true" | "1" | "t" | "T" | "True" | "TRUE") => Ok(true),
            Some(other) => Err(unusable(key, other, "true or false")),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>> {
        let number =
            |text: &str| text.parse().map_err(|_| unusable(key, text, "a number from 0 up"));
        self.get(key).map(number).transpose()
    }

    pub(crate) fn dry_run(&self) -> Result<bool> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(unusable("dryRun", other, "All")),
        }
    }
}

fn unusable(key: &str, value: &str, wanted: &str) -> ApiError {
    ApiError::bad_request(format!("query parameter {key}: got {value:?}, wanted {wanted}"))
}

/// Undoes percent encoding.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let byte = digit(high).zip(digit(low)).map(|(h, l)| (h * 16 + l) as u8);
                bytes.push(byte.ok_or_else(|| bad_address(text))?);
                rest = after;
            }
            (b'%', _) => return Err(bad_address(text)),
            (b'+', _) if plus_is_space => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    let decoded = String::from_utf8(bytes).map_err(|_| bad_address(text))?;
    if decoded.contains('\0') {
        return Err(bad_address(text));
    }
    Ok(decoded)
}

fn bad_address(text: &str) -> ApiError {
    ApiError::bad_request(format!("{text:?} in the address is not percent-encoded UTF-8 text"))
}

/// A request for a resource.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As roles name it.
    pub(crate) verb: &'static str,
    /// Where it is confined to some tiers.
    pub(crate) tiers: Option<Arc<Tiers>>,
    pub(crate) user: Arc<User>,
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// The storage prefix of a list.
    pub(crate) fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{}{namespace}/", self.resource.prefix()),
            None => self.resource.prefix(),
        }
    }

    /// The storage key of `name`.
    pub(crate) fn key(&self, name: &str) -> Arc<str> {
        self.resource.key(self.namespace.as_deref(), name)
    }

    /// The name in the path.
    pub(crate) fn name(&self) -> Result<&str> {
        self.name.as_deref().ok_or_else(|| ApiError::method_not_allowed("a collection"))
    }

    pub(crate) fn content_type(&self) -> &str {
        let text = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
        text.map_or("", |text| text.split(';').next().unwrap_or_default().trim())
    }

    /// The body as an object in JSON or YAML.
    pub(crate) fn parse_body(&self) -> Result<Parsed> {
        let encoding = match self.content_type() {
            "" | "application/json" => Encoding::Json,
            proto::MEDIA => return proto::parse(&self.body).map(Parsed::from),
            "application/yaml" | "text/yaml" | "application/x-yaml" => Encoding::Yaml,
            other => return Err(unsupported(other, "application/json or application/yaml")),
        };
        body::parse(&self.body, encoding)
    }

    /// The name under which fields are owned: `fieldManager`, or the first word of the user agent.
    pub(crate) fn manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok());
        let word = agent.and_then(|text| text.split(['/', ' ']).next()).unwrap_or("unknown");
        word.chars().take(128).collect()
    }
}

/// 415, saying what would do.
pub(crate) fn unsupported(got: &str, wanted: &str) -> ApiError {
    ApiError::new(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format, {got:?}; accepted: {wanted}"),
    )
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// The deprecated `/watch/` form of a list address.
    pub(crate) watch: bool,
}

impl Path {
    /// Takes a resource path apart: `/api/v1/...` or `/apis/group/version/...`.
    pub(crate) fn parse(parts: &[String]) -> Option<Self> {
        let (group, version, rest) = match parts {
            [api, version, rest @ ..] if api == "api" => ("", version, rest),
            [apis, group, version, rest @ ..] if apis == "apis" => (group.as_str(), version, rest),
            _ => return None,
        };
        let (watch, rest) = match rest {
            [first, rest @ ..] if first == "watch" => (true, rest),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            // A namespace's own subresources are not resources in it.
            [first, _, third, ..]
                if first == "namespaces" && matches!(third.as_str(), "status" | "finalize") =>
            {
                (None, rest)
            }
            [first, namespace, rest @ ..] if first == "namespaces" && !rest.is_empty() => {
                (Some(namespace.clone()), rest)
            }
            rest => (None, rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (resource, None, None),
            [resource, name] => (resource, Some(name.clone()), None),
            [resource, name, sub @ ..] => (resource, Some(name.clone()), Some(sub.join("/"))),
            [] => return None,
        };
        Some(Self {
            group: group.to_owned(),
            version: version.clone(),
            resource: resource.clone(),
            namespace,
            name,
            subresource,
            watch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        let parts: Vec<_> = text.split('/').map(str::to_owned).collect();
        Path::parse(&parts).unwrap()
    }

    #[test]
    fn paths_are_taken_apart() {
        let pod = path("api/v1/namespaces/a/pods/x/status");
        assert_eq!((pod.namespace.as_deref(), pod.name.as_deref()), (Some("a"), Some("x")));
        assert_eq!(pod.subresource.as_deref(), Some("status"));
        let namespace = path("api/v1/namespaces/a/finalize");
        assert_eq!(
            (namespace.resource.as_str(), namespace.name.as_deref()),
            ("namespaces", Some("a"))
        );
        let list = path("apis/networking.k8s.io/v1/networkpolicies");
        assert_eq!((list.group.as_str(), list.name), ("networking.k8s.io", None));
        assert_eq!(path("api/v1/namespaces/status").name.as_deref(), Some("status"));
    }

    #[test]
    fn queries_are_decoded_and_typed() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&limit=5&watch=true&x=1+2").unwrap();
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert!(query.flag("watch").unwrap());
        assert_eq!(query.get("x"), Some("1 2"));
        assert!(Query::parse("a=%zz").is_err() && Query::parse("a=%00").is_err());
        assert!(Query::parse("limit=-1").unwrap().number("limit").is_err());
    }
}
