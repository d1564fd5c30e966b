//! Which datastore, and how etcd is reached, under the names that every program of Calico reads.

use crate::{EtcdOptions, EtcdTls, RemoteError, Secret};

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
    /// A file with the password, which may be replaced while it is used.
    PasswordFile,
    /// The authorities of the members' certificates.
    CaCert,
    /// A file with them.
    CaCertFile,
    /// Our certificate.
    Cert,
    /// A file with it.
    CertFile,
    /// The certificate's key.
    Key,
    /// A file with it.
    KeyFile,
}

impl Parameter {
    /// The variable of the environment, if there is one: certificates and keys are not given by it.
    pub fn variable(self) -> Option<&'static str> {
        Some(match self {
            Self::DatastoreType => "DATASTORE_TYPE",
            Self::Endpoints => "ETCD_ENDPOINTS",
            Self::Username => "ETCD_USERNAME",
            Self::Password => "ETCD_PASSWORD",
            Self::PasswordFile => "ETCD_PASSWORD_FILE",
            Self::CaCertFile => "ETCD_CA_CERT_FILE",
            Self::CertFile => "ETCD_CERT_FILE",
            Self::KeyFile => "ETCD_KEY_FILE",
            Self::CaCert | Self::Cert | Self::Key => return None,
        })
    }

    /// The other way to say the same: the text itself, or the file that it is in.
    pub fn other_form(self) -> Option<Self> {
        Some(match self {
            Self::Password => Self::PasswordFile,
            Self::PasswordFile => Self::Password,
            Self::CaCert => Self::CaCertFile,
            Self::CaCertFile => Self::CaCert,
            Self::Cert => Self::CertFile,
            Self::CertFile => Self::Cert,
            Self::Key => Self::KeyFile,
            Self::KeyFile => Self::Key,
            Self::DatastoreType | Self::Endpoints | Self::Username => return None,
        })
    }

    /// What a place that is asked first says, and if it says nothing in either form, what the next says: whoever names
    /// a file in the environment does not want the certificate in a configuration file.
    pub fn in_order(
        self,
        first: impl Fn(Self) -> Option<String>,
        next: impl FnOnce(Self) -> Option<String>,
    ) -> Option<String> {
        let said = |parameter| first(parameter).filter(|text| !text.trim().is_empty());
        if let Some(text) = said(self) {
            return Some(text);
        }
        if self.other_form().and_then(said).is_some() {
            return None;
        }
        next(self)
    }
}

/// Looks a parameter up; nothing, or an empty text, where it is not set.
pub type Lookup<'a> = &'a dyn Fn(Parameter) -> Option<String>;

fn given(lookup: Lookup<'_>, parameter: Parameter) -> Option<String> {
    lookup(parameter).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The text itself, or else a file.
fn secret(lookup: Lookup<'_>, text: Parameter, file: Parameter) -> Option<Secret> {
    // A password may begin or end with a space.
    let text = lookup(text).filter(|text| !text.is_empty()).map(Secret::Inline);
    text.or_else(|| Some(Secret::File(given(lookup, file)?.into())))
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
/// [`RemoteError::Config`]: nothing says where it is, or a user is named without a password.
pub fn etcd(lookup: Lookup<'_>) -> Result<EtcdOptions, RemoteError> {
    let endpoints = given(lookup, Parameter::Endpoints).ok_or_else(|| {
        RemoteError::Config(
            "no etcd to talk to: want ETCD_ENDPOINTS, or etcdEndpoints in the configuration file"
                .into(),
        )
    })?;
    let name = given(lookup, Parameter::Username);
    let password = secret(lookup, Parameter::Password, Parameter::PasswordFile);
    if let (Some(name), None) = (&name, &password) {
        return Err(RemoteError::Config(format!(
            "etcd user {name:?} without a password: want ETCD_PASSWORD or ETCD_PASSWORD_FILE"
        )));
    }
    Ok(EtcdOptions {
        endpoints: endpoints.split(',').map(|e| e.trim().to_owned()).collect(),
        user: name.zip(password),
        tls: EtcdTls {
            authorities: secret(lookup, Parameter::CaCert, Parameter::CaCertFile),
            certificate: secret(lookup, Parameter::Cert, Parameter::CertFile),
            key: secret(lookup, Parameter::Key, Parameter::KeyFile),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
            Parameter::Cert => Some("PEM".into()),
            Parameter::CertFile => Some("/c".into()),
            _ => None,
        })
        .unwrap();
        assert_eq!(options.endpoints, ["https://a:1", "https://b:2"]);
        let (name, password) = options.user.unwrap();
        assert!(name == "u" && matches!(password, Secret::Inline(word) if word == " p"));
        assert!(matches!(options.tls.key, Some(Secret::File(path)) if path == *"/k"));
        assert!(matches!(options.tls.certificate, Some(Secret::Inline(_))), "the text itself");
        assert!(etcd(&|_| None).unwrap_err().to_string().contains("ETCD_ENDPOINTS"));
        let half = etcd(&|parameter| match parameter {
            Parameter::Endpoints => Some("http://a:1".into()),
            Parameter::Username => Some("u".into()),
            _ => None,
        });
        assert!(half.unwrap_err().to_string().contains("ETCD_PASSWORD_FILE"));
    }

    #[test]
    fn one_place_hides_both_forms_of_the_next() {
        let first = |parameter| match parameter {
            Parameter::CertFile => Some("/first".to_owned()),
            Parameter::Password => Some(" ".to_owned()),
            _ => None,
        };
        let next = |_| Some("next".to_owned());
        let of = |parameter: Parameter| parameter.in_order(first, next);
        assert_eq!(of(Parameter::CertFile).as_deref(), Some("/first"));
        assert_eq!(of(Parameter::Cert), None);
        for other in [Parameter::Key, Parameter::KeyFile, Parameter::Password, Parameter::Username]
        {
            assert_eq!(of(other).as_deref(), Some("next"), "{other:?}");
            assert!(other.other_form().is_none_or(|o| o.other_form() == Some(other)));
        }
    }
}
