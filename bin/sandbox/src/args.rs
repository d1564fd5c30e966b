//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::state::{Encap, State};
use crate::{cluster, demo, pods, probe, responder, serve, status, supervisor};

/// A cluster on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "calico sandbox",
    version,
    after_help = "Example:\n  calico sandbox up --nodes 3\n  export KUBECONFIG=$(calico sandbox kubeconfig)\n  kubectl run web --image=web --port=80\n  calico sandbox probe --port 80\n  calico sandbox down"
)]
struct Cli {
    /// Name of the sandbox; several can be up at once.
    #[arg(long, global = true, default_value = "sandbox", value_parser = name)]
    name: String,
    /// Folder that holds the sandboxes' state.
    #[arg(long, global = true, default_value = "/run/calico-sandbox")]
    state_dir: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster and wait until it is ready.
    Up(Up),
    /// Start again what has died of a sandbox that is up; its pods stay as they are.
    Resume,
    /// Stop it and remove everything.
    Down,
    /// Nodes and pods.
    Status {
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Print the path of the kubeconfig.
    Kubeconfig,
    /// Run a command in a pod's network namespace.
    Exec {
        /// `namespace/name`, or a name in namespace `default`.
        pod: String,
        /// The command, after `--`.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Measure who reaches whom, with real connections.
    Probe(probe::Options),
    /// Print a node's agent log.
    Logs {
        /// Name of the node.
        node: String,
    },
    /// Start a cluster, apply the examples one by one, compare what is measured with what policy says.
    Demo {
        /// Folder of the examples.
        #[arg(long, default_value = "examples")]
        examples: PathBuf,
    },
    /// The embedded API (started by `up`).
    #[command(hide = true)]
    Api,
    /// Keeps the other processes running; kubelets and scheduler (started by `up`).
    #[command(hide = true)]
    Supervise,
    /// Answers on ports with a name (started for each pod).
    #[command(hide = true)]
    Responder(responder::Options),
}

/// What `up` makes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    /// Number of nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(crate) nodes: u8,
    /// IPv6 beside IPv4.
    #[arg(long)]
    pub(crate) dual_stack: bool,
    /// How pods' packets travel between nodes.
    #[arg(long, default_value = "vxlan")]
    pub(crate) encap: Encap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Network namespaces carry the name, so it must be a plain one.
fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("want 1 to 32 lower-case letters, digits or '-'".to_owned())
    }
}

/// Runs `calico sandbox` with these arguments (the first is the program's name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("calico sandbox: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    let state = State::new(&cli.state_dir, &cli.name);
    match cli.verb {
        Verb::Up(up) => cluster::up(&state, &up),
        Verb::Resume => cluster::resume(&state),
        Verb::Down => cluster::down(&state),
        Verb::Status { output } => status::print(&state, output),
        Verb::Kubeconfig => {
            state.load()?;
            say(&state.kubeconfig().display().to_string());
            Ok(())
        }
        Verb::Exec { pod, command } => return pods::exec(&state, &pod, &command),
        Verb::Probe(options) => return probe::command(&state, &options),
        Verb::Logs { node } => status::logs(&state, &node),
        Verb::Demo { examples } => demo::run(&state, &examples),
        Verb::Api => serve::run(&state),
        Verb::Supervise => supervisor::run(&state),
        Verb::Responder(options) => responder::run(&options),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// A line to standard output; a reader that has gone away is no error.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// A line to standard error.
pub(crate) fn tell(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}
