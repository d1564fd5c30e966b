//! Ends of a connection, as users write them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use model::policy::ServiceId;
use model::{NodeName, WorkloadId};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `namespace/pod`.
    Pod(WorkloadId),
    /// `host:NAME`, a host endpoint.
    Host(Arc<str>),
    /// `node:NAME`.
    Node(NodeName),
    /// `service:namespace/name`: each of its backends.
    Service(ServiceId),
    /// An address.
    Address(IpAddr),
}

/// The text names no end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no end of a connection: want namespace/pod, host:NAME, node:NAME, an address, or service:namespace/name"
)]
pub struct BadReference(String);

impl FromStr for Reference {
    type Err = BadReference;
    fn from_str(text: &str) -> Result<Self, BadReference> {
        let bad = || BadReference(text.to_owned());
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let pair = |text: &str| {
            let (namespace, name) = text.split_once('/')?;
            let plain = |s: &str| !s.is_empty() && !s.contains(['/', ':', ' ']);
            (plain(namespace) && plain(name)).then(|| (Arc::from(namespace), Arc::from(name)))
        };
        if let Some((kind, name)) = text.split_once(':') {
            return match kind {
                _ if name.is_empty() => Err(bad()),
                "host" => Ok(Self::Host(name.into())),
                "node" => Ok(Self::Node(name.into())),
                "service" => {
                    let (namespace, name) = pair(name).ok_or_else(bad)?;
                    Ok(Self::Service(ServiceId { namespace, name }))
                }
                _ => Err(bad()),
            };
        }
        let (namespace, name) = pair(text).ok_or_else(bad)?;
        Ok(Self::Pod(WorkloadId { namespace, name }))
    }
}

impl Reference {
    /// Takes apart `REFERENCE[:PORT]`; an IPv6 address with a port stands in brackets.
    ///
    /// # Errors
    /// When either part is malformed.
    pub fn with_port(text: &str) -> Result<(Self, Option<u16>), BadReference> {
        let bad = || BadReference(text.to_owned());
        if let Some(rest) = text.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or_else(bad)?;
            let address = address.parse().map_err(|_| bad())?;
            let port = match port.strip_prefix(':') {
                Some(port) => Some(port.parse().map_err(|_| bad())?),
                None if port.is_empty() => None,
                None => return Err(bad()),
            };
            return Ok((Self::Address(address), port));
        }
        if let Ok(whole) = text.parse::<IpAddr>() {
            return Ok((Self::Address(whole), None));
        }
        if let Some((before, port)) = text.rsplit_once(':')
            && let Ok(port) = port.parse::<u16>()
            && let Ok(reference) = before.parse()
        {
            return Ok((reference, Some(port)));
        }
        Ok((text.parse()?, None))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(id) => write!(f, "{id}"),
            Self::Host(name) => write!(f, "host:{name}"),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Service(id) => write!(f, "service:{}/{}", id.namespace, id.name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for good in ["a/x", "host:h1", "node:n-1", "service:a/web", "10.0.0.1", "fd00::1"] {
            assert_eq!(good.parse::<Reference>().unwrap().to_string(), good);
        }
        for bad in ["", "x", "a/", "/x", "a/b/c", "host:", "pod:a/x", "service:web", "10.0.0.256"] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn references_with_ports() {
        for (text, reference, port) in [
            ("a/x:80", "a/x", Some(80)),
            ("a/x", "a/x", None),
            ("10.0.0.1:443", "10.0.0.1", Some(443)),
            ("fd00::1", "fd00::1", None),
            ("[fd00::1]:53", "fd00::1", Some(53)),
            ("[fd00::1]", "fd00::1", None),
            ("host:h:22", "host:h", Some(22)),
            ("host:h", "host:h", None),
            ("service:a/web:80", "service:a/web", Some(80)),
        ] {
            let (got, got_port) = Reference::with_port(text).unwrap();
            assert_eq!((got.to_string().as_str(), got_port), (reference, port), "{text}");
        }
        for bad in ["a/x:70000", "[fd00::1", "[fd00::1]x", "a/x:"] {
            assert!(Reference::with_port(bad).is_err(), "{bad}");
        }
    }
}
