//! One member more, one member less, with 100,000 standing: the driver's part and the rules' part.

use std::hint::black_box;

use criterion::Criterion;
use ipnet::IpNet;
use model::InSync;
use model::output::{Member, Output, SetKind};
use nft::NftDriver;
use rules::{Rules, RulesConfig};
use testkit::in_netns;

fn address(n: u32) -> Member {
    Member::Net(IpNet::from(std::net::IpAddr::V4((0x0a00_0000 + n).into())))
}

fn main() {
    // Everything on the thread that is in the namespace: the bench harness does not move.
    in_netns(|| {
        let mut c = Criterion::default().configure_from_args();
        let mut rules = Rules::new(RulesConfig::default());
        rules.apply(&[Output::Set(
            "s:big".into(),
            SetKind::Net,
            (0..100_000).map(address).collect(),
        )]);
        let mut driver = NftDriver::open().expect("a socket");
        let sync = InSync::for_tests();
        driver.apply(&mut rules, Some(&sync)).expect("a table");
        let delta = |add: bool| {
            let member = vec![address(200_000)];
            let (added, removed) = if add { (member, vec![]) } else { (vec![], member) };
            Output::SetDelta { id: "s:big".into(), added, removed }
        };
        let mut add = false;
        let mut change = || {
            add = !add;
            rules.apply(&[delta(add)]);
            let report = driver.apply(&mut rules, Some(&sync)).expect("the kernel takes it");
            assert!(black_box(report).changed);
        };
        // The first member beyond 100,000 may make tables grow.
        change();
        change();
        c.bench_function("one member of 100,000 changed", |b| b.iter(&mut change));
        c.final_summary();
    });
}
