//! What the kernel makes of the tables.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod listing;
mod scenario;

use std::fs;
use std::path::PathBuf;

use model::InSync;
use model::output::Output;
use nft::NftDriver;
use rules::config::{DenyAction, EndpointToHost, RateLimit, RateUnit};
use rules::{Rules, RulesConfig};
use scenario::Scenario;
use testkit::{in_netns, out};

fn program(config: RulesConfig, outputs: &[Output]) -> (Rules, NftDriver) {
    let mut rules = Rules::new(config);
    rules.apply(outputs);
    let mut driver = NftDriver::open().unwrap();
    let report = driver.apply(&mut rules, Some(&InSync::for_tests())).unwrap();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    (rules, driver)
}

/// Compares what `nft` prints with a stored text, and with what it prints having loaded that text. `BLESS=1` stores it anew, for a person to read.
fn golden(name: &str, outputs: &[Output]) {
    golden_with(name, RulesConfig::default(), outputs);
}

fn golden_with(name: &str, config: RulesConfig, outputs: &[Output]) {
    let text = in_netns(|| {
        let _kept = program(config, outputs);
        out("nft -s list ruleset")
    });
    listing::is_understood_by_nft(&text);
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden", name].iter().collect();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let stored = fs::read_to_string(&path).unwrap();
    assert_eq!(text, stored, "{}", path.display());
}

#[test]
fn golden_empty() {
    golden("empty.nft", &[]);
}

#[test]
fn golden_pods_and_policies() {
    golden("pods.nft", &Scenario::two_pods().outputs());
}

#[test]
fn golden_every_rule_field() {
    golden("fields.nft", &Scenario::every_field().outputs());
}

#[test]
fn golden_hosts_and_pools() {
    golden("hosts.nft", &Scenario::hosts().outputs());
}

#[test]
fn golden_before_tracking_and_nat() {
    let config = RulesConfig { deny: DenyAction::Reject, ..RulesConfig::default() };
    golden_with("early.nft", config, &Scenario::early_hosts().outputs());
}

#[test]
fn golden_other_configuration() {
    let config = RulesConfig {
        deny: DenyAction::Reject,
        endpoint_to_host: EndpointToHost::Return,
        ipip: true,
        drop_invalid: false,
        log_prefix: "calico %t %k %p".into(),
        log_limit: Some(RateLimit { count: 10, unit: RateUnit::Minute, burst: 3 }),
        flow_logs: true,
        nat_ports: Some((1024, 2047)),
        nat_addresses: vec!["192.0.2.1".parse().unwrap()],
        nat_excludes_hosts: true,
        nat_interface: Some("eth+".into()),
        ..RulesConfig::default()
    };
    golden_with("config.nft", config, &Scenario::every_field().outputs());
}
