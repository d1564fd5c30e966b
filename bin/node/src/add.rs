//! ADD and CHECK.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow};
use cni::protocol::{Added, Failure, Request, codes};
use datastore::{AddressesError, Ask, Datastore, Resource};
use k8s_openapi::api::core::v1::Pod;
use model::{IfaceName, IpVersion, WorkloadEndpoint, WorkloadId};
use netlink::wire::HOST_MAC;
use netlink::{Alias, Mac};
use serde_json::Value;
use syncer::NamespaceFacts;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::inbox::Order;
use crate::kernel::{self, Plan, mac_text, parse_mac};
use crate::pods::Attachment;
use crate::server::{Cni, internal};
use crate::workloads;

/// How long an ADD waits for the datastore to be in sync, and for the pod to be known.
const WAIT_FOR_SYNC: Duration = Duration::from_secs(10);
const WAIT_FOR_POD: Duration = Duration::from_secs(5);
/// How long an ADD waits for the pod's policy to be in the kernel.
const WAIT_FOR_POLICY: Duration = Duration::from_secs(20);

const PODS: Resource = Resource::core("pods", "Pod");

impl Cni {
    pub(crate) async fn add(self: &Arc<Self>, request: &Request) -> Result<Added, Failure> {
        let id = self.workload_id(request)?;
        self.ready().await?;
        let pod = self.find_pod(request, &id).await?;
        let _lane = self.lane(&id).await;
        let known = self.pods.attachment(&id).filter(|a| a.container == request.container_id);
        let mut plan = self.plan(request, &id, &pod)?;
        let Some(attachment) = known else {
            let made = self.add_new(request, &id, &pod, plan).await;
            if made.is_err() {
                // Whatever was made goes; the runtime tries again with a new container.
                if let Err(error) = self.undo(request, &id).await {
                    tracing::warn!(%id, error = %format!("{error:#}"), "undoing an ADD failed");
                }
            }
            return made;
        };
        // A repeated ADD finds everything there; a container that runs keeps what it has.
        plan.addresses = attachment.addresses;
        let mac = self.made_again(&plan).await?;
        let added = self.attach(request, &id, &pod, plan, async { Ok(mac) }).await?;
        self.tell(request, &id, &pod, &added).await?;
        Ok(added)
    }

    /// The addresses can mostly be foreseen (the node's own block says which are free). Then the
    /// interface is made and the policy put into the kernel while the datastore is told of them; else,
    /// only the interface is made meanwhile.
    async fn add_new(
        self: &Arc<Self>,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        mut plan: Plan,
    ) -> Result<Added, Failure> {
        let (tell, foreseen) = oneshot::channel();
        let early = async {
            make(&plan).await?;
            let Ok(addresses) = foreseen.await else { return Ok(None) };
            let plan = Plan { addresses, ..plan.clone() };
            self.bring_up(request, id, pod, plan).await.map(Some)
        };
        let (early, assigned) = tokio::join!(early, self.assign(request, id, pod, tell));
        let (early, assigned) = (early?, assigned?);
        let added = match early {
            Some(added) if added.addresses == assigned => added,
            early => {
                plan.addresses = assigned;
                if let Some(early) = early {
                    tracing::info!(%id, foreseen = ?early.addresses, assigned = ?plan.addresses, "others than foreseen");
                    let gone =
                        kernel::unwire(plan.host_iface.clone(), request.container_id.clone());
                    gone.await.map_err(|e| internal("taking the interface back failed", &e))?;
                    make(&plan).await?;
                }
                self.bring_up(request, id, pod, plan).await?
            }
        };
        self.tell(request, id, pod, &added).await?;
        Ok(added)
    }

    /// Tells the datastore what the pod has: behind the answer where the pod is there without it.
    async fn tell(
        self: &Arc<Self>,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        added: &Added,
    ) -> Result<(), Failure> {
        if self.place.alone.is_none() {
            self.annotate(id, pod, &added.addresses, &request.container_id);
            return Ok(());
        }
        let iface = added.host_ifname.parse();
        let iface: IfaceName = iface.map_err(|e| internal("no interface name", &anyhow!("{e}")))?;
        let endpoint = self.endpoint(request, id, pod, (&iface, &added.addresses))?;
        self.publish(request, pod, &endpoint, added).await
    }

    /// What follows once an interface is made and its addresses are known. The pod's side is set up
    /// while the policy goes into the kernel.
    async fn bring_up(
        self: &Arc<Self>,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        plan: Plan,
    ) -> Result<Added, Failure> {
        let raised = kernel::raise_host(plan.clone()).await;
        raised.map_err(|e| internal("setting up the interface failed", &e))?;
        let raise = kernel::raise_pod(plan.clone());
        let raise =
            async { raise.await.map_err(|e| internal("setting up the pod's side failed", &e)) };
        self.attach(request, id, pod, plan, raise).await
    }

    /// The hardware address of an interface that should be there; it is made again if it is not as
    /// it should be.
    async fn made_again(&self, plan: &Plan) -> Result<Mac, Failure> {
        if kernel::check(plan.clone()).await.is_ok_and(|wrong| wrong.is_empty()) {
            let mac = kernel::mac_inside(plan.clone()).await;
            let mac = mac.map_err(|e| internal("looking at the interface failed", &e))?;
            return Ok(mac.unwrap_or_default());
        }
        let made = async {
            kernel::make(plan.clone()).await?;
            kernel::raise_host(plan.clone()).await?;
            kernel::raise_pod(plan.clone()).await
        };
        made.await.map_err(|e| internal("making the interface failed", &e))
    }

    /// CHECK: the interface, its addresses and routes, and the policy.
    pub(crate) async fn check(self: &Arc<Self>, request: &Request) -> Result<(), Failure> {
        let id = self.workload_id(request)?;
        self.ready().await?;
        let _lane = self.lane(&id).await;
        let attachment = self.pods.attachment(&id).filter(|a| a.container == request.container_id);
        let Some(attachment) = attachment else {
            let msg = format!("container {} has no interface", request.container_id);
            return Err(Failure::new(codes::UNKNOWN_CONTAINER, msg));
        };
        let pod = self.find_pod(request, &id).await?;
        let mut plan = self.plan(request, &id, &pod)?;
        plan.addresses.clone_from(&attachment.addresses);
        let wrong = kernel::check(plan).await;
        let mut wrong = wrong.map_err(|e| internal("looking at the interface failed", &e))?;
        let promised = request.config["prevResult"]["ips"].as_array();
        for ip in promised.into_iter().flatten().filter_map(|ip| ip["address"].as_str()) {
            let address = ip.split('/').next().and_then(|a| a.parse::<IpAddr>().ok());
            if !address.is_some_and(|a| attachment.addresses.contains(&a)) {
                wrong.push(format!("address {ip} of the result is not the container's"));
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let msg = "the container's network is not as it should be".to_owned();
        Err(Failure { code: codes::CHECK_FAILED, msg, details: wrong.join("; ") })
    }

    /// In sync, what the last run left looked through, the node's own addresses in force.
    async fn ready(&self) -> Result<(), Failure> {
        let mut started = self.pods.started.subscribe();
        if timeout(WAIT_FOR_SYNC, started.wait_for(|v| *v)).await.is_err() {
            let msg = "the agent is not in sync with the datastore yet";
            return Err(Failure::new(codes::TRY_AGAIN, msg));
        }
        if !self.pods.datastore_ready() {
            let msg = "the cluster's datastore is marked as not ready";
            return Err(Failure::new(codes::TRY_AGAIN, msg));
        }
        Ok(())
    }

    /// The pod of that name and UID, on this node: from what was seen, else from the API. Where nobody can
    /// be asked, what the request says of it.
    async fn find_pod(&self, request: &Request, id: &WorkloadId) -> Result<Arc<Pod>, Failure> {
        let Some(alone) = &self.place.alone else {
            return self.ask_for_pod(request, id, (&self.place.datastore, &id.name)).await;
        };
        let (Some(kubernetes), Some(name)) = (&alone.kubernetes, workloads::pod_name(id)) else {
            return Ok(Arc::new(workloads::unknown_pod(request, id, &self.node)));
        };
        let mut pod = self.ask_for_pod(request, id, (kubernetes, &name)).await?;
        // Kubernetes may have another name for it.
        let spec = Arc::make_mut(&mut pod).spec.get_or_insert_default();
        spec.node_name = Some(self.node.clone());
        Ok(pod)
    }

    async fn ask_for_pod(
        &self,
        request: &Request,
        id: &WorkloadId,
        (datastore, name): (&Datastore, &str),
    ) -> Result<Arc<Pod>, Failure> {
        let uid = request.arg("K8S_POD_UID");
        let right = |pod: &Pod| uid.is_none() || pod.metadata.uid.as_deref() == uid;
        let deadline = Instant::now() + WAIT_FOR_POD;
        let mut changed = self.pods.changed.subscribe();
        let mut last = "there is none".to_owned();
        loop {
            changed.mark_unchanged();
            if let Some(pod) = self.pods.pod(id).filter(|p| right(p)) {
                return Ok(pod);
            }
            let asked = datastore.get::<Pod>(&PODS, Some(&id.namespace), name);
            match timeout_at(deadline, asked).await {
                Ok(Ok(Some(pod))) => match self.is_ours(&pod) {
                    Ok(()) if right(&pod) => return Ok(Arc::new(pod)),
                    Ok(()) => last = String::from("it has another UID"),
                    Err(why) => last = why,
                },
                Ok(Ok(None)) => last = String::from("there is none"),
                Ok(Err(e)) => last = e.to_string(),
                Err(_) => {}
            }
            let pause = (Instant::now() + Duration::from_millis(250)).min(deadline);
            let _ = timeout_at(pause, changed.changed()).await;
            if Instant::now() >= deadline {
                let details = last;
                let msg = format!("pod {id} is not known");
                return Err(Failure { code: codes::TRY_AGAIN, msg, details });
            }
        }
    }

    fn is_ours(&self, pod: &Pod) -> Result<(), String> {
        let spec = pod.spec.as_ref();
        match spec.and_then(|s| s.node_name.as_deref()) {
            Some(node) if node == self.kubernetes_node => Ok(()),
            Some(node) => Err(format!("it is bound to node {node}")),
            None => Err("it is bound to no node yet".to_owned()),
        }
    }

    /// Addresses for a new container.
    async fn assign(
        &self,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        foreseen: oneshot::Sender<Vec<IpAddr>>,
    ) -> Result<Vec<IpAddr>, Failure> {
        let facts = self.namespace_facts(&id.namespace).await;
        let ask = self.ask(request, id, pod, &facts)?;
        self.addresses.assign(&ask, Some(foreseen)).await.map_err(|e| {
            let transient = e.is_transient();
            let code = if transient { codes::TRY_AGAIN } else { codes::INTERNAL };
            let details = chain(&e);
            let msg = match e {
                AddressesError::Pool(_) => "no address pool can be used",
                _ => "no address was to be had",
            };
            Failure { code, msg: msg.to_owned(), details }
        })
    }

    fn ask(
        &self,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        facts: &NamespaceFacts,
    ) -> Result<Ask, Failure> {
        let bad = |what: &str, e: &dyn std::fmt::Display| {
            Failure::new(codes::INVALID_CONFIG, format!("{what}: {e}"))
        };
        let own = |key: &str| annotation(pod, key);
        let either = |key: &str| {
            let key = format!("cni.projectcalico.org/{key}");
            own(&key).or_else(|| facts.annotations.get(&key).cloned())
        };
        let ipam = &request.config["ipam"];
        let mut ask = Ask {
            handle: handle(request),
            owner: self.owner(id),
            node_labels: self.pods.node_labels(),
            namespace_labels: facts.labels.clone(),
            ..Ask::default()
        };
        for (version, annotation, key, flag) in [
            (IpVersion::V4, "ipv4pools", "ipv4_pools", "assign_ipv4"),
            (IpVersion::V6, "ipv6pools", "ipv6_pools", "assign_ipv6"),
        ] {
            if let Some(text) = either(annotation) {
                let list = ipam::parse_list(&text).map_err(|e| bad(annotation, &e))?;
                ask.pools.insert(version, list);
            } else if let Some(list) = ipam[key].as_array().filter(|l| !l.is_empty()) {
                let names = list.iter().filter_map(Value::as_str).map(str::to_owned);
                ask.pools.insert(version, names.collect());
            }
            if truth(&ipam[flag]) == Some(true) {
                ask.families.push(version);
            }
        }
        for version in [IpVersion::V4, IpVersion::V6] {
            let flag = if version == IpVersion::V4 { "assign_ipv4" } else { "assign_ipv6" };
            if truth(&ipam[flag]) == Some(false) {
                if ask.families.is_empty() {
                    ask.families = IpVersion::ALL.into_iter().filter(|v| *v != version).collect();
                }
                ask.pools.remove(&version);
            }
        }
        if let Some(text) = own("cni.projectcalico.org/ipAddrs") {
            let list = ipam::parse_list(&text).map_err(|e| bad("ipAddrs", &e))?;
            let parsed: Result<Vec<IpAddr>, _> = list.iter().map(|a| a.parse()).collect();
            ask.exactly = parsed.map_err(|e| bad("ipAddrs", &e))?;
        }
        Ok(ask)
    }

    /// Whose the addresses are, as it is written beside them.
    fn owner(&self, id: &WorkloadId) -> BTreeMap<String, String> {
        let pod = match &self.place.alone {
            None => Some(id.name.to_string()),
            Some(_) => workloads::pod_name(id),
        };
        // Of a container nothing is written but its node, which is every address's.
        let Some(pod) = pod else { return BTreeMap::new() };
        [("namespace".to_owned(), id.namespace.to_string()), ("pod".to_owned(), pod)].into()
    }

    /// What the interface shall be, but for its addresses.
    fn plan(&self, request: &Request, id: &WorkloadId, pod: &Pod) -> Result<Plan, Failure> {
        let config = &request.config;
        let configured = config["mtu"].as_u64().filter(|m| *m > 0).map(|m| m as u32);
        let underlay = self.shared.mtu.load(Ordering::Relaxed);
        let host_iface = self.host_iface(id).map_err(|e| internal("no interface name", &e))?;
        let pod_iface = request.ifname.parse().map_err(|e: model::ids::BadIfaceName| {
            Failure::new(codes::INVALID_ENVIRONMENT, e.to_string())
        })?;
        let mac = match annotation(pod, "cni.projectcalico.org/hwAddr") {
            None => None,
            Some(text) => Some(parse_mac(&text).ok_or_else(|| {
                let msg = format!("annotation hwAddr is {text:?}, want six bytes in hex");
                Failure::new(codes::INVALID_CONFIG, msg)
            })?),
        };
        Ok(Plan {
            host_iface,
            pod_iface,
            netns: request.netns.clone().into(),
            settings: self.host_settings.clone(),
            addresses: Vec::new(),
            mtu: configured.or(self.pod_mtu).unwrap_or(if underlay == 0 { 1460 } else { underlay }),
            mac,
            alias: Alias {
                container: request.container_id.clone(),
                network: request.network().to_owned(),
                pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
            },
            forwarding: truth(&config["container_settings"]["allow_ip_forwarding"]) == Some(true),
        })
    }

    /// Has the pod's policy put into the kernel, and its routes behind that, while `raise` sets the
    /// pod's side up and tells its hardware address. The host's side is up.
    async fn attach(
        self: &Arc<Self>,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        plan: Plan,
        raise: impl Future<Output = Result<Mac, Failure>>,
    ) -> Result<Added, Failure> {
        let endpoint = self.endpoint(request, id, pod, (&plan.host_iface, &plan.addresses))?;
        self.pods.attach(
            id.clone(),
            Attachment {
                container: request.container_id.clone(),
                network: request.network().to_owned(),
                addresses: plan.addresses.clone(),
            },
        );
        let (done, in_force) = oneshot::channel();
        let container = request.container_id.clone();
        self.inbox.order(Order::Attach {
            container,
            endpoint: Arc::new(endpoint),
            done: Some(done),
        });
        let (in_force, mac) = tokio::join!(timeout(WAIT_FOR_POLICY, in_force), raise);
        let mac = mac?;
        if !matches!(in_force, Ok(Ok(()))) {
            let msg = format!("the policy of pod {id} is not in the kernel yet");
            return Err(Failure::new(codes::TRY_AGAIN, msg));
        }
        Ok(Added {
            host_ifname: plan.host_iface.to_string(),
            host_mac: mac_text(HOST_MAC),
            ifname: request.ifname.clone(),
            mac: mac_text(mac),
            mtu: plan.mtu,
            netns: request.netns.clone(),
            addresses: plan.addresses,
        })
    }

    fn endpoint(
        &self,
        request: &Request,
        id: &WorkloadId,
        pod: &Pod,
        (iface, addresses): (&IfaceName, &[IpAddr]),
    ) -> Result<WorkloadEndpoint, Failure> {
        let made = endpoint_of(pod, self.interface_prefix(), addresses);
        let made = made.map_err(|why| Failure {
            code: codes::INTERNAL,
            msg: "the pod cannot be understood".to_owned(),
            details: why,
        })?;
        Ok(match &self.place.alone {
            None => made,
            Some(alone) => {
                let made = WorkloadEndpoint { iface: iface.clone(), ..made };
                self.as_written(alone, (request, id), made)
            }
        })
    }

    /// Takes back what an ADD that failed had made.
    async fn undo(self: &Arc<Self>, request: &Request, id: &WorkloadId) -> Result<()> {
        self.detach(id, &request.container_id).await?;
        self.addresses.release(&handle(request)).await?;
        self.withdraw(id, &request.container_id).await?;
        Ok(())
    }

    /// Whom a request is about.
    pub(crate) fn workload_id(&self, request: &Request) -> Result<WorkloadId, Failure> {
        match &self.place.alone {
            None => workload_id(request),
            Some(_) => workloads::endpoint_id(request, &self.node),
        }
    }
}

async fn make(plan: &Plan) -> Result<(), Failure> {
    let made = kernel::make(plan.clone()).await;
    made.map_err(|e| internal("making the interface failed", &e))
}

/// The endpoint of a pod as it will be once the API knows its addresses.
pub(crate) fn endpoint_of(
    pod: &Pod,
    prefix: &str,
    addresses: &[IpAddr],
) -> Result<WorkloadEndpoint, String> {
    use k8s_openapi::api::core::v1::PodIP;
    let mut addressed = pod.clone();
    let status = addressed.status.get_or_insert_default();
    status.pod_ips = Some(addresses.iter().map(|a| PodIP { ip: a.to_string() }).collect());
    status.phase = None;
    addressed.metadata.deletion_timestamp = None;
    match api::convert::pod(&addressed, prefix) {
        Ok(Some(endpoint)) => Ok(endpoint),
        Ok(None) => {
            Err("it has no interface of its own (host network, or bound to no node)".into())
        }
        Err(e) => Err(e.to_string()),
    }
}

/// What the addresses of a container are released by.
pub(crate) fn handle(request: &Request) -> String {
    format!("{}.{}", request.network(), request.container_id)
}

fn workload_id(request: &Request) -> Result<WorkloadId, Failure> {
    let arg = |key: &str| {
        let found = request.arg(key).filter(|v| !v.is_empty());
        found.ok_or_else(|| {
            Failure::new(codes::INVALID_ENVIRONMENT, format!("CNI_ARGS names no {key}"))
        })
    };
    Ok(WorkloadId {
        namespace: arg("K8S_POD_NAMESPACE")?.into(),
        name: arg("K8S_POD_NAME")?.into(),
    })
}

pub(crate) fn annotation(pod: &Pod, key: &str) -> Option<String> {
    pod.metadata.annotations.as_ref()?.get(key).filter(|v| !v.is_empty()).cloned()
}

/// Configurations write these as JSON booleans or as text.
fn truth(value: &Value) -> Option<bool> {
    value.as_bool().or_else(|| value.as_str()?.parse().ok())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(e) = next {
        text = format!("{text}: {e}");
        next = e.source();
    }
    text
}
