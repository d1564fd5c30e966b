//! Pods, host endpoints, profiles, network sets and backends of services.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::endpoint::HostTarget;
use model::policy::{NetworkSet, NetworkSetId, Profile, ServiceId};
use model::update::Backend;
use model::{
    Action, HostEndpoint, IfaceName, NamedPort, ProfileName, Protocol, Rule, WorkloadEndpoint,
    WorkloadId,
};
use sha1::{Digest as _, Sha1};

use super::{
    Converted, DEFAULT_ALLOW, NAME_LABEL, NAMESPACE_LABEL, NAMESPACE_PREFIX, NAMESPACE_PROFILE,
    ORCHESTRATOR_LABEL, SERVICE_ACCOUNT_LABEL, SERVICE_ACCOUNT_PREFIX, SERVICE_ACCOUNT_PROFILE,
    labels, rules,
};
use crate::FieldError;
use crate::net::{address, masked};
use crate::v3;

/// Annotation: the pod's address, set by the CNI plugin; empty once the pod has lost it.
pub const POD_IP_ANNOTATION: &str = "cni.projectcalico.org/podIP";
/// Annotation: all addresses of the pod, as prefixes, comma-separated.
pub const POD_IPS_ANNOTATION: &str = "cni.projectcalico.org/podIPs";
/// Annotation: id of the pod's sandbox container.
pub const CONTAINER_ID_ANNOTATION: &str = "cni.projectcalico.org/containerID";
const AWS_POD_IPS_ANNOTATION: &str = "vpc.amazonaws.com/pod-ips";
const ALLOWED_SOURCES_ANNOTATION: &str = "cni.projectcalico.org/allowedSourcePrefixes";

/// How many hex digits follow the prefix in the name of a pod's interface.
pub const INTERFACE_DIGITS: usize = 11;

/// Name of the host side of a pod's interface pair: the prefix and 11 hex digits of the SHA-1 of
/// `namespace.pod`.
pub fn interface_name(prefix: &str, namespace: &str, pod: &str) -> String {
    let digest = Sha1::new().chain_update(namespace).chain_update(".").chain_update(pod).finalize();
    let mut name = prefix.to_owned();
    for byte in &digest[..6] {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    name.truncate(prefix.len() + INTERFACE_DIGITS);
    name
}

/// The profiles of a pod: its namespace's, then its service account's.
pub fn profiles_of_pod(namespace: &str, service_account: &str) -> Vec<ProfileName> {
    let mut profiles = vec![format!("{NAMESPACE_PROFILE}{namespace}").into()];
    if !service_account.is_empty() {
        profiles.push(service_account_profile_name(namespace, service_account).into());
    }
    profiles
}

fn service_account_profile_name(namespace: &str, account: &str) -> String {
    let namespace = if namespace.is_empty() { "default" } else { namespace };
    format!("{SERVICE_ACCOUNT_PROFILE}{namespace}.{account}")
}

/// A pod's interface; none if the pod is on no node, uses the host's network, or has no address
/// yet. A finished pod has none of its addresses any more.
///
/// # Errors
/// When an address or annotation is malformed.
pub fn pod(pod: &Pod, interface_prefix: &str) -> Result<Option<WorkloadEndpoint>, FieldError> {
    let Some(spec) = &pod.spec else { return Ok(None) };
    let Some(node) = spec.node_name.as_deref().filter(|n| !n.is_empty()) else { return Ok(None) };
    if spec.host_network == Some(true) {
        return Ok(None);
    }
    let finished = finished(pod);
    let addresses = if finished { Vec::new() } else { addresses(pod)? };
    if addresses.is_empty() && !finished {
        return Ok(None);
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let account = spec.service_account_name.as_deref().unwrap_or_default();
    let iface: IfaceName = interface_name(interface_prefix, namespace, name)
        .parse()
        .map_err(|e: model::ids::BadIfaceName| FieldError::new("metadata.name", e.to_string()))?;
    Ok(Some(WorkloadEndpoint {
        id: WorkloadId { namespace: namespace.into(), name: name.into() },
        node: node.into(),
        iface,
        addresses,
        labels: pod_labels(pod, namespace, account),
        profiles: profiles_of_pod(namespace, account),
        ports: container_ports(&spec.containers)
            .chain(container_ports(spec.init_containers.as_deref().unwrap_or_default()))
            .collect(),
        allowed_sources: allowed_sources(pod)?,
    }))
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether the pod has lost its addresses: it has run to its end, or it is being deleted and its
/// network is gone already.
fn finished(pod: &Pod) -> bool {
    let released = |key| annotation(pod, key) == Some("");
    if pod.metadata.deletion_timestamp.is_some()
        && (released(POD_IP_ANNOTATION) || released(AWS_POD_IPS_ANNOTATION))
    {
        return true;
    }
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded" | "Completed"))
}

/// From the first source that says anything: status, our annotations, those of AWS.
fn addresses(pod: &Pod) -> Result<Vec<IpAddr>, FieldError> {
    let status = pod.status.as_ref();
    let listed: Vec<&str> =
        status.and_then(|s| s.pod_ips.as_ref()).into_iter().flatten().map(|i| &*i.ip).collect();
    let single = status.and_then(|s| s.pod_ip.as_deref()).filter(|ip| !ip.is_empty());
    let noted = |key| annotation(pod, key).filter(|ips| !ips.is_empty());
    let (field, texts): (&str, Vec<&str>) = if !listed.is_empty() {
        ("status.podIPs", listed)
    } else if let Some(ip) = single {
        ("status.podIP", vec![ip])
    } else if let Some(ips) = noted(POD_IPS_ANNOTATION) {
        ("metadata.annotations[cni.projectcalico.org/podIPs]", ips.split(',').collect())
    } else if let Some(ip) = noted(POD_IP_ANNOTATION) {
        ("metadata.annotations[cni.projectcalico.org/podIP]", vec![ip])
    } else if let Some(ips) = noted(AWS_POD_IPS_ANNOTATION) {
        ("metadata.annotations[vpc.amazonaws.com/pod-ips]", ips.split(',').collect())
    } else {
        return Ok(Vec::new());
    };
    let one = |text: &str| {
        masked(text.trim()).map(|net| net.addr()).map_err(|e| FieldError::new(field, e))
    };
    texts.into_iter().map(one).collect()
}

/// Labels as they are given, without those that only its namespace and service account may lend an endpoint:
/// it could pretend to be in another.
pub(super) fn own_labels<'a>(
    given: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> BTreeMap<&'a str, &'a str> {
    let lent =
        |key: &str| key.starts_with(NAMESPACE_PREFIX) || key.starts_with(SERVICE_ACCOUNT_PREFIX);
    let own = given.into_iter().filter(|(key, _)| !lent(key));
    own.map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

fn pod_labels(pod: &Pod, namespace: &str, account: &str) -> model::Labels {
    let mut all = own_labels(pod.metadata.labels.iter().flatten());
    all.insert(NAMESPACE_LABEL, namespace);
    all.insert(ORCHESTRATOR_LABEL, "k8s");
    if !account.is_empty() && account.len() < 63 {
        all.insert(SERVICE_ACCOUNT_LABEL, account);
    }
    labels(all)
}

fn container_ports(containers: &[Container]) -> impl Iterator<Item = NamedPort> + '_ {
    containers.iter().flat_map(|c| c.ports.iter().flatten()).filter_map(|port| {
        let name = port.name.as_deref().filter(|n| !n.is_empty())?;
        let protocol = match port.protocol.as_deref() {
            None | Some("" | "TCP") => Protocol::TCP,
            Some("UDP") => Protocol::UDP,
            Some("SCTP") => Protocol::SCTP,
            Some(_) => return None,
        };
        let number = u16::try_from(port.container_port).ok().filter(|p| *p > 0)?;
        Some(NamedPort { name: name.into(), protocol, port: number })
    })
}

fn allowed_sources(pod: &Pod) -> Result<Vec<IpNet>, FieldError> {
    let text = annotation(pod, ALLOWED_SOURCES_ANNOTATION).unwrap_or_default();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let at = |e: String| {
        FieldError::new("metadata.annotations[cni.projectcalico.org/allowedSourcePrefixes]", e)
    };
    let list: Vec<String> =
        serde_json::from_str(text).map_err(|e| at(format!("want a JSON list of prefixes: {e}")))?;
    list.iter().map(|n| masked(n).map_err(at)).collect()
}

/// The prefix that interfaces of new pods get: the first of `interfacePrefix` in the
/// FelixConfiguration (`default`), as an API object or null.
pub fn interface_prefix(felix: &serde_json::Value) -> &str {
    let prefixes = felix["spec"]["interfacePrefix"].as_str().unwrap_or_default().split(',');
    prefixes.map(str::trim).find(|prefix| !prefix.is_empty()).unwrap_or("cali")
}

/// A name as it stands in the name of a `WorkloadEndpoint`, whose parts are joined by one dash.
pub fn escaped(name: &str) -> String {
    name.replace('-', "--")
}

/// The name of the pod whose `WorkloadEndpoint` is called so.
pub fn pod_of_endpoint(name: &str) -> Option<String> {
    // Inside a part dashes come in pairs; the one between parts is single.
    let plain = |part: &str| {
        let unescaped = part.replace("--", "\n");
        (!part.is_empty() && !unescaped.contains('-')).then(|| unescaped.replace('\n', "-"))
    };
    let parts = name.strip_suffix("-eth0")?;
    // Separators may overlap what only looks like one.
    parts.match_indices('-').find_map(|(at, _)| {
        let pod = parts[at..].strip_prefix("-k8s-")?;
        plain(&parts[..at])?;
        plain(pod)
    })
}

/// A pod as the `WorkloadEndpoint` that users see; none where [`pod`] gives none.
///
/// # Errors
/// As for [`pod`].
pub fn workload_view(
    given: &Pod,
    interface_prefix: &str,
) -> Result<Option<v3::WorkloadEndpoint>, FieldError> {
    let Some(endpoint) = pod(given, interface_prefix)? else { return Ok(None) };
    let name =
        format!("{}-k8s-{}-eth0", escaped(endpoint.node.as_str()), escaped(&endpoint.id.name));
    let spec = given.spec.as_ref();
    let mut view = v3::WorkloadEndpoint::namespaced(
        &endpoint.id.namespace,
        &name,
        v3::WorkloadEndpointSpec {
            orchestrator: "k8s".into(),
            node: endpoint.node.as_str().into(),
            container_id: annotation(given, CONTAINER_ID_ANNOTATION).unwrap_or_default().into(),
            pod: endpoint.id.name.as_ref().into(),
            endpoint: "eth0".into(),
            service_account_name: spec
                .and_then(|s| s.service_account_name.clone())
                .unwrap_or_default(),
            ip_networks: endpoint.addresses.iter().map(|a| IpNet::from(*a).to_string()).collect(),
            profiles: endpoint.profiles.iter().map(ToString::to_string).collect(),
            interface_name: endpoint.iface.as_str().into(),
            ports: endpoint.ports.iter().map(port_view).collect(),
            allow_spoofed_source_prefixes: endpoint
                .allowed_sources
                .iter()
                .map(ToString::to_string)
                .collect(),
            ..v3::WorkloadEndpointSpec::default()
        },
    );
    let text = |(k, v): (&Arc<str>, &Arc<str>)| (k.to_string(), v.to_string());
    view.metadata.labels = Some(endpoint.labels.iter().map(text).collect());
    view.metadata.uid.clone_from(&given.metadata.uid);
    view.metadata.resource_version.clone_from(&given.metadata.resource_version);
    view.metadata.creation_timestamp.clone_from(&given.metadata.creation_timestamp);
    Ok(Some(view))
}

pub(super) fn port_view(port: &NamedPort) -> v3::endpoint::WorkloadEndpointPort {
    v3::endpoint::WorkloadEndpointPort {
        name: port.name.as_ref().into(),
        protocol: crate::NumOrString::Text(port.protocol.to_string()),
        port: i32::from(port.port),
        ..Default::default()
    }
}

/// The profile of a namespace: allows both ways, and lends its labels.
pub fn namespace_profile(namespace: &Namespace) -> (ProfileName, Profile) {
    let name = namespace.metadata.name.as_deref().unwrap_or_default();
    let own = namespace.metadata.labels.iter().flatten();
    let mut lent: BTreeMap<String, &str> =
        own.map(|(k, v)| (format!("{NAMESPACE_PREFIX}{k}"), v.as_str())).collect();
    lent.insert(format!("{NAMESPACE_PREFIX}{NAME_LABEL}"), name);
    let profile = Profile { labels: labels(lent), ..allow_all() };
    (format!("{NAMESPACE_PROFILE}{name}").into(), profile)
}

/// The profile of a service account: no rules, lends its labels.
pub fn service_account_profile(account: &ServiceAccount) -> (ProfileName, Profile) {
    let name = account.metadata.name.as_deref().unwrap_or_default();
    let namespace = account.metadata.namespace.as_deref().unwrap_or_default();
    let own = account.metadata.labels.iter().flatten();
    let mut lent: BTreeMap<String, &str> =
        own.map(|(k, v)| (format!("{SERVICE_ACCOUNT_PREFIX}{k}"), v.as_str())).collect();
    lent.insert(format!("{SERVICE_ACCOUNT_PREFIX}{NAME_LABEL}"), name);
    let profile = Profile { labels: labels(lent), ..Profile::default() };
    (service_account_profile_name(namespace, name).into(), profile)
}

/// Whether profiles of this name are made from other objects, never stored.
pub fn profile_is_derived(name: &str) -> bool {
    name == DEFAULT_ALLOW
        || name.starts_with(NAMESPACE_PROFILE)
        || name.strip_prefix(SERVICE_ACCOUNT_PROFILE).is_some_and(|rest| rest.contains('.'))
}

/// The built-in `projectcalico-default-allow`.
pub fn default_allow_profile() -> (ProfileName, Profile) {
    (DEFAULT_ALLOW.into(), allow_all())
}

fn allow_all() -> Profile {
    Profile {
        ingress: vec![Rule::any(Action::Allow)],
        egress: vec![Rule::any(Action::Allow)],
        labels: model::Labels::default(),
    }
}

/// A profile made from a namespace or service account, as users see it.
pub fn profile_view(name: &ProfileName, profile: &Profile) -> v3::Profile {
    let rules = |rules: &[Rule]| {
        let allow = v3::Rule { action: v3::Action::Allow, ..v3::Rule::default() };
        vec![allow; rules.len()]
    };
    let text = |(k, v): (&Arc<str>, &Arc<str>)| (k.to_string(), v.to_string());
    v3::Profile::new(
        name.as_str(),
        v3::ProfileSpec {
            ingress: rules(&profile.ingress),
            egress: rules(&profile.egress),
            labels_to_apply: profile.labels.iter().map(text).collect(),
        },
    )
}

/// A profile as the user wrote it.
pub fn profile(given: &v3::Profile) -> Converted<Profile> {
    let mut errors = Vec::new();
    let value = Profile {
        ingress: rules::all("spec.ingress", &given.spec.ingress, "", &mut errors),
        egress: rules::all("spec.egress", &given.spec.egress, "", &mut errors),
        labels: labels(&given.spec.labels_to_apply),
    };
    Converted { value, errors }
}

fn nets(given: &[String], errors: &mut Vec<FieldError>) -> Vec<IpNet> {
    let mut out = Vec::with_capacity(given.len());
    for (i, text) in given.iter().enumerate() {
        match masked(text) {
            Ok(net) => out.push(net),
            Err(e) => errors.push(FieldError::new(format!("spec.nets[{i}]"), e)),
        }
    }
    out
}

/// A NetworkSet; malformed prefixes are left out.
pub fn network_set(set: &v3::NetworkSet) -> (NetworkSetId, Converted<NetworkSet>) {
    let namespace = set.namespace();
    let mut errors = Vec::new();
    let mut all = set.labels().clone();
    all.insert(NAMESPACE_LABEL.to_owned(), namespace.to_owned());
    let value = NetworkSet {
        labels: labels(all),
        profiles: vec![format!("{NAMESPACE_PROFILE}{namespace}").into()],
        nets: nets(&set.spec.nets, &mut errors),
    };
    let id = NetworkSetId { namespace: namespace.into(), name: set.name().into() };
    (id, Converted { value, errors })
}

/// A GlobalNetworkSet; malformed prefixes are left out.
pub fn global_network_set(set: &v3::GlobalNetworkSet) -> (NetworkSetId, Converted<NetworkSet>) {
    let mut errors = Vec::new();
    let value = NetworkSet {
        labels: labels(set.labels()),
        profiles: Vec::new(),
        nets: nets(&set.spec.nets, &mut errors),
    };
    let id = NetworkSetId { namespace: "".into(), name: set.name().into() };
    (id, Converted { value, errors })
}

/// A host endpoint; malformed addresses and ports are left out.
///
/// # Errors
/// When nobody can tell which interface is meant.
pub fn host_endpoint(given: &v3::HostEndpoint) -> Result<Converted<HostEndpoint>, FieldError> {
    let spec = &given.spec;
    let target = match spec.interface_name.as_str() {
        "" => HostTarget::ByAddress,
        "*" => HostTarget::All,
        name => HostTarget::Iface(name.parse().map_err(|e: model::ids::BadIfaceName| {
            FieldError::new("spec.interfaceName", e.to_string())
        })?),
    };
    let mut errors = Vec::new();
    let mut addresses = Vec::new();
    for (i, text) in spec.expected_ips.iter().enumerate() {
        match address(text) {
            Ok(ip) => addresses.push(ip),
            Err(e) => errors.push(FieldError::new(format!("spec.expectedIPs[{i}]"), e)),
        }
    }
    let mut ports = Vec::new();
    for (i, port) in spec.ports.iter().enumerate() {
        match (port.protocol.protocol(), u16::try_from(port.port)) {
            (Ok(protocol), Ok(number)) if number > 0 => {
                ports.push(NamedPort { name: port.name.as_str().into(), protocol, port: number });
            }
            _ => errors.push(FieldError::new(format!("spec.ports[{i}]"), "malformed")),
        }
    }
    let value = HostEndpoint {
        name: given.name().into(),
        node: spec.node.as_str().into(),
        target,
        addresses,
        labels: labels(given.labels()),
        profiles: spec.profiles.iter().map(|p| p.as_str().into()).collect(),
        ports,
    };
    Ok(Converted { value, errors })
}

/// The service that a slice belongs to, and its backends, ready or not; none if the slice belongs
/// to no service. Addresses that are no IP addresses are left out.
pub fn endpoint_slice(slice: &EndpointSlice) -> Option<(ServiceId, Vec<Backend>)> {
    let metadata = &slice.metadata;
    let name = metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let mut backends = Vec::new();
    for text in slice.endpoints.iter().flat_map(|e| &e.addresses) {
        let Ok(address) = text.parse() else { continue };
        for port in slice.ports.iter().flatten() {
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::TCP,
                Some("UDP") => Protocol::UDP,
                Some("SCTP") => Protocol::SCTP,
                Some(_) => continue,
            };
            let number = port.port.and_then(|p| u16::try_from(p).ok());
            if let Some(port) = number.filter(|p| *p > 0) {
                backends.push(Backend { address, protocol, port });
            }
        }
    }
    backends.sort_unstable();
    backends.dedup();
    Some((ServiceId { namespace: namespace.into(), name: name.as_str().into() }, backends))
}
