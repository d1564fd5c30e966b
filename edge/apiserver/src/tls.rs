//! The server's identity: a certificate authority of its own and a bearer token, both kept in a folder,
//! and a certificate made fresh at each start.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::UnixTime;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tokio_rustls::TlsAcceptor;

use crate::certificate::{Files, ServingFiles};
use crate::trust::{self, Verifier};

/// Why the identity could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged: {detail}; remove the folder it is in to get a new identity")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A file of the serving certificate does not hold what it should.
    #[error("{path} cannot be used to serve TLS: {detail}")]
    Serving {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A name for the certificate is not a DNS name or address.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the certificate.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// What a server is known by.
#[derive(Debug)]
pub struct Identity {
    key: KeyPair,
    ca: String,
    token: String,
}

impl Identity {
    /// Reads the identity in `dir`, or makes one there, readable by the owner only.
    pub fn open(dir: &Path) -> Result<Self, IdentityError> {
        let file = |path: &Path| {
            let path = path.to_path_buf();
            move |source| IdentityError::File { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file(dir))?;
        let (key_path, ca_path, token_path) =
            (dir.join("ca.key"), dir.join("ca.crt"), dir.join("token"));
        if !ca_path.exists() {
            let key = KeyPair::generate()?;
            let ca = authority().self_signed(&key)?;
            write_private(&key_path, &key.serialize_pem()).map_err(file(&key_path))?;
            // Last, since its presence says that the key is whole.
            write_private(&ca_path, &ca.pem()).map_err(file(&ca_path))?;
        }
        if !token_path.exists() {
            let token =
                format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
            write_private(&token_path, &token).map_err(file(&token_path))?;
        }
        let read = |path: &Path| fs::read_to_string(path).map_err(file(path));
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|error| IdentityError::Damaged {
            path: key_path,
            detail: error.to_string(),
        })?;
        let token = read(&token_path)?.trim().to_owned();
        if token.len() < 16 {
            let detail = "the token is too short".to_owned();
            return Err(IdentityError::Damaged { path: token_path, detail });
        }
        Ok(Self { key, ca: read(&ca_path)?, token })
    }

    /// The administrator's bearer token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The certificate authority, in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca
    }

    /// A kubeconfig with which `kubectl` reaches this server at `server_url` as administrator.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        self.kubeconfig_of(server_url, "calico-admin", &format!("token: {}", self.token))
    }

    /// TLS with the certificate of `serving`, or with one for `names` (DNS names and addresses) signed by
    /// our authority.
    pub(crate) fn acceptor(
        &self,
        names: &[String],
        serving: Option<ServingFiles>,
        clients: Arc<dyn ClientCertVerifier>,
    ) -> Result<TlsAcceptor, IdentityError> {
        let provider = provider();
        let certificate: Arc<dyn ResolvesServerCert> = match serving {
            Some(files) => Arc::new(Files::open(files, provider.clone())?),
            None => Arc::new(SingleCertAndKey::from(self.own_certificate(names)?)),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(certificate);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn own_certificate(&self, names: &[String]) -> Result<CertifiedKey, IdentityError> {
        let (certificate, key) = self.serving(names)?;
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }

    fn serving(&self, names: &[String]) -> Result<(rcgen::Certificate, KeyPair), IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "calico-apiserver");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let parent = authority();
        let certificate = params.signed_by(&key, &Issuer::from_params(&parent, &self.key))?;
        Ok((certificate, key))
    }

    /// Client certificates are accepted in the handshake if our authority, or one of the file `others`,
    /// signed them; others end it.
    pub(crate) fn known_clients(
        &self,
        others: Option<&Path>,
    ) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
        let roots = Arc::new(self.client_roots(others)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(verifier)
    }

    /// What client certificates of our own are held against after a handshake that lets any pass.
    pub(crate) fn own_clients(&self, others: Option<&Path>) -> Result<Verifier, IdentityError> {
        let verifier = trust::verifier(self.client_roots(others)?);
        Ok(verifier.map_err(rustls::Error::General)?)
    }
}

/// A serving certificate for `names` and its key, of a new authority that signs nothing else: all in PEM,
/// the authority first.
pub fn new_serving_certificate(names: &[String]) -> Result<[String; 3], IdentityError> {
    let key = KeyPair::generate()?;
    let ca = authority().self_signed(&key)?.pem();
    let identity = Identity { key, ca, token: String::new() };
    let (certificate, key) = identity.serving(names)?;
    Ok([identity.ca, certificate.pem(), key.serialize_pem()])
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Lets every client certificate pass whose key the client has. Who it makes him is another question.
#[derive(Debug)]
pub(crate) struct AnyClient(Arc<CryptoProvider>);

impl AnyClient {
    pub(crate) fn new() -> Self {
        Self(provider())
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: clients would not show others than these would have signed.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl Identity {
    fn client_roots(&self, others: Option<&Path>) -> Result<RootCertStore, IdentityError> {
        let mut roots = RootCertStore::empty();
        let bad = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes()).map_err(bad)?)?;
        let Some(path) = others else { return Ok(roots) };
        let text =
            fs::read(path).map_err(|source| IdentityError::File { path: path.into(), source })?;
        let damaged = |detail: String| IdentityError::Damaged { path: path.into(), detail };
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| damaged(error.to_string()))?;
            roots.add(certificate).map_err(|error| damaged(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(damaged("it holds no certificate".to_owned()));
        }
        Ok(roots)
    }

    /// A kubeconfig with which `user` of `groups` reaches this server at `server_url`, with a client
    /// certificate that is good for `days`.
    pub fn user_kubeconfig(
        &self,
        server_url: &str,
        user: &str,
        groups: &[String],
        days: u32,
    ) -> Result<String, IdentityError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_mins(5)).into();
        params.not_after = (now + Duration::from_hours(24) * days).into();
        let parent = authority();
        let certificate = params.signed_by(&key, &Issuer::from_params(&parent, &self.key))?;
        let credentials = format!(
            "client-certificate-data: {}\n    client-key-data: {}",
            STANDARD.encode(certificate.pem()),
            STANDARD.encode(key.serialize_pem())
        );
        Ok(self.kubeconfig_of(server_url, user, &credentials))
    }

    fn kubeconfig_of(&self, server_url: &str, user: &str, credentials: &str) -> String {
        let user = serde_json::Value::from(user);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: calico\n  cluster:\n    \
             server: {server_url}\n    certificate-authority-data: {ca}\nusers:\n- name: {user}\n  \
             user:\n    {credentials}\ncontexts:\n- name: calico\n  context:\n    cluster: calico\n    \
             user: {user}\ncurrent-context: calico\n",
            ca = STANDARD.encode(&self.ca),
        )
    }
}

/// The same in every run, so that certificates chain to the authority that was written once.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "calico-store-ca");
    params
}

/// Names that every certificate carries.
pub(crate) fn standard_names(extra: &[String], service: Option<IpAddr>) -> Vec<String> {
    let standard = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ];
    let mut names: Vec<String> = standard.iter().map(|name| (*name).to_owned()).collect();
    names.extend(service.map(|address| address.to_string()));
    names.extend(extra.iter().filter(|name| !standard.contains(&name.as_str())).cloned());
    names
}

/// Writes a file that only its owner may read, as a whole or not at all. Its folder is made.
///
/// # Errors
/// Those of the file system; the file is as it was.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
