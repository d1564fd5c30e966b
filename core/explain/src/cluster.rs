//! The cluster that is asked about, from its objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use api::convert::update::{self as told, Told, update};
use api::v3::{self, FelixConfiguration};
use api::{FieldError, convert};
use config::{HostAction, Sources};
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::endpoint::HostTarget;
use model::network::EncapMode;
use model::policy::{ServiceId, Tier};
use model::{
    Action, IfaceName, NodeName, PolicyId, PolicyKind, ProfileName, Update, WorkloadEndpoint,
    WorkloadId,
};
use policy::{Direction, Failsafe, NodeView, Overlay, View};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// Where pods that name no node are taken to be.
const NOWHERE: &str = "unscheduled";
/// Addresses of pods that have none yet: reserved space, which no cluster uses (RFC 1112).
const MADE_UP: Ipv4Addr = Ipv4Addr::new(240, 0, 0, 0);
/// The interface that has the addresses of a node of which nobody says more.
const MAIN_INTERFACE: &str = "eth0";

/// What is wrong with an object, or with a part of it that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object: kind, then `namespace/name` or name.
    pub object: String,
    /// What is wrong.
    pub error: FieldError,
}

/// Objects, taken in one after the other.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    view: View,
    nodes: BTreeMap<NodeName, Vec<IpAddr>>,
    felix: Vec<FelixConfiguration>,
    encapsulates: bool,
    made_up: u32,
    /// Endpoints that pods are the source of.
    pods: BTreeSet<WorkloadId>,
    /// Pods that share their node's network: the node's addresses.
    pub(crate) host_pods: BTreeMap<WorkloadId, Vec<IpAddr>>,
    pub(crate) services: BTreeMap<ServiceId, Service>,
    pub(crate) slices: BTreeMap<ServiceId, Vec<EndpointSlice>>,
    /// `FELIX_*` variables that the agents run with.
    pub environment: Vec<(String, String)>,
    /// Policies that a staged deletion would take away.
    deletions: BTreeSet<PolicyId>,
    /// Rules that could not be understood, by their index as written.
    pub(crate) malformed: BTreeSet<(PolicyId, Direction, u32)>,
    /// Policies that could not be read, and deny.
    pub(crate) unread: BTreeSet<PolicyId>,
    /// What was malformed, in the order of the objects.
    pub problems: Vec<Problem>,
}

impl Cluster {
    /// Takes in one object, with the defaults that an API server would have filled in. A kind that
    /// has no say about packets is let pass.
    ///
    /// # Errors
    /// Every error of an object that an API server would have refused.
    pub fn add(&mut self, mut object: Value) -> Result<(), Vec<FieldError>> {
        let text = |key: &str| object[key].as_str().unwrap_or_default();
        if let Some(kind) = api::lookup(text("apiVersion"), text("kind")) {
            let errors = kind.validate(&object, None);
            if !errors.is_empty() {
                return Err(errors);
            }
            kind.default(&mut object);
            if kind.namespaced {
                default_namespace(&mut object);
            }
        }
        self.add_stored(object)
    }

    /// Takes in one object as a datastore has it, whoever wrote it there: as agents do, with what is in force in place
    /// of what cannot be read.
    ///
    /// # Errors
    /// What is wrong with an object that counts as absent.
    pub fn add_stored(&mut self, mut object: Value) -> Result<(), Vec<FieldError>> {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        let one = |e: serde_json::Error| vec![FieldError::new("", e.to_string())];
        match (version.as_str(), kind.as_str()) {
            ("v1", "Pod") if !self.complete_pod(&mut object) => return Ok(()),
            ("v1", "ServiceAccount") => default_namespace(&mut object),
            ("v1", "Service") => {
                default_namespace(&mut object);
                let service = Service::deserialize(&object).map_err(one)?;
                let metadata = &service.metadata;
                let text = |t: &Option<String>| t.as_deref().unwrap_or_default().into();
                let id =
                    ServiceId { namespace: text(&metadata.namespace), name: text(&metadata.name) };
                self.services.insert(id, service);
                return Ok(());
            }
            ("discovery.k8s.io/v1", "EndpointSlice") => {
                default_namespace(&mut object);
                let slice = EndpointSlice::deserialize(&object).map_err(one)?;
                if let Some((service, _)) = convert::endpoint_slice(&slice) {
                    self.slices.entry(service).or_default().push(slice);
                }
            }
            ("projectcalico.org/v3", "WorkloadEndpoint") => return self.endpoint(&object),
            ("projectcalico.org/v3", "Node") => {
                let node = v3::Node::deserialize(&object).map_err(one)?;
                let Told { update, errors, .. } = told::stored_node(&node).map_err(|e| vec![e])?;
                self.take(&object, update, errors);
                return Ok(());
            }
            ("v1", "Namespace") => label_namespace(&mut object),
            ("projectcalico.org/v3", "FelixConfiguration") => {
                self.felix.push(FelixConfiguration::deserialize(&object).map_err(one)?);
                return Ok(());
            }
            _ => {}
        }
        let Some(telling) = update(&object, "cali") else { return Ok(()) };
        let Told { update, errors, stand_in } = telling.map_err(|e| vec![e])?;
        self.deletions.extend(staged_deletion(&object));
        if let Some(Update::Policy(id, _)) = &update {
            if stand_in {
                self.unread.insert(id.clone());
            }
            let rules = errors.iter().filter_map(|e| rule_of(&e.field));
            self.malformed.extend(rules.map(|(direction, rule)| (id.clone(), direction, rule)));
        }
        self.take(&object, update, errors);
        Ok(())
    }

    fn take(&mut self, object: &Value, update: Option<Update>, errors: Vec<FieldError>) {
        let name = name_of(object);
        self.problems
            .extend(errors.into_iter().map(|error| Problem { object: name.clone(), error }));
        if let Some(update) = update {
            self.update(update);
        }
    }

    /// An endpoint that is an object of its own, as on a datastore without pods: known by its pod, if
    /// it has one. A pod that is there itself says more.
    fn endpoint(&mut self, object: &Value) -> Result<(), Vec<FieldError>> {
        let one = |e: serde_json::Error| vec![FieldError::new("", e.to_string())];
        let given = v3::WorkloadEndpoint::deserialize(object).map_err(one)?;
        let Told { update, errors, .. } = told::workload_endpoint(&given).map_err(|e| vec![e])?;
        let Some(Update::Workload(mut id, Some(endpoint))) = update else { return Ok(()) };
        if !given.spec.pod.is_empty() {
            id.name = given.spec.pod.as_str().into();
        }
        if self.pods.contains(&id) {
            return Ok(());
        }
        let endpoint = WorkloadEndpoint { id: id.clone(), ..(*endpoint).clone() };
        self.take(object, Some(Update::Workload(id, Some(Arc::new(endpoint)))), errors);
        Ok(())
    }

    fn update(&mut self, update: Update) {
        match update {
            Update::Node(name, Some(node)) => {
                self.nodes.insert(name, node.addresses.iter().map(ipnet::IpNet::addr).collect());
            }
            Update::Pool(_, Some(pool)) => {
                let never = |mode: EncapMode| mode == EncapMode::Never;
                self.encapsulates |= !(never(pool.vxlan) && never(pool.ipip));
            }
            other => self.view.update(other),
        }
    }

    /// Fills in what only a running pod has; false if the pod has no network of its own.
    fn complete_pod(&mut self, pod: &mut Value) -> bool {
        default_namespace(pod);
        let id = WorkloadId {
            namespace: pod["metadata"]["namespace"].as_str().unwrap_or_default().into(),
            name: pod["metadata"]["name"].as_str().unwrap_or_default().into(),
        };
        self.pods.insert(id.clone());
        if pod["spec"]["hostNetwork"] == true {
            let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
            let ips =
                ips.filter_map(|ip| ip["ip"].as_str()).chain(pod["status"]["hostIP"].as_str());
            self.host_pods.insert(id, ips.filter_map(|ip| ip.parse().ok()).collect());
            return false;
        }
        let Some(map) = pod.as_object_mut() else { return true };
        if let Some(spec) = map.entry("spec").or_insert_with(|| json!({})).as_object_mut() {
            for (key, value) in [("nodeName", NOWHERE), ("serviceAccountName", "default")] {
                if spec.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                    spec.insert(key.into(), value.into());
                }
            }
        }
        // Told once more, a pod keeps the address that was made up for it.
        let known = self.view.workloads.get(&id).and_then(|w| w.addresses.first().copied());
        let probe = update(pod, "cali").and_then(Result::ok).unwrap_or_default();
        if probe.update.is_none() {
            self.made_up += 1;
            let next = || Ipv4Addr::from_bits(MADE_UP.to_bits() + self.made_up).into();
            let address: IpAddr = known.unwrap_or_else(next);
            pod["status"]["podIP"] = address.to_string().into();
        }
        true
    }

    /// Everything that decides about packets, with what a cluster always has: the built-in tiers,
    /// and a profile for each namespace and service account that has pods.
    pub fn view(&self) -> View {
        let mut view = self.view.clone();
        for (name, ..) in Tier::BUILT_IN {
            if let Some(tier) = Tier::built_in(name) {
                view.tiers.entry(name.into()).or_insert(tier);
            }
        }
        let (name, profile) = convert::default_allow_profile();
        view.profiles.entry(name).or_insert_with(|| profile.into());
        let used = self.view.workloads.values().flat_map(|w| &w.profiles);
        for (name, profile) in used.filter_map(implied_profile) {
            view.profiles.entry(name).or_insert_with(|| profile.into());
        }
        view.overlay = if self.encapsulates { Overlay::Tunnelled } else { Overlay::Routed };
        self.settings(&mut view);
        view.nodes = self.interfaces();
        view
    }

    /// As [`Self::view`], if staged policies were in force and staged deletions done.
    pub fn staged_view(&self) -> View {
        let mut view = self.view();
        for id in &self.deletions {
            view.policies.remove(id);
        }
        view.enforce_staged();
        view
    }

    fn settings(&self, view: &mut View) {
        let sources = Sources {
            resources: self.felix.clone(),
            environment: self.environment.clone(),
            ..Sources::default()
        };
        let config = config::resolve(&sources).config;
        let failsafe =
            |p: &config::ProtoPort| Failsafe { protocol: p.protocol, port: p.port, net: p.net };
        view.failsafe_inbound = config.failsafe_inbound.iter().map(failsafe).collect();
        view.failsafe_outbound = config.failsafe_outbound.iter().map(failsafe).collect();
        view.endpoint_to_host = match config.endpoint_to_host {
            HostAction::Drop => Action::Deny,
            HostAction::Return => Action::Pass,
            HostAction::Accept => Action::Allow,
        };
    }

    /// What the objects say about nodes' interfaces: a host endpoint that names one says that it
    /// exists and which addresses it has; what is left over is the main interface's.
    fn interfaces(&self) -> BTreeMap<NodeName, NodeView> {
        let mut nodes: BTreeMap<NodeName, NodeView> =
            self.nodes.keys().map(|name| (name.clone(), NodeView::default())).collect();
        for host in self.view.hosts.values() {
            let node = nodes.entry(host.node.clone()).or_default();
            if let HostTarget::Iface(name) = &host.target {
                node.interfaces.push((name.clone(), host.addresses.clone()));
            }
        }
        for (name, node) in &mut nodes {
            let own = self.nodes.get(name).into_iter().flatten();
            let loose = self.view.hosts.values().filter(|h| h.node == *name);
            let loose = loose.filter(|h| !matches!(h.target, HostTarget::Iface(_)));
            let claimed = |a: &IpAddr| node.interfaces.iter().any(|(_, has)| has.contains(a));
            let mut rest: Vec<IpAddr> =
                own.chain(loose.flat_map(|h| &h.addresses)).copied().collect();
            rest.retain(|a| !claimed(a));
            rest.dedup();
            // The interface that a host endpoint names without saying its addresses, if there is
            // one, is the one that the node is reached by.
            match node.interfaces.iter_mut().find(|(_, has)| has.is_empty()) {
                Some((_, has)) => *has = rest,
                None if rest.is_empty() => {}
                None => {
                    if let Ok(main) = MAIN_INTERFACE.parse::<IfaceName>() {
                        node.interfaces.insert(0, (main, rest));
                    }
                }
            }
        }
        nodes
    }
}

/// The profile that a namespace or service account without an object of its own would have.
fn implied_profile(name: &ProfileName) -> Option<(ProfileName, model::policy::Profile)> {
    let name = name.as_str();
    if let Some(namespace) = name.strip_prefix(convert::NAMESPACE_PROFILE) {
        let mut object = json!({"metadata": {"name": namespace}});
        label_namespace(&mut object);
        let object = Namespace::deserialize(object).ok()?;
        return Some(convert::namespace_profile(&object));
    }
    let (namespace, account) =
        name.strip_prefix(convert::SERVICE_ACCOUNT_PROFILE)?.split_once('.')?;
    let object = json!({"metadata": {"namespace": namespace, "name": account}});
    Some(convert::service_account_profile(&ServiceAccount::deserialize(object).ok()?))
}

/// The policy that a staged object with the action Delete would take away.
fn staged_deletion(object: &Value) -> Option<PolicyId> {
    let kind = match object["kind"].as_str()? {
        "StagedGlobalNetworkPolicy" => PolicyKind::GlobalNetworkPolicy,
        "StagedKubernetesNetworkPolicy" => PolicyKind::KubernetesNetworkPolicy,
        "StagedNetworkPolicy" => PolicyKind::NetworkPolicy,
        _ => return None,
    };
    let deletes = object["spec"]["stagedAction"] == "Delete";
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().into();
    deletes.then(|| PolicyId { name: text("name"), namespace: text("namespace"), kind })
}

/// The direction and the index of the rule that a field like `spec.ingress[3].action` is in.
fn rule_of(field: &str) -> Option<(Direction, u32)> {
    let rest = field.strip_prefix("spec.")?;
    let (list, rest) = rest.split_once('[')?;
    let direction = match list {
        "ingress" => Direction::Ingress,
        "egress" => Direction::Egress,
        _ => return None,
    };
    Some((direction, rest.split_once(']')?.0.parse().ok()?))
}

fn default_namespace(object: &mut Value) {
    let metadata = &mut object["metadata"];
    if metadata["namespace"].as_str().is_none_or(str::is_empty) && !metadata.is_null() {
        metadata["namespace"] = "default".into();
    }
}

/// The label that every API server gives a namespace.
fn label_namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    let labels = &mut object["metadata"]["labels"];
    if labels.is_null() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.entry("kubernetes.io/metadata.name").or_insert(name);
    }
}

/// `Kind namespace/name`.
fn name_of(object: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let slash = object["metadata"]["namespace"].as_str().map(|n| format!("{n}/"));
    let name = text(&object["metadata"]["name"]);
    format!("{} {}{name}", text(&object["kind"]), slash.unwrap_or_default())
}
