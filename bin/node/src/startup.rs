//! What a node does once when it comes up: its own annotations, and the objects that a cluster
//! needs and does not have yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use datastore::{Addresses, Backoff, Datastore, Error, Resource, TunnelKind};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use model::IpVersion;
use serde_json::{Value, json};
use telemetry::{Report, Reporter};

use crate::detect;
use crate::place::{Alone, CORE_NODES, Place};
use crate::pods::Pods;
use crate::settings::{DefaultPool, Settings};

const POOLS: Resource = Resource::calico("ippools", "IPPool");
const TIERS: Resource = Resource::calico("tiers", "Tier");
const FELIX: Resource = Resource::calico("felixconfigurations", "FelixConfiguration");
const CLUSTER: Resource = Resource::calico("clusterinformations", "ClusterInformation");

/// Pools change in groups; tunnel addresses follow once the group is through.
const SETTLE: Duration = Duration::from_millis(100);

/// Everything, until it has worked; then tunnel addresses follow the pools for ever.
pub(crate) async fn run(
    settings: Arc<Settings>,
    place: Arc<Place>,
    addresses: Arc<Addresses>,
    pods: Arc<Pods>,
    reporter: Reporter,
) {
    let mut pools = pods.pools.subscribe();
    let mut backoff = Backoff::default();
    loop {
        pools.mark_unchanged();
        match once(&settings, &place, &addresses).await {
            Ok(tunnels) => {
                // Pods get their packet size from the tunnels, so these must be in force first.
                pods.node_has(&tunnels).await;
                pods.barrier().await;
                pods.started.send_replace(true);
                break;
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "start-up is not complete, trying again");
                reporter.report(Report::waiting(error));
                backoff.wait().await;
            }
        }
    }
    reporter.report(Report::good());
    tracing::info!(node = settings.node, "start-up complete");
    backoff.reset();
    while pools.changed().await.is_ok() {
        tokio::time::sleep(SETTLE).await;
        pools.mark_unchanged();
        addresses.settings_changed();
        while let Err(error) = tunnels(&settings, &place, &addresses).await {
            tracing::warn!(error = %format!("{error:#}"), "tunnel addresses not settled");
            backoff.wait().await;
        }
        backoff.reset();
    }
}

async fn once(settings: &Settings, place: &Place, addresses: &Addresses) -> Result<Vec<IpAddr>> {
    let node = place.this_node(settings).await?;
    let core = node.core.unwrap_or_default();
    let interfaces = crate::kernel::blocking(detect::interfaces).await?;
    let mut own = BTreeMap::new();
    for (version, wanted) in &settings.addresses {
        if let Some(net) = detect::address(*version, wanted, &interfaces, &core)? {
            own.insert(*version, net);
        }
    }
    if own.is_empty() {
        bail!("the node has no address of either family");
    }
    no_conflict(settings, place, &own).await?;
    let text = |v| own.get(&v).map(ToString::to_string);
    let agent = concat!("calico-rs/", env!("CARGO_PKG_VERSION")).to_owned();
    let features = confirm::mark::FEATURES.trim_start_matches("projectcalico.org/");
    let able = [confirm::mark::FEATURE, confirm::mark::FEATURE_DELETE].join(",");
    let said = [
        ("IPv4Address", text(IpVersion::V4)),
        ("IPv6Address", text(IpVersion::V6)),
        ("agent", Some(agent)),
        (features, Some(able)),
    ];
    place.say(&settings.node, &said.into()).await?;
    tokio::try_join!(defaults(settings, &place.datastore), network_available(settings, place))?;
    addresses.settings_changed();
    let tunnels = tunnels(settings, place, addresses).await?;
    write_files(settings).await?;
    Ok(tunnels)
}

/// Two nodes with one address would take each other's traffic.
async fn no_conflict(
    settings: &Settings,
    place: &Place,
    own: &BTreeMap<IpVersion, IpNet>,
) -> Result<()> {
    if settings.shared_address {
        return Ok(());
    }
    for other in place.nodes().await? {
        let name = other.name();
        if name == settings.node {
            continue;
        }
        let bgp = other.spec.bgp.clone().unwrap_or_default();
        for text in [bgp.ipv4_address, bgp.ipv6_address] {
            let net = api::net::prefix(&text).ok();
            if let Some(net) = net.filter(|n| own.values().any(|o| o.addr() == n.addr())) {
                bail!("node {name} uses the address {} already", net.addr());
            }
        }
    }
    Ok(())
}

/// Clears the condition by which cloud providers keep pods away from nodes without a network, where there is
/// a Kubernetes that has this node.
async fn network_available(settings: &Settings, place: &Place) -> Result<()> {
    let datastore = match &place.alone {
        None => &place.datastore,
        Some(Alone { kubernetes: Some(kubernetes), .. }) => kubernetes,
        Some(_) => return Ok(()),
    };
    let name = match &place.alone {
        Some(_) => settings.node_ref.as_ref().unwrap_or(&settings.node),
        None => &settings.node,
    };
    let Some(node) = datastore.get::<Node>(&CORE_NODES, None, name).await? else { return Ok(()) };
    let mut conditions =
        node.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let now = jiff::Timestamp::now();
    let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    let unavailable = conditions.iter().find(|c| c.type_ == "NetworkUnavailable");
    if unavailable.is_some_and(|c| c.status == "False") {
        return Ok(());
    }
    conditions.retain(|c| c.type_ != "NetworkUnavailable");
    let mut all = serde_json::to_value(conditions)?;
    if let Some(list) = all.as_array_mut() {
        list.push(json!({
            "type": "NetworkUnavailable",
            "status": "False",
            "reason": "CalicoIsUp",
            "message": "Calico is running on this node",
            "lastHeartbeatTime": now.to_string(),
            "lastTransitionTime": now.to_string(),
        }));
    }
    // With the revision that the list was read at: a kubelet that writes meanwhile wins, we retry.
    let revision = &node.metadata.resource_version;
    let patch = json!({"metadata": {"resourceVersion": revision}, "status": {"conditions": all}});
    datastore.patch(&CORE_NODES, (None, name), Some("status"), &patch).await?;
    Ok(())
}

async fn defaults(settings: &Settings, datastore: &Datastore) -> Result<()> {
    for (name, order, action) in [
        ("default", 1_000_000, "Deny"),
        ("kube-admin", 1_000, "Pass"),
        ("kube-baseline", 10_000_000, "Pass"),
    ] {
        create(datastore, &TIERS, name, json!({"order": order, "defaultAction": action})).await?;
    }
    create(datastore, &FELIX, "default", json!({})).await?;
    let cluster = json!({
        "clusterGUID": guid(),
        "clusterType": settings.cluster_type,
        "calicoVersion": env!("CARGO_PKG_VERSION"),
        "datastoreReady": true,
    });
    create(datastore, &CLUSTER, "default", cluster).await?;
    let existing: Vec<Value> = datastore.list_all(&POOLS).await?;
    for pool in &settings.default_pools {
        let net: IpNet = pool.cidr.parse().with_context(|| format!("pool {:?}", pool.cidr))?;
        let version = IpVersion::of_net(&net);
        let same_family = |p: &Value| {
            let cidr = p["spec"]["cidr"].as_str().and_then(|c| c.parse::<IpNet>().ok());
            cidr.is_some_and(|c| IpVersion::of_net(&c) == version)
        };
        if !existing.iter().any(same_family) {
            let name =
                format!("default-ipv{}-ippool", if version == IpVersion::V4 { 4 } else { 6 });
            create(datastore, &POOLS, &name, pool_spec(pool)).await?;
        }
    }
    Ok(())
}

fn pool_spec(pool: &DefaultPool) -> Value {
    json!({
        "cidr": pool.cidr,
        "blockSize": pool.block_size,
        "ipipMode": pool.ipip,
        "vxlanMode": pool.vxlan,
        "natOutgoing": pool.nat_outgoing,
        "nodeSelector": pool.node_selector,
        "disableBGPExport": pool.disable_bgp_export,
        "allowedUses": ["Workload", "Tunnel"],
    })
}

/// Creates what is not there; leaves what is.
async fn create(datastore: &Datastore, resource: &Resource, name: &str, spec: Value) -> Result<()> {
    if datastore.get::<Value>(resource, None, name).await?.is_some() {
        return Ok(());
    }
    let object = json!({
        "apiVersion": resource.api_version(),
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": spec,
    });
    match datastore.create::<Value>(resource, None, &object).await {
        Ok(_) | Err(Error::Exists(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn guid() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{:016x}", RandomState::new().hash_one(0), RandomState::new().hash_one(1))
}

/// Tunnel addresses where pools need them, none where they do not.
async fn tunnels(settings: &Settings, place: &Place, addresses: &Addresses) -> Result<Vec<IpAddr>> {
    let node = place.this_node(settings).await?.view;
    let labels = node.labels().iter();
    let labels = labels.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
    let labels: model::Labels = Arc::new(labels);
    let (mut all, mut changed) = (Vec::new(), BTreeMap::new());
    let spec = node.spec;
    for (version, key, known) in [
        (IpVersion::V4, "IPv4VXLANTunnelAddr", spec.ipv4_vxlan_tunnel_addr),
        (IpVersion::V6, "IPv6VXLANTunnelAddr", spec.ipv6_vxlan_tunnel_addr),
    ] {
        let address = addresses.tunnel(TunnelKind::Vxlan(version), &labels).await?;
        all.extend(address);
        let address = address.map(|a| a.to_string());
        if known != address.clone().unwrap_or_default() {
            changed.insert(key, address);
        }
    }
    if !changed.is_empty() {
        place.say(&settings.node, &changed).await?;
    }
    Ok(all)
}

/// The node's name, for tools beside us.
async fn write_files(settings: &Settings) -> Result<()> {
    let (folder, name) = (settings.lib_dir.clone(), settings.node.clone());
    crate::kernel::blocking(move || {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("nodename");
        std::fs::write(&path, name).with_context(|| format!("writing {}", path.display()))
    })
    .await
}
