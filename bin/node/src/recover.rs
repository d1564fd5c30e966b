//! After a start: what the last run left. The kernel says which containers have an interface, the
//! datastore which addresses they hold.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use datastore::Backoff;
use model::{IfaceName, Update, WorkloadEndpoint};
use netlink::Alias;

use crate::add::endpoint_of;
use crate::inbox::Order;
use crate::kernel::{self, Found};
use crate::pods::Attachment;
use crate::server::Cni;

impl Cni {
    /// Until it has worked. Only then is the apply loop told that it is in sync: nothing that
    /// belongs to a running pod may be swept.
    pub(crate) async fn recover(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        let mut listed = self.pods.listed.subscribe();
        // The sender lives as long as the agent.
        let _ = listed.wait_for(|v| *v).await;
        while let Err(error) = self.try_recover().await {
            tracing::warn!(error = %format!("{error:#}"), "looking through leftovers failed");
            backoff.wait().await;
        }
        self.inbox.update(Update::InSync);
    }

    async fn try_recover(self: &Arc<Self>) -> Result<()> {
        let found = kernel::found(self.interface_prefixes.clone()).await?;
        let held = self.addresses.held_by_node().await?;
        let by_container: HashMap<&str, &Found> =
            found.iter().filter_map(|f| Some((f.alias.as_ref()?.container.as_str(), f))).collect();
        // A container of the name that a pod would get now is its last.
        let mut by_pod: HashMap<&str, (&IfaceName, &Alias)> = HashMap::new();
        for found in &found {
            let Some(alias) = &found.alias else { continue };
            let current = found.iface.as_str().starts_with(self.interface_prefix());
            if current || !by_pod.contains_key(alias.pod_uid.as_str()) {
                by_pod.insert(&alias.pod_uid, (&found.iface, alias));
            }
        }
        let mut kept: HashSet<&str> = HashSet::new();
        for (id, endpoint) in self.pods.endpoints() {
            let container = endpoint.spec.container_id.as_str();
            let Some(found) = by_container.get(container) else { continue };
            let Some(alias) = &found.alias else { continue };
            match api::convert::workload_endpoint(&endpoint) {
                Ok(it) => {
                    let it = WorkloadEndpoint { iface: found.iface.clone(), ..it };
                    self.pods.attach(id, attachment(alias, &it.addresses));
                    self.attached_before(alias, it);
                }
                Err(error) => tracing::warn!(%id, %error, "a running pod cannot be understood"),
            }
            kept.insert(alias.container.as_str());
        }
        for (id, pod) in self.pods.all() {
            // Left by a predecessor of the same name: its DEL, or GC, removes it.
            let Some((iface, alias)) = pod.metadata.uid.as_deref().and_then(|u| by_pod.get(u))
            else {
                continue;
            };
            let handle = format!("{}.{}", alias.network, alias.container);
            let Some((addresses, _)) = held.get(&handle) else { continue };
            match endpoint_of(&pod, self.interface_prefix(), addresses) {
                Ok(mut endpoint) => {
                    endpoint.iface = (*iface).clone();
                    self.attached_before(alias, endpoint);
                }
                Err(error) => tracing::warn!(%id, error, "a running pod cannot be understood"),
            }
            self.pods.attach(id, attachment(alias, addresses));
            kept.insert(alias.container.as_str());
        }
        tracing::info!(pods = kept.len(), "running pods recognised");
        for (handle, (_, owner)) in &held {
            let container = handle.rsplit('.').next().unwrap_or_default();
            if by_container.contains_key(container) || self.is_foreign(owner, &found) {
                continue;
            }
            self.withdraw_of(container).await?;
            let released = self.addresses.release(handle).await?;
            tracing::info!(handle, released, "addresses of a container that is gone released");
        }
        Ok(())
    }

    fn attached_before(&self, alias: &Alias, endpoint: WorkloadEndpoint) {
        let (container, endpoint) = (alias.container.clone(), Arc::new(endpoint));
        self.inbox.order(Order::Attach { container, endpoint, done: None });
    }

    /// An interface that somebody else made for that pod: its addresses are not ours to release.
    fn is_foreign(
        &self,
        owner: &std::collections::BTreeMap<String, String>,
        found: &[Found],
    ) -> bool {
        let (Some(namespace), Some(pod)) = (owner.get("namespace"), owner.get("pod")) else {
            return true;
        };
        let names: Vec<_> = self
            .interface_prefixes
            .iter()
            .map(|p| api::convert::interface_name(p, namespace, pod))
            .collect();
        found.iter().any(|f| f.alias.is_none() && names.iter().any(|n| f.iface.as_str() == n))
    }
}

fn attachment(alias: &Alias, addresses: &[IpAddr]) -> Attachment {
    Attachment {
        container: alias.container.clone(),
        network: alias.network.clone(),
        addresses: addresses.to_vec(),
    }
}
