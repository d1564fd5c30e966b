//! The arguments of `node`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{ResultOutput, examples};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Shows how the agent of this node is doing.
    #[command(after_help = examples::NODE_STATUS)]
    Status(NodeStatusArgs),
    /// Shows the settings that the agent of this node runs with, and where each comes from.
    Config(NodeConfigArgs),
    /// Shows who else can drop, translate, untrack or redirect packets here, and what to do about it: exit code 0
    /// whatever is found, 1 if something could not be looked at.
    #[command(after_help = examples::NODE_PREFLIGHT)]
    Preflight(NodePreflightArgs),
    /// Checks whether the kernel has what the agent needs: exit code 1 if something is missing.
    #[command(after_help = examples::NODE_CHECKSYSTEM)]
    Checksystem(NodeChecksystemArgs),
    /// Writes an archive of what helps to find out what is wrong with this node. It holds no secrets.
    #[command(after_help = examples::NODE_DIAGS)]
    Diags(NodeDiagsArgs),
    /// Starts the agent of this node in a container, or shows the command that does it.
    #[command(after_help = examples::NODE_RUN)]
    Run(Box<NodeRunArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct NodeChecksystemArgs {
    /// The kernel's configuration, plain or compressed by gzip; else /proc/config.gz and the usual places are tried.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) kernel_config: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Args)]
pub(crate) struct NodeDiagsArgs {
    /// Where logs are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/log/calico")]
    pub(crate) log_dir: PathBuf,
    /// Where the archive is put; else a new directory for temporary files.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
}

/// What makes routes between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum NodeBackend {
    /// BGP.
    #[default]
    Bird,
    /// VXLAN, without BGP.
    Vxlan,
    /// Nobody: policy only.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct NodeRunArgs {
    /// Name of the node, else the host's.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// IPv4 address of the node, or autodetect, or none.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// IPv6 address of the node, or autodetect, or none.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<String>,
    /// AS number of the node: a number, or dotted, as 1.10.
    #[arg(long = "as", value_name = "NUMBER")]
    pub(crate) as_number: Option<String>,
    /// How an IPv4 address is found: first-found, can-reach=HOST, interface=REGEX,..., skip-interface=REGEX,...,
    /// cidr=CIDR,... or kubernetes-internal-ip.
    #[arg(long, value_name = "METHOD", default_value = "first-found")]
    pub(crate) ip_autodetection_method: String,
    /// How an IPv6 address is found.
    #[arg(long, value_name = "METHOD", default_value = "first-found")]
    pub(crate) ip6_autodetection_method: String,
    /// Where logs are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/log/calico")]
    pub(crate) log_dir: String,
    /// Image of the container.
    #[arg(long, value_name = "IMAGE", default_value = "calico-rs/node:latest")]
    pub(crate) node_image: String,
    /// What makes routes between nodes.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) backend: NodeBackend,
    /// File with settings of the agent.
    #[arg(long, value_name = "FILE")]
    pub(crate) felix_config: Option<String>,
    /// Makes no pools of addresses.
    #[arg(long)]
    pub(crate) no_default_ippools: bool,
    /// Shows the command, and starts nothing.
    #[arg(long, alias = "dry-run")]
    pub(crate) dryrun: bool,
    /// For a service of an init system: the command stays in the foreground, and nothing restarts the container but
    /// that service.
    #[arg(long)]
    pub(crate) init_system: bool,
    /// Program that runs containers; else docker, podman or nerdctl, whichever is there.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) engine: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NodePreflightArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

/// Where the agent of this node is asked.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Folder of the agent's socket, which is asked unless a host or a port is given.
    #[arg(long, env = "CALICO_RUN_DIR", default_value = "/var/run/calico")]
    pub(crate) run_dir: PathBuf,
    /// Host of the agent's health server; if not given, FELIX_HEALTHHOST, or 127.0.0.1.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Port of the agent's health server; if not given, FELIX_HEALTHPORT, or 9099.
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

impl AgentArgs {
    /// Where the agent's health server is.
    pub(crate) fn health_server(&self) -> (String, u16) {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let host = self.host.clone().or_else(|| given("FELIX_HEALTHHOST"));
        let port = self.port.or_else(|| given("FELIX_HEALTHPORT")?.parse().ok());
        (host.unwrap_or_else(|| "127.0.0.1".into()), port.unwrap_or(9099))
    }
}

#[derive(Debug, Args)]
pub(crate) struct NodeStatusArgs {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  calicoctl node config --given\n  calicoctl node config vxlanPort -o json"
)]
pub(crate) struct NodeConfigArgs {
    /// Only this one: its name, its field in FelixConfiguration, or its environment variable, in any case.
    pub(crate) name: Option<String>,
    /// Only those that are not as built in.
    #[arg(long, conflicts_with = "name")]
    pub(crate) given: bool,
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}
