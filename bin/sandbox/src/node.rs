//! A node: its agent, and what that is told.

use std::net::IpAddr;

use anyhow::Result;

use crate::process;
use crate::state::{Encap, Spec, State};

/// Starts the agent of a node, in the node's namespace.
pub(crate) fn start_agent(
    state: &State,
    spec: &Spec,
    node: &str,
    addresses: &[IpAddr],
) -> Result<std::process::Child> {
    for folder in ["run", "lib"] {
        std::fs::create_dir_all(state.node_dir(node).join(folder))?;
    }
    let agent = process::own(&["node".as_ref()])?;
    let env = environment(state, spec, node, addresses);
    process::start(Some(&state.netns(node)), agent, &env, &state.log(node))
}

/// What a DaemonSet's manifest would tell the agent.
pub(crate) fn environment(
    state: &State,
    spec: &Spec,
    node: &str,
    addresses: &[IpAddr],
) -> Vec<(String, String)> {
    let dir = state.node_dir(node);
    let (vxlan, cluster_routes) = match spec.encap {
        Encap::Vxlan => ("Always", "EnabledIPIPOnly"),
        Encap::None => ("Never", "Enabled"),
    };
    let path = |p: std::path::PathBuf| p.display().to_string();
    let mut env = vec![
        ("NODENAME", node.to_owned()),
        ("KUBECONFIG", path(state.node_kubeconfig())),
        ("DATASTORE_TYPE", "kubernetes".to_owned()),
        ("CALICO_NETWORKING_BACKEND", if vxlan == "Always" { "vxlan" } else { "none" }.to_owned()),
        ("CALICO_RUN_DIR", path(dir.join("run"))),
        ("CALICO_LIB_DIR", path(dir.join("lib"))),
        ("CALICO_IPV4POOL_CIDR", "192.168.0.0/16".to_owned()),
        ("CALICO_IPV4POOL_IPIP", "Never".to_owned()),
        ("CALICO_IPV4POOL_VXLAN", vxlan.to_owned()),
        ("CALICO_IPV6POOL_IPIP", "Never".to_owned()),
        ("CALICO_IPV6POOL_VXLAN", vxlan.to_owned()),
        ("FELIX_PROGRAMCLUSTERROUTES", cluster_routes.to_owned()),
        ("FELIX_DEFAULTENDPOINTTOHOSTACTION", "ACCEPT".to_owned()),
        ("FELIX_HEALTHENABLED", "true".to_owned()),
        ("FELIX_PROMETHEUSMETRICSENABLED", "true".to_owned()),
        ("FELIX_LOGSEVERITYSCREEN", "info".to_owned()),
        ("FELIX_IPV6SUPPORT", spec.dual_stack.to_string()),
    ];
    for address in addresses {
        let (name, length) = if address.is_ipv4() { ("IP", 24) } else { ("IP6", 64) };
        env.push((name, format!("{address}/{length}")));
    }
    if spec.dual_stack {
        env.push(("CALICO_IPV6POOL_CIDR", "fd00:192:168::/48".to_owned()));
    } else {
        env.push(("IP6", "none".to_owned()));
    }
    env.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
}
