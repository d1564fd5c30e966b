//! Restarts, drift, refusals, and every way from one state to another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod scenario;

use std::thread::sleep;
use std::time::Duration;

use model::InSync;
use model::output::{Member, Output, SetKind};
use nft::{NftDriver, Report};
use proptest::prelude::*;
use rules::{Rules, RulesConfig};
use scenario::{Scenario, allow, member, pod, policy, policy_id, profile, tier};
use std::sync::Arc;
use testkit::{in_netns, out, sh};

const NOT_YET: Option<&InSync> = None;

fn rules_for(outputs: &[Output]) -> Rules {
    let mut rules = Rules::new(RulesConfig::default());
    rules.apply(outputs);
    rules
}

fn apply(driver: &mut NftDriver, rules: &mut Rules) -> Report {
    driver.apply(rules, Some(&InSync::for_tests())).unwrap()
}

/// A driver without memory reads everything back and finds nothing to do.
fn is_converged(outputs: &[Output]) -> bool {
    !apply(&mut NftDriver::open().unwrap(), &mut rules_for(outputs)).changed
}

#[test]
fn a_restart_writes_nothing_and_sweeps_only_in_sync() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        apply(&mut NftDriver::open().unwrap(), &mut rules_for(&outputs));
        sh("nft add chain ip calico leftover; nft add set ip calico old '{ type ipv4_addr; }'");
        sh("nft add rule ip calico leftover ip saddr @old drop");
        let before = out("nft -a list ruleset");

        let mut driver = NftDriver::open().unwrap();
        let mut rules = rules_for(&[]);
        assert!(!driver.apply(&mut rules, NOT_YET).unwrap().changed, "before the snapshot");
        rules.apply(&outputs);
        assert!(!driver.apply(&mut rules, NOT_YET).unwrap().changed, "before the snapshot");
        assert_eq!(out("nft -a list ruleset"), before);

        assert!(apply(&mut driver, &mut rules).changed, "leftovers are swept");
        let after = out("nft -a list ruleset");
        assert!(!after.contains("leftover") && !after.contains("old"), "{after}");
        for line in before.lines().filter(|l| l.contains("# handle")) {
            let old = ["leftover", "@old", "set old"].iter().any(|w| line.contains(w));
            assert!(old || after.contains(line), "rewritten: {line}");
        }
        assert!(!apply(&mut driver, &mut rules).changed, "the second apply is free");
    });
}

#[test]
fn without_a_table_unknown_pods_are_closed_before_the_snapshot() {
    in_netns(|| {
        let report = NftDriver::open().unwrap().apply(&mut rules_for(&[]), None).unwrap();
        assert!(report.changed);
        assert!(out("nft list chain ip6 calico from-pod").contains("drop"));
    });
}

/// What is there, whatever the order in which it was made.
fn listing() -> Vec<String> {
    let text = ["ip", "ip6"].map(|f| out(&format!("nft -s list table {f} calico"))).concat();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn drift_is_noticed_and_repaired() {
    in_netns(|| {
        let mut outputs = Scenario::two_pods().outputs();
        outputs.extend(Scenario::hosts().outputs());
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        apply(&mut driver, &mut rules);
        let wanted = listing();
        for damage in [
            "flush ruleset",
            "delete table ip calico",
            "flush table ip calico",
            "insert rule ip calico filter-forward accept",
            "flush chain ip6 calico from-pod",
            "delete element ip calico from-pods { cali1 }",
            "add element ip calico members-10 { 0x1 . 192.0.2.77 }",
            "flush set ip calico members-10",
            "add element ip calico all-pools { 10.67.0.0/16, 10.68.0.0/16 }",
            "delete element ip calico all-pools { 10.65.0.0/16 }",
            "delete element ip calico all-pools { 10.65.0.0/16, 10.66.0.0/16 }",
            "add chain ip calico foreign",
            "delete chain ip6 calico filter-input",
        ] {
            sh(&format!("nft '{damage}'"));
            assert!(driver.drain_events().unwrap(), "{damage}: not noticed");
            let mut report = apply(&mut driver, &mut rules);
            while let Some(wait) = report.again_in {
                sleep(wait);
                report = apply(&mut driver, &mut rules);
            }
            assert!(listing() == wanted, "{damage}: {}", out("nft -s list ruleset"));
            assert!(!driver.drain_events().unwrap(), "{damage}: own changes are not drift");
        }
        sh("nft add table ip other; nft add chain ip other x; nft delete table ip other");
        assert!(!driver.drain_events().unwrap(), "other tables are none of our business");
    });
}

#[test]
fn a_refused_policy_is_closed_and_the_others_go_on() {
    in_netns(|| {
        // A key of addresses and ports, looked up with an address only: the kernel refuses that.
        let mut bad = allow();
        bad.source.sets = vec!["n:ports".into()];
        let tiers = || vec![tier("default", &["bad", "good"], &["bad"])];
        let outputs = [
            Output::Set("n:ports".into(), SetKind::IpPort, vec![]),
            policy("bad", vec![bad, allow()], vec![allow()]),
            policy("good", vec![allow()], vec![]),
            profile("kns.default", vec![allow()]),
            Output::Workload(Arc::new(pod("a", "cali1", &["10.65.0.2", "fd00:65::2"], tiers()))),
        ];
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        let report = apply(&mut driver, &mut rules);
        assert_eq!(report.refused.len(), 2, "one a family: {:?}", report.refused);
        assert!(report.refused[0].object.contains("NetworkPolicy default/bad"));
        let chain = out("nft list chain ip calico pi-np.default.bad");
        assert!(chain.contains("drop") && !chain.contains("return"), "{chain}");
        assert!(out("nft list chain ip calico po-np.default.bad").contains("return"));
        assert!(out("nft list chain ip calico pi-np.default.good").contains("return"));
        let again = apply(&mut driver, &mut rules);
        assert!(!again.changed && again.refused.len() == 2, "{again:?}");

        rules.apply(&[policy("bad", vec![allow()], vec![])]);
        assert!(apply(&mut driver, &mut rules).refused.is_empty());
        assert!(out("nft list chain ip calico pi-np.default.bad").contains("return"));
    });
}

#[test]
fn what_cannot_be_changed_in_place_is_replaced() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        driver.read_back_pause(Duration::from_mins(1));
        apply(&mut driver, &mut rules);
        // The chains of the pods cannot go while something leads to them. Right behind a read-back
        // the tables are not read again, so that the driver does not know of it.
        let text = out("nft list table ip calico");
        let chains = text.lines().filter_map(|l| l.trim().strip_prefix("chain tw-"));
        sh("nft add chain ip calico foreign");
        for chain in chains.map(|c| c.trim_end_matches(" {")) {
            sh(&format!("nft add rule ip calico foreign jump tw-{chain}"));
        }
        let gone: Vec<Output> = outputs.iter().rev().filter_map(opposite).collect();
        rules.apply(&gone);
        assert!(apply(&mut driver, &mut rules).changed);
        let after = listing();
        assert!(!after.iter().any(|l| l.contains("foreign") || l.contains("tw-")), "{after:?}");
    });
}

#[test]
fn everything_can_go_again() {
    for scenario in [Scenario::two_pods(), Scenario::hosts()] {
        in_netns(|| {
            let outputs = scenario.outputs();
            let mut rules = rules_for(&[]);
            let mut driver = NftDriver::open().unwrap();
            apply(&mut driver, &mut rules);
            let empty = out("nft -s list ruleset");
            rules.apply(&outputs);
            assert!(apply(&mut driver, &mut rules).changed);
            let gone: Vec<Output> = outputs.iter().rev().filter_map(opposite).collect();
            rules.apply(&gone);
            assert!(apply(&mut driver, &mut rules).changed);
            assert_eq!(out("nft -s list ruleset"), empty);

            // The same as leftovers of an earlier run.
            apply(&mut driver, &mut rules_for(&outputs));
            let mut driver = NftDriver::open().unwrap();
            assert!(apply(&mut driver, &mut rules_for(&[])).changed);
            assert_eq!(out("nft -s list ruleset"), empty);
        });
    }
}

fn opposite(output: &Output) -> Option<Output> {
    match output {
        Output::Set(id, ..) => Some(Output::SetGone(id.clone())),
        Output::Policy(p) => Some(Output::PolicyGone(p.id.clone())),
        Output::Profile(p) => Some(Output::ProfileGone(p.name.clone())),
        Output::Workload(w) => Some(Output::WorkloadGone(w.endpoint.id.clone())),
        Output::Host(h) => Some(Output::HostGone(h.endpoint.name.clone())),
        Output::Route(r) => Some(Output::RouteGone(r.dst)),
        Output::HostAddresses(node, _) => Some(Output::HostAddresses(node.clone(), vec![])),
        _ => None,
    }
}

#[test]
fn big_sets_are_loaded_in_pieces_and_grow() {
    in_netns(|| {
        let address = |n: u32| Member::Net(std::net::IpAddr::V4((0x0a00_0000 + n).into()).into());
        let set = |n| Output::Set("s:big".into(), SetKind::Net, (0..n).map(address).collect());
        let mut rule = allow();
        rule.source.sets = vec!["s:big".into()];
        let tiers = vec![tier("default", &["user"], &[])];
        let user = policy("user", vec![rule], vec![]);
        let pod = Output::Workload(Arc::new(pod("a", "cali1", &["10.65.0.2"], tiers)));
        let with = |n| [set(n), user.clone(), pod.clone()];
        let mut driver = NftDriver::open().unwrap();
        let mut rules = rules_for(&with(300));
        // Small ones share a set; larger ones have their own.
        for (n, named) in [(300, "members-"), (20_000, "s-big.h16"), (70_000, "s-big.h18")] {
            rules.apply(&[set(n)]);
            apply(&mut driver, &mut rules);
            assert!(is_converged(&with(n)), "{n}");
            assert!(!driver.drain_events().unwrap(), "{n}: own changes are not drift");
            let sets = out("nft -t list sets");
            assert!(sets.contains(&format!("set {named}")), "{n}: {sets}");
        }
        // Large transactions are not heard of; what comes behind them is.
        sh("nft delete element ip calico s-big.h18 { 10.0.0.7 }");
        assert!(driver.drain_events().unwrap());
        while let Some(wait) = apply(&mut driver, &mut rules).again_in {
            sleep(wait);
        }
        assert!(out("nft get element ip calico s-big.h18 { 10.0.0.7 }").contains("10.0.0.7"));
    });
}

#[test]
fn the_longest_names_and_lists_are_programmed() {
    in_netns(|| {
        let long = |n: usize, c: char| c.to_string().repeat(n);
        let (name, tier_name) = (long(253, 'p'), long(253, 't'));
        let mut many = allow();
        many.protocol = Some(model::Protocol::TCP);
        let net = |n: u32| ipnet::IpNet::from(std::net::IpAddr::V4((n << 9).into()));
        let net6 = |n: u32| {
            let address = std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n) << 8);
            ipnet::IpNet::from(std::net::IpAddr::V6(address))
        };
        many.source.nets = (1..5_000).flat_map(|n| [net(n), net6(n)]).collect();
        many.destination.not_nets = many.source.nets.clone();
        many.destination.ports = (1..5_000).map(|n| (n * 8, n * 8 + 3)).collect();
        many.source.not_ports = many.destination.ports.clone();
        let addresses = ["10.65.0.2", "fd00:65::2"];
        let mut end = pod("a", "cali1", &addresses, vec![tier(&tier_name, &[&name], &[])]);
        Arc::make_mut(&mut end.endpoint).profiles = vec![long(253, 'f').as_str().into()];
        let outputs = [
            policy(&name, vec![many, scenario::rule(model::Action::Log)], vec![]),
            profile(&long(253, 'f'), vec![allow()]),
            Output::Workload(Arc::new(end)),
            Output::Host(Arc::new(scenario::host(
                &long(253, 'h'),
                model::endpoint::HostTarget::All,
            ))),
        ];
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        let report = apply(&mut driver, &mut rules);
        assert!(report.refused.is_empty(), "{:?}", report.refused);
        assert!(is_converged(&outputs));
    });
}

/// A second start finds everything as it was sealed; a third one that wants something else changes no
/// more than that.
#[test]
fn what_is_sealed_is_not_read_again() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        let mut driver = NftDriver::open().unwrap();
        assert!(!driver.seal().unwrap(), "nothing is known yet");
        let mut rules = rules_for(&outputs);
        apply(&mut driver, &mut rules);
        while let Some(wait) = driver.seal_in_time().unwrap() {
            assert!(wait <= Duration::from_secs(1), "{wait:?}");
            assert!(!out("nft list tables").contains("calico-seal"), "not yet");
            sleep(wait);
        }
        assert!(is_converged(&outputs));
        assert!(driver.seal().unwrap(), "a seal upon a seal");
        assert!(is_converged(&outputs), "one that only read did not break the seal");
        let tables = out("nft list tables");
        assert_eq!(tables.lines().filter(|l| l.contains("calico-seal")).count(), 1, "{tables}");

        // Only what is wanted otherwise than it was sealed is written.
        let before = out("nft -a list table ip calico");
        let mut other = Scenario::two_pods().outputs();
        other.push(policy("web", vec![allow()], vec![]));
        let mut fresh = NftDriver::open().unwrap();
        assert!(apply(&mut fresh, &mut rules_for(&other)).changed);
        let after = out("nft -a list table ip calico");
        let changed = |line: &&str| line.contains("handle") && !after.contains(*line);
        let gone: Vec<_> = before.lines().filter(changed).collect();
        assert!(
            gone.iter().all(|l| l.contains("rule 0") || l.contains("set members-10")),
            "{gone:?}"
        );
        assert!(is_converged(&other), "the seal of before is broken");
    });
}

#[test]
fn a_seal_is_broken_by_every_change() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        for damage in [
            "delete element ip calico from-pods { \"cali1\" }",
            "flush set ip calico members-10",
            "add element ip calico all-hosts { 192.0.2.1 }",
            "flush chain ip6 calico from-pod",
            "delete table ip6 calico",
            "delete table ip calico-seal",
            "flush ruleset",
        ] {
            let mut driver = NftDriver::open().unwrap();
            apply(&mut driver, &mut rules_for(&outputs));
            let wanted = listing();
            assert!(driver.seal().unwrap(), "{damage}");
            drop(driver);
            sh(&format!("nft '{damage}'"));
            apply(&mut NftDriver::open().unwrap(), &mut rules_for(&outputs));
            assert!(listing() == wanted, "{damage}: {}", out("nft -s list ruleset"));
        }
    });
}

/// What others have done and nobody has repaired yet is never sealed.
#[test]
fn drift_is_not_sealed() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        apply(&mut driver, &mut rules);
        sh("nft flush set ip calico members-10");
        assert!(!driver.seal().unwrap());
        sleep(Duration::from_secs(1));
        let again = driver.seal_in_time().unwrap();
        assert!(again.is_some_and(|wait| wait.is_zero()), "to be repaired at once: {again:?}");
        sh("nft add table ip other");
        assert!(!driver.seal().unwrap(), "still not");
        while let Some(wait) = apply(&mut driver, &mut rules).again_in {
            sleep(wait);
        }
        assert!(driver.seal().unwrap());
    });
}

fn members() -> impl Strategy<Value = Vec<Member>> {
    let of = |texts: &'static [&'static str]| prop::sample::subsequence(texts, 0..texts.len());
    let all = &[
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.128.0.0/9",
        "10.1.0.0/16",
        "10.1.2.3",
        "10.1.2.4",
        "0.0.0.0/0",
        "255.255.255.255",
        "128.0.0.0/1",
        "fd00::/16",
        "fd00::1",
        "fd00::2",
        "ffff::/16",
        "::/0",
    ];
    of(all).prop_map(|texts| texts.into_iter().map(member).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Law 1: whatever the history of a set and of its user, the kernel ends as if it had started
    /// with the last state. The kernel, too, is asked: it refuses overlaps.
    #[test]
    fn any_history_ends_in_the_last_state(steps in prop::collection::vec((members(), any::<bool>()), 1..8)) {
        in_netns(|| {
            let mut rules = rules_for(&[]);
            let mut driver = NftDriver::open().unwrap();
            let (mut last, mut there) = (Vec::new(), false);
            for (members, used) in steps {
                let mut rule = allow();
                rule.source.sets = vec!["s:x".into()];
                let mut outputs = vec![Output::Set("s:x".into(), SetKind::Net, members.clone())];
                if used {
                    let tiers = vec![tier("default", &["user"], &[])];
                    outputs.push(policy("user", vec![rule], vec![]));
                    outputs.push(Output::Workload(Arc::new(pod(
                        "a",
                        "cali1",
                        &["10.65.0.2", "fd00:65::2"],
                        tiers,
                    ))));
                }
                last.clone_from(&outputs);
                if there && !used {
                    outputs.push(Output::WorkloadGone(scenario::pod_id("a")));
                    outputs.push(Output::PolicyGone(policy_id("user")));
                }
                there = used;
                rules.apply(&outputs);
                let report = apply(&mut driver, &mut rules);
                assert!(report.refused.is_empty(), "{:?}", report.refused);
            }
            assert!(is_converged(&last));
        });
    }
}

#[test]
fn a_policy_that_is_missing_closes_its_endpoint() {
    in_netns(|| {
        let outputs = Scenario::two_pods().outputs();
        let mut rules = rules_for(&outputs);
        let mut driver = NftDriver::open().unwrap();
        apply(&mut driver, &mut rules);
        let wanted = listing();
        rules.apply(&[Output::PolicyGone(policy_id("web"))]);
        assert!(apply(&mut driver, &mut rules).refused.is_empty());
        let to_pods = out("nft list map ip calico to-pods");
        let (_, verdict) = to_pods.split_once("\"cali2\" : goto ").unwrap();
        let name = verdict.split([' ', ',', '\n']).next().unwrap();
        let chain = out(&format!("nft list chain ip calico {name}"));
        assert!(!chain.contains("jump pi-") && chain.contains("drop"), "{chain}");
        rules.apply(&outputs);
        apply(&mut driver, &mut rules);
        assert!(listing() == wanted, "{}", out("nft -s list ruleset"));
    });
}
