//! Sets and rules: what the calculation says, as tables, in the kernel.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use dataplane::{DriverError, Outcome, Policies, Refused};
use flows::Cutter;
use model::InSync;
use model::output::Output;
use nft::NftDriver;
use rules::config::{DenyAction, EndpointToHost, Failsafe, RateLimit, RateUnit};
use rules::{Rules, RulesConfig};
use telemetry::Registry;

use crate::felix::Configuration;
use crate::inbox::Inbox;
use crate::status::Shared;

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
    cut_flows: CutFlows,
    /// If flows are cut.
    cutter: Option<Cutter>,
    cuts: flows::Metrics,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
}

/// Whether established flows are cut that policy denies now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CutFlows {
    /// Unless nodes of the cluster run upstream's agent, which does not.
    #[default]
    Auto,
    /// In any case.
    On,
    /// Never, as upstream.
    Off,
}

impl std::str::FromStr for CutFlows {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().to_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(format!("is {text:?}, want auto, on or off")),
        }
    }
}

impl Nft {
    /// In the network namespace of the calling thread.
    pub(crate) fn open(
        configuration: &Configuration,
        (inbox, shared, registry): (&Arc<Inbox>, &Arc<Shared>, &mut Registry),
    ) -> Result<Self> {
        let cuts = flows::Metrics::default();
        cuts.register(registry);
        let mut it = Self {
            rules: Rules::new(rules_config(configuration)),
            driver: NftDriver::open().context("opening nf_tables")?,
            again: Again::default(),
            cut_flows: configuration.cut_flows,
            cutter: None,
            cuts,
            inbox: inbox.clone(),
            shared: shared.clone(),
        };
        it.cutter = it.open_cutter()?;
        Ok(it)
    }

    /// Other choices, in memory; the next apply makes the kernel so. Where flows are marked by another bit
    /// now, their thread is another as well.
    pub(crate) fn configure(&mut self, configuration: &Configuration) {
        let bit = self.rules.cut_bit();
        self.rules.configure(rules_config(configuration));
        self.cut_flows = configuration.cut_flows;
        if bit == self.rules.cut_bit() {
            return;
        }
        self.cutter = self.open_cutter().unwrap_or_else(|error| {
            tracing::error!(error = %format!("{error:#}"), "established flows go on");
            None
        });
    }

    /// What cuts established flows, if that is wanted.
    fn open_cutter(&self) -> Result<Option<Cutter>> {
        let Some(bit) = self.rules.cut_bit() else {
            if self.cut_flows != CutFlows::Off {
                tracing::warn!("no mark bit is left to cut established flows: they go on");
            }
            return Ok(None);
        };
        let wake = self.inbox.clone();
        let cutter = Cutter::open(bit, move || wake.kernel_changed());
        let cutter = cutter.context("opening ctnetlink")?;
        Ok(Some(cutter.with_metrics(self.cuts.clone())))
    }

    /// What the driver counts.
    pub(crate) fn metrics(&self) -> &nft::Metrics {
        self.driver.metrics()
    }

    pub(crate) fn again(&self) -> Again {
        self.again.clone()
    }

    /// Readable when others changed tables.
    pub(crate) fn events(&self) -> std::io::Result<OwnedFd> {
        self.driver.event_fd().try_clone_to_owned()
    }

    /// When the kernel has what is wanted: established flows that policy denies now. When to look
    /// again, at the latest.
    fn cut(&mut self) -> Option<Duration> {
        let cutter = self.cutter.as_mut()?;
        let alone = || !self.shared.upstream.load(Ordering::Relaxed);
        cutter.switch(self.cut_flows == CutFlows::On || alone());
        let (cuts, again) = cutter.poll(&mut self.rules);
        if !cuts.is_empty() {
            self.shared.cut(&cuts);
        }
        again
    }
}

impl Policies for Nft {
    fn feed(&mut self, outputs: &[Output]) {
        self.rules.apply(outputs);
    }

    fn apply(&mut self, in_sync: Option<&InSync>) -> Result<Outcome, DriverError> {
        let failed = |e: nft::NftError| DriverError(e.to_string());
        self.driver.drain_events().map_err(failed)?;
        if self.driver.others_changed() {
            self.shared.others_changed.notify_one();
        }
        let report = self.driver.apply(&mut self.rules, in_sync).map_err(failed)?;
        let look_in = self.cut();
        let seal_in = self.driver.seal_in_time().unwrap_or_else(|error| {
            tracing::warn!(%error, "not sealed: a restart will read everything");
            None
        });
        self.again.set([report.again_in, look_in, seal_in].into_iter().flatten().min());
        let refused = report.refused.into_iter();
        let refused = refused.map(|r| Refused { object: r.object, error: r.error }).collect();
        Ok(Outcome { changed: report.changed, refused })
    }
}

/// The administrator's choices, in the words of the rules.
fn rules_config(configuration: &Configuration) -> RulesConfig {
    let config = &configuration.felix.config;
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
        cut_flows: configuration.cut_flows != CutFlows::Off,
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
        flow_logs: config.flow_logs,
        nat_ports: config.nat_ports,
        nat_addresses: config.nat_address.into_iter().collect(),
        nat_excludes_hosts: config.nat_exclusions == config::NatExclusions::PoolsAndHosts,
        nat_interface: config.nat_interface.as_ref().map(text),
        ..defaults
    }
}
