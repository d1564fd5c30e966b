//! `calico store`: the embedded API as a program of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use store::{Durability, ServeOptions};
use telemetry::LogConfig;

use crate::serving::{ServerArgs, until_ended};

/// The embedded Kubernetes API, over one SQLite file.
#[derive(Debug, Parser)]
#[command(
    name = "calico store",
    version,
    after_help = "Example:\n  calico store serve --data-dir /var/lib/calico/store --listen 127.0.0.1:6443\n  kubectl --kubeconfig /var/lib/calico/store/kubeconfig get namespaces"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve until told to end (SIGTERM, SIGINT).
    Serve(Serve),
    /// Write a kubeconfig with a client certificate for a user; roles and bindings say what he may do.
    User(User),
    /// Write everything into one file, while the server runs or not.
    Backup {
        /// Folder of the store.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The file to make.
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Make a store of a backup; the server must not run. Clients list anew afterwards.
    Restore {
        /// Folder of the store.
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The backup.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Put a store that is there aside.
        #[arg(long)]
        replace: bool,
    },
    /// Say what is wrong with a store or a backup. Exit code 1: something is; 2: it cannot be read.
    Check(Check),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Check {
    /// Folder of the store, whether the server runs or not.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A backup.
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    server: ServerArgs,
    /// What an acknowledged write survives.
    #[arg(long, value_enum, default_value_t = Survives::Power)]
    durability: Survives,
}

#[derive(Debug, Args)]
struct User {
    /// The user's name.
    name: String,
    /// A group of the user; may be given several times.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// How clients reach the server.
    #[arg(long, value_name = "URL")]
    server: String,
    /// How long the certificate is good.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Where to write the kubeconfig.
    #[arg(long, value_name = "FILE")]
    kubeconfig_out: PathBuf,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Survives {
    /// A power cut.
    Power,
    /// The death of the process, not of the machine.
    Process,
}

/// Runs the command line; the first argument is the name of the program.
pub(crate) fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            return if error.print().is_ok() { ExitCode::from(code) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match cli.verb {
        Verb::Serve(args) => serve(args),
        Verb::User(args) => user(&args),
        Verb::Backup { data_dir, to } => backup(&data_dir, &to),
        Verb::Restore { data_dir, from, replace } => restore(&data_dir, &from, replace),
        Verb::Check(args) => return check(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::tell(&mut std::io::stderr(), &format!("calico store: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Serve) -> Result<()> {
    telemetry::init_logs(&LogConfig::default())?;
    let data_dir = args.server.data_dir.clone();
    let server = args.server.listen()?;
    let options = ServeOptions {
        data_dir,
        durability: match args.durability {
            Survives::Power => Durability::Power,
            Survives::Process => Durability::Process,
        },
        listeners: server.listeners,
        names: server.names,
        service_ranges: Vec::new(),
        access: server.access,
        kubeconfigs: vec![server.kubeconfig],
    };
    until_ended(async |ended| Ok(store::serve(options, ended).await?))
}

fn user(args: &User) -> Result<()> {
    let (name, groups) = (args.name.as_str(), args.group.as_slice());
    let pki = args.data_dir.join("pki");
    anyhow::ensure!(pki.is_dir(), "{} is not there: is this the folder of a store?", pki.display());
    store::issue(&args.data_dir, &args.server, (name, groups), args.days, &args.kubeconfig_out)?;
    Ok(())
}

fn backup(data_dir: &Path, to: &Path) -> Result<()> {
    let made = store::backup(data_dir, to)?;
    let (objects, revision) = (made.objects, made.revision);
    say(&format!("{}: {objects} objects, revision {revision}\n", to.display()));
    Ok(())
}

fn restore(data_dir: &Path, from: &Path, replace: bool) -> Result<()> {
    let restored = store::restore(from, data_dir, replace)?;
    let manifest = &restored.manifest;
    say(&format!(
        "{}: {} objects as of {}, revision {}; goes on from {}\n",
        data_dir.display(),
        manifest.objects,
        manifest.created,
        manifest.revision,
        restored.revision
    ));
    if let Some(replaced) = restored.replaced {
        say(&format!("the store that was there is now {}\n", replaced.display()));
    }
    Ok(())
}

fn check(args: &Check) -> ExitCode {
    let checked = match (&args.data_dir, &args.backup) {
        (Some(data_dir), _) => store::check(data_dir),
        (None, Some(backup)) => store::check_backup(backup),
        (None, None) => unreachable!("the command line wants one of them"),
    };
    let report = match checked {
        Ok(report) => report,
        Err(error) => {
            let error = anyhow::Error::new(error);
            super::tell(&mut std::io::stderr(), &format!("calico store: {error:#}\n"));
            return ExitCode::from(2);
        }
    };
    for (kind, lines) in [("error", &report.errors), ("warning", &report.warnings)] {
        for line in lines {
            say(&format!("{kind}: {line}\n"));
        }
    }
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    say(&format!(
        "{} objects, {} changes, revision {}: {errors} errors, {warnings} warnings\n",
        report.objects, report.changes, report.revision
    ));
    if errors > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn say(text: &str) {
    super::tell(&mut std::io::stdout(), text);
}
