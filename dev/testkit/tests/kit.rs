//! The kit tests itself in the kernel it is for.

use std::time::Duration;

use testkit::{NamedNetns, Server, Topology, can_connect, in_netns, out, tcp_reply, udp_reply};

const WAIT: Duration = Duration::from_secs(2);

#[test]
fn a_namespace_of_its_own_with_loopback_up() {
    let text = in_netns(|| out("ip -o link"));
    assert_eq!(text.lines().count(), 1, "only loopback: {text}");
    assert!(text.contains("LOOPBACK,UP"), "{text}");
}

#[test]
fn panics_come_through() {
    assert!(std::panic::catch_unwind(|| in_netns(|| panic!("inside"))).is_err());
}

#[test]
fn a_named_namespace_is_removed_while_panicking() {
    let mut path = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let named = NamedNetns::new("kit-");
        path = Some(named.path());
        assert!(out("ip netns list").contains(named.name()));
        panic!("inside");
    }));
    assert!(panicked.is_err());
    assert!(!path.unwrap().exists());
}

#[test]
fn nodes_reach_each_other_by_both_families_and_protocols() {
    let t = Topology::new(2, 1500);
    let _server = Server::start(&t.nodes[1].netns, 8080, "two");
    for address in t.nodes[1].addresses() {
        let from = &t.nodes[0].netns;
        assert_eq!(tcp_reply(from, (address, 8080), WAIT).as_deref(), Some("two"), "{address}");
        assert_eq!(udp_reply(from, (address, 8080), WAIT).as_deref(), Some("two"), "{address}");
        assert!(!can_connect(from, (address, 8081)), "nobody listens on 8081 of {address}");
    }
}
