//! What a pod's interface and a batch of routes cost.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use criterion::Criterion;
use ipnet::IpNet;
use netlink::link::{self, VethPair};
use netlink::route::{Hop, MAIN_TABLE, Proto};
use netlink::{Alias, Route, Settings, Socket, Wire, route, wire_pod};

fn wire(c: &mut Criterion) {
    let mut host = Socket::open().expect("socket");
    let settings = Settings::open().expect("settings");
    let pod_iface = "eth0".parse().expect("name");
    let alias = Alias { container: "c".into(), network: "n".into(), pod_uid: "u".into() };
    let addresses: [IpAddr; 2] =
        ["10.65.0.2".parse().expect("v4"), "fd00:65::2".parse().expect("v6")];
    let mut number = 0;
    let crowd = testkit::Netns::new();
    for (what, addresses, standing) in [
        ("wire_pod/v4", &addresses[..1], 0),
        ("wire_pod/dual", &addresses, 0),
        ("wire_pod/dual_beside_1000", &addresses, 1000),
    ] {
        // The other ends of those that stand there already share one namespace.
        for n in 0..standing {
            let pair = VethPair {
                name: &format!("calif{n:010x}").parse().expect("name"),
                mac: Some(netlink::wire::HOST_MAC),
                peer_name: &format!("p{n}").parse().expect("name"),
                peer_mac: None,
                peer_netns: crowd.as_fd(),
                mtu: 1450,
            };
            host.call(&link::add_veth(&pair)).expect("made");
        }
        c.bench_function(what, |b| {
            b.iter_custom(|count| {
                // Namespaces are made before and removed after the clock runs.
                let pods: Vec<_> = (0..count).map(|_| testkit::Netns::new()).collect();
                let mut took = Duration::ZERO;
                for pod in &pods {
                    number += 1;
                    let host_iface = format!("cali{number:011x}").parse().expect("name");
                    let wire = Wire {
                        host_iface: &host_iface,
                        pod_iface: &pod_iface,
                        netns: pod.as_fd(),
                        settings: &settings,
                        addresses,
                        mtu: 1450,
                        pod_mac: None,
                        alias: &alias,
                        forwarding: false,
                    };
                    let started = Instant::now();
                    wire_pod(&mut host, &wire).expect("wired");
                    took += started.elapsed();
                }
                took
            });
        });
    }
}

fn routes(c: &mut Criterion) {
    testkit::sh("ip link add d0 type veth peer name d1 && ip link set d0 up");
    let mut socket = Socket::open().expect("socket");
    let index = netlink::link::require(&mut socket, &"d0".parse().expect("name"))
        .expect("made above")
        .index;
    let all: Vec<Route> = (0..10_000u32)
        .map(|i| Route {
            dst: IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a41_0000 + i))),
            table: MAIN_TABLE,
            metric: 0,
            proto: Proto::CALICO,
            hop: Hop::Link(index),
            source: None,
        })
        .collect();
    c.bench_function("routes/add_and_delete_10k", |b| {
        b.iter(|| {
            let put: Vec<_> = all.iter().map(route::put).collect();
            let delete: Vec<_> = all.iter().map(route::delete).collect();
            assert!(socket.batch(&put).expect("sent").iter().all(Result::is_ok));
            assert!(socket.batch(&delete).expect("sent").iter().all(Result::is_ok));
        });
    });
    let put: Vec<_> = all.iter().map(route::put).collect();
    assert!(socket.batch(&put).expect("sent").iter().all(Result::is_ok));
    c.bench_function("routes/dump_10k", |b| {
        b.iter(|| {
            let all = route::list(&mut socket, model::IpVersion::V4, MAIN_TABLE);
            assert!(all.expect("dumped").len() >= 10_000);
        });
    });
}

fn main() {
    for bench in [wire, routes] {
        // Criterion cannot change threads, so it is made inside.
        testkit::in_netns(|| {
            let mut c = Criterion::default()
                .sample_size(10)
                .warm_up_time(Duration::from_millis(200))
                .measurement_time(Duration::from_secs(1))
                .configure_from_args();
            bench(&mut c);
            c.final_summary();
        });
    }
}
