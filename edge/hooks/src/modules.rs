//! Hooks that parts of the kernel make by themselves: those of modules, and of what is built in. They are listed by
//! `nfnetlink_hook`, which a kernel has with the option `CONFIG_NETFILTER_NETLINK_HOOK` (from 5.14 on).
//!
//! Layouts: `include/uapi/linux/netfilter/nfnetlink_hook.h`; numbers in network order.

use netlink::codec::{Attrs, Request, text, u32_at};
use netlink::{Error as Refused, Socket};
use nft::{Effect, HookedChain};

use crate::devices::Link;
use crate::{Error, Finding, Kind, when};

/// `NFNL_SUBSYS_HOOK`, `NFNL_MSG_HOOK_GET`.
const GET: u16 = 12 << 8;
const NFNLA_HOOK_HOOKNUM: u16 = 1;
const NFNLA_HOOK_PRIORITY: u16 = 2;
const NFNLA_HOOK_DEV: u16 = 3;
const NFNLA_HOOK_FUNCTION_NAME: u16 = 4;
const NFNLA_HOOK_MODULE_NAME: u16 = 5;
const NFNLA_HOOK_CHAIN_INFO: u16 = 6;
const NFNLA_HOOK_INFO_TYPE: u16 = 2;
const NFNL_HOOK_TYPE_NFTABLES: u32 = 1;
const NFNL_HOOK_TYPE_BPF: u32 = 2;
/// Family, version, two bytes that are not used.
const HEADER_LEN: usize = 4;

/// Those that carry packets of ours; hooks of the family ARP see none.
const FAMILIES: [(libc::c_int, &str); 3] =
    [(libc::NFPROTO_IPV4, "ip"), (libc::NFPROTO_IPV6, "ip6"), (libc::NFPROTO_BRIDGE, "bridge")];
const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
/// Those of a device.
const DEVICE_HOOKS: [&str; 2] = ["ingress", "egress"];

/// Whether the kernel lists the hooks that its modules make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modules {
    /// It does, or was not asked yet.
    #[default]
    Listed,
    /// It has no list.
    NotListed,
}

/// A part of the kernel that has hooks.
struct Known {
    /// Names of the module, by which it is known where it is one.
    modules: &'static [&'static str],
    /// How the names of its functions begin, by which it is known where it is built in.
    functions: &'static [&'static str],
    /// None if it does nothing to packets but what rules ask for, and those are looked at elsewhere in this crate.
    does: Option<Does>,
}

#[derive(Clone, Copy)]
struct Does {
    effects: &'static [Effect],
    advice: &'static str,
}

/// Parts of Linux with hooks, 5.14 to 6.18, in the families that are looked at.
const KNOWN: [Known; 12] = [
    Known { modules: &["nf_tables"], functions: &["nft_do_chain"], does: None },
    Known {
        modules: &[
            "ip_tables",
            "iptable_filter",
            "iptable_mangle",
            "iptable_nat",
            "iptable_raw",
            "iptable_security",
            "ip6_tables",
            "ip6table_filter",
            "ip6table_mangle",
            "ip6table_nat",
            "ip6table_raw",
            "ip6table_security",
        ],
        functions: &["ipt_do_table", "iptable_", "ip6t_do_table", "ip6table_"],
        does: None,
    },
    // Chains of nf_tables and iptables that translate hang below it.
    Known { modules: &["nf_nat"], functions: &["nf_nat_"], does: None },
    // There while a rule sends packets to it.
    Known {
        modules: &["nf_synproxy_core"],
        functions: &["ipv4_synproxy_hook", "ipv6_synproxy_hook"],
        does: None,
    },
    // Drops when its table is full, and fragments that never become whole: no packet for what it is.
    Known {
        modules: &["nf_conntrack", "nf_conntrack_bridge", "nf_defrag_ipv4", "nf_defrag_ipv6"],
        functions: &[
            "ipv4_conntrack_",
            "ipv6_conntrack_",
            "ipv4_confirm",
            "ipv6_confirm",
            "nf_confirm",
            "nf_ct_bridge_",
            "ipv6_defrag",
        ],
        does: None,
    },
    // Shows packets of a bridge to the hooks of IP: what decides there is told.
    Known { modules: &["br_netfilter"], functions: &["br_nf_", "ip_sabotage_in"], does: None },
    // Security modules look at packets with labels. Rules give them some, or an administrator with NetLabel.
    Known { modules: &[], functions: &["selinux_ip", "smack_ip", "apparmor_ip"], does: None },
    Known {
        modules: &["ip_vs"],
        functions: &["ip_vs_"],
        does: Some(Does {
            effects: &[Effect::Drop, Effect::Translate, Effect::Redirect],
            advice: "packets to its services meet the input hook as they were sent and the output hook \
                     translated, never the forward hook: run kube-proxy in mode nftables or iptables",
        }),
    },
    Known {
        modules: &[
            "nf_flow_table",
            "nf_flow_table_inet",
            "nf_flow_table_ipv4",
            "nf_flow_table_ipv6",
        ],
        functions: &["nf_flow_offload_"],
        does: Some(Does {
            effects: &[Effect::Redirect],
            advice: "packets of established flows that were given to it pass by policy: `nft list \
                     flowtables` says whose it is",
        }),
    },
    Known {
        modules: &["ebtables", "ebtable_broute", "ebtable_filter", "ebtable_nat"],
        functions: &["ebt_"],
        does: Some(Does {
            effects: &[Effect::Drop, Effect::Translate, Effect::Redirect],
            advice: "its tables may drop or change what a bridge forwards: `ebtables-legacy -L` shows \
                     their rules",
        }),
    },
    Known {
        modules: &["ipvlan"],
        functions: &["ipvlan_"],
        does: Some(Does {
            effects: &[Effect::Redirect],
            advice: "packets for devices of type ipvlan in mode l3s go to those as if to this host: \
                     policy of workloads is not asked",
        }),
    },
    Known {
        modules: &["ila"],
        functions: &["ila_"],
        does: Some(Does {
            effects: &[Effect::Translate],
            advice: "destinations are rewritten by its mappings: leave workloads' addresses out of them",
        }),
    },
];

const UNKNOWN: Does = Does {
    effects: &[Effect::Unknown],
    advice: "what it does only who wrote it knows: find out which program loaded it, and what for",
};

/// One entry of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hook {
    function: String,
    /// None for what is built in.
    module: Option<String>,
    priority: i32,
    /// It is a base chain of nf_tables or a BPF program, which is told where those are looked at.
    told: bool,
}

/// Nothing if the kernel has no list. `chains` are all of nf_tables, `links` all devices.
pub(crate) fn look(chains: &[HookedChain], links: &[Link]) -> Result<Option<Vec<Finding>>, Error> {
    let mut socket = Socket::open_protocol(libc::NETLINK_NETFILTER).map_err(Error::Modules)?;
    let mut found = Vec::new();
    for (family, name) in FAMILIES {
        for (number, hook) in (0..).zip(HOOKS) {
            match list(&mut socket, family, number, None)? {
                Some(all) => found.extend(all.iter().filter_map(|h| of(h, name, hook, chains))),
                // Every kernel with a list has this one.
                None if (family, number) == (libc::NFPROTO_IPV4, 0) => return Ok(None),
                None => {}
            }
        }
    }
    for link in links {
        for (number, hook) in (0..).zip(DEVICE_HOOKS) {
            let all = list(&mut socket, libc::NFPROTO_NETDEV, number, Some(&link.name))?;
            let all = all.unwrap_or_default();
            found.extend(all.iter().filter_map(|h| of(h, &link.name, hook, chains)));
        }
    }
    Ok(Some(found))
}

/// Nothing if the kernel does not have the list, the family, the hook or the device.
fn list(
    socket: &mut Socket,
    family: libc::c_int,
    hook: u32,
    device: Option<&str>,
) -> Result<Option<Vec<Hook>>, Error> {
    let request = Request::new("list hooks", GET, 0, &[family as u8, 0, 0, 0]);
    let mut request = request.attr(NFNLA_HOOK_HOOKNUM, &hook.to_be_bytes());
    if let Some(device) = device {
        request = request.attr_str(NFNLA_HOOK_DEV, device);
    }
    match socket.dump(&request, |message| Hook::parse(message.payload)) {
        Ok(all) => Ok(Some(all)),
        Err(Refused::Refused { refusal, .. }) if is_absent(refusal.errno) => Ok(None),
        Err(error) => Err(Error::Modules(error)),
    }
}

fn is_absent(errno: i32) -> bool {
    matches!(errno, libc::EINVAL | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENODEV)
}

impl Hook {
    /// None if cut off.
    fn parse(payload: &[u8]) -> Option<Self> {
        let all = Attrs::after(payload, HEADER_LEN);
        let name = |kind| all.clone().get(kind).and_then(text).map(str::to_owned);
        let number = |bytes| u32_at(bytes, 0).map(u32::from_be);
        let chain = all.clone().get(NFNLA_HOOK_CHAIN_INFO).map(Attrs);
        let kind = chain.and_then(|chain| chain.get(NFNLA_HOOK_INFO_TYPE)).and_then(number);
        Some(Self {
            // A kernel without symbols names none.
            function: name(NFNLA_HOOK_FUNCTION_NAME).unwrap_or_else(|| "?".to_owned()),
            module: name(NFNLA_HOOK_MODULE_NAME),
            priority: number(all.get(NFNLA_HOOK_PRIORITY)?)?.cast_signed(),
            told: matches!(kind, Some(NFNL_HOOK_TYPE_NFTABLES | NFNL_HOOK_TYPE_BPF)),
        })
    }

    /// None for one that nobody has heard of.
    fn known(&self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| match &self.module {
            Some(module) => known.modules.contains(&module.as_str()),
            None => known.functions.iter().any(|start| self.function.starts_with(start)),
        })
    }
}

/// Nothing for what is told elsewhere, or does nothing by itself. `place` is the family, or the device.
fn of(hook: &Hook, place: &str, name: &'static str, chains: &[HookedChain]) -> Option<Finding> {
    if hook.told {
        return None;
    }
    let does = hook.known().map_or(Some(UNKNOWN), |known| known.does)?;
    let module = hook.module.as_deref().unwrap_or("kernel");
    Some(Finding {
        kind: Kind::Module,
        when: when(name, hook.priority, chains),
        hook: name,
        priority: Some(hook.priority),
        name: format!("{place} {module}: {}", hook.function),
        effects: does.effects.iter().copied().collect(),
        advice: does.advice,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::When;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A message as the kernel makes it: names with their NUL, numbers in network order.
    fn message(module: &str, function: &str, priority: i32, chain: Option<u32>) -> Vec<u8> {
        let mut bytes = vec![libc::NFPROTO_IPV4 as u8, 0, 0, 0];
        if !module.is_empty() {
            bytes.extend(attr(NFNLA_HOOK_MODULE_NAME, format!("{module}\0").as_bytes()));
        }
        if !function.is_empty() {
            bytes.extend(attr(NFNLA_HOOK_FUNCTION_NAME, format!("{function}\0").as_bytes()));
        }
        bytes.extend(attr(NFNLA_HOOK_HOOKNUM, &[0, 0, 0, 2]));
        bytes.extend(attr(NFNLA_HOOK_PRIORITY, &priority.to_be_bytes()));
        if let Some(kind) = chain {
            let inner = [attr(NFNLA_HOOK_INFO_TYPE, &kind.to_be_bytes()), attr(1, &[0; 8])];
            bytes.extend(attr(NFNLA_HOOK_CHAIN_INFO | 1 << 15, &inner.concat()));
        }
        bytes
    }

    fn found(message: &[u8]) -> Option<Finding> {
        of(&Hook::parse(message)?, "ip", "forward", &[])
    }

    #[test]
    fn what_is_told_and_what_is_not() {
        const UNKNOWN: &[Effect] = &[Effect::Unknown];
        const SERVICES: &[Effect] = &[Effect::Drop, Effect::Translate, Effect::Redirect];
        for (module, function, chain, effects) in [
            // Told elsewhere.
            ("nf_tables", "nft_do_chain_inet", Some(1), &[][..]),
            ("nf_tables", "nft_do_chain_inet", None, &[]),
            ("", "nf_hook_run_bpf", Some(2), &[]),
            ("ip_tables", "ipt_do_table", None, &[]),
            ("", "ip6t_do_table", None, &[]),
            ("nf_nat", "nf_nat_ipv4_out", None, &[]),
            // Theirs by name alone.
            ("nf_conntrack", "ipv4_conntrack_in", None, &[]),
            ("", "ipv4_conntrack_defrag", None, &[]),
            ("", "apparmor_ip_postroute", None, &[]),
            ("br_netfilter", "br_nf_forward", None, &[]),
            // Findings.
            ("ip_vs", "ip_vs_in_hook", None, SERVICES),
            ("", "ip_vs_in_hook", None, SERVICES),
            ("nf_flow_table", "nf_flow_offload_ip_hook", None, &[Effect::Redirect]),
            // A kind of chain that is not known yet says nothing.
            ("nf_flow_table", "nf_flow_offload_ip_hook", Some(3), &[Effect::Redirect]),
            ("somebodys", "filter", None, UNKNOWN),
            // A name is no proof, where the kernel says whose it is.
            ("somebodys", "ipv4_conntrack_in", None, UNKNOWN),
            ("nf_conntrack_somebodys", "ipv4_conntrack_in", None, UNKNOWN),
            ("", "somebodys", None, UNKNOWN),
            ("", "", None, UNKNOWN),
        ] {
            let found = found(&message(module, function, -7, chain));
            let seen: Vec<Effect> = found.iter().flat_map(|f| f.effects.iter().copied()).collect();
            assert_eq!(seen, effects, "{module} {function}");
            if let Some(f) = found {
                assert_eq!((f.kind, f.priority, f.hook), (Kind::Module, Some(-7), "forward"));
                assert!(!f.advice.is_empty(), "{module} {function}");
            }
        }
    }

    #[test]
    fn names_that_are_known_are_shown() {
        let name = |module, function| {
            found(&message(module, function, 0, None)).expect("it is a finding").name
        };
        assert_eq!(name("ip_vs", "ip_vs_in_hook"), "ip ip_vs: ip_vs_in_hook");
        assert_eq!(name("", "somebodys"), "ip kernel: somebodys");
        assert_eq!(name("", ""), "ip kernel: ?");
    }

    #[test]
    fn the_last_chain_of_ours_says_what_is_before() {
        let ours = |priority| HookedChain {
            family: "ip",
            table: "calico".to_owned(),
            chain: "c".to_owned(),
            ours: true,
            hook: "forward",
            priority,
            effects: BTreeSet::new(),
        };
        let hook = Hook::parse(&message("m", "f", 5, None)).expect("it is whole");
        for (chains, expected) in [
            (vec![], When::After),
            (vec![ours(0)], When::After),
            (vec![ours(0), ours(6)], When::Before),
            (vec![HookedChain { ours: false, ..ours(6) }], When::After),
        ] {
            assert_eq!(of(&hook, "ip", "forward", &chains).expect("unknown").when, expected);
        }
    }

    proptest! {
        /// Cut anywhere and changed anywhere, a message gives one hook or none, and never a chain that it is not.
        #[test]
        fn damage_is_harmless(
            cut in 0..120_usize,
            changes in prop::collection::vec((0..120_usize, any::<u8>()), 0..4),
        ) {
            let mut bytes = message("nf_tables", "nft_do_chain_inet", -300, Some(1));
            bytes.truncate(cut);
            for (at, byte) in changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let _ = found(&bytes);
        }

        /// Cut, it is never a hook at another place.
        #[test]
        fn a_cut_message_is_no_other(cut in 0..200_usize) {
            let whole = message("ip_vs", "ip_vs_in_hook", 99, None);
            let cut = cut.min(whole.len());
            if let Some(hook) = Hook::parse(&whole[..cut]) {
                prop_assert_eq!(hook.priority, 99);
            }
        }
    }
}
