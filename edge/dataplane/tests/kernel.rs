//! Two nodes, each with the loop over the real network driver, fed as the calculation would.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use dataplane::{
    Applied, Config, Connections, Dataplane, DriverError, Network, Outcome, Policies, Refused,
};
use ipnet::IpNet;
use model::network::Node;
use model::output::{Encap, LocalWorkload, Output, Route, RouteKind, Vtep};
use model::{
    HostInterface, IfaceName, InSync, IpVersion, NextHop, Tunnel, TunnelEnd, WorkloadEndpoint,
    WorkloadId,
};
use netlink::conntrack::Conntrack;
use netlink::{Alias, Settings, Socket, Wire, wire_pod};
use route::Driver;
use testkit::{Netns, Server, Topology, out, sh, tcp_reply};

const WAIT: Duration = Duration::from_secs(2);

/// Sets and rules are not under test.
struct NoPolicies;

impl Policies for NoPolicies {
    fn feed(&mut self, _: &[Output]) {}
    fn apply(&mut self, _: Option<&InSync>) -> Result<Outcome, DriverError> {
        Ok(Outcome::default())
    }
}

struct Kernel(Driver);

fn failed(error: netlink::Error) -> DriverError {
    DriverError(error.to_string())
}

impl Network for Kernel {
    fn poll(&mut self) -> Result<bool, DriverError> {
        self.0.poll().map_err(failed)
    }
    fn host_interfaces(&self) -> &BTreeMap<IfaceName, HostInterface> {
        self.0.host_interfaces()
    }
    fn want_route(&mut self, dst: IpNet, hop: Option<NextHop>) {
        self.0.want_route(dst, hop);
    }
    fn want_tunnel(&mut self, version: IpVersion, tunnel: Option<Tunnel>) {
        self.0.want_tunnel(version, tunnel);
    }
    fn want_tunnel_end(&mut self, address: IpAddr, end: Option<TunnelEnd>) {
        self.0.want_tunnel_end(address, end);
    }
    fn has_route(&self, dst: &IpNet) -> bool {
        self.0.has_route(dst)
    }
    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let applied = self.0.apply(in_sync).map_err(failed)?;
        let refused = applied.refused.into_iter();
        let refused = refused.map(|(object, error)| Refused { object, error }).collect();
        Ok(Outcome { changed: applied.changed, refused })
    }
}

struct Tracked(Conntrack);

impl Connections for Tracked {
    fn forget(&mut self, addresses: &[IpAddr]) -> Result<(), DriverError> {
        self.0.forget(addresses.iter().copied()).map_err(failed)
    }
}

type Plane = Dataplane<NoPolicies, Kernel, Tracked>;

const NODES: [&str; 2] = ["node0", "node1"];

/// Tunnel address, block and pod address of a node.
fn plan(number: usize, version: IpVersion) -> (IpAddr, IpNet, IpAddr) {
    let prefix = match version {
        IpVersion::V4 => format!("10.65.{number}."),
        IpVersion::V6 => format!("fd00:65:{number}::"),
    };
    let address = |last: u8| format!("{prefix}{last}").parse().unwrap();
    let bits = if version == IpVersion::V4 { 26 } else { 122 };
    let block = IpNet::new(address(0), bits).unwrap();
    (address(1), block, address(5))
}

fn underlay(t: &Topology, number: usize, version: IpVersion) -> IpAddr {
    t.nodes[number].addresses().into_iter().find(|a| IpVersion::of(*a) == version).unwrap()
}

fn pod(number: usize) -> WorkloadEndpoint {
    WorkloadEndpoint {
        id: WorkloadId { namespace: "ns".into(), name: format!("pod{number}").into() },
        node: NODES[number].into(),
        iface: format!("cali{number:011x}").parse().unwrap(),
        addresses: IpVersion::ALL.map(|version| plan(number, version).2).into(),
        labels: Arc::default(),
        profiles: Vec::new(),
        ports: Vec::new(),
        allowed_sources: Vec::new(),
    }
}

/// What the calculation would say on node `number`.
fn outputs(t: &Topology, number: usize, encap: Encap) -> Vec<Output> {
    let other = 1 - number;
    let own = |v| IpNet::new(underlay(t, number, v), if v == IpVersion::V4 { 24 } else { 64 });
    let node = Node {
        addresses: IpVersion::ALL.map(|v| own(v).unwrap()).into(),
        vxlan_addresses: match encap {
            Encap::Vxlan => IpVersion::ALL.map(|v| plan(number, v).0).into(),
            _ => Vec::new(),
        },
        ..Node::default()
    };
    let mut all = vec![Output::ThisNode(Arc::new(node))];
    for version in IpVersion::ALL {
        let route = |dst, kind, node: usize| {
            Output::Route(Route {
                dst,
                kind,
                node: Some(NODES[node].into()),
                node_address: Some(underlay(t, node, version)),
                same_subnet: true,
                encap,
                nat_outgoing: false,
            })
        };
        let (address, block, _) = plan(other, version);
        let name = NODES[other].into();
        if encap == Encap::Vxlan {
            all.push(Output::Vtep(Vtep {
                mac: dataplane::tunnels::derived_mac(&name, version),
                node: name,
                version,
                address,
                parent: underlay(t, other, version),
            }));
        }
        all.push(route(block, RouteKind::RemoteWorkload, other));
        all.push(route(plan(number, version).1, RouteKind::LocalBlock, number));
    }
    let endpoint = Arc::new(pod(number));
    all.push(Output::Workload(Arc::new(LocalWorkload { endpoint, tiers: Vec::new() })));
    all
}

fn wire(number: usize, mtu: u32) -> Netns {
    let netns = Netns::new();
    let alias = Alias { container: "c".into(), network: "n".into(), pod_uid: "u".into() };
    let endpoint = pod(number);
    let wire = Wire {
        host_iface: &endpoint.iface,
        pod_iface: &"eth0".parse().unwrap(),
        netns: netns.as_fd(),
        settings: &Settings::open().unwrap(),
        addresses: &endpoint.addresses,
        mtu,
        pod_mac: None,
        alias: &alias,
        forwarding: false,
    };
    wire_pod(&mut Socket::open().unwrap(), &wire).unwrap();
    netns
}

/// In the namespace of the calling thread.
fn plane(number: usize) -> Plane {
    Dataplane::new(
        Config::new(NODES[number].into()),
        NoPolicies,
        Kernel(Driver::open().unwrap()),
        Tracked(Conntrack::open().unwrap()),
    )
}

fn apply(plane: &mut Plane) -> Applied {
    let applied = plane.apply(Some(&InSync::for_tests()));
    assert_eq!((&applied.failures[..], &applied.refused[..]), (&[][..], &[][..]));
    applied
}

fn pods_reach_each_other(encap: Encap, mtu: u32) {
    let t = Topology::new(2, 1500);
    let start = |number: usize| {
        t.nodes[number].netns.run(|| {
            let mut plane = plane(number);
            plane.feed(&outputs(&t, number, encap));
            apply(&mut plane);
            assert_eq!(plane.pod_mtu(), mtu);
            assert!(!plane.is_in_force(&pod(number).id), "it has no interface yet");
            let netns = wire(number, plane.pod_mtu());
            apply(&mut plane);
            assert!(plane.is_in_force(&pod(number).id));
            assert!(!apply(&mut plane).changed, "at rest");
            netns
        })
    };
    let pods = [start(0), start(1)];
    let _server = Server::start(&pods[1], 80, "one");
    let reach = |what: &str| {
        for address in pod(1).addresses {
            let reply = tcp_reply(&pods[0], (address, 80), WAIT);
            assert_eq!(reply.as_deref(), Some("one"), "{what}: {address}");
        }
    };
    reach("fresh");
    // A restarted agent finds all right, and sweeps what is not wanted any more.
    t.nodes[0].netns.run(|| {
        sh("ip route add 10.65.0.40 dev cali00000000000");
        let links = out("ip -o link");
        let mut plane = plane(0);
        plane.feed(&outputs(&t, 0, encap));
        assert!(apply(&mut plane).changed);
        assert!(!apply(&mut plane).changed);
        assert!(!out("ip route").contains("10.65.0.40"));
        assert_eq!(out("ip -o link"), links);
        reach("restarted");
        // The other node's block goes; ours stays.
        plane.feed(&IpVersion::ALL.map(|v| Output::RouteGone(plan(1, v).1)));
        apply(&mut plane);
        assert!(!out("ip route; ip -6 route").contains("65:1:"));
        assert_eq!(tcp_reply(&pods[0], (pod(1).addresses[0], 80), WAIT / 4), None);
        plane.feed(&[Output::WorkloadGone(pod(0).id)]);
        apply(&mut plane);
        assert!(!out("ip route; ip -6 route").contains("10.65.0.5"));
    });
}

#[test]
fn pods_reach_each_other_through_vxlan() {
    pods_reach_each_other(Encap::Vxlan, 1430);
}

#[test]
fn pods_reach_each_other_by_plain_routes() {
    pods_reach_each_other(Encap::None, 1500);
}
