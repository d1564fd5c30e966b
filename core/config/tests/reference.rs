//! The reference page of the parameters is what the code says. `BLESS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use api::v3::felix::PARAMETERS;

const HEAD: &str = "\
# Configuration of the node agent

Made from the code; `calicoctl config explain [NAME]` says the same, and `calicoctl node config` on a node
says which value is in force there and where it comes from.

A value is taken from the first of these that has one: the environment (`FELIX_` and the name, in any case),
the configuration file (`/etc/calico/felix.cfg` or `calico-node --config-file FILE`: lines of `Name = value`),
the FelixConfiguration `node.NAME`, those whose `nodeSelector` matches the node (the oldest first), the
FelixConfiguration `default`, and what is built in. A value that is wrong is logged and the built-in one is
used; for parameters marked with **!** the agent refuses to start, and a running one stays as it was
configured. A change of `logSeverityScreen` takes effect at once; after any other that the agent reads it
ends with exit code 129, to be started again, while traffic goes on.

A parameter is accepted wherever upstream accepts it. Those that concern parts which are not there yet (the
README says which) change nothing.

";

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| parameter | field | values | default | |\n|---|---|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|");
    let code = |text: &str| if text.is_empty() { "-".into() } else { format!("`{}`", cell(text)) };
    let mut rows: Vec<_> = PARAMETERS.iter().collect();
    rows.sort_by_key(|row| row.name.to_lowercase());
    for row in rows {
        let stop = if row.die_on_fail { " **!**" } else { "" };
        let (name, values) = (code(row.name), cell(&config::values(row.kind)));
        let (field, default, about) = (code(row.field), code(row.default), cell(row.about));
        writeln!(page, "| {name}{stop} | {field} | {values} | {default} | {about} |").unwrap();
    }
    page
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/configuration.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/reference/configuration.md is old: run this with BLESS=1");
}
