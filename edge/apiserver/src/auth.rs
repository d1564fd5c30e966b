//! Who asks: the administrator's bearer token, or a service account's signed one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::status::{ApiError, Result};

/// The user that the token in the kubeconfig stands for.
pub(crate) const ADMIN: &str = "kubernetes-admin";

/// The user behind a request.
pub(crate) fn authenticate(token: &str, headers: &HeaderMap, now: i64) -> Result<String> {
    let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = header.and_then(|text| {
        let (scheme, given) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
    });
    let given = given.ok_or_else(ApiError::unauthorized)?;
    if equal(given, token) {
        return Ok(ADMIN.to_owned());
    }
    check(token, given, now).ok_or_else(ApiError::unauthorized)
}

/// Compares in a time that does not depend on where the texts differ.
fn equal(left: &str, right: &str) -> bool {
    let (left, right) = (Sha256::digest(left), Sha256::digest(right));
    left.iter().zip(right.iter()).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

/// A token for `user` that is good until `until`, in seconds since 1970.
pub(crate) fn issue(key: &str, user: &str, until: i64) -> String {
    let claim = URL_SAFE_NO_PAD.encode(format!("{until} {user}"));
    let seal = URL_SAFE_NO_PAD.encode(seal(key, &claim));
    format!("calico.{claim}.{seal}")
}

fn check(key: &str, token: &str, now: i64) -> Option<String> {
    let (claim, given) = token.strip_prefix("calico.")?.split_once('.')?;
    if !equal(given, &URL_SAFE_NO_PAD.encode(seal(key, claim))) {
        return None;
    }
    let claim = String::from_utf8(URL_SAFE_NO_PAD.decode(claim).ok()?).ok()?;
    let (until, user) = claim.split_once(' ')?;
    (until.parse::<i64>().ok()? > now).then(|| user.to_owned())
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

    fn bearer(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        headers
    }

    #[test]
    fn tokens() {
        assert_eq!(authenticate("secret", &bearer("secret"), 0).unwrap(), ADMIN);
        assert_eq!(authenticate("secret", &bearer("wrong"), 0).unwrap_err().code, 401);
        assert_eq!(authenticate("secret", &HeaderMap::new(), 0).unwrap_err().code, 401);
        let issued = issue("secret", "system:serviceaccount:a:b", 100);
        assert_eq!(
            authenticate("secret", &bearer(&issued), 99).unwrap(),
            "system:serviceaccount:a:b"
        );
        assert!(authenticate("secret", &bearer(&issued), 100).is_err(), "expired");
        assert!(authenticate("other", &bearer(&issued), 99).is_err(), "foreign key");
    }
}
