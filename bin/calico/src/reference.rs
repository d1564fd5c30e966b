//! The reference pages of the command lines are what the programs take. `make reference` writes them anew.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

const CALICOCTL: &str = "\
# calicoctl, command by command

Made from the code; `calicoctl COMMAND --help` says the same. What holds for all commands (how the datastore is found,
exit codes, versions, templates) is in [calicoctl.md](calicoctl.md). `calico ctl` and, as a plugin, `kubectl calico` are
other ways to call it.
";

const PROGRAMS: &str = "\
# The other programs

Made from the code; `--help` says the same. `calico` holds all programs: `calico store` may as well be called by a link
of the name `calico-store`, and so on. calicoctl has [a page of its own](calicoctl-help.md). The CNI plugin `calico-cni`
takes no arguments: what it wants comes from the container runtime, in the environment and on standard input.
";

#[test]
fn the_reference_pages_are_current() {
    let manifest = |name| crate::aggregation::ManifestArgs::command().name(name);
    let programs = [
        node::command(),
        crate::store::Cli::command(),
        crate::apiserver::Cli::command(),
        manifest("calico apiserver manifest"),
        crate::webhooks::Cli::command(),
        manifest("calico webhooks manifest"),
        sandbox::command(),
    ];
    let pages = [
        ("calicoctl-help.md", page(CALICOCTL, [ctl::command(OsStr::new("calicoctl"))])),
        ("programs.md", page(PROGRAMS, programs)),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    for (name, page) in pages {
        let path = folder.join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/reference/{name} is old: run `make reference`");
    }
}

fn page(head: &str, commands: impl IntoIterator<Item = Command>) -> String {
    let mut page = head.to_owned();
    for mut command in commands {
        command.build();
        section(&mut page, &command, command.get_name());
    }
    page
}

fn section(page: &mut String, command: &Command, name: &str) {
    let about = command.get_long_about().or(command.get_about());
    write!(page, "\n## {name}\n\n{}\n", prose(about)).unwrap();
    let usage = command.clone().render_usage().to_string();
    write!(page, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ")).unwrap();

    let below = |c: &&Command| !c.is_hide_set() && c.get_name() != "help";
    let commands: Vec<&Command> = command.get_subcommands().filter(below).collect();
    if !commands.is_empty() {
        page.push_str("\n| command | |\n|---|---|\n");
        for inner in &commands {
            let (path, about) = (format!("{name} {}", inner.get_name()), prose(inner.get_about()));
            writeln!(page, "| [{path}](#{}) | {} |", path.replace(' ', "-"), cell(&about)).unwrap();
        }
    }
    // What every command takes stands with the first.
    let first = !name.contains(' ') || command.get_name() == name;
    let shown = |arg: &&Arg| {
        let known = ["help", "version"].contains(&arg.get_id().as_str());
        !arg.is_hide_set() && !known && (first || !arg.is_global_set())
    };
    let arguments: Vec<&Arg> = command.get_arguments().filter(shown).collect();
    if !arguments.is_empty() {
        page.push_str("\n| argument | default | variable | |\n|---|---|---|---|\n");
        for arg in arguments {
            writeln!(page, "| {} |", row(arg).join(" | ")).unwrap();
        }
    }
    if let Some(examples) = command.get_after_help() {
        let examples = examples.to_string();
        let lines = examples.lines().skip_while(|line| !line.starts_with(' '));
        let lines: Vec<&str> = lines.map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        write!(page, "\n```sh\n{}\n```\n", lines.join("\n")).unwrap();
    }
    for inner in commands {
        section(page, inner, &format!("{name} {}", inner.get_name()));
    }
}

fn row(arg: &Arg) -> [String; 4] {
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let argument = format!("{short}`{arg}`");
    let taken = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let default = arg.get_default_values().iter().filter(|_| taken);
    let default: Vec<String> = default.map(|v| format!("`{}`", v.to_string_lossy())).collect();
    let variable = arg.get_env().map(|v| format!("`{}`", v.to_string_lossy()));
    let mut meaning = prose(arg.get_long_help().or(arg.get_help()));
    let words = arg.get_possible_values();
    if taken && !words.is_empty() {
        let word = |word: &clap::builder::PossibleValue| match word.get_help() {
            Some(help) => format!("`{}`: {}", word.get_name(), prose(Some(help))),
            None => format!("`{}`", word.get_name()),
        };
        let words: Vec<String> = words.iter().filter(|w| !w.is_hide_set()).map(word).collect();
        let stop = if meaning.is_empty() || meaning.ends_with('.') { "" } else { "." };
        write!(meaning, "{stop} One of {}.", words.join("; ")).unwrap();
    }
    [argument, default.join(", "), variable.unwrap_or_default(), meaning].map(|text| cell(&text))
}

/// Text of help without the breaks of its lines.
fn prose(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|")
}
