//! Law 1 over the administrator's choices: tables that got others while they were in use are those of a
//! cold start with them, whatever the cluster is and whatever happens before and after.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Debug;

use calc::Calc;
use clusters::Dice;
use clusters::layout::NODES;
use model::{NodeName, Protocol};
use rules::config::{DenyAction, EndpointToHost, Failsafe, RateLimit, RateUnit};
use rules::{Name, Rules, RulesConfig};

/// Every choice, each one other than the built-in one about half of the time.
fn config(d: &mut Dice) -> RulesConfig {
    let mut c = RulesConfig::default();
    let failsafe = |d: &mut Dice| Failsafe {
        protocol: d.pick(&[Protocol::TCP, Protocol::UDP]),
        port: d.pick(&[22, 53, 179]),
        net: d.pick(&[
            None,
            Some("10.0.0.0/8".parse().unwrap()),
            Some("fd00::/8".parse().unwrap()),
        ]),
    };
    c.failsafe_inbound = d.some(3, failsafe);
    c.failsafe_outbound = d.some(3, failsafe);
    c.interface_prefixes =
        d.pick(&[vec!["cali".into()], vec!["cali".into(), "tap".into()], vec!["tap".into()]]);
    c.endpoint_to_host =
        d.pick(&[EndpointToHost::Drop, EndpointToHost::Return, EndpointToHost::Accept]);
    c.mark_mask = d.pick(&[0xffff_0000, 0xff, 0x3, 0x0ff0_0000]);
    c.deny = d.pick(&[DenyAction::Drop, DenyAction::Reject]);
    for flag in [
        &mut c.vxlan,
        &mut c.ipip,
        &mut c.allow_vxlan_from_workloads,
        &mut c.allow_ipip_from_workloads,
        &mut c.cut_flows,
        &mut c.allow_source_spoofing,
        &mut c.drop_invalid,
        &mut c.flow_logs,
        &mut c.nat_excludes_hosts,
    ] {
        *flag ^= d.one_in(2);
    }
    c.vxlan_port = d.pick(&[4789, 8472]);
    c.log_prefix = d.pick(&["calico-packet", "%t %k %p"]).into();
    let limit = RateLimit { count: 5, unit: RateUnit::Minute, burst: 7 };
    c.log_limit = d.pick(&[None, Some(limit)]);
    c.nat_ports = d.pick(&[None, Some((1024, 2047))]);
    c.nat_addresses = d.pick(&[vec![], vec!["192.0.2.1".parse().unwrap()]]);
    c.nat_interface = d.pick(&[None, Some("eth+".into())]);
    c
}

fn same<T: PartialEq + Debug>(live: &BTreeMap<Name, T>, cold: &BTreeMap<Name, T>, seed: u64) {
    for name in live.keys().chain(cold.keys()) {
        let [live, cold] = [live, cold].map(|all| all.get(name));
        assert!(live == cold, "seed {seed}: {name} is {live:#?}, after a cold start {cold:#?}");
    }
}

fn all_same(live: &Rules, cold: &Rules, seed: u64) {
    assert_eq!(live.cut_bit(), cold.cut_bit(), "seed {seed}");
    assert_eq!(live.families(), cold.families());
    for version in live.families() {
        let [live, cold] = [live, cold].map(|rules| rules.tables().of(*version));
        same(live.chains(), cold.chains(), seed);
        same(live.sets(), cold.sets(), seed);
    }
}

#[test]
fn another_configuration_gives_the_tables_of_a_cold_start_with_it() {
    for seed in 0..400 {
        let d = &mut Dice::new(seed);
        let mut view = clusters::cluster(d);
        let mut calc = Calc::new(NodeName::from(NODES[0]));
        let mut configs = [config(d), config(d), config(d)];
        if d.one_in(2) {
            configs[2] = configs[0].clone(); // and back
        }
        let mut live = Rules::new(RulesConfig::default());
        let mut past = Vec::new();
        let mut feed = |rules: &mut Rules, updates: Vec<model::Update>| {
            for update in updates {
                calc.update(update);
            }
            let outputs = calc.flush();
            rules.apply(&outputs);
            past.extend(outputs);
        };
        let updates = clusters::updates(&view, d);
        feed(&mut live, updates);
        for config in &configs {
            live.configure(config.clone());
            if d.one_in(2) {
                let updates = clusters::changes(&mut view, d);
                feed(&mut live, updates);
            }
        }
        let mut cold = Rules::new(configs[2].clone());
        cold.apply(&past);
        all_same(&live, &cold, seed);
    }
}

/// The kernel gets what differs, and nothing if nothing does.
#[test]
fn what_stays_is_no_change() {
    let d = &mut Dice::new(1);
    let view = clusters::cluster(d);
    let mut calc = Calc::new(NodeName::from(NODES[0]));
    for update in clusters::updates(&view, d) {
        calc.update(update);
    }
    let mut rules = Rules::new(RulesConfig::default());
    rules.apply(&calc.flush());
    let take = |rules: &mut Rules| {
        let tables = rules.families().to_vec();
        let changes = tables.into_iter().map(|v| rules.tables_mut().of_mut(v).take_changes());
        changes.flat_map(|c| c.chains.into_iter().chain(c.sets.into_keys())).collect::<Vec<_>>()
    };
    take(&mut rules);
    rules.take_affected();

    rules.configure(RulesConfig::default());
    assert!(take(&mut rules).is_empty() && rules.take_affected().is_empty());

    let action = EndpointToHost::Accept;
    rules.configure(RulesConfig { endpoint_to_host: action, ..RulesConfig::default() });
    assert_eq!(
        take(&mut rules),
        ["pod-to-host".into(), "pod-to-host".into()],
        "one chain a family"
    );
    assert!(!rules.take_affected().is_empty(), "flows to the host are looked at");

    // What another choice makes superfluous goes.
    rules.configure(RulesConfig { cut_flows: false, ..RulesConfig::default() });
    assert!(take(&mut rules).contains(&"cut".into()));
}
