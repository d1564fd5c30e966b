//! calicoctl as a script sees it: a process with output and an exit code.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the library in a process of its own: this very test binary, told so by the environment.
pub(crate) fn calicoctl(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_calicoctl", "--nocapture"])
        .env("CALICOCTL_ARGS", args.join("\n"))
        .env_remove("KUBECONFIG")
        .env("HOME", folder)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // What does not read its input is no failure of the test.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

/// What the child process runs. A test file has a test `as_calicoctl` that calls this.
pub(crate) fn run_if_told() {
    let Ok(args) = std::env::var("CALICOCTL_ARGS") else { return };
    let args = std::iter::once("calicoctl").chain(args.lines()).map(Into::into);
    let code = ctl::run(args);
    // `ExitCode` keeps its number to itself, but its text does not.
    let text = format!("{code:?}");
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    std::process::exit(digits.parse().unwrap());
}

/// Standard output without the test harness's own lines.
pub(crate) fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let own = |l: &&str| !l.is_empty() && !l.starts_with("running ");
    text.lines().filter(own).map(str::to_owned).collect()
}
