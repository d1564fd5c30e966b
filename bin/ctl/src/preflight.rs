//! `node preflight`: who else can decide about packets on this machine, before us and behind us.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use netlink::codec::{Attrs, Request, text, u8_at, u32_at};
use netlink::{Socket, link};
use nft::{Effect, HookedChain, hooked_chains};
use serde_json::{Value, json};

use crate::Outcome;
use crate::args::{NodePreflightArgs, ResultOutput};
use crate::print::{Out, Table, complain};

/// What nobody should think was looked at.
const NOT_SEEN: &str = "not looked at: rules of legacy iptables (only which tables are loaded), BPF programs linked to \
    netfilter (`bpftool link`) or to devices by tcx or netkit (`bpftool net`), and hooks of kernel modules";

/// The tables that are ours.
const TABLE: &str = "calico";
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const LINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;
/// Where filters of a `clsact` queue hang: what comes in, what goes out.
const DIRECTIONS: [(u32, &str); 2] = [(0xffff_fff2, "ingress"), (0xffff_fff3, "egress")];
const INGRESS_QUEUE: u32 = 0xffff_0000;

/// Somebody else's say about packets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// `nft`, `iptables`, `tc`, `xdp`.
    kind: &'static str,
    /// `before` policy is asked, or `after` it has accepted.
    when: &'static str,
    hook: String,
    priority: Option<i32>,
    name: String,
    effects: BTreeSet<&'static str>,
    advice: &'static str,
}

pub(crate) fn preflight(args: &NodePreflightArgs) -> Result<Outcome> {
    let mut found = Vec::new();
    let chains = hooked_chains().context("cannot read the kernel's tables")?;
    found.extend(chains.iter().filter_map(|chain| of_chain(chain, &chains)));
    found.extend(of_iptables());
    let mut socket = Socket::open()?;
    found.extend(of_xdp(&mut socket)?);
    found.extend(of_tc(&mut socket)?);
    found.sort();
    let mut out = Out::new();
    if args.output == ResultOutput::Json {
        for finding in &found {
            out.line(&json_of(finding).to_string())?;
        }
    } else {
        tell(&found, &mut out)?;
    }
    out.finish()?;
    complain(NOT_SEEN);
    Ok(Outcome::Done)
}

/// Nothing for our own chains, for families that carry no IP packets of ours, and for chains that do
/// nothing to a packet.
fn of_chain(chain: &HookedChain, all: &[HookedChain]) -> Option<Finding> {
    let ours = |c: &HookedChain| c.table == TABLE && matches!(c.family, "ip" | "ip6");
    if ours(chain) || chain.family == "arp" || chain.effects.is_empty() {
        return None;
    }
    // The last chain of ours in the hook decides; without one, where it would be.
    let last = all.iter().filter(|c| ours(c) && c.hook == chain.hook).map(|c| c.priority).max();
    let when = match chain.hook {
        "ingress" | "prerouting" => "before",
        "postrouting" | "egress" => "after",
        _ if chain.priority < last.unwrap_or(0) => "before",
        _ => "after",
    };
    Some(Finding {
        kind: "nft",
        when,
        hook: chain.hook.to_owned(),
        priority: Some(chain.priority),
        name: format!("{} {} {}", chain.family, chain.table, chain.chain),
        effects: chain.effects.iter().map(|e| e.as_str()).collect(),
        advice: advice(when, chain),
    })
}

/// What to do about it: the worst first.
fn advice(when: &str, chain: &HookedChain) -> &'static str {
    let has = |effect| chain.effects.contains(&effect);
    if has(Effect::Untrack) && when == "before" {
        "answers of flows that it keeps out of connection tracking need policy of their own: leave \
         workloads' addresses out of it"
    } else if has(Effect::Drop) || has(Effect::Queue) {
        match when {
            "after" => {
                "what policy accepts can still be dropped here: accept workloads' interfaces or \
                 addresses in it"
            }
            _ => "what policy would accept may not come to it: accept workloads' addresses in it",
        }
    } else if has(Effect::Redirect) {
        "packets that it takes away are not asked about where they were sent"
    } else if has(Effect::Translate) {
        match when {
            "before" => {
                "policy sees the destination as translated; as it was sent only preDNAT policy does: \
                 right for services"
            }
            _ => "make sure that it leaves packets between workloads alone",
        }
    } else {
        "look at its rules: not all of them are understood here"
    }
}

/// The old tables are not read: that they are loaded is all that is said.
fn of_iptables() -> Vec<Finding> {
    let mut found = Vec::new();
    for (file, tool) in
        [("ip_tables_names", "iptables-legacy"), ("ip6_tables_names", "ip6tables-legacy")]
    {
        // Not there where the kernel does not have them.
        let names = std::fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        for table in names.lines() {
            let (effect, when) = match table {
                "nat" => ("translate", "before"),
                "raw" => ("untrack", "before"),
                _ => ("drop", "after"),
            };
            found.push(Finding {
                kind: "iptables",
                when,
                hook: "any".to_owned(),
                priority: None,
                name: format!("{tool} table {table}"),
                effects: BTreeSet::from([effect]),
                advice: "look at its rules with the -save form of the tool; what drops there drops \
                         what policy accepts",
            });
        }
    }
    found
}

fn of_xdp(socket: &mut Socket) -> Result<Vec<Finding>> {
    let request = Request::new("list programs of links", RTM_GETLINK, 0, &[0; LINK_HEADER]);
    let found = socket.dump(&request, |m| {
        let attributes = Attrs::after(m.payload, LINK_HEADER);
        let xdp = Attrs(attributes.clone().get(IFLA_XDP)?);
        let attached = xdp.get(IFLA_XDP_ATTACHED).and_then(|v| u8_at(v, 0))?;
        (attached != 0).then(|| attributes.get(3).and_then(text).unwrap_or("?").to_owned())
    })?;
    let one = |name: String| Finding {
        kind: "xdp",
        when: "before",
        hook: "device".to_owned(),
        priority: None,
        name,
        effects: BTreeSet::from(["drop", "redirect"]),
        advice: "the program may take packets before anything else sees them",
    };
    Ok(found.into_iter().map(one).collect())
}

fn of_tc(socket: &mut Socket) -> Result<Vec<Finding>> {
    let links = link::list(socket)?;
    let header = |index: u32, parent: u32| {
        let mut header = [0; TC_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[12..16].copy_from_slice(&parent.to_ne_bytes());
        header
    };
    let request = Request::new("list queues", RTM_GETQDISC, 0, &header(0, 0));
    let queues = socket.dump(&request, |m| {
        let kind = Attrs::after(m.payload, TC_HEADER).get(TCA_KIND).and_then(text)?;
        let clsact = match kind {
            "clsact" => true,
            "ingress" => false,
            _ => return None,
        };
        Some((u32_at(m.payload, 4)?, clsact))
    })?;
    let mut found = Vec::new();
    for (index, clsact) in queues {
        let name = links.iter().find(|l| l.index == index).map(|l| l.name.as_str().to_owned());
        let places = if clsact { &DIRECTIONS[..] } else { &[(INGRESS_QUEUE, "ingress")] };
        for (parent, direction) in places {
            let request = Request::new("list filters", RTM_GETTFILTER, 0, &header(index, *parent));
            let kinds = socket.dump(&request, |m| {
                let kind = Attrs::after(m.payload, TC_HEADER).get(TCA_KIND).and_then(text)?;
                Some(kind.to_owned())
            })?;
            if kinds.is_empty() {
                continue;
            }
            let kinds: BTreeSet<String> = kinds.into_iter().collect();
            let kinds: Vec<String> = kinds.into_iter().collect();
            found.push(Finding {
                kind: "tc",
                when: if *direction == "ingress" { "before" } else { "after" },
                hook: (*direction).to_owned(),
                priority: None,
                name: format!("{}: {}", name.as_deref().unwrap_or("?"), kinds.join(", ")),
                effects: BTreeSet::from(["drop", "redirect"]),
                advice: "the filters may drop packets or send them elsewhere, past policy",
            });
        }
    }
    Ok(found)
}

fn json_of(finding: &Finding) -> Value {
    json!({
        "kind": finding.kind,
        "when": finding.when,
        "hook": finding.hook,
        "priority": finding.priority,
        "name": finding.name,
        "effects": finding.effects,
        "advice": finding.advice,
    })
}

fn tell(found: &[Finding], out: &mut Out) -> Result<()> {
    for (when, title) in
        [("before", "Before policy is asked:"), ("after", "Behind what policy accepts:")]
    {
        let mut table = Table::new(["KIND", "HOOK", "PRIORITY", "WHO", "MAY", "WHAT TO DO"]);
        let here: Vec<&Finding> = found.iter().filter(|f| f.when == when).collect();
        for f in &here {
            let effects: Vec<&str> = f.effects.iter().copied().collect();
            let priority = f.priority.map(|p| p.to_string()).unwrap_or_default();
            let effects = effects.join(" ");
            let cells = [f.kind, &f.hook, &priority, &f.name, &effects, f.advice];
            table.row(cells.map(str::to_owned));
        }
        out.line(title)?;
        if here.is_empty() {
            out.line("  nobody")?;
        } else {
            out.table(&table)?;
        }
    }
    Ok(())
}
