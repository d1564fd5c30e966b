//! Hooks that parts of the kernel make by themselves, on a kernel that lists them.

use std::collections::BTreeSet;
use std::fs;

use hooks::{Effect, Finding, Kind, Modules, When, look, look_again};
use testkit::{in_vm, out, sh};

/// What the test needs in the machine.
const TOOLS: [&str; 10] = [
    "-f",
    "/usr/sbin/ip",
    "-f",
    "/usr/sbin/nft",
    "-f",
    "/usr/sbin/ipvsadm",
    "-f",
    "/usr/sbin/iptables-legacy",
    "-f",
    "/usr/lib/x86_64-linux-gnu/xtables",
];

#[test]
fn modules_are_told() {
    in_vm("modules_are_told", &TOOLS, || {
        nothing_is_loaded_that_decides();
        furnish();
        let look = look();
        assert_eq!((look.unseen.clone(), look.modules), (vec![], Modules::Listed));
        assert_eq!(look.not_seen(), "not looked at: BPF programs of control groups");
        the_right_ones(&look.found);
        nothing_else_is_there(&look.found);
        a_kernel_without_a_list();
    });
}

/// Names of modules that are loaded.
fn loaded() -> BTreeSet<String> {
    let modules = fs::read_to_string("/proc/modules").expect("a list of modules");
    modules.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// What answers is loaded, and what that needs; nothing with a hook.
fn nothing_is_loaded_that_decides() {
    let before = loaded();
    let look = look();
    assert_eq!((look.found, look.unseen, look.modules), (vec![], vec![], Modules::Listed));
    let now = loaded();
    let new: Vec<&str> = now.difference(&before).map(String::as_str).collect();
    assert_eq!(new, ["libcrc32c", "nf_tables", "nfnetlink", "nfnetlink_hook"]);
}

/// Chains and tables, ours and others', with all that they bring in; and parts of the kernel with a say of their own.
fn furnish() {
    sh(
        "ip link add one type veth peer name two; ip link add bridge0 type bridge; ip link set one up",
    );
    sh("modprobe br_netfilter; ip link add link two name three type ipvlan mode l3s");
    sh("nft -f - <<'E'
table ip calico {
  chain filter-forward { type filter hook forward priority 0; ct state established accept; }
}
table inet fw {
  flowtable short { hook ingress priority 0; devices = { one }; }
  chain late { type filter hook forward priority 10; ip protocol tcp flow add @short; tcp dport 9 drop; }
  chain proxied { type filter hook input priority 10; tcp dport 9 synproxy mss 1460 wscale 7; }
  chain out { type nat hook postrouting priority 100; tcp dport 9 masquerade; }
}
table bridge fw {
  chain late { type filter hook forward priority 10; ct state invalid drop; }
}
table netdev fw {
  chain early { type filter hook ingress device one priority 0; udp dport 9 drop; }
}
E");
    sh("iptables-legacy -A FORWARD -p tcp --dport 9 -j DROP");
    sh("iptables-legacy -t mangle -A FORWARD -p tcp --dport 9 -j DROP");
    sh("iptables-legacy -t nat -A POSTROUTING -p tcp --dport 9 -j MASQUERADE");
    sh("ipvsadm -A -t 10.0.0.1:80 -s rr");
}

/// Each once, by whom it belongs to.
fn the_right_ones(found: &[Finding]) {
    const SERVICES: &[Effect] = &[Effect::Drop, Effect::Translate, Effect::Redirect];
    const SENT: &[Effect] = &[Effect::Redirect];
    let modules = [
        ("ip ip_vs: ip_vs_out_hook", When::Before, "output", -99, SERVICES),
        ("ip ip_vs: ip_vs_in_hook", When::Before, "output", -98, SERVICES),
        ("ip ip_vs: ip_vs_out_hook", When::After, "input", 98, SERVICES),
        ("ip ip_vs: ip_vs_in_hook", When::After, "input", 99, SERVICES),
        ("ip ip_vs: ip_vs_forward_icmp", When::After, "forward", 99, SERVICES),
        ("ip ip_vs: ip_vs_out_hook", When::After, "forward", 100, SERVICES),
        ("one nf_flow_table_inet: nf_flow_offload_inet_hook", When::Before, "ingress", 0, SENT),
        ("ip ipvlan: ipvlan_nf_input", When::After, "input", i32::MAX, SENT),
        ("ip6 ipvlan: ipvlan_nf_input", When::After, "input", i32::MAX, SENT),
    ];
    let modules: BTreeSet<_> = modules
        .map(|(name, when, hook, priority, effects)| {
            (name, when, hook, Some(priority), BTreeSet::from_iter(effects))
        })
        .into();
    let of = |kind| found.iter().filter(move |f| f.kind == kind);
    let seen: Vec<_> = of(Kind::Module)
        .map(|f| (f.name.as_str(), f.when, f.hook, f.priority, f.effects.iter().collect()))
        .collect();
    assert_eq!(seen.len(), modules.len(), "{seen:#?}");
    assert_eq!(BTreeSet::from_iter(seen), modules);
    let names = |kind| of(kind).map(|f| f.name.as_str()).collect::<Vec<_>>();
    let mut chains = names(Kind::Nft);
    chains.sort_unstable();
    let expected =
        ["bridge fw late", "inet fw late", "inet fw out", "inet fw proxied", "netdev fw early"];
    assert_eq!(chains, expected);
    assert_eq!(names(Kind::Iptables).len(), 3, "{found:#?}");
}

/// nft shows the same, but for what is told as chain or table, and what only does what those ask for.
fn nothing_else_is_there(found: &[Finding]) {
    const NOT_TOLD: [&str; 10] = [
        "br_netfilter",
        "ip_tables",
        "iptable_mangle",
        "kernel: apparmor_ip_postroute",
        "nf_conntrack",
        "nf_conntrack_bridge",
        "nf_defrag_ipv4",
        "nf_defrag_ipv6",
        "nf_nat",
        "nf_synproxy_core",
    ];
    let (mut family, mut hook) = ("", "");
    let (mut told, mut not_told) = (BTreeSet::new(), BTreeSet::new());
    let shown = out("nft list hooks");
    for line in shown.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["family", name, "{"] => family = name,
            ["hook", name, "{"] => hook = name,
            [_, "chain", ..] => {}
            [priority, function, module @ ..] => {
                let module = module.first().map_or("kernel", |m| m.trim_matches(['[', ']']));
                let name = format!("{family} {module}: {function}");
                let place = (hook, Some(priority.parse::<i32>().expect("a priority")));
                let is = |f: &&Finding| f.kind == Kind::Module && (f.hook, f.priority) == place;
                if found.iter().filter(is).any(|f| f.name == name) {
                    told.insert((name, hook, place.1));
                } else if module == "kernel" {
                    not_told.insert(format!("kernel: {function}"));
                } else {
                    not_told.insert(module.to_owned());
                }
            }
            // The end of a list.
            _ => {}
        }
    }
    assert_eq!(not_told, BTreeSet::from(NOT_TOLD.map(str::to_owned)), "{shown}");
    // It shows no device unless asked.
    assert_eq!(told.len(), 8, "{shown}");
}

/// It is said; and who looks often does not make the kernel look for the module each time.
fn a_kernel_without_a_list() {
    sh("rmmod nfnetlink_hook");
    fs::write("/tmp/modprobe", "#!/bin/sh\necho \"$@\" >>/tmp/asked\nexit 1\n")
        .expect("it is written");
    sh("chmod +x /tmp/modprobe; echo /tmp/modprobe >/proc/sys/kernel/modprobe");
    let asked = || fs::read_to_string("/tmp/asked").unwrap_or_default().lines().count();
    let first = look();
    assert_eq!((first.modules, asked()), (Modules::NotListed, 1));
    assert!(first.unseen.is_empty(), "{:?}", first.unseen);
    assert!(first.not_seen().contains("does not list"), "{}", first.not_seen());
    assert!(first.found.iter().any(|f| f.kind == Kind::Nft));
    assert!(!first.found.iter().any(|f| f.kind == Kind::Module));
    let second = look_again(first.modules);
    assert_eq!((&second, asked()), (&first, 1));
    assert_eq!((look().modules, asked()), (Modules::NotListed, 2));
}
