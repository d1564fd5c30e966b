//! Sets and rules: what the calculation says, as tables, in the kernel.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use config::Config;
use dataplane::{DriverError, Outcome, Policies, Refused};
use model::InSync;
use model::output::Output;
use nft::NftDriver;
use rules::config::{DenyAction, EndpointToHost, Failsafe, RateLimit, RateUnit};
use rules::{Rules, RulesConfig};

/// When the driver wants to be called again; shared with the apply loop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Again(Arc<Mutex<Option<Duration>>>);

impl Again {
    pub(crate) fn get(&self) -> Option<Duration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, wait: Option<Duration>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = wait;
    }
}

/// Rules in memory and the driver that writes them.
#[derive(Debug)]
pub(crate) struct Nft {
    rules: Rules,
    driver: NftDriver,
    again: Again,
}

impl Nft {
    /// In the network namespace of the calling thread.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let driver = NftDriver::open().context("opening nf_tables")?;
        let rules = Rules::new(rules_config(config));
        Ok(Self { rules, driver, again: Again::default() })
    }

    pub(crate) fn again(&self) -> Again {
        self.again.clone()
    }

    /// Readable when others changed tables.
    pub(crate) fn events(&self) -> std::io::Result<OwnedFd> {
        self.driver.event_fd().try_clone_to_owned()
    }
}

impl Policies for Nft {
    fn feed(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
    }

    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let failed = |e: nft::NftError| DriverError(e.to_string());
        self.driver.drain_events().map_err(failed)?;
        let report = self.driver.apply(&mut self.rules, in_sync).map_err(failed)?;
        self.again.set(report.again_in);
        let refused = report.refused.into_iter();
        let refused = refused.map(|r| Refused { object: r.object, error: r.error }).collect();
        Ok(Outcome { changed: report.changed, refused })
    }
}

/// The administrator's choices, in the words of the rules.
fn rules_config(config: &Config) -> RulesConfig {
    let failsafe =
        |p: &config::ProtoPort| Failsafe { protocol: p.protocol, port: p.port, net: p.net };
    let text = |t: &String| t.as_str().into();
    let limit = |rate: config::RateLimit| RateLimit {
        count: rate.count.into(),
        unit: match rate.per.as_secs() {
            0..=1 => RateUnit::Second,
            2..=60 => RateUnit::Minute,
            61..=3600 => RateUnit::Hour,
            _ => RateUnit::Day,
        },
        burst: rate.burst,
    };
    let defaults = RulesConfig::default();
    RulesConfig {
        interface_prefixes: config.interface_prefixes.iter().map(text).collect(),
        failsafe_inbound: config.failsafe_inbound.iter().map(failsafe).collect(),
        failsafe_outbound: config.failsafe_outbound.iter().map(failsafe).collect(),
        endpoint_to_host: match config.endpoint_to_host {
            config::HostAction::Drop => EndpointToHost::Drop,
            config::HostAction::Return => EndpointToHost::Return,
            config::HostAction::Accept => EndpointToHost::Accept,
        },
        mark_mask: config.mark_mask,
        deny: match config.deny_action {
            config::DenyAction::Drop => DenyAction::Drop,
            config::DenyAction::Reject => DenyAction::Reject,
        },
        vxlan: config.vxlan_enabled != Some(false),
        vxlan_port: config.vxlan_port,
        allow_vxlan_from_workloads: config.allow_vxlan_from_workloads,
        allow_ipip_from_workloads: config.allow_ipip_from_workloads,
        allow_source_spoofing: config.allow_source_spoofing,
        drop_invalid: config.drop_invalid,
        log_prefix: config.log_prefix.as_str().into(),
        log_limit: config.log_rate.map(limit),
        nat_ports: config.nat_ports,
        nat_addresses: config.nat_address.into_iter().collect(),
        nat_excludes_hosts: config.nat_exclusions == config::NatExclusions::PoolsAndHosts,
        nat_interface: config.nat_interface.as_ref().map(text),
        ..defaults
    }
}
