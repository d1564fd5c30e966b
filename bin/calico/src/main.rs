//! One binary, several programs: it runs the one it is called as (`calicoctl`, `kubectl-calico`,
//! `calico-node`, ...), or the one that its first argument names.

mod aggregation;
mod apiserver;
#[cfg(test)]
mod reference;
mod serving;
mod store;
mod webhooks;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// A program of this binary.
#[derive(Clone, Copy)]
struct Program {
    /// The word after `calico`.
    word: &'static str,
    /// Names under which it may be called.
    names: &'static [&'static str],
    about: &'static str,
    run: fn(Vec<OsString>) -> ExitCode,
}

const PROGRAMS: [Program; 6] = [
    Program {
        word: "ctl",
        names: &["calicoctl", "kubectl-calico"],
        about: "resources, addresses, status: calicoctl",
        run: |args| ctl::run(args),
    },
    Program {
        word: "node",
        names: &["calico-node"],
        about: "the agent of a node",
        run: |args| node::run(args),
    },
    Program {
        word: "sandbox",
        names: &["calico-sandbox"],
        about: "a cluster on this machine",
        run: |args| sandbox::run(args),
    },
    Program {
        word: "apiserver",
        names: &["calico-apiserver"],
        about: "the API of Calico's kinds over etcd or Kubernetes",
        run: apiserver::run,
    },
    Program {
        word: "webhooks",
        names: &["calico-webhooks"],
        about: "admission of Calico's kinds in a Kubernetes API server",
        run: webhooks::run,
    },
    Program { word: "store", names: &["calico-store"], about: "the embedded API", run: store::run },
];

fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let called = args.first().and_then(|a| Path::new(a).file_name()).map(OsStr::to_owned);
    let called = called.unwrap_or_default();
    if let Some(p) = PROGRAMS.iter().find(|p| p.names.iter().any(|n| *n == called)) {
        return (p.run)(args);
    }
    let word = args.get(1).cloned().unwrap_or_default();
    if let Some(p) = PROGRAMS.iter().find(|p| p.word == word) {
        args.remove(0);
        return (p.run)(args);
    }
    match word.to_str() {
        Some("version" | "--version" | "-V") => {
            tell(&mut std::io::stdout(), &format!("calico {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some("help" | "--help" | "-h") => tell(&mut std::io::stdout(), &usage()),
        _ => {
            tell(&mut std::io::stderr(), &usage());
            ExitCode::from(2)
        }
    }
}

fn usage() -> String {
    let lines =
        PROGRAMS.map(|p| format!("  {:<9} {} (as {})\n", p.word, p.about, p.names.join(", ")));
    format!(
        "usage: calico PROGRAM [ARGUMENTS]\n\nprograms:\n{}  version  the version\n",
        lines.concat()
    )
}

/// A reader that has gone away is no error.
fn tell(to: &mut impl Write, text: &str) -> ExitCode {
    drop(to.write_all(text.as_bytes()));
    ExitCode::SUCCESS
}
