//! `node preflight`: who else can decide about packets on this machine, before us and behind us.

use anyhow::Result;
use hooks::{Finding, When, look};

use crate::Outcome;
use crate::args::{NodePreflightArgs, ResultOutput};
use crate::print::{Out, Table, complain};

pub(crate) fn preflight(args: &NodePreflightArgs) -> Result<Outcome> {
    let look = look();
    let mut out = Out::new();
    if args.output == ResultOutput::Json {
        for finding in &look.found {
            out.line(&serde_json::to_string(finding)?)?;
        }
    } else {
        tell(&look.found, &mut out)?;
    }
    out.finish()?;
    for part in &look.unseen {
        complain(&format!("could not be looked at: {part}"));
    }
    complain(look.not_seen());
    Ok(if look.unseen.is_empty() { Outcome::Done } else { Outcome::Failed })
}

fn tell(found: &[Finding], out: &mut Out) -> Result<()> {
    for (when, title) in
        [(When::Before, "Before policy is asked:"), (When::After, "Behind what policy accepts:")]
    {
        let mut table = Table::new(["KIND", "HOOK", "PRIORITY", "WHO", "MAY", "WHAT TO DO"]);
        let here: Vec<&Finding> = found.iter().filter(|f| f.when == when).collect();
        for f in &here {
            let effects: Vec<&str> = f.effects.iter().map(|e| e.as_str()).collect();
            let priority = f.priority.map(|p| p.to_string()).unwrap_or_default();
            let effects = effects.join(" ");
            let cells = [f.kind.as_str(), f.hook, &priority, &f.name, &effects, f.advice];
            table.row(cells.map(str::to_owned));
        }
        out.line(title)?;
        if here.is_empty() {
            out.line("  nobody")?;
        } else {
            out.table(&table)?;
        }
    }
    Ok(())
}
