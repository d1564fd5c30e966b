//! The arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Manages Calico resources.
#[derive(Debug, Parser)]
#[command(name = "calicoctl", bin_name = "calicoctl", version, disable_version_flag = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) access: Access,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// How the cluster is reached.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Access {
    /// Kubeconfig to use; else KUBECONFIG, the configuration file, ~/.kube/config, the pod's own.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Configuration file.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        default_value = "/etc/calico/calicoctl.cfg"
    )]
    pub(crate) config: PathBuf,
    /// Taken, as scripts for other tools give it: a cluster of another version is never refused.
    #[arg(long, global = true)]
    pub(crate) allow_version_mismatch: bool,
    /// Taken, as scripts for other tools give it: there is no log, errors are told in any case.
    #[arg(short, long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Creates objects, or replaces those that exist.
    Apply(WriteArgs),
    /// Creates objects.
    Create(WriteArgs),
    /// Replaces objects.
    Replace(WriteArgs),
    /// Deletes objects, from files or by name.
    Delete(DeleteArgs),
    /// Shows objects.
    Get(GetArgs),
    /// Changes some fields of an object.
    Patch(PatchArgs),
    /// Sets a label of an object, or takes it away.
    Label(LabelArgs),
    /// Checks files, without a cluster.
    Validate(ValidateArgs),
    /// Shows what objects of Kubernetes become: policies, pods, namespaces, service accounts.
    Convert(ConvertArgs),
    /// The agent's configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Address management.
    Ipam {
        #[command(subcommand)]
        verb: IpamVerb,
    },
    /// The datastore as a whole.
    Datastore {
        #[command(subcommand)]
        verb: DatastoreVerb,
    },
    /// The node this runs on.
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Says why a connection is allowed or denied: every tier, policy and rule that has a say.
    Why(WhyArgs),
    /// Questions about policies.
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Questions about selectors.
    Selector {
        #[command(subcommand)]
        verb: SelectorVerb,
    },
    /// Shows versions.
    Version(VersionArgs),
    /// Prints what completes command lines in a shell.
    #[command(
        after_help = "Examples:\n  source <(calicoctl completion bash)\n  calicoctl completion zsh > \"${fpath[1]}/_calicoctl\""
    )]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the objects are that are asked about: files, else the cluster.
#[derive(Debug, Args)]
pub(crate) struct AboutArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// As if staged policies were in force; the matrix shows what that changes.
    #[arg(long)]
    pub(crate) staged: bool,
}

/// The rest of a connection.
#[derive(Debug, Args)]
pub(crate) struct ConnectionArgs {
    /// Destination port.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Protocol: TCP, UDP, SCTP, ICMP, ICMPv6, or a number.
    #[arg(long, default_value = "TCP")]
    pub(crate) protocol: String,
}

#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Source: namespace/pod, host:NAME, node:NAME or an address.
    pub(crate) from: String,
    /// Destination: as the source, or service:namespace/name; with :PORT.
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
    /// On a node: also asks the rules that are in its kernel; exit code 3 if they disagree.
    #[arg(long)]
    pub(crate) live: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Says what happens to packets: one JSON object a line in, one a line out.
    Eval(EvalArgs),
    /// Shows who reaches whom: all pairs of pods.
    Matrix(MatrixArgs),
    /// Tests expectations: exit code 1 if one is not met.
    Test(TestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    /// File with a packet a line, or - for standard input: {"from":"a/x","to":"b/y","port":80}.
    #[arg(long, value_name = "FILE")]
    pub(crate) packets: PathBuf,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Files with expectations: from, to, port, protocol, expect (allow or deny).
    #[arg(required = true, value_name = "FILE")]
    pub(crate) tests: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) about: AboutArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SelectorVerb {
    /// Shows a selector's canonical form and id.
    Check {
        /// The selector; without it, one JSON object a line is read from standard input.
        selector: Option<String>,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: ResultOutput,
    },
    /// Says whether a selector matches labels.
    Match {
        /// The selector; without it, one JSON object a line is read from standard input.
        selector: Option<String>,
        /// Labels: KEY=VALUE.
        labels: Vec<String>,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: ResultOutput,
    },
}

/// Files with objects.
#[derive(Clone, Debug, Args)]
pub(crate) struct FileArgs {
    /// File, directory, or - for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Goes down into directories.
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Files without any object are no error.
    #[arg(long)]
    pub(crate) skip_empty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Namespace of objects that name none.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Objects that exist already are left alone (create).
    #[arg(long)]
    pub(crate) skip_exists: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Kind: name, plural or short name.
    pub(crate) kind: Option<String>,
    /// Names of the objects.
    pub(crate) names: Vec<String>,
    /// Namespace of the objects.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Objects that do not exist are no error.
    #[arg(short, long)]
    pub(crate) skip_not_exists: bool,
}

/// Forms of `get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum GetOutput {
    /// A table.
    #[default]
    Ps,
    /// A table with more columns.
    Wide,
    /// YAML.
    Yaml,
    /// JSON.
    Json,
    /// Names only.
    Name,
    /// A table of these columns: names of the table's own, or `HEADING:.path`.
    Columns(Vec<String>),
}

impl std::str::FromStr for GetOutput {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "ps" => Self::Ps,
            "wide" => Self::Wide,
            "yaml" => Self::Yaml,
            "json" => Self::Json,
            "name" => Self::Name,
            other => match other.strip_prefix("custom-columns=") {
                Some(list) => Self::Columns(list.split(',').map(str::to_owned).collect()),
                None => {
                    return Err(
                        "want ps, wide, yaml, json, name or custom-columns=NAME,...".to_owned()
                    );
                }
            },
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Kind: name, plural or short name; several joined by commas.
    #[arg(required_unless_present = "filename")]
    pub(crate) kind: Option<String>,
    /// Names of the objects; all if none is given.
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Namespace of the objects.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// Objects of every namespace.
    #[arg(short = 'A', short_alias = 'a', long, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// Form of the output: ps, wide, yaml, json, name, or custom-columns=COLUMN,..., where a column is one of the
    /// table's (NAME, ORDER, ...) or HEADING:.path.to.field.
    #[arg(short, long, default_value = "ps")]
    pub(crate) output: GetOutput,
    /// Leaves out what only this cluster knows.
    #[arg(long)]
    pub(crate) export: bool,
}

/// Forms of patches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum PatchType {
    /// The same as merge, for the kinds that there are.
    #[default]
    Strategic,
    /// A JSON merge patch (RFC 7386): null takes a field away, lists are replaced.
    Merge,
    /// A JSON patch (RFC 6902): a list of operations.
    Json,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  calicoctl patch ippool pool-1 -p '{\"spec\": {\"natOutgoing\": true}}'\n  calicoctl patch gnp web -t json -p '[{\"op\": \"replace\", \"path\": \"/spec/order\", \"value\": 5}]'"
)]
pub(crate) struct PatchArgs {
    /// Kind: name, plural or short name.
    pub(crate) kind: String,
    /// Name of the object.
    pub(crate) name: String,
    /// The patch, as JSON or YAML.
    #[arg(short, long)]
    pub(crate) patch: String,
    /// Form of the patch.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) r#type: PatchType,
    /// Namespace of the object.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  calicoctl label node node-1 rack=r1\n  calicoctl label hep eth0 role=edge --overwrite\n  calicoctl label node node-1 rack --remove"
)]
pub(crate) struct LabelArgs {
    /// Kind: name, plural or short name.
    pub(crate) kind: String,
    /// Name of the object.
    pub(crate) name: String,
    /// KEY=VALUE, or KEY with --remove.
    pub(crate) label: String,
    /// Replaces another value.
    #[arg(long, conflicts_with = "remove")]
    pub(crate) overwrite: bool,
    /// Takes the label away.
    #[arg(long)]
    pub(crate) remove: bool,
    /// Namespace of the object.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// Forms of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultOutput {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ConvertOutput,
}

/// Forms of objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConvertOutput {
    /// Documents.
    #[default]
    Yaml,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigVerb {
    /// Says what a parameter does, what may be written, its default, and where it is set; or lists all.
    Explain(ConfigExplainArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  calicoctl config explain\n  calicoctl config explain vxlanPort\n  calicoctl config explain FELIX_LOGSEVERITYSCREEN"
)]
pub(crate) struct ConfigExplainArgs {
    /// Its name, its field in FelixConfiguration, or its environment variable, in any case.
    pub(crate) name: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpamVerb {
    /// Shows pools, blocks and addresses.
    Show(IpamShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct IpamShowArgs {
    /// Shows blocks as well.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Shows borrowed addresses.
    #[arg(long)]
    pub(crate) show_borrowed: bool,
    /// Shows settings.
    #[arg(long)]
    pub(crate) show_configuration: bool,
    /// Shows who has this address.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<std::net::IpAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DatastoreVerb {
    /// Takes everything from one datastore to another.
    Migrate {
        #[command(subcommand)]
        verb: MigrateVerb,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateVerb {
    /// Keeps agents from giving addresses.
    Lock,
    /// Lets agents go on.
    Unlock,
    /// Writes everything that is kept here, addresses included, as YAML: of a locked datastore only.
    Export,
    /// Creates or replaces what was exported; the datastore is locked then.
    Import(MigrateImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateImportArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Shows how the agent of this node is doing.
    Status(NodeStatusArgs),
    /// Shows the settings that the agent of this node runs with, and where each comes from.
    Config(NodeConfigArgs),
    /// Shows who else can drop, translate, untrack or redirect packets here, and what to do about it: exit code 0
    /// whatever is found, 1 if something could not be looked at.
    Preflight(NodePreflightArgs),
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
    /// Host of the agent's health server.
    #[arg(long, env = "FELIX_HEALTHHOST", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port of the agent's health server.
    #[arg(long, env = "FELIX_HEALTHPORT", default_value_t = 9099)]
    pub(crate) port: u16,
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

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// The client's version only: asks no cluster.
    #[arg(long)]
    pub(crate) client: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
