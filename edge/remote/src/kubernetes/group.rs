//! Which of Calico's two API groups a cluster keeps its objects in.

use std::env;

use http::Method;
use serde_json::Value;

use super::ask::{Trouble, ask};
use crate::backend::RemoteError;

/// Says it, before anything is looked for.
const VARIABLE: &str = "CALICO_API_GROUP";

/// How a cluster serves Calico's kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiGroup {
    /// `projectcalico.org/v3`, by definitions of its own or by an API server behind its own.
    Native,
    /// `crd.projectcalico.org/v1` alone, in the form that only programs of Calico read.
    Stored,
}

impl ApiGroup {
    /// What a word says.
    ///
    /// # Errors
    /// [`RemoteError::Config`] if it is not one of the two.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        match text {
            "projectcalico.org/v3" => Ok(Self::Native),
            "crd.projectcalico.org/v1" => Ok(Self::Stored),
            other => Err(RemoteError::Config(format!(
                "{VARIABLE}={other:?}: wanted projectcalico.org/v3 or crd.projectcalico.org/v1"
            ))),
        }
    }

    /// What the environment says, or else what the cluster has: the native group wherever it is served. A
    /// cluster that has neither is taken for one that will have that.
    ///
    /// # Errors
    /// [`RemoteError`]: of the variable, or if the cluster does not say what it serves.
    pub async fn find(client: &kube::Client) -> Result<Self, RemoteError> {
        if let Some(text) = env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
            return Self::parse(&text);
        }
        if serves(client, "projectcalico.org/v3").await? {
            return Ok(Self::Native);
        }
        let stored = serves(client, "crd.projectcalico.org/v1").await?;
        Ok(if stored { Self::Stored } else { Self::Native })
    }
}

/// Whether the cluster serves a version of a group. What an API server behind it serves that is down is served
/// nevertheless.
async fn serves(client: &kube::Client, group: &str) -> Result<bool, RemoteError> {
    match ask::<Value>(client, Method::GET, &format!("/apis/{group}"), None).await {
        Ok(list) => Ok(list["resources"].as_array().is_some_and(|all| !all.is_empty())),
        Err(Trouble::Refusal(refusal)) if refusal.code == 404 => Ok(false),
        // Who may not ask this finds out with the next question what he may.
        Err(Trouble::Refusal(refusal)) if matches!(refusal.code, 401 | 403 | 503) => Ok(true),
        Err(trouble) => Err(trouble.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!(ApiGroup::parse("projectcalico.org/v3").unwrap(), ApiGroup::Native);
        assert_eq!(ApiGroup::parse("crd.projectcalico.org/v1").unwrap(), ApiGroup::Stored);
        let error = ApiGroup::parse("v3").unwrap_err();
        assert!(error.to_string().contains(VARIABLE), "{error}");
    }
}
