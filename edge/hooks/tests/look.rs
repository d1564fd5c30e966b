//! What other tools and programs put into the kernel is found, with what it may do.
#![allow(unsafe_code, reason = "bpf(2); each call has a SAFETY sentence")]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use hooks::{Effect, Finding, Kind, When, look};
use netlink::{Socket, link};
use testkit::{in_netns, sh};

type Row<'a> = (&'a str, When, &'a str, Option<i32>, &'a [Effect]);

fn seen() -> Vec<Finding> {
    let look = look();
    assert_eq!(look.unseen, [""; 0], "the kernel can be asked");
    look.found
}

/// Everything that is found of these kinds, and nothing else.
fn expect(kinds: &[Kind], wanted: &[Row<'_>]) {
    let found = seen();
    let found: Vec<&Finding> = found.iter().filter(|f| kinds.contains(&f.kind)).collect();
    for (name, when, hook, priority, effects) in wanted {
        let one = found.iter().find(|f| f.name == *name);
        let one = one.unwrap_or_else(|| panic!("no {name} in {found:?}"));
        let effects = effects.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!((one.when, one.hook, one.priority), (*when, *hook, *priority), "{name}");
        assert_eq!(one.effects, effects, "{name}");
        assert!(!one.advice.is_empty(), "{name}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:?}");
}

#[test]
fn an_empty_namespace_has_nobody() {
    in_netns(|| {
        let found = seen();
        // Those of netfilter links may be another namespace's.
        let found: Vec<_> = found.iter().filter(|f| f.kind != Kind::Bpf).collect();
        assert!(found.is_empty(), "{found:?}");
    });
}

#[test]
fn chains_of_other_tables() {
    in_netns(|| {
        sh("nft -f - <<'E'
table ip calico {
  chain filter-forward { type filter hook forward priority 0; drop; }
}
table inet fw {
  map m { type inet_service : verdict; elements = { 22 : accept, 23 : goto deeper }; }
  chain late { type filter hook forward priority 10; jump deeper; }
  chain soon { type filter hook forward priority -10; jump deeper; }
  chain deeper { tcp dport 9 reject; }
  chain early { type filter hook prerouting priority -400; udp dport 9 notrack; }
  chain nat { type nat hook prerouting priority -100; tcp dport 9 redirect to 10; }
  chain counts { type filter hook input priority 5; counter; log; }
  chain mapped { type filter hook input priority -5; tcp dport vmap @m; }
  chain closed { type filter hook output priority 20; policy drop; accept; }
}
E");
        expect(
            &[Kind::Nft, Kind::Iptables],
            &[
                ("inet fw late", When::After, "forward", Some(10), &[Effect::Drop]),
                ("inet fw soon", When::Before, "forward", Some(-10), &[Effect::Drop]),
                ("inet fw early", When::Before, "prerouting", Some(-400), &[Effect::Untrack]),
                ("inet fw nat", When::Before, "prerouting", Some(-100), &[Effect::Translate]),
                ("inet fw mapped", When::Before, "input", Some(-5), &[Effect::Drop]),
                ("inet fw closed", When::After, "output", Some(20), &[Effect::Drop]),
            ],
        );
    });
}

#[test]
fn tables_of_legacy_iptables() {
    in_netns(|| {
        for tool in ["iptables-legacy", "ip6tables-legacy"] {
            for rule in [
                "-N deep",
                "-N deeper",
                "-N unused",
                "-A unused -j DROP",
                "-A FORWARD -p tcp --dport 9 -g deep",
                "-A deep -m comment --comment x -j deeper",
                "-A deeper -p udp -j REJECT",
                "-A OUTPUT -p tcp -j ACCEPT",
                "-A OUTPUT -j RETURN",
                "-P INPUT DROP",
                "-t nat -A POSTROUTING -j MASQUERADE",
                "-t raw -A PREROUTING -p udp -j CT --notrack",
                "-t mangle -A FORWARD -j MARK --set-mark 1",
            ] {
                sh(&format!("{tool} -w 5 {rule}"));
            }
        }
        let mut rows = Vec::new();
        for tool in ["iptables-legacy", "ip6tables-legacy"] {
            for (chain, when, hook, priority, effect) in [
                ("filter chain FORWARD", When::After, "forward", 0, Effect::Drop),
                ("filter chain INPUT", When::After, "input", 0, Effect::Drop),
                ("nat chain POSTROUTING", When::After, "postrouting", 100, Effect::Translate),
                ("raw chain PREROUTING", When::Before, "prerouting", -300, Effect::Untrack),
            ] {
                let name = format!("{tool} table {chain}");
                rows.push((name, when, hook, Some(priority), [effect]));
            }
        }
        let rows: Vec<Row<'_>> =
            rows.iter().map(|(n, w, h, p, e)| (n.as_str(), *w, *h, *p, &e[..])).collect();
        expect(&[Kind::Nft, Kind::Iptables], &rows);
    });
}

#[test]
fn programs_at_devices_and_in_netfilter() {
    const PASS: [Effect; 2] = [Effect::Drop, Effect::Redirect];
    in_netns(|| {
        sh("ip link add one type veth peer name two; ip link set one up");
        sh("tc qdisc add dev one clsact");
        sh("tc filter add dev one egress protocol ip u32 match u32 0 0 flowid 1:1");
        sh("tc qdisc add dev two ingress");
        let index = |name: &str| {
            let mut socket = Socket::open().expect("a socket");
            let all = link::list(&mut socket).expect("a list");
            all.iter().find(|l| l.name.as_str() == name).expect("the device is there").index
        };
        // XDP, tcx, netfilter: type of program, what it returns, expected attach type.
        let xdp = program(6, 2, 0);
        let [tcx, other] = [program(3, 0, 0), program(3, 0, 0)];
        let _held = [
            attach(&xdp, index("two"), 37, &[]),
            attach(&tcx, index("one"), 46, &[]),
            attach(&other, index("one"), 46, &[]),
            attach(&tcx, index("two"), 47, &[]),
        ];
        let devices = [Kind::Tc, Kind::Tcx, Kind::Xdp];
        expect(
            &devices,
            &[
                ("one: u32", When::After, "egress", None, &PASS),
                ("two", When::Before, "device", None, &PASS),
                ("one: 2 programs", When::Before, "ingress", None, &PASS),
                ("two: 1 program", When::After, "egress", None, &PASS),
            ],
        );
        let netfilter = program(32, 1, 45);
        let held = attach(&netfilter, 0, 45, &[2, 2, 77, 0]);
        let ours = |f: &Finding| f.kind == Kind::Bpf && f.priority == Some(77);
        let found = seen();
        let one = found.iter().find(|f| ours(f)).expect("the link is found");
        assert_eq!((one.when, one.hook), (When::After, "forward"));
        assert!(one.name.starts_with("ip link "), "{}", one.name);
        drop(held);
        // The kernel takes it off when nobody holds it, a moment later.
        let gone = || !seen().iter().any(ours);
        let began = std::time::Instant::now();
        while !gone() {
            assert!(began.elapsed().as_secs() < 10, "the link stays");
        }
    });
}

/// Bytes of `union bpf_attr`: 32-bit numbers, 64-bit ones being two.
fn bpf(command: libc::c_long, numbers: &[u32]) -> OwnedFd {
    let mut attr = [0_u32; 24];
    attr[..numbers.len()].copy_from_slice(numbers);
    // SAFETY: the kernel reads that many bytes; pointers in them are to statics, or memory that the callers hold.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(&attr)) };
    assert!(fd >= 0, "bpf {command}: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

/// A program that returns a number.
fn program(kind: u32, returns: u32, attach: u32) -> OwnedFd {
    const LICENSE: &std::ffi::CStr = c"GPL";
    // r0 = number; exit
    let instructions = [[0xb7, returns], [0x95, 0]];
    let halves = |address: u64| [address as u32, (address >> 32) as u32];
    let [low, high] = halves(instructions.as_ptr() as u64);
    let [license, license_high] = halves(LICENSE.as_ptr() as u64);
    let mut numbers = vec![kind, 2, low, high, license, license_high];
    numbers.resize(17, 0);
    numbers.push(attach);
    bpf(5, &numbers)
}

fn attach(program: &OwnedFd, target: u32, place: u32, rest: &[u32]) -> OwnedFd {
    let program = program.as_raw_fd().cast_unsigned();
    bpf(28, &[&[program, target, place, 0], rest].concat())
}
