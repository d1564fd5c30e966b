//! What pods leave behind, if anything.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Sandbox;

/// What nodes hold for pods: must be the same before the first and after the last.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    handles: BTreeSet<String>,
    links: Vec<String>,
    routes: Vec<String>,
    rules: Vec<String>,
    namespaces: BTreeSet<String>,
}

pub(crate) fn holdings(s: &Sandbox, nodes: &[&str]) -> Holdings {
    let blocks = s.json("get ipamblocks");
    let blocks = blocks["items"].as_array().unwrap();
    let attributes = blocks.iter().flat_map(|b| b["spec"]["attributes"].as_array().unwrap());
    let text = |v: &Value| v.as_str().unwrap_or("no handle").to_owned();
    let pods = |command: &str, has: &str| -> Vec<String> {
        let all = nodes.iter().map(|n| s.on_node(n, command)).collect::<String>();
        all.lines().filter(|l| l.contains(has)).map(str::to_owned).collect()
    };
    Holdings {
        namespaces: s.traces().namespaces,
        handles: attributes.map(|a| text(&a["handle_id"])).collect(),
        links: pods("ip -o link", "cali").into_iter().filter(|l| !l.contains(".calico")).collect(),
        routes: pods("ip route show table all", "dev cali"),
        rules: nodes.iter().flat_map(|node| rules(s, node)).collect(),
    }
}

/// What is in a node's tables; not whether they are sealed, which the agent does when it has time.
fn rules(s: &Sandbox, node: &str) -> Vec<String> {
    let all = s.on_node(node, "nft -s list ruleset").replace("table ip calico-seal {\n}\n", "");
    all.lines().map(str::to_owned).collect()
}
