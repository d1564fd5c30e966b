//! What keeping ten thousand routes costs: all of them, one of them, and a restart.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::Criterion;
use ipnet::IpNet;
use model::{InSync, NextHop};
use route::Driver;

const COUNT: u32 = 10_000;

fn dst(number: u32) -> IpNet {
    IpNet::from(IpAddr::from(Ipv4Addr::from(0x0a41_0000 + number)))
}

fn routes(c: &mut Criterion) {
    testkit::sh("ip link add cali1 type veth peer name c1; ip link set cali1 up");
    let hop = NextHop::Link("cali1".parse().expect("name"));
    let in_sync = InSync::for_tests();
    let mut driver = Driver::open().expect("driver");
    let mut all = |wanted: bool| {
        (0..COUNT).for_each(|n| driver.want_route(dst(n), wanted.then(|| hop.clone())));
        driver.poll().expect("polled");
        assert!(driver.apply(Some(&in_sync)).expect("applied").refused.is_empty());
    };
    c.bench_function("routes/10k_put_and_remove", |b| {
        b.iter(|| {
            all(true);
            all(false);
        });
    });
    all(true);
    c.bench_function("routes/1_of_10k_removed_and_put", |b| {
        b.iter(|| {
            for wanted in [None, Some(hop.clone())] {
                driver.want_route(dst(77), wanted);
                driver.poll().expect("polled");
                driver.apply(Some(&in_sync)).expect("applied");
            }
        });
    });
    c.bench_function("routes/idle_apply_at_10k", |b| {
        b.iter(|| {
            driver.poll().expect("polled");
            assert!(!driver.apply(Some(&in_sync)).expect("applied").changed);
        });
    });
    c.bench_function("routes/restart_at_10k", |b| {
        b.iter(|| {
            let mut next = Driver::open().expect("driver");
            (0..COUNT).for_each(|n| next.want_route(dst(n), Some(hop.clone())));
            assert!(!next.apply(Some(&in_sync)).expect("applied").changed);
        });
    });
}

fn main() {
    // Criterion cannot change threads, so it is made inside.
    testkit::in_netns(|| {
        let mut c = Criterion::default()
            .sample_size(10)
            .warm_up_time(Duration::from_millis(200))
            .measurement_time(Duration::from_secs(1))
            .configure_from_args();
        routes(&mut c);
        c.final_summary();
    });
}
