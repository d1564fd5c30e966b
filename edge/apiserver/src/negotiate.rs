//! The `Accept` header: plain objects, tables for `kubectl get`, or metadata only.

use hyper::{HeaderMap, header};
use serde_json::{Value, json};

use crate::status::{ApiError, Result};

/// How objects are to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Table,
    Metadata,
}

/// One alternative of an `Accept` header.
pub(crate) struct Alternative<'a> {
    pub(crate) media: &'a str,
    params: Vec<(&'a str, &'a str)>,
}

impl Alternative<'_> {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    pub(crate) fn json(&self) -> bool {
        matches!(self.media, "application/json" | "*/*" | "application/*")
    }
}

/// The alternatives, in the client's order.
pub(crate) fn alternatives(headers: &HeaderMap) -> Vec<Alternative<'_>> {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let all: Vec<_> = accept.flat_map(|text| text.split(',')).map(alternative).collect();
    if all.iter().all(|a| a.media.is_empty()) { vec![alternative("application/json")] } else { all }
}

fn alternative(text: &str) -> Alternative<'_> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    Alternative { media, params: parts.filter_map(|part| part.split_once('=')).collect() }
}

/// The first alternative that we can write.
pub(crate) fn form(headers: &HeaderMap) -> Result<Form> {
    for alternative in alternatives(headers).iter().filter(|a| a.json()) {
        let ours =
            alternative.get("g") == Some("meta.k8s.io") && alternative.get("v") == Some("v1");
        match alternative.get("as") {
            None => return Ok(Form::Plain),
            Some("Table") if ours => return Ok(Form::Table),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if ours => {
                return Ok(Form::Metadata);
            }
            Some(_) => {}
        }
    }
    Err(not_acceptable("application/json"))
}

pub(crate) fn not_acceptable(served: &str) -> ApiError {
    ApiError::new(
        406,
        "NotAcceptable",
        format!("only the following media types are accepted: {served}"),
    )
}

/// An object reduced to its metadata.
pub(crate) fn metadata_only(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Result<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, text.parse().unwrap());
        form(&headers)
    }

    #[test]
    fn the_first_alternative_that_can_be_written_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accept(table), Ok(Form::Table));
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(old), Ok(Form::Plain));
        let proto = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(proto), Ok(Form::Plain));
        assert_eq!(accept("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
        assert_eq!(form(&HeaderMap::new()), Ok(Form::Plain));
    }
}
