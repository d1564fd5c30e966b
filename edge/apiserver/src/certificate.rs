//! A serving certificate that somebody else makes: read from files, and again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::IdentityError;

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(10);

/// A certificate and its key in files (PEM).
#[derive(Clone, Debug)]
pub struct ServingFiles {
    /// The server's certificate, and those that lead from it to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Serves what the files hold. What cannot be read leaves the last good one in place.
#[derive(Debug)]
pub(crate) struct Files {
    files: ServingFiles,
    provider: Arc<CryptoProvider>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    stamp: Stamp,
    looked: Instant,
}

/// When the two files were written.
type Stamp = [Option<SystemTime>; 2];

impl Files {
    pub(crate) fn open(
        files: ServingFiles,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, IdentityError> {
        let stamp = stamp(&files);
        let key = Arc::new(load(&files, &provider)?);
        let current = Mutex::new(Current { key, stamp, looked: Instant::now() });
        Ok(Self { files, provider, current })
    }

    fn current(&self, now: Instant) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked) >= LOOK {
            current.looked = now;
            let found = stamp(&self.files);
            if found != current.stamp {
                match load(&self.files, &self.provider) {
                    Ok(key) => {
                        tracing::info!("the serving certificate was replaced");
                        (current.key, current.stamp) = (Arc::new(key), found);
                    }
                    Err(error) => tracing::warn!(%error, "the serving certificate stays as it was"),
                }
            }
        }
        current.key.clone()
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current(Instant::now()))
    }
}

fn stamp(files: &ServingFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| fs::metadata(path).and_then(|m| m.modified()).ok())
}

fn load(files: &ServingFiles, provider: &CryptoProvider) -> Result<CertifiedKey, IdentityError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| IdentityError::File { path: path.into(), source })
    };
    let broken = |path: &Path, detail: String| IdentityError::Serving { path: path.into(), detail };
    let text = read(&files.certificate)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| broken(&files.certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(broken(&files.certificate, "it holds no certificate".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|_| broken(&files.key, "it holds no private key in PEM".into()))?;
    let key = CertifiedKey::from_der(chain, key, provider);
    key.map_err(|error| broken(&files.key, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let files = ServingFiles {
            certificate: folder.path().join("tls.crt"),
            key: folder.path().join("tls.key"),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let error = Files::open(files.clone(), provider.clone()).expect_err("there are no files");
        assert!(error.to_string().contains("tls.crt"), "{error}");
        let put = |seconds: u64| {
            let made = rcgen::generate_simple_self_signed(["a.svc".to_owned()]).unwrap();
            fs::write(&files.certificate, made.cert.pem()).unwrap();
            fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            fs::File::open(&files.certificate).unwrap().set_modified(at).unwrap();
            made.cert.der().clone()
        };
        let first = put(1_000);
        let served = Files::open(files.clone(), provider).unwrap();
        let now = Instant::now();
        assert_eq!(served.current(now).cert[0], first);
        let second = put(2_000);
        assert_eq!(served.current(now + LOOK / 2).cert[0], first, "not looked at yet");
        assert_eq!(served.current(now + 2 * LOOK).cert[0], second);
        fs::write(&files.certificate, "nothing").unwrap();
        assert_eq!(served.current(now + 4 * LOOK).cert[0], second, "the last good one");
    }
}
