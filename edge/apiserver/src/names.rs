//! The grammar of names, labels and annotations. Each check returns what is wrong, if anything.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, \
     '-' or '.', and must start and end with an alphanumeric character";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start \
     with an alphabetic character, and end with an alphanumeric character";

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn dash_separated(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|b| lower(*b) || *b == b'-')
        && bytes.first().copied().is_some_and(lower)
        && bytes.last().copied().is_some_and(lower)
}

pub(crate) fn dns_label(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    (!dash_separated(text)).then(|| LABEL.to_owned())
}

pub(crate) fn dns_subdomain(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".into());
    }
    (!text.split('.').all(dash_separated)).then(|| SUBDOMAIN.to_owned())
}

pub(crate) fn service_name(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".into());
    }
    let good = dash_separated(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
    (!good).then(|| SERVICE.to_owned())
}

/// A name that is safe as one segment of a path, and no more than that.
pub(crate) fn path_segment(text: &str) -> Option<String> {
    let bad = text == "." || text == ".." || text.contains(['/', '%', '\0']);
    bad.then(|| "may not be '.' or '..', or contain '/', '%' or NUL".to_owned())
}

fn qualified_part(text: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last()) && bytes.len() <= 63
}

/// Keys of labels, annotations, finalizers: `[prefix/]name`.
pub(crate) fn label_key(text: &str) -> Option<String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(why) = prefix.and_then(dns_subdomain) {
        return Some(format!("prefix part {why}"));
    }
    (!qualified_part(name)).then(|| {
        "name part must consist of at most 63 alphanumeric characters, '-', '_' or '.', and must \
         start and end with an alphanumeric character"
            .to_owned()
    })
}

pub(crate) fn label_value(text: &str) -> Option<String> {
    (!text.is_empty() && !qualified_part(text)).then(|| {
        "a valid label must be an empty string or consist of at most 63 alphanumeric characters, \
         '-', '_' or '.', and must start and end with an alphanumeric character"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(dns_label("a-b1"), None);
        assert_eq!(dns_subdomain("a.b-c.d"), None);
        for bad in ["", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
            assert!(dns_label(bad).is_some(), "{bad}");
        }
        assert!(dns_subdomain("a..b").is_some() && service_name("1a").is_some());
        assert_eq!(label_key("projectcalico.org/Name_x"), None);
        assert!(label_key("/x").is_some() && label_key("a/b/c").is_some());
        assert!(label_value("").is_none() && label_value("a b").is_some());
        assert!(path_segment("..").is_some() && path_segment("a.b").is_none());
    }
}
