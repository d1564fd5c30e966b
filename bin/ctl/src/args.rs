//! The arguments.

mod cluster;
mod examples;
mod node;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use cluster::{ClusterDiagsArgs, ClusterVerb};
pub(crate) use node::{
    AgentArgs, NodeBackend, NodeChecksystemArgs, NodeConfigArgs, NodeDiagsArgs, NodePreflightArgs,
    NodeRunArgs, NodeStatusArgs, NodeVerb,
};

/// Manages Calico resources.
#[derive(Debug, Parser)]
#[command(
    name = "calicoctl",
    bin_name = "calicoctl",
    version,
    disable_version_flag = true,
    after_help = examples::ALL
)]
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
        default_value = crate::settings::DEFAULT_FILE
    )]
    pub(crate) config: PathBuf,
    /// Changes also a cluster that is newer than what this tool knows.
    #[arg(long, global = true)]
    pub(crate) allow_version_mismatch: bool,
    /// Taken, as scripts for other tools give it: there is no log, errors are told in any case.
    #[arg(short, long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Creates objects, or replaces those that exist.
    #[command(after_help = examples::APPLY)]
    Apply(WriteArgs),
    /// Creates objects.
    #[command(after_help = examples::CREATE)]
    Create(WriteArgs),
    /// Replaces objects.
    #[command(after_help = examples::REPLACE)]
    Replace(WriteArgs),
    /// Deletes objects, from files or by name.
    #[command(after_help = examples::DELETE)]
    Delete(DeleteArgs),
    /// Keeps a change that was made with --confirm-within.
    #[command(after_help = examples::CONFIRM)]
    Confirm(SettleArgs),
    /// Takes back a change that was made with --confirm-within.
    #[command(after_help = examples::REVERT)]
    Revert(SettleArgs),
    /// Shows objects.
    #[command(after_help = examples::GET)]
    Get(GetArgs),
    /// Changes some fields of an object.
    Patch(PatchArgs),
    /// Sets a label of an object, or takes it away.
    Label(LabelArgs),
    /// Checks files, without a cluster.
    #[command(after_help = examples::VALIDATE)]
    Validate(ValidateArgs),
    /// Shows what objects of Kubernetes become: policies, pods, namespaces, service accounts.
    #[command(after_help = examples::CONVERT)]
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
    /// The cluster as a whole.
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// The node this runs on.
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Says why a connection is allowed or denied: every tier, policy and rule that has a say.
    #[command(after_help = examples::WHY)]
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
    #[command(after_help = examples::VERSION)]
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
    /// With --live: traces real packets of such flows for so long, too.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) trace: Option<u64>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: ResultOutput,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyVerb {
    /// Says what happens to packets: one JSON object a line in, one a line out.
    #[command(after_help = examples::EVAL)]
    Eval(EvalArgs),
    /// Shows who reaches whom: all pairs of pods.
    #[command(after_help = examples::MATRIX)]
    Matrix(MatrixArgs),
    /// Tests expectations: exit code 1 if one is not met.
    #[command(after_help = examples::TEST)]
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
    #[command(after_help = examples::SELECTOR_CHECK)]
    Check {
        /// The selector; without it, one JSON object a line is read from standard input.
        selector: Option<String>,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value_t)]
        output: ResultOutput,
    },
    /// Says whether a selector matches labels.
    #[command(after_help = examples::SELECTOR_MATCH)]
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
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ConfirmArgs {
    /// Every node goes back to what was before, all objects together, unless `calicoctl confirm`
    /// comes within this time (90s, 5m, 1h), even if the change cuts it off.
    #[arg(long, value_name = "TIME", value_parser = window)]
    pub(crate) confirm_within: Option<Duration>,
}

/// A time that a change may stay unconfirmed.
fn window(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        other => return Err(format!("{other:?} is no unit (want s, m or h)")),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{digits:?} is no number"))?;
    let window = Duration::from_secs(count.saturating_mul(unit));
    if window < SHORTEST || window > confirm::mark::LONGEST {
        return Err("want between 2s and 24h".to_owned());
    }
    Ok(window)
}

/// Less nobody can confirm.
const SHORTEST: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(crate) struct SettleArgs {
    /// The change, as apply named it; need not be given where there is only one.
    pub(crate) change: Option<String>,
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
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
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
    /// What a template of Go makes of them.
    Template(String),
    /// The same with the template in a file.
    TemplateFile(PathBuf),
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
            other => match other.split_once('=') {
                Some(("custom-columns", list)) => {
                    Self::Columns(list.split(',').map(str::to_owned).collect())
                }
                Some(("go-template", text)) => Self::Template(text.to_owned()),
                Some(("go-template-file", path)) => Self::TemplateFile(path.into()),
                _ => {
                    return Err("want ps, wide, yaml, json, name, custom-columns=NAME,..., \
                         go-template=TEMPLATE or go-template-file=FILE"
                        .to_owned());
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
    /// Form of the output: ps, wide, yaml, json, name; custom-columns=COLUMN,..., where a column is one of the
    /// table's (NAME, ORDER, ...) or HEADING:.path.to.field; go-template=TEMPLATE or go-template-file=FILE.
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
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  calicoctl label node node-1 rack=r1\n  calicoctl label hep eth0 role=edge zone=a --overwrite\n  calicoctl label node node-1 rack --remove"
)]
pub(crate) struct LabelArgs {
    /// Kind: name, plural or short name.
    pub(crate) kind: String,
    /// Name of the object.
    pub(crate) name: String,
    /// KEY=VALUE, or KEY with --remove; several are set or taken away together.
    #[arg(required = true, value_name = "LABEL")]
    pub(crate) labels: Vec<String>,
    /// Replaces another value.
    #[arg(long, conflicts_with = "remove")]
    pub(crate) overwrite: bool,
    /// Takes the label away.
    #[arg(long)]
    pub(crate) remove: bool,
    /// Namespace of the object.
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) confirm: ConfirmArgs,
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
    #[command(after_help = examples::IPAM_SHOW)]
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
    /// Drops the prefix `default.` under which releases before v3.32 kept policies. May be repeated.
    #[command(after_help = examples::POLICY_NAMES)]
    MigratePolicyNames,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateVerb {
    /// Keeps agents from giving addresses.
    #[command(after_help = examples::LOCK)]
    Lock,
    /// Lets agents go on.
    #[command(after_help = examples::UNLOCK)]
    Unlock,
    /// Writes everything that is kept here, addresses included, as YAML: of a locked datastore only.
    #[command(after_help = examples::EXPORT)]
    Export,
    /// Creates or replaces what was exported; the datastore is locked then.
    #[command(after_help = examples::IMPORT)]
    Import(MigrateImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MigrateImportArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// The client's version only: asks no cluster.
    #[arg(long)]
    pub(crate) client: bool,
    /// Asks again after this time, for ever, and shows what has changed: 1s, 10m, 2h; 0 for once.
    #[arg(long, value_name = "TIME", value_parser = crate::version::duration)]
    pub(crate) poll: Option<std::time::Duration>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }

    /// Whoever asks for help about a verb sees how it is used.
    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(
                    help.contains(&format!("{path} "))
                        || help.contains(&format!("{path}\n"))
                        || help.ends_with(&path),
                    "{path}: {help:?}"
                );
            }
            command.get_subcommands().for_each(|inner| check(inner, &path));
        }
        for verb in super::Cli::command().get_subcommands() {
            check(verb, "calicoctl");
        }
    }
}
