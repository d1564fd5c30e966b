//! A test on the kernel of `dev/vm`.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// Tells the test in the machine where it is.
const INSIDE: &str = "TESTKIT_IN_VM";

/// Runs `inside` on another kernel than this one, as root: the calling test executable runs again in a virtual machine,
/// with its test `name` alone. `options` are those of `dev/vm/run.sh`: modules, and what else is to be there. Seconds.
///
/// # Panics
/// If the machine is not there (`make vm`), or the test fails in it; with what it printed.
pub fn in_vm(name: &str, options: &[&str], inside: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return inside();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vm/run.sh");
    let test = env::current_exe().expect("this test's file");
    // It ends with this test, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(&script).args(["-e", &format!("{INSIDE}=1")]);
    command.args(options).arg(test).args(["--exact", name, "--nocapture"]);
    let done = command.stdin(Stdio::null()).output().expect("setpriv starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&done.stdout), text(&done.stderr));
    assert!(done.status.success(), "in the virtual machine: {}\n{out}{err}", done.status);
    assert!(out.contains("1 passed"), "{name} is no test of {}:\n{out}", script.display());
}
