//! Addresses for one node: its pods and its tunnel devices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipam::{AssignError, Assigned, Pool, PoolError, ReleaseError, Request, StoreError, Use, Who};
use jiff::Timestamp;
use model::{IpVersion, Labels};
use tokio::sync::oneshot;

use crate::backoff::Backoff;
use crate::client::Datastore;
use crate::error::Error;
use crate::ipam_store::{IpamStore, Rehearsal};
use crate::settings::Settings;

/// How old settings may be when addresses are given out by them.
const SETTINGS_AGE: Duration = Duration::from_secs(10);

/// How often a datastore that fails is asked again before the caller hears of it.
const ATTEMPTS: u32 = 5;

/// A pod's request.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// What the addresses are released by: `<network>.<container>`.
    pub handle: String,
    /// Written beside each address: `namespace`, `pod`.
    pub owner: BTreeMap<String, String>,
    /// Pools by name or CIDR, per family; `None`: all that fit.
    pub pools: BTreeMap<IpVersion, Vec<String>>,
    /// The families that are wanted; empty: every family for which some pool fits.
    pub families: Vec<IpVersion>,
    /// These addresses and no others.
    pub exactly: Vec<IpAddr>,
    /// Labels of the node.
    pub node_labels: Labels,
    /// Labels of the pod's namespace.
    pub namespace_labels: Labels,
}

/// Which tunnel device an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelKind {
    /// VXLAN, of either family.
    Vxlan(IpVersion),
}

/// No address.
#[derive(Debug, thiserror::Error)]
pub enum AddressesError {
    /// No pool fits.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// None can be had.
    #[error(transparent)]
    Assign(#[from] AssignError),
    /// None can be given back.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The datastore.
    #[error(transparent)]
    Datastore(#[from] Error),
}

impl AddressesError {
    /// Trying the same again may work.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Assign(AssignError::Store(_)) | Self::Release(ReleaseError::Store(_)) => true,
            Self::Datastore(e) => e.next() == crate::error::Next::Retry,
            _ => false,
        }
    }
}

/// Gives out and takes back.
pub struct Addresses {
    datastore: Datastore,
    node: String,
    store: IpamStore,
    settings: Mutex<Option<(Instant, Settings)>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Addresses {
    /// For a node.
    pub fn new(datastore: Datastore, node: &str) -> Self {
        Self {
            store: IpamStore::new(datastore.clone(), node),
            datastore,
            node: node.to_owned(),
            settings: Mutex::new(None),
            one_at_a_time: tokio::sync::Mutex::new(()),
        }
    }

    /// Addresses for a pod: all that it needs, or none.
    ///
    /// `foreseen` hears of them before they are written, if they can be told without asking the
    /// server, and is dropped if not: the pod can be set up meanwhile. They are the pod's only once
    /// they are returned; that they are others then is rare (somebody else wrote the node's block).
    ///
    /// # Errors
    /// [`AddressesError`]; nothing is held by the handle then, as far as the datastore could be
    /// reached.
    pub async fn assign(
        &self,
        ask: &Ask,
        mut foreseen: Option<oneshot::Sender<Vec<IpAddr>>>,
    ) -> Result<Vec<IpAddr>, AddressesError> {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        for attempt in 1.. {
            let settings = self.settings(SETTINGS_AGE).await?;
            let done = match self.assign_once(ask, &settings, foreseen.take()).await {
                // Perhaps the pool is newer than what we know.
                Err(AddressesError::Pool(_)) => {
                    let settings = self.settings(Duration::ZERO).await?;
                    self.assign_once(ask, &settings, None).await
                }
                other => other,
            };
            match done {
                Err(e) => {
                    let cleaned = self.release(&ask.handle).await;
                    if let Err(error) = cleaned {
                        tracing::warn!(handle = ask.handle, %error, "addresses not released");
                    }
                    if attempt >= ATTEMPTS || !e.is_transient() {
                        return Err(e);
                    }
                    backoff.wait().await;
                }
                ok => return ok,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn assign_once(
        &self,
        ask: &Ask,
        settings: &Settings,
        foreseen: Option<oneshot::Sender<Vec<IpAddr>>>,
    ) -> Result<Vec<IpAddr>, AddressesError> {
        let pools = settings.pools();
        let wants = if ask.exactly.is_empty() { wants(ask, &pools)? } else { Vec::new() };
        let now = Timestamp::now();
        let mut owner = ask.owner.clone();
        owner.insert("node".to_owned(), self.node.clone());
        owner.insert(
            "timestamp".to_owned(),
            now.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
        );
        let request = Request {
            handle: &ask.handle,
            node: &self.node,
            owner,
            wants,
            reserved: &settings.reserved,
            limits: settings.limits,
            now,
        };
        let _turn = self.one_at_a_time.lock().await;
        if let Some(tell) = foreseen
            && let Ok(addresses) = take(&Rehearsal(&self.store), &request, &pools, ask).await
        {
            // Nobody may want to know any more.
            drop(tell.send(addresses));
        }
        take(&self.store, &request, &pools, ask).await
    }

    /// Gives back everything that a handle holds; how many addresses that were. Idempotent.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn release(&self, handle: &str) -> Result<u64, AddressesError> {
        let _turn = self.one_at_a_time.lock().await;
        Ok(ipam::release_handle(&self.store.fresh(), handle).await?)
    }

    /// Every handle of this node's pods: the addresses, and who they were given to.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn held_by_node(
        &self,
    ) -> Result<BTreeMap<String, (Vec<IpAddr>, BTreeMap<String, String>)>, AddressesError> {
        let blocks = ipam::Store::list::<ipam::Block>(&self.store.fresh()).await;
        let blocks = blocks.map_err(AssignError::Store)?;
        let mut held: BTreeMap<String, (Vec<IpAddr>, BTreeMap<String, String>)> = BTreeMap::new();
        for (address, attribute) in blocks.iter().flat_map(|b| b.value.allocated()) {
            let (Some(handle), Some(owner)) = (&attribute.handle, &attribute.owner) else {
                continue;
            };
            // Those of tunnel devices say what they are for.
            if owner.get("node") == Some(&self.node) && !owner.contains_key("type") {
                let entry = held.entry(handle.clone()).or_default();
                entry.0.push(address);
                entry.1.clone_from(owner);
            }
        }
        Ok(held)
    }

    /// The address of a tunnel device: the one that the node has, if a pool still allows it, else
    /// a new one. `None` if no pool needs the tunnel; a former address is given back then.
    ///
    /// # Errors
    /// [`AddressesError`].
    pub async fn tunnel(
        &self,
        kind: TunnelKind,
        node_labels: &Labels,
    ) -> Result<Option<IpAddr>, AddressesError> {
        let TunnelKind::Vxlan(version) = kind;
        let (prefix, purpose) = match version {
            IpVersion::V4 => ("vxlan-tunnel-addr-", "vxlanTunnelAddress"),
            IpVersion::V6 => ("vxlan-v6-tunnel-addr-", "vxlanV6TunnelAddress"),
        };
        let handle = format!("{prefix}{}", self.node);
        let settings = self.settings(Duration::ZERO).await?;
        let who =
            Who { purpose: Use::Tunnel, node_labels: node_labels.clone(), namespace_labels: None };
        let fits = |p: &Pool| p.accepts(version, &who);
        let tunnelled = settings.pools.iter().filter(|p| p.vxlan && fits(&p.pool));
        let pools: Vec<&Pool> = tunnelled.map(|p| &p.pool).collect();
        let known = self.addresses_of(&handle).await?;
        let good = known.iter().find(|a| pools.iter().any(|p| p.cidr.contains(*a)));
        if let (Some(address), 1) = (good, known.len()) {
            return Ok(Some(*address));
        }
        self.release(&handle).await?;
        if pools.is_empty() {
            return Ok(None);
        }
        let owner = [("node", self.node.as_str()), ("type", purpose)];
        let request = Request {
            handle: &handle,
            node: &self.node,
            owner: owner.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            wants: vec![(1, pools)],
            reserved: &settings.reserved,
            limits: settings.limits,
            now: Timestamp::now(),
        };
        let _turn = self.one_at_a_time.lock().await;
        Ok(ipam::assign(&self.store, &request).await?.first().map(|a| a.address))
    }

    async fn addresses_of(&self, handle: &str) -> Result<Vec<IpAddr>, AddressesError> {
        let store = self.store.fresh();
        let failed = |e: StoreError| AssignError::Store(e);
        let name = ipam::handle_name(handle);
        let found = ipam::Store::get::<ipam::Handle>(&store, &name).await.map_err(failed)?;
        let mut all = Vec::new();
        for cidr in found.iter().flat_map(|h| h.value.blocks.keys()) {
            let name = ipam::block_name(*cidr);
            let block = ipam::Store::get::<ipam::Block>(&store, &name).await.map_err(failed)?;
            all.extend(block.iter().flat_map(|b| b.value.addresses_of(handle)));
        }
        Ok(all)
    }

    async fn settings(&self, age: Duration) -> Result<Settings, AddressesError> {
        let known = self.known_settings().filter(|(at, _)| at.elapsed() < age);
        if let Some((_, settings)) = known {
            return Ok(settings);
        }
        let settings = Settings::load(&self.datastore).await?;
        let mut slot = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((Instant::now(), settings.clone()));
        Ok(settings)
    }

    fn known_settings(&self) -> Option<(Instant, Settings)> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A pool, a reservation or the configuration changed: read them again before the next use.
    pub fn settings_changed(&self) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

async fn take(
    store: &impl ipam::Store,
    request: &Request<'_>,
    pools: &[Pool],
    ask: &Ask,
) -> Result<Vec<IpAddr>, AddressesError> {
    let mut got = ipam::assign(store, request).await?;
    for address in &ask.exactly {
        got.push(ipam::assign_exact(store, request, pools, *address).await?);
    }
    Ok(got.into_iter().map(|a: Assigned| a.address).collect())
}

/// One address of each family that is wanted, and the pools for it.
fn wants<'a>(ask: &Ask, pools: &'a [Pool]) -> Result<Vec<(usize, Vec<&'a Pool>)>, PoolError> {
    let who = Who {
        purpose: Use::Workload,
        node_labels: ask.node_labels.clone(),
        namespace_labels: Some(ask.namespace_labels.clone()),
    };
    let mut wants = Vec::new();
    let mut missing = PoolError::NoneFits(IpVersion::V4);
    for version in IpVersion::ALL {
        let named = ask.pools.get(&version).map(Vec::as_slice);
        let asked = ask.families.contains(&version) || named.is_some();
        if !ask.families.is_empty() && !asked {
            continue;
        }
        match ipam::choose(pools, version, named, &who) {
            Ok(chosen) => wants.push((1, chosen)),
            Err(e) if asked => return Err(e),
            Err(e) => missing = e,
        }
    }
    if wants.is_empty() { Err(missing) } else { Ok(wants) }
}
