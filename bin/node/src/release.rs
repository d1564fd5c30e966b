//! DEL and GC, and deletions that were left for later.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use cni::protocol::{Failure, Request};
use cni::spool;
use model::{IfaceName, WorkloadId};
use tokio::sync::oneshot;

use crate::add::handle;
use crate::inbox::Order;
use crate::kernel;
use crate::server::{Cni, internal};

/// How often deletions that could not be finished are tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How long a DEL waits for the pod's rules to go. They are closed without it as well.
const WAIT_FOR_RULES: Duration = Duration::from_secs(5);

impl Cni {
    /// DEL: the interface goes now; what needs the datastore and fails is left for later.
    pub(crate) async fn del(self: &Arc<Self>, request: &Request) -> Result<(), Failure> {
        let id = self.workload_id(request).ok();
        let lane = match &id {
            Some(id) => Some(self.lane(id).await),
            None => None,
        };
        let removed = match &id {
            Some(id) => self.detach(id, &request.container_id).await,
            None => self.unwire_container(&request.container_id).await,
        };
        removed.map_err(|e| internal("removing the interface failed", &e))?;
        drop(lane);
        if let Some(id) = &id {
            self.forget_annotations(id, &request.container_id);
        }
        let cni = self.clone();
        let request = request.clone();
        // The runtime need not wait for the datastore: the file outlives us if we die here.
        if let Err(error) = spool::leave(&self.socket, &request) {
            tracing::warn!(%error, "a deletion could not be noted, doing it now");
            let released = self.give_back(&request).await;
            return released.map_err(|e| internal("releasing failed", &e));
        }
        tokio::spawn(async move { cni.work_off_one(&request).await });
        Ok(())
    }

    /// Interface first, then rules. Never a successor's.
    pub(crate) async fn detach(&self, id: &WorkloadId, container: &str) -> Result<()> {
        let iface = self.host_iface(id)?;
        if !kernel::unwire(iface, container.to_owned()).await? {
            // Gone already, or of another prefix.
            self.unwire_container(container).await?;
        }
        self.pods.detach(id, container);
        let (done, gone) = oneshot::channel();
        let order = Order::Detach { id: id.clone(), container: container.to_owned(), done };
        self.inbox.order(order);
        if tokio::time::timeout(WAIT_FOR_RULES, gone).await.is_err() {
            tracing::warn!(%id, "the rules of a removed pod are still there");
        }
        Ok(())
    }

    /// For runtimes that do not say whose container it was.
    async fn unwire_container(&self, container: &str) -> Result<()> {
        for found in kernel::found(self.interface_prefixes.clone()).await? {
            if found.alias.as_ref().is_some_and(|a| a.container == container) {
                kernel::unwire(found.iface, container.to_owned()).await?;
            }
        }
        Ok(())
    }

    /// Finishes one deletion; its note goes when that worked.
    async fn work_off_one(&self, request: &Request) {
        match self.give_back(request).await {
            Ok(()) => {
                let name = format!("{}-{}.json", request.container_id, request.ifname);
                let _ = std::fs::remove_file(spool::folder(&self.socket).join(name));
            }
            Err(error) => {
                let error = format!("{error:#}");
                let container = &request.container_id;
                tracing::warn!(container, error, "addresses not released yet");
            }
        }
    }

    /// What the datastore has of a container goes.
    async fn give_back(&self, request: &Request) -> Result<()> {
        if let Ok(id) = self.workload_id(request) {
            self.withdraw(&id, &request.container_id).await?;
        }
        self.addresses.release(&handle(request)).await?;
        Ok(())
    }

    /// Deletions that were left while we were away, or that failed: again and again.
    pub(crate) async fn work_off(self: Arc<Self>) {
        loop {
            for (_, request) in spool::waiting(&self.socket) {
                if let Ok(id) = self.workload_id(&request) {
                    let _lane = self.lane(&id).await;
                    if let Err(error) = self.detach(&id, &request.container_id).await {
                        tracing::warn!(%id, error = %format!("{error:#}"), "interface not removed");
                        continue;
                    }
                } else if let Err(error) = self.unwire_container(&request.container_id).await {
                    tracing::warn!(error = %format!("{error:#}"), "interface not removed");
                    continue;
                }
                self.work_off_one(&request).await;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// GC: what belongs to this network and to no valid attachment goes.
    pub(crate) async fn collect(self: &Arc<Self>, request: &Request) -> Result<(), Failure> {
        let network = request.network();
        let list = request.config["cni.dev/valid-attachments"].as_array();
        let valid: BTreeSet<&str> =
            list.into_iter().flatten().filter_map(|a| a["containerID"].as_str()).collect();
        let failed = |e: &anyhow::Error| internal("collecting failed", e);
        let found = kernel::found(self.interface_prefixes.clone()).await.map_err(|e| failed(&e))?;
        for one in found {
            let Some(alias) = one.alias.filter(|a| a.network == network) else { continue };
            if !valid.contains(alias.container.as_str()) {
                tracing::info!(iface = %one.iface, container = alias.container, "collected");
                self.drop_interface(&one.iface, &alias.container).await.map_err(|e| failed(&e))?;
            }
        }
        let held = self.addresses.held_by_node().await.map_err(|e| failed(&e.into()))?;
        for handle in held.keys() {
            let container = handle.strip_prefix(network).and_then(|h| h.strip_prefix('.'));
            if container.is_some_and(|c| !valid.contains(c)) {
                self.withdraw_of(container.unwrap_or_default()).await.map_err(|e| failed(&e))?;
                let released = self.addresses.release(handle).await;
                released.map_err(|e| failed(&e.into()))?;
            }
        }
        Ok(())
    }

    /// Takes away what endpoints of this node still speak of a container that is gone.
    pub(crate) async fn withdraw_of(&self, container: &str) -> Result<()> {
        for (id, endpoint) in self.pods.endpoints() {
            if endpoint.spec.container_id == container {
                self.withdraw(&id, container).await?;
            }
        }
        Ok(())
    }

    async fn drop_interface(&self, iface: &IfaceName, container: &str) -> Result<()> {
        match self.pods.whose(container) {
            Some(id) => {
                let _lane = self.lane(&id).await;
                self.detach(&id, container).await
            }
            None => kernel::unwire(iface.clone(), container.to_owned()).await.map(drop),
        }
    }
}
