//! Certificates of a test's own.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Who signs certificates for this machine.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new one, that nobody knows yet.
    ///
    /// # Panics
    /// If keys cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("an authority signs itself").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `NAME.crt` and `NAME.key` to a folder: a certificate for a server of this machine and for a client, that
    /// holds from now on for so long, to the second.
    ///
    /// # Panics
    /// If the folder takes no files.
    pub fn write(&self, folder: &Path, name: &str, life: Duration) {
        let key = KeyPair::generate().expect("keys can be made");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("names of a server");
        params.distinguished_name.push(DnType::CommonName, name);
        // etcd's own gateway shows the server's certificate as a client.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.expect("a clock that has been set");
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
        params.not_after = params.not_before + life;
        let certificate = params.signed_by(&key, &self.issuer).expect("an authority signs").pem();
        for (kind, text) in [("crt", certificate), ("key", key.serialize_pem())] {
            // Whoever reads meanwhile finds the old one or the new one.
            let (path, beside) =
                (folder.join(format!("{name}.{kind}")), folder.join(format!("{name}.new")));
            fs::write(&beside, text).expect("the folder takes files");
            fs::rename(&beside, &path).expect("the folder takes files");
        }
    }
}
