//! A sandbox of its own for each test, with the clients that users have.

pub(crate) mod holdings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;

/// The binary under test.
pub(crate) const CALICO: &str = env!("CARGO_BIN_EXE_calico");

/// How long the data plane may take to follow a change, on a machine that has other work.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl Said {
    /// Runs a command with `input` as its standard input.
    pub(crate) fn of(command: &mut Command, input: &str) -> Self {
        let (stdin, stdout, stderr) = (Stdio::piped(), Stdio::piped(), Stdio::piped());
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("{command:?}: {e}"));
        // A command that does not read to the end is its own affair.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it can be waited for");
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// What it printed, if it succeeded.
    pub(crate) fn done(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.out) } else { Err(format!("{}{}", self.out, self.err)) }
    }

    /// The output as JSON values, one a line.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.out.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{e} in {}", self.out))
    }
}

/// The built kubectl; building it is `make setup`'s work, which this does when it was skipped.
fn kubectl() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev/kube/build.sh");
        let said = Said::of(Command::new(script).arg("kubectl"), "");
        PathBuf::from(said.done().unwrap_or_else(|e| panic!("{script}: {e}")).trim())
    })
}

/// A name and a state folder for one sandbox, which may be up. Removed on drop.
pub(crate) struct Sandbox {
    pub(crate) name: String,
    pub(crate) home: tempfile::TempDir,
}

/// What stands in the kernel and in the process table outside of the sandboxes of other tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    namespaces: BTreeSet<String>,
    links: BTreeSet<String>,
    processes: BTreeMap<i32, String>,
    files: BTreeSet<PathBuf>,
}

impl Sandbox {
    /// Nothing is up yet.
    pub(crate) fn new() -> Self {
        let plugin = Path::new(CALICO).with_file_name("calico-cni");
        assert!(
            plugin.exists(),
            "{} is not there: `cargo build --release --bins -p calico -p cni` makes it",
            plugin.display()
        );
        Self { name: testkit::unique("t"), home: tempfile::tempdir().expect("a folder") }
    }

    /// A sandbox that is up.
    pub(crate) fn up(options: &str) -> Self {
        let it = Self::new();
        it.run(&format!("up {options}"));
        it
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// `calico sandbox WORDS`, for this sandbox.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(CALICO);
        command.args(["sandbox", "--name", &self.name, "--state-dir"]).arg(self.state_dir());
        command.args(words.split_whitespace());
        command
    }

    pub(crate) fn ask(&self, words: &str) -> Said {
        Said::of(&mut self.command(words), "")
    }

    /// Runs a command that must succeed; comes out what it printed.
    pub(crate) fn run(&self, words: &str) -> String {
        self.ask(words).done().unwrap_or_else(|e| panic!("calico sandbox {words}: {e}"))
    }

    /// Runs a command of a pod; its name, a space, and the command.
    pub(crate) fn exec(&self, pod: &str, command: &[&str]) -> Said {
        Said::of(self.command(&format!("exec {pod} --")).args(command), "")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.state_dir().join(&self.name).join("kubeconfig")
    }

    /// `kubectl WORDS`, with `input` as its standard input.
    pub(crate) fn ask_kubectl(&self, words: &str, input: &str) -> Said {
        let mut command = Command::new(kubectl());
        command
            .args(words.split_whitespace())
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", self.kubeconfig());
        Said::of(&mut command, input)
    }

    /// Runs a command that must succeed; comes out what it printed.
    pub(crate) fn kubectl(&self, words: &str, input: &str) -> String {
        let said = self.ask_kubectl(words, input).done();
        said.unwrap_or_else(|e| panic!("kubectl {words}: {e}\n{input}"))
    }

    pub(crate) fn json(&self, words: &str) -> Value {
        let text = self.kubectl(&format!("{words} -o json"), "");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("kubectl {words}: {e}\n{text}"))
    }

    /// Waits until all pods are ready.
    pub(crate) fn pods_ready(&self) {
        self.kubectl("wait --for=condition=Ready pod --all -A --timeout=60s", "");
    }

    /// Probes until the wanted answers come: (from, to) → reachable. Other pairs do not matter.
    pub(crate) fn expect_probe(&self, words: &str, wanted: &[(&str, &str, bool)], why: &str) {
        eventually(why, || {
            let said = self.ask(&format!("probe -o json {words}"));
            if said.code != 0 {
                return Err(said.err);
            }
            let measured: BTreeMap<(String, String), bool> =
                said.lines().iter().map(|o| (pair(o), o["reachable"] == true)).collect();
            for (from, to, reachable) in wanted {
                let got = measured.get(&((*from).to_owned(), (*to).to_owned()));
                if got != Some(reachable) {
                    return Err(format!("{from} to {to} {words}: {got:?}, wanted {reachable}"));
                }
            }
            Ok(())
        });
    }

    /// Probes until every connection does what the policies say; the answers.
    pub(crate) fn expect_agreement(&self, words: &str, why: &str) -> Vec<Value> {
        eventually(why, || {
            let said = self.ask(&format!("probe --expect -o json {words}"));
            if said.code == 0 && !said.out.is_empty() {
                return Ok(said.lines());
            }
            let differs = |a: &Value| a["answered"] != a["expected"];
            let wrong =
                |o: &&Value| o["addresses"].as_array().is_some_and(|a| a.iter().any(differs));
            let wrong: Vec<_> = said.lines().iter().filter(wrong).map(Value::to_string).collect();
            Err(format!("{}{}", said.err, wrong.join("\n")))
        })
    }

    /// The network namespace of a pod, as the kernel numbers it, opened.
    pub(crate) fn pod_netns(&self, pod: &str) -> File {
        let said = self.exec(pod, &["readlink", "/proc/self/ns/net"]).done().expect("a pod's");
        let inode: u64 =
            said.trim().trim_start_matches("net:[").trim_end_matches(']').parse().expect("net:[N]");
        let entries = std::fs::read_dir("/run/netns").expect("it can be listed").flatten();
        let found = entries.map(|e| e.path()).find(|p| inode_of(p) == Some(inode));
        File::open(found.expect("a named namespace")).expect("it can be opened")
    }

    /// Runs a command in the namespace of a node.
    pub(crate) fn on_node(&self, node: &str, command: &str) -> String {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &format!("{}-{node}", self.name)]);
        let said = Said::of(ip.args(command.split_whitespace()), "").done();
        said.unwrap_or_else(|e| panic!("{command} on {node}: {e}"))
    }

    /// The process with these texts in its command line or environment, of this sandbox.
    pub(crate) fn process(&self, has: &[&str]) -> Option<i32> {
        let (dir, name) = (self.state_dir().display().to_string(), format!("{}-", self.name));
        let belongs = |p: &&i32| {
            let text = command_line(**p) + &environment(**p);
            (text.contains(&dir) || text.contains(&name)) && has.iter().all(|h| text.contains(h))
        };
        processes().iter().find(belongs).copied()
    }

    /// Waits for a process, and for another than `not`.
    pub(crate) fn wait_process(&self, has: &[&str], not: Option<i32>) -> i32 {
        eventually(&format!("{has:?}"), || {
            self.process(has).filter(|p| Some(*p) != not).ok_or_else(|| "no process".to_owned())
        })
    }

    /// The agent of a node.
    pub(crate) fn agent(&self, node: &str) -> i32 {
        self.wait_process(&[&format!("NODENAME={node} ")], None)
    }

    /// What this sandbox has left anywhere; and the links of the machine.
    pub(crate) fn traces(&self) -> Traces {
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        let namespaces: BTreeSet<_> =
            names.filter(|n| n.starts_with(&format!("{}-", self.name))).collect();
        let links = Said::of(Command::new("ip").args(["-br", "link"]), "").done().expect("ip");
        let word = |l: &str| l.split_whitespace().next().unwrap_or_default().to_owned();
        let dir = self.home.path().display().to_string();
        let own = std::process::id();
        let ours = |p: &i32| {
            let text = command_line(*p) + &environment(*p);
            u32::try_from(*p) != Ok(own)
                && (text.contains(&dir) || text.contains(&format!("/{}-", self.name)))
        };
        let files = walk(&self.state_dir());
        Traces {
            namespaces,
            links: links.lines().map(word).collect(),
            processes: processes().into_iter().filter(ours).map(|p| (p, command_line(p))).collect(),
            files,
        }
    }

    /// The kernel's numbers of all namespaces of this sandbox.
    pub(crate) fn netns_inodes(&self) -> BTreeSet<u64> {
        let folder = Path::new("/run/netns");
        self.traces().namespaces.iter().filter_map(|n| inode_of(&folder.join(n))).collect()
    }

    /// Takes it down, and checks that nothing of it is left.
    pub(crate) fn down(&self, before: &Traces) {
        let namespaces = self.netns_inodes();
        self.run("down");
        eventually("down removes everything", || {
            let after = self.traces();
            let inside = |p: &i32| {
                let inode = inode_of(Path::new(&format!("/proc/{p}/ns/net")));
                inode.is_some_and(|i| namespaces.contains(&i))
            };
            let left: Vec<_> = processes().into_iter().filter(inside).map(command_line).collect();
            if after == *before && left.is_empty() {
                Ok(())
            } else {
                Err(format!("{after:?} instead of {before:?}; in its namespaces: {left:?}"))
            }
        });
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        let _ = self.ask("down");
    }
}

impl Sandbox {
    /// The last lines of each log: a failed test must be explainable.
    fn print_logs(&self) {
        let folders = [self.name.clone() + "/log", self.name.clone() + ".failed"];
        for folder in folders {
            let entries = std::fs::read_dir(self.state_dir().join(folder)).into_iter().flatten();
            for path in entries.flatten().map(|e| e.path()) {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<_> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(25)..];
                if !last.is_empty() {
                    eprintln!("--- {}\n{}", path.display(), last.join("\n"));
                }
            }
        }
    }
}

/// Source and target of a probe's answer.
pub(crate) fn pair(outcome: &Value) -> (String, String) {
    let text = |key: &str| outcome[key].as_str().expect("a text").to_owned();
    (text("from"), text("to"))
}

/// Tries until it succeeds.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + SOON;
    loop {
        match check() {
            Ok(value) => return value,
            Err(error) if Instant::now() > end => panic!("{what}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(30)),
        }
    }
}

/// Runs `work` on a thread inside a namespace.
pub(crate) fn inside<T: Send + 'static>(
    netns: File,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        setns(&netns, CloneFlags::CLONE_NEWNET).expect("a namespace can be entered (root?)");
        work()
    })
}

fn inode_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|m| m.ino())
}

fn processes() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("it can be listed").flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The words of a process, each with a space after it.
pub(crate) fn command_line(pid: i32) -> String {
    spaced(pid, "cmdline")
}

fn environment(pid: i32) -> String {
    spaced(pid, "environ")
}

fn spaced(pid: i32, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn walk(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
        found.extend(walk(&path));
        found.insert(path);
    }
    found
}
