//! After a start: what the last run left. The kernel says which containers have an interface, the
//! datastore which addresses they hold.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use datastore::Backoff;
use model::Update;

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
        let found = kernel::found(self.interface_prefix.clone()).await?;
        let held = self.addresses.held_by_node().await?;
        let by_container: HashMap<&str, &Found> =
            found.iter().filter_map(|f| Some((f.alias.as_ref()?.container.as_str(), f))).collect();
        let mut kept: HashSet<&str> = HashSet::new();
        for (id, pod) in self.pods.all() {
            let iface = self.host_iface(&id)?;
            let Some(found) = found.iter().find(|f| f.iface == iface) else { continue };
            let Some(alias) = &found.alias else { continue };
            if pod.metadata.uid.as_deref() != Some(&alias.pod_uid) {
                continue; // left by a predecessor: its DEL, or GC, removes it
            }
            let handle = format!("{}.{}", alias.network, alias.container);
            let Some((addresses, _)) = held.get(&handle) else { continue };
            match endpoint_of(&pod, &self.interface_prefix, addresses) {
                Ok(endpoint) => {
                    let container = alias.container.clone();
                    let endpoint = Arc::new(endpoint);
                    self.inbox.order(Order::Attach { container, endpoint, done: None });
                }
                Err(error) => tracing::warn!(%id, error, "a running pod cannot be understood"),
            }
            let attachment = Attachment {
                container: alias.container.clone(),
                network: alias.network.clone(),
                addresses: addresses.clone(),
            };
            self.pods.attach(id, attachment);
            kept.insert(alias.container.as_str());
        }
        tracing::info!(pods = kept.len(), "running pods recognised");
        for (handle, (_, owner)) in &held {
            let container = handle.rsplit('.').next().unwrap_or_default();
            if by_container.contains_key(container) || self.is_foreign(owner, &found) {
                continue;
            }
            let released = self.addresses.release(handle).await?;
            tracing::info!(handle, released, "addresses of a container that is gone released");
        }
        Ok(())
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
        let name = api::convert::interface_name(&self.interface_prefix, namespace, pod);
        found.iter().any(|f| f.iface.as_str() == name && f.alias.is_none())
    }
}
