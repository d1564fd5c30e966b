//! What is known of this node's pods, their namespaces, and their containers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::v3::WorkloadEndpoint;
use k8s_openapi::api::core::v1::Pod;
use model::network::Node;
use model::{Labels, NodeName, WorkloadId};
use serde_json::Value;
use syncer::{NamespaceFacts, Seen, Sink, SyncState, Update};
use tokio::sync::watch;

use crate::inbox::Inbox;
use crate::status::Shared;

/// A container's interface, as an ADD made it or as it was found after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) container: String,
    pub(crate) network: String,
    pub(crate) addresses: Vec<IpAddr>,
}

#[derive(Default)]
struct Tables {
    pods: HashMap<WorkloadId, Arc<Pod>>,
    endpoints: HashMap<WorkloadId, Arc<WorkloadEndpoint>>,
    namespaces: HashMap<Arc<str>, Arc<NamespaceFacts>>,
    attachments: HashMap<WorkloadId, Attachment>,
    node: Arc<Node>,
    datastore_ready: bool,
    upstream: BTreeSet<NodeName>,
}

/// See the module. The syncer's sink.
pub(crate) struct Pods {
    node: String,
    tables: Mutex<Tables>,
    inbox: Arc<Inbox>,
    pub(crate) shared: Arc<Shared>,
    /// Counts changes of pods, for those who wait for one.
    pub(crate) changed: watch::Sender<u64>,
    /// True once every kind was listed.
    pub(crate) listed: watch::Sender<bool>,
    /// True once the node's own addresses are known and in force.
    pub(crate) started: watch::Sender<bool>,
    /// Counts changes of this node.
    node_changed: watch::Sender<u64>,
    /// Counts changes of pools.
    pub(crate) pools: watch::Sender<u64>,
    /// Counts changes of the configuration.
    pub(crate) configuration: watch::Sender<u64>,
    /// Counts what the syncer says.
    pub(crate) told: AtomicU64,
}

impl Pods {
    pub(crate) fn new(node: &str, inbox: Arc<Inbox>, shared: Arc<Shared>) -> Self {
        Self {
            node: node.to_owned(),
            tables: Mutex::new(Tables { datastore_ready: true, ..Tables::default() }),
            inbox,
            shared,
            changed: watch::Sender::new(0),
            listed: watch::Sender::new(false),
            started: watch::Sender::new(false),
            node_changed: watch::Sender::new(0),
            pools: watch::Sender::new(0),
            configuration: watch::Sender::new(0),
            told: AtomicU64::new(0),
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pod(&self, id: &WorkloadId) -> Option<Arc<Pod>> {
        self.tables().pods.get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(WorkloadId, Arc<Pod>)> {
        self.tables().pods.iter().map(|(id, pod)| (id.clone(), pod.clone())).collect()
    }

    /// The endpoints of this node, where they are objects of their own.
    pub(crate) fn endpoints(&self) -> Vec<(WorkloadId, Arc<WorkloadEndpoint>)> {
        self.tables().endpoints.iter().map(|(id, it)| (id.clone(), it.clone())).collect()
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<Arc<NamespaceFacts>> {
        self.tables().namespaces.get(name).cloned()
    }

    pub(crate) fn node_labels(&self) -> Labels {
        self.tables().node.labels.clone()
    }

    /// Until the API's echo of our own tunnel addresses has arrived.
    pub(crate) async fn node_has(&self, tunnels: &[IpAddr]) {
        let mut changed = self.node_changed.subscribe();
        while !tunnels.iter().all(|a| self.tables().node.vxlan_addresses.contains(a)) {
            // The sender lives as long as the agent.
            let _ = changed.changed().await;
        }
    }

    /// Waits until everything said so far is in the kernel.
    pub(crate) async fn barrier(&self) {
        let (done, applied) = tokio::sync::oneshot::channel();
        self.inbox.order(crate::inbox::Order::Barrier { done });
        // The other end is dropped when the agent stops.
        let _ = applied.await;
    }

    /// The cluster's administrator has not stopped us.
    pub(crate) fn datastore_ready(&self) -> bool {
        self.tables().datastore_ready
    }

    pub(crate) fn attachment(&self, id: &WorkloadId) -> Option<Attachment> {
        self.tables().attachments.get(id).cloned()
    }

    pub(crate) fn attach(&self, id: WorkloadId, attachment: Attachment) {
        self.tables().attachments.insert(id, attachment);
    }

    /// The pod that has this container.
    pub(crate) fn whose(&self, container: &str) -> Option<WorkloadId> {
        let tables = self.tables();
        let found = tables.attachments.iter().find(|(_, a)| a.container == container);
        found.map(|(id, _)| id.clone())
    }

    /// Whether nodes run another agent than ours.
    fn upstream_nodes(&self, name: &NodeName, upstream: bool) {
        let mut tables = self.tables();
        if upstream {
            tables.upstream.insert(name.clone());
        } else {
            tables.upstream.remove(name);
        }
        self.shared.upstream.store(!tables.upstream.is_empty(), Ordering::Relaxed);
    }

    /// Forgets the attachment, if it is still that container's.
    pub(crate) fn detach(&self, id: &WorkloadId, container: &str) {
        let mut tables = self.tables();
        if tables.attachments.get(id).is_some_and(|a| a.container == container) {
            tables.attachments.remove(id);
        }
    }
}

impl Sink for Pods {
    fn update(&self, update: Update) {
        self.told.fetch_add(1, Ordering::Relaxed);
        if update == Update::InSync {
            // Passed on by the recovery, when it is done.
            self.listed.send_replace(true);
            return;
        }
        if let Update::Node(name, node) = &update {
            let upstream = node.as_ref().is_some_and(|node| node.upstream);
            self.upstream_nodes(name, upstream && name.as_str() != self.node);
        }
        if let Update::Node(name, Some(node)) = &update
            && name.as_str() == self.node
        {
            self.tables().node = node.clone();
            self.node_changed.send_modify(|n| *n += 1);
        }
        self.inbox.update(update);
    }

    fn seen(&self, seen: Seen) {
        let seen = match seen {
            Seen::Unconfirmed(object, marked) => return self.inbox.mark(object, marked),
            other => other,
        };
        let mut tables = self.tables();
        match seen {
            Seen::Pod(id, pod) => {
                match pod {
                    Some(pod) => drop(tables.pods.insert(id, pod)),
                    None => drop(tables.pods.remove(&id)),
                }
                self.changed.send_modify(|n| *n += 1);
            }
            Seen::Endpoint(id, Some(it)) => drop(tables.endpoints.insert(id, it)),
            Seen::Endpoint(id, None) => drop(tables.endpoints.remove(&id)),
            Seen::Namespace(name, facts) => match facts {
                Some(facts) => drop(tables.namespaces.insert(name, facts)),
                None => drop(tables.namespaces.remove(&name)),
            },
            Seen::Pools => self.pools.send_modify(|n| *n += 1),
            Seen::FelixConfiguration(..) => self.configuration.send_modify(|n| *n += 1),
            Seen::ClusterInformation(name, object) if &*name == "default" => {
                let ready =
                    object.and_then(|o| o["spec"].get("datastoreReady").and_then(Value::as_bool));
                tables.datastore_ready = ready != Some(false);
            }
            Seen::ClusterInformation(..) | Seen::Unconfirmed(..) => {}
        }
    }

    fn refused(&self, object: &str, reasons: &[String]) {
        self.shared.misread(object, reasons);
    }

    fn state(&self, state: SyncState) {
        self.shared.sync_state(state);
    }
}
