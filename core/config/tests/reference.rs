//! The reference pages of the settings are what the code says. `make reference` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use api::v3::felix::{Applied, PARAMETERS};
use config::{Component, Row};

const CONFIGURATION: &str = "\
# Configuration of the node agent

Made from the code; `calicoctl config explain [NAME]` says the same, and `calicoctl node config` on a node
says which value is in force there and where it comes from.

A value is taken from the first of these that has one: the environment (`FELIX_` and the name, in any case),
the configuration file (`/etc/calico/felix.cfg` or `calico-node --config-file FILE`: lines of `Name = value`),
the FelixConfiguration `node.NAME`, those whose `nodeSelector` matches the node (the oldest first), the
FelixConfiguration `default`, and what is built in. A value that is wrong is logged and the built-in one is
used; for parameters marked with **!** the agent refuses to start, and a running one stays as it was
configured.

The column *a change* says how one reaches an agent that runs. **Live**: at once, and nothing restarts;
flows that go on are judged by what is configured now. **Restart**: the agent ends with exit code 129, to
be started again, while traffic goes on under what is programmed; the environment and the file are read at the
start only. **-**: nothing reads the parameter, neither at the start nor later. It is accepted wherever upstream
accepts it, and changes nothing: what it is about does not exist (the README says which parts are there yet), or
works without it.

";

const ENVIRONMENT: &str = "\
# Environment

Made from the code. These are the variables that the programs read besides those of FelixConfiguration
(`FELIX_` and a name: see [configuration.md](configuration.md)); `calicoctl config explain [NAME]` knows them
all, and `calicoctl node config` on a node says which value the agent there has and where it comes from.
They are read once, when a program starts. A variable that is empty counts as not set, and spaces around a
value do not matter (but in a password).

With a bad value of a variable marked with **!** the program does not start, and says which one it is; any
other is logged and left out. Of those marked with **-** nothing takes notice yet: they are here because
upstream's programs read them, and what they are about is not there (the README says which parts are).

True is written `true`, `yes`, `y`, `t` or `1`, and where the table says so also `on` or `enabled`; false `false`,
`no`, `n`, `f`, `0`, `off` or `disabled`; words in any case.

A node needs an address of one family at least. If an address is wanted and not found, or another node has
it, start-up is not complete: the agent logs the reason and tries again. The first pools
(`default-ipv4-ippool`, `default-ipv6-ippool`) are created when the agent starts and the cluster has no pool
of the family; variables about them have no effect on pools that are there.

";

const METHODS: &str = "
How an address is looked for (`IP_AUTODETECTION_METHOD`):

| method | what it takes |
|---|---|
| `first-found` | The first address, neither loopback nor link-local, of an interface that is up and is not of the kind that containers and tunnels use |
| `interface=NAMES` | The same, but of an interface with one of these names |
| `skip-interface=NAMES` | As `first-found`, without interfaces of these names |
| `cidr=PREFIXES` | The first address that lies in one of these prefixes |
| `can-reach=HOST` | The source address the kernel would use towards this address or name; no packet is sent to it |
| `kubernetes-internal-ip` | The `InternalIP` in the status of the Kubernetes Node |

NAMES and PREFIXES are lists with commas. In a name `.*` stands for anything, and `^` and `$` at its ends
may be written. Other regular expressions, which upstream accepts, are refused.
";

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn code(text: &str) -> String {
    if text.is_empty() { "-".into() } else { format!("`{}`", cell(text)) }
}

fn configuration() -> String {
    let mut page = CONFIGURATION.to_owned();
    page.push_str(
        "| parameter | field | values | default | a change | |\n|---|---|---|---|---|---|\n",
    );
    let mut rows: Vec<_> = PARAMETERS.iter().collect();
    rows.sort_by_key(|row| row.name.to_lowercase());
    for row in rows {
        let stop = if row.die_on_fail { " **!**" } else { "" };
        let applied = match row.applied {
            Applied::Live => "Live",
            Applied::Restart => "Restart",
            Applied::Unused => "-",
        };
        let (name, values) = (code(row.name), cell(&config::values(row.kind)));
        let (field, default, about) = (code(row.field), code(row.default), cell(row.about));
        writeln!(page, "| {name}{stop} | {field} | {values} | {default} | {applied} | {about} |")
            .unwrap();
    }
    page
}

fn environment() -> String {
    let mut page = ENVIRONMENT.to_owned();
    let components = Component::ALL.into_iter().filter(|component| *component != Component::Felix);
    for (component, group) in components.flat_map(|c| c.groups().iter().map(move |g| (c, g))) {
        let field = if component.resource().is_some() { " field |" } else { "" };
        let line = if field.is_empty() { "" } else { "---|" };
        writeln!(page, "## {}\n", group.title).unwrap();
        writeln!(page, "| variable |{field} values | default | |\n|---|{line}---|---|---|")
            .unwrap();
        for parameter in group.rows {
            let row = Row { component, parameter };
            let stop = if parameter.die_on_fail { " **!**" } else { "" };
            let unused = if parameter.applied == Applied::Unused { " **-**" } else { "" };
            let field = match component.resource() {
                Some(_) => format!(" {} |", code(parameter.field)),
                None => String::new(),
            };
            let name = code(&row.environment().unwrap_or_default());
            let values = cell(&config::values(parameter.kind));
            let (default, about) = (code(parameter.default), cell(parameter.about));
            writeln!(page, "| {name}{stop}{unused} |{field} {values} | {default} | {about} |")
                .unwrap();
        }
        page.push('\n');
        if group.rows.iter().any(|row| row.name == "IP_AUTODETECTION_METHOD") {
            page.push_str(METHODS.trim_start());
            page.push('\n');
        }
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page
}

#[test]
fn the_reference_pages_are_current() {
    for (name, page) in [("configuration.md", configuration()), ("environment.md", environment())] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
        let path = folder.join(name);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page, "docs/reference/{name} is old: run `make reference`");
    }
}
