//! `node diags`: this node, as its kernel, its agent and its logs show it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Result;
use futures_util::stream::{self, StreamExt as _};
use tokio::process::Command;

use super::bundle::Bundle;
use crate::args::{AgentArgs, NodeDiagsArgs};
use crate::node::{ask, connect, fetch};
use crate::print::{self, Out};
use crate::{Outcome, wait};

/// No command runs longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of each log the end counts.
const MOST_OF_A_LOG: u64 = 20 << 20;
/// Logs in one archive.
const MOST_LOGS: usize = 200;
/// Commands at the same time.
const AT_ONCE: usize = 4;

/// Files to write, and the commands whose output they hold. What is not installed is noted.
const COMMANDS: &[(&str, &str)] = &[
    ("date.txt", "date -u"),
    ("uname.txt", "uname -a"),
    ("network/links.txt", "ip -d -s link"),
    ("network/addresses.txt", "ip address"),
    ("network/routes-ipv4.txt", "ip -4 route show table all"),
    ("network/routes-ipv6.txt", "ip -6 route show table all"),
    ("network/rules-ipv4.txt", "ip -4 rule"),
    ("network/rules-ipv6.txt", "ip -6 rule"),
    ("network/neighbours.txt", "ip neighbour"),
    ("network/forwarding-entries.txt", "bridge fdb show"),
    ("network/namespaces.txt", "ip netns list-id"),
    ("network/traffic-control.txt", "tc qdisc show"),
    ("network/sockets.txt", "ss -anp"),
    ("nftables/ruleset.txt", "nft -a list ruleset"),
    ("iptables/ipv4.txt", "iptables-save -c"),
    ("iptables/ipv6.txt", "ip6tables-save -c"),
    ("iptables/ipv4-legacy.txt", "iptables-legacy-save -c"),
    ("iptables/ipv6-legacy.txt", "ip6tables-legacy-save -c"),
    ("iptables/ipset.txt", "ipset list"),
    ("conntrack/statistics.txt", "conntrack -S"),
    ("conntrack/count.txt", "conntrack -C"),
    ("bpf/programs.txt", "bpftool prog list"),
    ("bpf/maps.txt", "bpftool map list"),
    ("bpf/network.txt", "bpftool net"),
    ("wireguard.txt", "wg show"),
    ("journal.txt", "journalctl -u calico-node.service --no-pager -n 20000"),
];

/// Files of the kernel.
const FILES: &[&str] = &[
    "/proc/version",
    "/proc/cmdline",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/net/snmp",
    "/proc/net/snmp6",
    "/proc/net/netstat",
    "/proc/net/sockstat",
    "/proc/net/softnet_stat",
    "/proc/net/stat/nf_conntrack",
    "/proc/modules",
    "/etc/os-release",
    "/var/lib/calico/nodename",
    "/var/lib/calico/mtu",
];

/// Settings of the kernel that decide what becomes of packets.
const SETTINGS: &[&str] = &[
    "/proc/sys/net/ipv4/conf",
    "/proc/sys/net/ipv6/conf",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/neigh/default",
    "/proc/sys/net/ipv6/neigh/default",
    "/proc/sys/net/netfilter",
    "/proc/sys/net/bridge",
    "/proc/sys/net/core",
];

pub(crate) fn diags(args: &NodeDiagsArgs) -> Result<Outcome> {
    let bundle = Bundle::new("calico-node-diags-")?;
    agent(&bundle, &args.agent);
    own_table(&bundle);
    other_hooks(&bundle);
    for path in FILES {
        match fs::read(path) {
            Ok(bytes) => bundle.text(&format!("kernel{path}"), &String::from_utf8_lossy(&bytes)),
            Err(error) => bundle.problem(&format!("{path}: {error}")),
        }
    }
    settings(&bundle);
    wait(async {
        let run =
            |(path, command): &(&str, &str)| run(&bundle, path.to_string(), command.to_string());
        stream::iter(COMMANDS).map(run).buffer_unordered(AT_ONCE).collect::<()>().await;
        Ok(())
    })?;
    logs(&bundle, &args.log_dir);
    let archive = bundle.finish(args.output_dir.as_deref(), false)?;
    let mut out = Out::new();
    out.line(&format!("Diagnostics written to {}", archive.display()))?;
    out.finish()?;
    Ok(Outcome::Done)
}

/// What the agent says of itself.
fn agent(bundle: &Bundle, at: &AgentArgs) {
    let mut port = None;
    for what in ["status", "config"] {
        match ask(at, what) {
            Ok(document) => {
                if what == "config" {
                    port = metrics_port(&document);
                }
                bundle.objects(&format!("agent/{what}.yaml"), vec![document]);
            }
            Err(error) => bundle.problem(&format!("agent/{what}: {error:#}")),
        }
    }
    let (host, _) = at.health_server();
    let metrics = connect(&host, port.unwrap_or(9091)).and_then(|to| fetch(to, &host, "metrics"));
    match metrics {
        Ok(text) => bundle.text("agent/metrics.txt", &text),
        Err(error) => bundle.problem(&format!("agent/metrics: {error:#}")),
    }
}

/// Where the agent's own settings put its metrics.
fn metrics_port(config: &serde_json::Value) -> Option<u16> {
    let rows = config["parameters"].as_array()?;
    let row = rows.iter().find(|row| row["name"] == "PrometheusMetricsPort")?;
    print::cell(row, ".value").parse().ok()
}

/// Our tables as the kernel has them, which needs no tool.
fn own_table(bundle: &Bundle) {
    for version in [model::IpVersion::V4, model::IpVersion::V6] {
        let read = nft::Reader::open().and_then(|mut reader| reader.table(version, "calico"));
        match read {
            Ok(Some(table)) => {
                bundle.text(&format!("nftables/calico-{version:?}.txt"), &format!("{table:#?}\n"));
            }
            Ok(None) => bundle.problem(&format!("the table calico ({version:?}): is not there")),
            Err(error) => bundle.problem(&format!("the table calico ({version:?}): {error}")),
        }
    }
}

fn other_hooks(bundle: &Bundle) {
    let hooks::Look { found, unseen, .. } = hooks::look();
    let found = found.iter().filter_map(|finding| serde_json::to_value(finding).ok());
    bundle.objects("other-hooks.yaml", found.collect());
    for part in &unseen {
        bundle.problem(&format!("hooks of others: {part}"));
    }
}

fn settings(bundle: &Bundle) {
    let mut text = String::new();
    for path in SETTINGS {
        collect_settings(Path::new(path), 0, &mut text);
    }
    bundle.text("kernel/settings.txt", &text);
}

/// `net.ipv4.ip_forward = 1`, one a line. What cannot be read has nothing to say.
fn collect_settings(path: &Path, depth: usize, text: &mut String) {
    if path.is_dir() && depth < 4 {
        let mut inner: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        inner.sort();
        for path in &inner {
            collect_settings(path, depth + 1, text);
        }
    } else if let Ok(value) = fs::read_to_string(path) {
        let name = path.display().to_string();
        let name = name.trim_start_matches("/proc/sys/").replace('/', ".");
        // Keys for hashes and cookies are no business of others.
        if !name.contains("secret") && !name.ends_with("_key") {
            let _ = writeln!(text, "{name} = {}", value.trim().replace('\n', " | "));
        }
    }
}

async fn run(bundle: &Bundle, path: String, command: String) {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let mut started = Command::new(program);
    started.args(words).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PATIENCE, started.output()).await {
        Err(_) => bundle.problem(&format!("{command}: does not end")),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            bundle.problem(&format!("{command}: is not installed"));
        }
        Ok(Err(error)) => bundle.problem(&format!("{command}: {error}")),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                bundle.problem(&format!("{command}: {}: {}", output.status, said.trim()));
            }
            if !output.stdout.is_empty() {
                bundle.copy(&path, &*output.stdout);
            }
        }
    }
}

/// Whatever lies below the folder of logs; of large ones the end.
fn logs(bundle: &Bundle, folder: &Path) {
    let mut files = Vec::new();
    if let Err(error) = find_logs(folder, 0, &mut files) {
        bundle.problem(&format!("{}: {error}", folder.display()));
    }
    files.sort();
    if files.len() > MOST_LOGS {
        bundle.problem(&format!("of {} logs, only {MOST_LOGS} were taken", files.len()));
    }
    for path in files.iter().take(MOST_LOGS) {
        let Ok(inside) = path.strip_prefix(folder) else { continue };
        let name = format!("logs/{}", inside.display());
        let opened = fs::File::open(path).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(MOST_OF_A_LOG)))?;
            Ok(file)
        });
        match opened {
            Ok(file) => bundle.copy(&name, file.take(MOST_OF_A_LOG)),
            Err(error) => bundle.problem(&format!("{}: {error}", path.display())),
        }
    }
}

fn find_logs(
    folder: &Path,
    depth: usize,
    found: &mut Vec<std::path::PathBuf>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?; // links are not followed
        if kind.is_dir() && depth < 4 {
            find_logs(&entry.path(), depth + 1, found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}
