//! Names, label keys and label values, by the rules of Kubernetes.

/// One DNS label: at most 63 of `a-z`, `0-9` and inner `-`.
pub(crate) fn dns_label(text: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ok = (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        return Ok(());
    }
    Err(format!("{text:?} is no name (want at most 63 of a-z, 0-9 and inner -)"))
}

/// DNS labels joined by dots, at most 253 bytes.
pub(crate) fn dns_subdomain(text: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let label =
        |l: &str| !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-');
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!("{text:?} is no name (want at most 253 of a-z, 0-9, inner - and .)"))
}

fn qualified_part(text: &str, max: usize) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= max
        && text.chars().all(inner)
        && edge(text.chars().next())
        && edge(text.chars().last())
}

/// A label key: `[PREFIX/]NAME`.
pub(crate) fn label_key(text: &str) -> Result<(), String> {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(p, n)| (Some(p), n));
    if prefix.is_none_or(|p| dns_subdomain(p).is_ok()) && qualified_part(name, 63) {
        return Ok(());
    }
    Err(format!(
        "{text:?} is no label key (want [PREFIX/]NAME, NAME of at most 63 letters, digits and inner - _ .)"
    ))
}

/// A label value.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || qualified_part(text, 63) {
        return Ok(());
    }
    Err(format!("{text:?} is no label value (want at most 63 letters, digits and inner - _ .)"))
}
