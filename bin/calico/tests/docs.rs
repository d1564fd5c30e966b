//! The pages of `docs/` that show commands: a user who types them sees what the page says.
//!
//! Of a page, in order: a `yaml` block that begins with `# NAME` is the file NAME; each line of a `console` block that
//! begins with `$ ` is run, and what follows is what it says; an `sh` block is run and must succeed. Where an output differs
//! from time to time, a line `...` stands for any lines and `…` for any text in a line. `BLESS=1` writes what is said into the
//! pages, without such marks.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{CALICO, Said};

/// Ends what one command said; the code of its end follows.
const END: &str = "=== that was it, code ";

#[derive(Debug, PartialEq)]
enum Part {
    /// Text, and what is between fences that nobody runs.
    Text(String),
    File(String, String),
    /// Commands of a console, each with what it says.
    Console(Vec<(String, String)>),
    Script(String),
}

fn parts(page: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let language = line.strip_prefix("```").filter(|l| ["yaml", "console", "sh"].contains(l));
        let Some(language) = language else {
            writeln!(text, "{line}").unwrap();
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
        let all = body.join("\n") + "\n";
        let name = body.first().and_then(|first| first.strip_prefix("# "));
        let part = match (language, name) {
            ("yaml", Some(name)) if !name.contains(['/', ' ']) => Part::File(name.to_owned(), all),
            ("console", _) => Part::Console(commands(&body)),
            ("sh", _) => Part::Script(all),
            _ => Part::Text(format!("```{language}\n{all}```\n")),
        };
        parts.push(Part::Text(std::mem::take(&mut text)));
        parts.push(part);
    }
    parts.push(Part::Text(text));
    parts
}

fn commands(body: &[&str]) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in body {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, said))) => writeln!(said, "{line}").unwrap(),
            (None, None) => panic!("a console begins with a command, not with {line:?}"),
        }
    }
    commands
}

fn written(parts: &[Part]) -> String {
    let mut page = String::new();
    for part in parts {
        match part {
            Part::Text(text) => page += text,
            Part::File(_, text) => write!(page, "```yaml\n{text}```\n").unwrap(),
            Part::Script(text) => write!(page, "```sh\n{text}```\n").unwrap(),
            Part::Console(commands) => {
                page += "```console\n";
                for (run, said) in commands {
                    write!(page, "$ {run}\n{said}").unwrap();
                }
                page += "```\n";
            }
        }
    }
    page
}

/// Whether `said` is what `wanted` says, marks included.
fn same(wanted: &[&str], said: &[&str]) -> bool {
    match (wanted.split_first(), said.split_first()) {
        (None, None) => true,
        (Some((&"...", rest)), _) => (0..=said.len()).any(|skip| same(rest, &said[skip..])),
        (Some((want, wanted)), Some((line, said))) => same_line(want, line) && same(wanted, said),
        _ => false,
    }
}

fn same_line(want: &str, line: &str) -> bool {
    let Some((start, rest)) = want.split_once('…') else {
        return want.trim_end() == line.trim_end();
    };
    let Some(left) = line.strip_prefix(start) else { return false };
    let mut tails = left.char_indices().map(|(at, _)| at).chain([left.len()]);
    tails.any(|at| same_line(rest, &left[at..]))
}

/// A folder with the programs that users have in their `PATH`, and a sandbox that is this page's own.
struct Desk {
    folder: tempfile::TempDir,
    sandbox: String,
}

impl Desk {
    fn new(page: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stem = Path::new(page).file_stem().unwrap().to_str().unwrap();
        let desk = Self { folder, sandbox: format!("{stem}-{}", std::process::id()) };
        let bin = desk.path("bin");
        fs::create_dir(&bin).unwrap();
        fs::create_dir(desk.path("work")).unwrap();
        let (name, state) = (&desk.sandbox, desk.path("state"));
        let calico = format!(
            "#!/bin/sh\n[ \"$1\" = sandbox ] || exec {CALICO} \"$@\"\nshift\nexec {CALICO} sandbox --name {name} --state-dir {} \"$@\"\n",
            state.display()
        );
        fs::write(bin.join("calico"), calico).unwrap();
        fs::set_permissions(bin.join("calico"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink(CALICO, bin.join("calicoctl")).unwrap();
        symlink(testkit::kube_program("kubectl"), bin.join("kubectl")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What each of the commands says, and how it ends.
    fn run(&self, commands: &[&str]) -> Vec<(String, i32)> {
        let mut script = String::from("exec 2>&1 </dev/null\n");
        for command in commands {
            write!(script, "{{ {}\n}}\nprintf '\\n%s%s\\n' '{END}' $?\n", command.trim_end())
                .unwrap();
        }
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).current_dir(self.path("work")).env("PATH", path);
        for variable in ["KUBECONFIG", "DATASTORE_TYPE", "COLUMNS"] {
            bash.env_remove(variable);
        }
        let output = bash.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut said = Vec::new();
        let mut last = String::new();
        for line in text.lines() {
            match line.strip_prefix(END) {
                Some(code) => {
                    let text = std::mem::take(&mut last);
                    let text = text.trim_end();
                    let text = if text.is_empty() { String::new() } else { format!("{text}\n") };
                    said.push((text, code.parse().unwrap()));
                }
                None => writeln!(last, "{line}").unwrap(),
            }
        }
        assert_eq!(said.len(), commands.len(), "{text}");
        said
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let state = self.path("state");
        if state.exists() {
            let name = self.sandbox.as_str();
            let mut down = Command::new(CALICO);
            down.args(["sandbox", "--name", name, "--state-dir"]).arg(state).arg("down");
            drop(down.stderr(Stdio::null()).status());
        }
    }
}

fn check(page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let mut parts = parts(&fs::read_to_string(&path).unwrap());
    let desk = Desk::new(page);
    let mut commands = Vec::new();
    for part in &parts {
        match part {
            Part::Text(_) => (),
            Part::File(name, text) => fs::write(desk.path("work").join(name), text).unwrap(),
            Part::Script(text) => commands.push(text.as_str()),
            Part::Console(all) => commands.extend(all.iter().map(|(run, _)| run.as_str())),
        }
    }
    assert!(!commands.is_empty(), "{page} shows no commands");
    let mut said = desk.run(&commands).into_iter();
    let mut wrong = String::new();
    let mut differs = false;
    for part in &mut parts {
        match part {
            Part::Text(_) | Part::File(..) => (),
            Part::Script(text) => {
                let (said, code) = said.next().unwrap();
                if code != 0 {
                    writeln!(wrong, "{text}failed with {code}: {said}").unwrap();
                }
            }
            Part::Console(all) => {
                for (run, wanted) in all {
                    let (said, _) = said.next().unwrap();
                    let (want, have): (Vec<_>, Vec<_>) =
                        (wanted.lines().collect(), said.lines().collect());
                    if !same(&want, &have) {
                        write!(wrong, "$ {run}\nwanted:\n{wanted}said:\n{said}\n").unwrap();
                        *wanted = said;
                        differs = true;
                    }
                }
            }
        }
    }
    if differs && std::env::var_os("BLESS").is_some() {
        fs::write(&path, written(&parts)).unwrap();
    }
    assert!(wrong.is_empty(), "{page}:\n{wrong}");
}

#[test]
fn quick_start() {
    check("quick-start.md");
}

#[test]
fn policies_are_tested_before_they_are_applied() {
    check("how-to/test-policy.md");
}

#[test]
fn hosts_are_protected() {
    check("how-to/protect-hosts.md");
}

/// Also on pages whose commands are not run.
#[test]
fn objects_on_the_pages_are_valid() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folders = [docs.clone(), docs.join("how-to"), docs.join("concepts")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut objects = 0;
    for path in
        files.map(|file| file.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "md"))
    {
        let page = fs::read_to_string(&path).unwrap();
        for block in page.split("\n```yaml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let ours = |text: &&str| {
                text.contains("apiVersion: projectcalico.org/v3")
                    && !text.contains("kind: CalicoAPIConfig")
            };
            for object in block.split("---\n").filter(ours) {
                let mut validate = Command::new(CALICO);
                validate.args(["ctl", "validate", "-f", "-"]);
                let said = Said::of(&mut validate, object);
                assert_eq!(said.code, 0, "{}: {}\n{object}", path.display(), said.err);
                objects += 1;
            }
        }
    }
    assert!(objects > 5, "found only {objects}");
}

#[test]
fn pages_are_read_and_written() {
    let page = "# A\n\n```yaml\n# a.yaml\na: 1\n```\n\n```console\n$ one\nsaid\n$ two\n```\n```text\n$ no\n```\n```sh\nthree\n```\nend\n";
    let parts = parts(page);
    assert_eq!(written(&parts), page);
    assert!(parts.contains(&Part::File("a.yaml".into(), "# a.yaml\na: 1\n".into())));
    let console = vec![("one".into(), "said\n".into()), ("two".into(), String::new())];
    assert!(parts.contains(&Part::Console(console)));
    assert!(parts.contains(&Part::Script("three\n".into())));
}

#[test]
fn what_counts_as_the_same() {
    for (wanted, said, want) in [
        ("a\nb", "a\nb", true),
        ("a\n...", "a\nb\nc", true),
        ("...\nc", "a\nb\nc", true),
        ("a …s x", "a 12s x", true),
        ("…", "", true),
        ("a\nb", "a", false),
        ("a", "a\nb", false),
        ("...\nd", "a\nb", false),
        ("a …s x", "a 12 x", false),
    ] {
        let (wanted, said) = (wanted.lines().collect::<Vec<_>>(), said.lines().collect::<Vec<_>>());
        let said = if said.is_empty() { vec![""] } else { said };
        assert_eq!(same(&wanted, &said), want, "{wanted:?} {said:?}");
    }
}
