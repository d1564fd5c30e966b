//! Namespaces and service accounts as label selectors.

use selector::{NamespaceSelector, Selector};

use super::{NAMESPACE_LABEL, NAMESPACE_PREFIX, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_PREFIX};
use crate::FieldError;
use crate::v3::EntityRule;

pub(super) fn parse(field: &str, text: &str) -> Result<Selector, FieldError> {
    Selector::parse(text).map_err(|e| FieldError::new(field, e.to_string()))
}

/// The same selector with each `all()` in it narrowed to what has `label`: over the labels of
/// namespaces, `all()` means every namespace, not every endpoint.
fn narrowed(selector: &Selector, label: &str) -> Selector {
    if !selector.canonical().contains("all()") {
        return selector.clone();
    }
    let text = selector.canonical().replace("all()", &format!("has({label})"));
    Selector::parse(&text).unwrap_or_else(|_| selector.clone())
}

/// A selector over namespaces as one over endpoints.
fn namespaces(field: &str, text: &str) -> Result<Selector, FieldError> {
    match NamespaceSelector::parse(text).map_err(|e| FieldError::new(field, e.to_string()))? {
        NamespaceSelector::Global => Ok(Selector::not_has(NAMESPACE_LABEL)),
        NamespaceSelector::Matching(s) => {
            Ok(narrowed(&s.with_key_prefix(NAMESPACE_PREFIX), NAMESPACE_LABEL))
        }
    }
}

fn in_namespace(namespace: &str) -> Selector {
    Selector::equals(NAMESPACE_LABEL, namespace)
}

/// Which endpoints a side of a rule matches; none if it does not ask for labels at all.
///
/// As soon as a rule of a namespaced policy asks for labels in any way, also by `notSelector`
/// alone, it is about its own namespace, unless it names namespaces itself.
pub(super) fn entity(
    side: &str,
    entity: &EntityRule,
    namespace: &str,
) -> Result<Option<Selector>, FieldError> {
    let mut parts = Vec::new();
    if let Some(accounts) = &entity.service_accounts {
        if !accounts.selector.is_empty() {
            let field = format!("{side}.serviceAccounts.selector");
            parts.push(parse(&field, &accounts.selector)?.with_key_prefix(SERVICE_ACCOUNT_PREFIX));
        }
        if !accounts.names.is_empty() {
            let names = accounts.names.iter().map(String::as_str);
            parts.push(Selector::is_in(SERVICE_ACCOUNT_LABEL, names));
        }
    }
    if !entity.selector.is_empty() {
        parts.push(parse(&format!("{side}.selector"), &entity.selector)?);
    }
    let own = if !entity.namespace_selector.is_empty() {
        Some(namespaces(&format!("{side}.namespaceSelector"), &entity.namespace_selector)?)
    } else if namespace.is_empty() {
        None
    } else {
        Some(in_namespace(namespace))
    };
    let asked = !parts.is_empty()
        || !entity.not_selector.is_empty()
        || !entity.namespace_selector.is_empty();
    if let Some(own) = own.filter(|_| asked) {
        parts.insert(0, own);
    }
    Ok((!parts.is_empty()).then(|| Selector::and_all(&parts)))
}

/// Which endpoints a policy selects.
pub(super) fn subject(
    namespace: &str,
    selector: &str,
    namespace_selector: &str,
    service_account_selector: &str,
) -> Result<Selector, FieldError> {
    let mut parts = Vec::new();
    if !selector.is_empty() {
        parts.push(parse("spec.selector", selector)?);
    }
    if !namespace.is_empty() {
        parts.push(in_namespace(namespace));
    }
    if !namespace_selector.is_empty() {
        parts.push(namespaces("spec.namespaceSelector", namespace_selector)?);
    }
    if !service_account_selector.is_empty() {
        let accounts = parse("spec.serviceAccountSelector", service_account_selector)?;
        let accounts = accounts.with_key_prefix(SERVICE_ACCOUNT_PREFIX);
        parts.push(narrowed(&accounts, SERVICE_ACCOUNT_LABEL));
    }
    Ok(Selector::and_all(&parts))
}
