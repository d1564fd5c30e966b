//! calicoctl: the user's command line.
//!
//! Goes in: arguments, files, a kubeconfig or the addresses of an etcd. Comes out: data on standard output, everything else on
//! standard error, and an exit code: 0 done, 1 something is invalid or failed, 2 wrong usage, 3 the
//! kernel has other rules in force than policy says (`why --live`).
//!
//! Invariants: everything that is given is read and checked before the first request that changes
//! something; every error of every document is told; a reader that goes away ends the output in
//! silence.
//!
//! Deliberately absent: what objects mean (`api`), retries for ever.
//!
//! Start reading at [`run`], then `apply`.

mod apply;
mod args;
mod check;
mod cluster;
mod convert;
mod diags;
mod explain;
mod files;
mod get;
mod ipam;
mod kept;
mod live;
mod migrate;
mod node;
mod parameters;
mod patch;
mod print;
mod selectors;
mod settings;
mod suggest;
mod template;
mod trace;
mod unconfirmed;
mod version;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};

use args::{
    Cli, ClusterVerb, ConfigVerb, DatastoreVerb, IpamVerb, MigrateVerb, NodeVerb, PolicyVerb, Verb,
};

/// What a verb says about how it went, beside its errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Done,
    /// Something is invalid or failed; it has been told already.
    Failed,
    /// The kernel disagrees with the specification; it has been told already.
    Disagree,
}

/// As which plugin of kubectl this may be called.
const PLUGIN: &str = "kubectl-calico";

/// The command line, in the words of who called it: for kubectl's plugin, help says `kubectl calico`.
pub fn command(called: &OsStr) -> clap::Command {
    let command = Cli::command();
    if Path::new(called).file_name() != Some(OsStr::new(PLUGIN)) {
        return command;
    }
    fn renamed(command: clap::Command) -> clap::Command {
        let help = command.get_after_help().map(ToString::to_string);
        let command = match help {
            Some(help) => command.after_help(help.replace("calicoctl ", "kubectl calico ")),
            None => command,
        };
        command.mut_subcommands(renamed)
    }
    renamed(command.bin_name("kubectl calico").name("kubectl calico"))
}

/// Runs the command line; the first argument is the name of the program.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = command(args.first().map_or(OsStr::new(""), OsString::as_os_str));
    let cli = match command
        .try_get_matches_from(args)
        .and_then(|found| Cli::from_arg_matches(&found))
    {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors: they go to standard output.
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(cli) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Disagree) => ExitCode::from(3),
        Err(error) if print::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print::complain(&format!("{error:#}"));
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// The arguments do not make sense together.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error that ends with the exit code of wrong usage.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

fn dispatch(cli: Cli) -> Result<Outcome> {
    let access = cli.access;
    match cli.verb {
        Verb::Validate(args) => check::validate(&args),
        Verb::Convert(args) => convert::convert(&args),
        Verb::Version(args) => version::version(&access, &args),
        Verb::Apply(args) => apply::write(&access, apply::Mode::Apply, &args),
        Verb::Create(args) => apply::write(&access, apply::Mode::Create, &args),
        Verb::Replace(args) => apply::write(&access, apply::Mode::Replace, &args),
        Verb::Delete(args) => apply::delete(&access, &args),
        Verb::Confirm(args) => unconfirmed::settle(&access, confirm::Decision::Confirmed, &args),
        Verb::Revert(args) => unconfirmed::settle(&access, confirm::Decision::Reverted, &args),
        Verb::Get(args) => get::get(&access, &args),
        Verb::Patch(args) => patch::patch(&access, &args),
        Verb::Label(args) => patch::label(&access, &args),
        Verb::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "calicoctl",
                &mut std::io::stdout(),
            );
            Ok(Outcome::Done)
        }
        Verb::Config { verb: ConfigVerb::Explain(args) } => parameters::explain(&args),
        Verb::Ipam { verb: IpamVerb::Show(args) } => ipam::show(&access, &args),
        Verb::Datastore { verb: DatastoreVerb::MigratePolicyNames } => {
            migrate::policy_names(&access)
        }
        Verb::Datastore { verb: DatastoreVerb::Migrate { verb } } => match verb {
            MigrateVerb::Lock => migrate::set_ready(&access, false),
            MigrateVerb::Unlock => migrate::set_ready(&access, true),
            MigrateVerb::Export => migrate::export(&access),
            MigrateVerb::Import(args) => migrate::import(&access, args),
        },
        Verb::Node { verb: NodeVerb::Status(args) } => node::status(&args),
        Verb::Node { verb: NodeVerb::Config(args) } => node::config(&args),
        Verb::Node { verb: NodeVerb::Preflight(args) } => node::preflight::preflight(&args),
        Verb::Node { verb: NodeVerb::Checksystem(args) } => node::checksystem::checksystem(&args),
        Verb::Node { verb: NodeVerb::Diags(args) } => diags::node_diags(&args),
        Verb::Node { verb: NodeVerb::Run(args) } => node::run::run(&access, &args),
        Verb::Cluster { verb: ClusterVerb::Diags(args) } => diags::cluster_diags(&access, &args),
        Verb::Why(args) => explain::why(&access, &args),
        Verb::Policy { verb: PolicyVerb::Eval(args) } => explain::eval(&access, &args),
        Verb::Policy { verb: PolicyVerb::Matrix(args) } => explain::matrix(&access, &args),
        Verb::Policy { verb: PolicyVerb::Test(args) } => explain::test(&access, &args),
        Verb::Selector { verb } => selectors::run(&verb),
    }
}

/// The runtime, for verbs that talk to the cluster.
pub(crate) fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}
