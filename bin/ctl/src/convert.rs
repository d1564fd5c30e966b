//! `convert`: objects of Kubernetes as the objects of ours that they become.

use anyhow::Result;
use api::FieldError;
use api::cluster_policy::ClusterNetworkPolicy;
use api::convert;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::{ConvertArgs, ConvertOutput};
use crate::files::{Loaded, load_unchecked};
use crate::print::Out;
use crate::{Outcome, check};

/// What an object becomes, and what was malformed in it.
type Converted = Result<(Vec<Value>, Vec<FieldError>), FieldError>;

pub(crate) fn convert(args: &ConvertArgs) -> Result<Outcome> {
    let mut bad = Vec::new();
    let mut out = Out::new();
    let mut first = true;
    for mut loaded in load_unchecked(&args.files)? {
        let Some(object) = &loaded.object else {
            bad.push(loaded);
            continue;
        };
        match one(object) {
            Ok((objects, errors)) => {
                for object in objects {
                    match args.output {
                        ConvertOutput::Json => out.line(&object.to_string())?,
                        ConvertOutput::Yaml => {
                            if !std::mem::take(&mut first) {
                                out.line("---")?;
                            }
                            out.yaml(&object)?;
                        }
                    }
                }
                loaded.errors = errors;
            }
            Err(error) => loaded.errors = vec![error],
        }
        bad.extend(Some(loaded).filter(|l: &Loaded| !l.errors.is_empty()));
    }
    out.finish()?;
    check::tell(&bad);
    Ok(if bad.is_empty() { Outcome::Done } else { Outcome::Failed })
}

fn one(object: &Value) -> Converted {
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let single = |value: Value| Ok((vec![value], Vec::new()));
    match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => match convert::workload_view(&read::<Pod>(object)?, "cali")? {
            Some(endpoint) => single(json!(endpoint)),
            None => Err(FieldError::new("", "has no network of its own, or no address yet")),
        },
        ("v1", "Namespace") => {
            let (name, profile) = convert::namespace_profile(&read::<Namespace>(object)?);
            single(json!(convert::profile_view(&name, &profile)))
        }
        ("v1", "ServiceAccount") => {
            let (name, profile) =
                convert::service_account_profile(&read::<ServiceAccount>(object)?);
            single(json!(convert::profile_view(&name, &profile)))
        }
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            let policy = convert::kubernetes_network_policy(&read::<NetworkPolicy>(object)?)?;
            Ok((vec![convert::policy_view(&policy.value)], policy.errors))
        }
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy") => {
            let policy = convert::cluster_network_policy(&read::<ClusterNetworkPolicy>(object)?)?;
            Ok((vec![convert::policy_view(&policy.value)], policy.errors))
        }
        ("projectcalico.org/v3", _) => match api::kind_of(object) {
            Ok(_) => single(object.clone()),
            Err(errors) => Ok((Vec::new(), errors)),
        },
        (version, kind) => Err(FieldError::new(
            "kind",
            format!(
                "{version} {kind} becomes no object of ours (want a Pod, Namespace, \
                 ServiceAccount, NetworkPolicy or ClusterNetworkPolicy)"
            ),
        )),
    }
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    T::deserialize(object).map_err(|e| FieldError::new("", e.to_string()))
}
