//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::print::{Output, say, tell};
use crate::state::State;
use crate::{cluster, demo, exec, probe, responder, serve, status, supervisor};

/// A cluster on one machine.
#[derive(Debug, Parser)]
#[command(
    name = "calico sandbox",
    version,
    after_help = "Example:\n  calico sandbox up --nodes 3\n  export KUBECONFIG=$(calico sandbox kubeconfig)\n  kubectl run web --image=web --port=80\n  calico sandbox probe --port 80\n  calico sandbox exec web -- ip address\n  calico sandbox exec node:k8s-node-1 -- nft list ruleset\n  calico sandbox down"
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
    Up(cluster::Up),
    /// Start again what has died of a sandbox that is up; its pods stay as they are.
    Resume(cluster::Patience),
    /// Stop it and remove everything.
    Down,
    /// Nodes and pods.
    Status {
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Print the path of the kubeconfig.
    Kubeconfig,
    /// Run a command in the network namespace of a pod or of a node.
    ///
    /// On a node the command has the environment of the node's agent as well: `nft list ruleset`
    /// shows the node's rules, `calicoctl node status` asks its agent.
    Exec {
        /// A pod: `namespace/name`, or a name in namespace `default`; or a node: `node:NAME`.
        #[arg(value_name = "POD|node:NAME")]
        place: String,
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

/// Network namespaces carry the name, so it must be a plain one.
fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=32).contains(&text.len()) && text.chars().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("want 1 to 32 lower-case letters, digits or '-'".to_owned())
    }
}

/// The command line, as `--help` and the reference show it.
pub fn command() -> clap::Command {
    Cli::command()
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
        Verb::Resume(patience) => cluster::resume(&state, patience),
        Verb::Down => cluster::down(&state),
        Verb::Status { output } => status::print(&state, output),
        Verb::Kubeconfig => {
            state.load()?;
            say(&state.kubeconfig().display().to_string());
            Ok(())
        }
        Verb::Exec { place, command } => return exec::run(&state, &place, &command),
        Verb::Probe(options) => return probe::command(&state, &options),
        Verb::Logs { node } => status::logs(&state, &node),
        Verb::Demo { examples } => demo::run(&state, &examples),
        Verb::Api => serve::run(&state),
        Verb::Supervise => supervisor::run(&state),
        Verb::Responder(options) => responder::run(&options),
    }
    .map(|()| ExitCode::SUCCESS)
}
