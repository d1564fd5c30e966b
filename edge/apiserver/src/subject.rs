//! The user that a client certificate names: its common name, and its organisations as groups.
//!
//! The TLS library has verified the certificate before; only its subject is read here.

use crate::auth::User;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
/// UTF-8, printable, teletex and IA5 strings.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ORGANISATION: &[u8] = &[0x55, 4, 10];

/// The user of a certificate in DER; `None` if it names none.
pub(crate) fn user(certificate: &[u8]) -> Option<User> {
    let mut certificate = certificate;
    let mut outer = expect(&mut certificate, SEQUENCE)?;
    let mut body = expect(&mut outer, SEQUENCE)?;
    // Version (if it is not the first), serial number, algorithm, issuer, validity.
    let (tag, _) = take(&mut body)?;
    let skipped = if tag == 0xa0 { 4 } else { 3 };
    for _ in 0..skipped {
        take(&mut body)?;
    }
    let mut subject = expect(&mut body, SEQUENCE)?;
    let (mut name, mut groups) = (None, Vec::new());
    while !subject.is_empty() {
        let mut set = expect(&mut subject, SET)?;
        while !set.is_empty() {
            let mut pair = expect(&mut set, SEQUENCE)?;
            let kind = expect(&mut pair, OBJECT)?;
            let (tag, text) = take(&mut pair)?;
            let wanted = kind == COMMON_NAME || kind == ORGANISATION;
            if !wanted {
                continue;
            }
            let text = std::str::from_utf8(text).ok().filter(|_| TEXTS.contains(&tag))?;
            if kind == COMMON_NAME {
                name = Some(text);
            } else {
                groups.push(text);
            }
        }
    }
    name.filter(|name| !name.is_empty()).map(|name| User::named(name, &groups))
}

fn expect<'a>(bytes: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    take(bytes).filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
}

/// Takes one value off the front: its tag and its content.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let (digits, after) = rest.split_at_checked(length - 0x80).filter(|(d, _)| d.len() <= 4)?;
        length = digits.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some((*tag, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, name) in names {
            params.distinguished_name.push(kind.clone(), *name);
        }
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn subjects() {
        let long = "x".repeat(300);
        let der = certificate(&[
            (DnType::CountryName, "AT"),
            (DnType::OrganizationName, "dev"),
            (DnType::CommonName, &long),
        ]);
        let found = user(&der).unwrap();
        assert_eq!(found.name, long);
        assert_eq!(found.groups, ["dev", "system:authenticated"]);
        assert_eq!(user(&certificate(&[(DnType::OrganizationName, "dev")])), None);
        for end in 0..der.len() {
            // Whatever is missing, nothing is out of bounds.
            drop(user(&der[..end]));
        }
    }
}
