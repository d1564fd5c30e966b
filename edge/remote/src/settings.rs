//! Which datastore, and how etcd is reached, under the names that every program of Calico reads.

use std::path::PathBuf;

use crate::{EtcdOptions, EtcdTls, RemoteError};

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatastoreType {
    /// A Kubernetes API server, or what speaks like one.
    Kubernetes,
    /// etcd, in upstream's layout.
    Etcd,
}

/// Something that can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Which datastore.
    DatastoreType,
    /// URLs of etcd's members, separated by commas.
    Endpoints,
    /// The name to log in with.
    Username,
    /// The password to log in with.
    Password,
    /// A file with the authorities of the members' certificates.
    CaCertFile,
    /// A file with our certificate.
    CertFile,
    /// A file with its key.
    KeyFile,
}

impl Parameter {
    /// The variable of the environment.
    pub fn variable(self) -> &'static str {
        match self {
            Self::DatastoreType => "DATASTORE_TYPE",
            Self::Endpoints => "ETCD_ENDPOINTS",
            Self::Username => "ETCD_USERNAME",
            Self::Password => "ETCD_PASSWORD",
            Self::CaCertFile => "ETCD_CA_CERT_FILE",
            Self::CertFile => "ETCD_CERT_FILE",
            Self::KeyFile => "ETCD_KEY_FILE",
        }
    }
}

/// Looks a parameter up; nothing, or an empty text, where it is not set.
pub type Lookup<'a> = &'a dyn Fn(Parameter) -> Option<String>;

fn given(lookup: Lookup<'_>, parameter: Parameter) -> Option<String> {
    lookup(parameter).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What is asked for; Kubernetes if nothing is, and no etcd is named either.
///
/// # Errors
/// [`RemoteError::Config`]: there is no such datastore.
pub fn datastore_type(lookup: Lookup<'_>) -> Result<DatastoreType, RemoteError> {
    match given(lookup, Parameter::DatastoreType).as_deref() {
        Some("etcdv3") => Ok(DatastoreType::Etcd),
        None if given(lookup, Parameter::Endpoints).is_some() => Ok(DatastoreType::Etcd),
        Some("kubernetes") | None => Ok(DatastoreType::Kubernetes),
        Some(other) => Err(RemoteError::Config(format!(
            "datastore type {other:?} is not known (want kubernetes or etcdv3)"
        ))),
    }
}

/// How etcd is reached.
///
/// # Errors
/// [`RemoteError::Config`]: nothing says where it is.
pub fn etcd(lookup: Lookup<'_>) -> Result<EtcdOptions, RemoteError> {
    let endpoints = given(lookup, Parameter::Endpoints).ok_or_else(|| {
        let name = Parameter::Endpoints.variable();
        RemoteError::Config(format!("no etcd to talk to: want {name}, or the same in a file"))
    })?;
    let file = |parameter| given(lookup, parameter).map(|path| PathBuf::from(path).into());
    let name = given(lookup, Parameter::Username);
    // A password may begin or end with a space.
    let password = lookup(Parameter::Password).filter(|text| !text.is_empty());
    Ok(EtcdOptions {
        endpoints: endpoints.split(',').map(|e| e.trim().to_owned()).collect(),
        user: name.zip(password),
        tls: EtcdTls {
            authorities: file(Parameter::CaCertFile),
            certificate: file(Parameter::CertFile),
            key: file(Parameter::KeyFile),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pem;

    #[test]
    fn what_is_asked_for() {
        let of = |kind: &str, endpoints: &str| {
            let (kind, endpoints) = (kind.to_owned(), endpoints.to_owned());
            datastore_type(&move |parameter| match parameter {
                Parameter::DatastoreType => Some(kind.clone()),
                Parameter::Endpoints => Some(endpoints.clone()),
                _ => None,
            })
        };
        assert_eq!(of("", "").unwrap(), DatastoreType::Kubernetes);
        assert_eq!(of("", "http://e:2379").unwrap(), DatastoreType::Etcd);
        assert_eq!(of("kubernetes", "http://e:2379").unwrap(), DatastoreType::Kubernetes);
        assert_eq!(of(" etcdv3 ", "").unwrap(), DatastoreType::Etcd);
        assert!(of("etcd", "").unwrap_err().to_string().contains("etcdv3"));
    }

    #[test]
    fn where_etcd_is() {
        let options = etcd(&|parameter| match parameter {
            Parameter::Endpoints => Some("https://a:1, https://b:2".into()),
            Parameter::Username => Some("u".into()),
            Parameter::Password => Some(" p".into()),
            Parameter::KeyFile => Some("/k".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(options.endpoints, ["https://a:1", "https://b:2"]);
        assert_eq!(options.user, Some(("u".into(), " p".into())));
        assert!(matches!(options.tls.key, Some(Pem::File(path)) if path == *"/k"));
        assert!(etcd(&|_| None).unwrap_err().to_string().contains("ETCD_ENDPOINTS"));
    }
}
