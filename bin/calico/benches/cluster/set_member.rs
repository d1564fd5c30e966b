//! One member of a set of 100,000: the calculation's output through the rules and the driver into
//! the kernel. `cargo bench -p nft` has the same in more detail.

use std::time::Instant;

use model::InSync;
use model::output::{Member, Output, SetKind};
use nft::NftDriver;
use rules::{Rules, RulesConfig};

use crate::report;

const STANDING: u32 = 100_000;
const CHANGES: usize = 5_000;

fn address(n: u32) -> Member {
    Member::Net(ipnet::IpNet::from(std::net::IpAddr::V4((0x0a00_0000 + n).into())))
}

pub(crate) fn run() {
    let samples = testkit::in_netns(|| {
        let mut rules = Rules::new(RulesConfig::default());
        let all = (0..STANDING).map(address).collect();
        rules.apply(&[Output::Set("s:big".into(), SetKind::Net, all)]);
        let mut driver = NftDriver::open().unwrap();
        let sync = InSync::for_tests();
        driver.apply(&mut rules, Some(&sync)).unwrap();
        let mut change = |i: usize| {
            let member = vec![address(STANDING + 7)];
            let (added, removed) =
                if i.is_multiple_of(2) { (member, vec![]) } else { (vec![], member) };
            let delta = Output::SetDelta { id: "s:big".into(), added, removed };
            let started = Instant::now();
            rules.apply(&[delta]);
            assert!(driver.apply(&mut rules, Some(&sync)).unwrap().changed);
            started.elapsed()
        };
        for i in 0..100 {
            change(i);
        }
        (0..CHANGES).map(change).collect()
    });
    report::times("one IP-set member changed, 100,000 standing", "<= 0.1 ms", samples);
}
