//! How etcd is reached, and what is known by reading the files that are named there.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::TIMEOUT;
use crate::backend::RemoteError;

/// How etcd is reached. Files are read again while it is used: see [`Secret::File`].
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// URLs of its members.
    pub endpoints: Vec<String>,
    /// Name and password.
    pub user: Option<(String, Secret)>,
    /// What secures the connection.
    pub tls: EtcdTls,
}

/// Certificates and key, in PEM.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// Authorities that the members' certificates are checked against; the system's if there is none.
    pub authorities: Option<Secret>,
    /// Our certificate.
    pub certificate: Option<Secret>,
    /// Its key.
    pub key: Option<Secret>,
}

/// A text that others need not see.
#[derive(Clone)]
pub enum Secret {
    /// In a file, which somebody may replace: within seconds the new text is used, for everything that goes on
    /// too, if etcd accepts it; until then the old one is.
    File(PathBuf),
    /// The text itself.
    Inline(String),
}

impl Secret {
    fn read(&self) -> Result<Vec<u8>, RemoteError> {
        match self {
            Self::File(path) => std::fs::read(path)
                .map_err(|e| RemoteError::Config(format!("{}: {e}", path.display()))),
            Self::Inline(text) => Ok(text.clone().into_bytes()),
        }
    }

    /// As a line: editors end files with one that is no part of a password.
    fn line(&self) -> Result<String, RemoteError> {
        let text = String::from_utf8(self.read()?).map_err(|_| {
            RemoteError::Config(format!("{self:?}: a password of bytes that are no UTF-8"))
        })?;
        if matches!(self, Self::Inline(_)) {
            return Ok(text);
        }
        let line = text.strip_suffix('\n').map(|rest| rest.strip_suffix('\r').unwrap_or(rest));
        Ok(line.map_or_else(|| text.clone(), str::to_owned))
    }
}

impl From<PathBuf> for Secret {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.fmt(f),
            Self::Inline(_) => f.write_str("given inline"),
        }
    }
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("user", &user)
            .field("tls", &self.tls)
            .finish()
    }
}

/// What the options say at one time.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: Option<(String, String)>,
    /// If connections are secured.
    tls: Option<Tls>,
}

#[derive(Clone, PartialEq, Eq)]
struct Tls {
    authorities: Option<Vec<u8>>,
    /// Certificate and key.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl EtcdOptions {
    /// Whether what is read here can become another.
    pub(super) fn may_change(&self) -> bool {
        let EtcdTls { authorities, certificate, key } = &self.tls;
        let tls = [authorities, certificate, key].into_iter().filter(|_| self.is_secured());
        let password = self.user.as_ref().map(|(_, password)| password);
        tls.flatten().chain(password).any(|secret| matches!(secret, Secret::File(_)))
    }

    fn is_secured(&self) -> bool {
        self.endpoints.iter().any(|url| url.starts_with("https://"))
    }

    pub(super) fn read(&self) -> Result<Credentials, RemoteError> {
        let user = self.user.as_ref();
        let user = user.map(|(name, word)| word.line().map(|word| (name.clone(), word)));
        let user = user.transpose()?;
        let tls = self.is_secured().then(|| self.tls.read()).transpose()?;
        Ok(Credentials { user, tls })
    }
}

impl EtcdTls {
    fn read(&self) -> Result<Tls, RemoteError> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.read()?, key.read()?)),
            (None, None) => None,
            _ => {
                let text = "a client certificate and its key are given together, or neither";
                return Err(RemoteError::Config(text.into()));
            }
        };
        let authorities = self.authorities.as_ref().map(Secret::read).transpose()?;
        Ok(Tls { authorities, identity })
    }
}

impl Credentials {
    pub(super) fn connect_options(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(TIMEOUT)
            .with_keep_alive(Duration::from_secs(10), TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_auto_token_refresh(true);
        if let Some((name, password)) = &self.user {
            options = options.with_user(name, password);
        }
        match &self.tls {
            Some(tls) => options.with_tls(tls.options()),
            None => options,
        }
    }
}

impl Tls {
    fn options(&self) -> TlsOptions {
        let options = match &self.authorities {
            Some(pem) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem)),
            None => TlsOptions::new().with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => options.identity(Identity::from_pem(certificate, key)),
            None => options,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_files_are_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (text, password) in [
            ("word", "word"),
            ("word\n", "word"),
            ("word\r\n", "word"),
            (" a b \n\n", " a b \n"),
            ("word\r", "word\r"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Secret::File(path.clone()).line().unwrap(), password, "{text:?}");
            assert_eq!(Secret::Inline(text.into()).line().unwrap(), text);
        }
        std::fs::write(&path, b"\xff\xfe").unwrap();
        let error = Secret::File(path.clone()).line().unwrap_err().to_string();
        assert!(error.contains("password") && error.contains("UTF-8"), "{error}");
    }

    #[test]
    fn what_may_change() {
        let file = || Some(Secret::File("/f".into()));
        let inline = || Some(Secret::Inline("x".into()));
        let of = |url: &str, authorities: Option<Secret>, password: Option<Secret>| EtcdOptions {
            endpoints: vec![url.into()],
            user: password.map(|word| ("u".into(), word)),
            tls: EtcdTls { authorities, ..EtcdTls::default() },
        };
        assert!(of("https://a:1", file(), None).may_change());
        assert!(!of("https://a:1", inline(), inline()).may_change());
        assert!(!of("http://a:1", file(), None).may_change(), "they are not looked at");
        assert!(of("http://a:1", None, file()).may_change());
    }
}
