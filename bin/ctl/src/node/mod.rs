//! `node status`, `node config`: ask the agent of this node. Beside them: what looks at the node itself.

pub(crate) mod checksystem;
pub(crate) mod preflight;
pub(crate) mod run;

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use config::Component;
use serde_json::Value;

use crate::Outcome;
use crate::args::{AgentArgs, NodeConfigArgs, NodeStatusArgs, ResultOutput};
use crate::parameters;
use crate::print::{Out, Table, cell, complain};

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn status(args: &NodeStatusArgs) -> Result<Outcome> {
    let status = ask(&args.agent, "status")?;
    let mut out = Out::new();
    if args.output == ResultOutput::Json {
        out.line(&status.to_string())?;
    } else {
        show(&status, &mut out)?;
    }
    out.finish()?;
    let well = status["live"] == true && status["ready"] == true;
    Ok(if well { Outcome::Done } else { Outcome::Failed })
}

pub(crate) fn config(args: &NodeConfigArgs) -> Result<Outcome> {
    let wanted = args.name.as_deref().map(parameters::known).transpose()?;
    let document = ask(&args.agent, "config")?;
    let Some(rows) = document["parameters"].as_array() else {
        bail!("the agent does not know its configuration yet: it waits for the datastore");
    };
    let shown = |row: &&Value| match &wanted {
        Some(wanted) => wanted.iter().any(|wanted| {
            // An older agent says it of its parameters only, and does not say so.
            let component = row["component"].as_str().unwrap_or(Component::Felix.name());
            row["name"] == wanted.parameter.name && component == wanted.component.name()
        }),
        None => !args.given || row["given"] == true,
    };
    let mut out = Out::new();
    let mut table = Table::new(["NAME", "VALUE", "SOURCE"]);
    for row in rows.iter().filter(shown) {
        let of = |path| cell(row, path);
        match args.output {
            ResultOutput::Json => out.line(&row.to_string())?,
            ResultOutput::Text => table.row([of(".name"), of(".value"), of(".source")]),
        }
    }
    if args.output == ResultOutput::Text {
        out.table(&table)?;
    }
    out.finish()?;
    for problem in document["problems"].as_array().into_iter().flatten() {
        let of = |path| cell(problem, path);
        complain(&format!(
            "left out: {} (from: {}): {}",
            of(".name"),
            of(".source"),
            of(".message")
        ));
    }
    Ok(Outcome::Done)
}

/// Asks the agent for `/status` or `/config`: over the socket in its folder, and over its health server where that is
/// asked for or no socket answers.
pub(crate) fn ask(at: &AgentArgs, what: &str) -> Result<Value> {
    let socket = at.run_dir.join("status.sock");
    let local = (at.host.is_none() && at.port.is_none()).then(|| local(&socket, what));
    let unanswered = match local {
        Some(Ok(document)) => return Ok(document),
        Some(Err(error)) => format!(" nor on {}: {error:#}", socket.display()),
        None => String::new(),
    };
    let (host, port) = at.health_server();
    over_tcp(&host, port, what).with_context(|| {
        format!("no agent answers on {host}:{port}{unanswered} (is calico-node running here? In a sandbox: `calico sandbox exec node:NAME -- calicoctl node {what}`)")
    })
}

fn local(socket: &Path, what: &str) -> Result<Value> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    json(&fetch(stream, "localhost", what)?)
}

fn over_tcp(host: &str, port: u16, what: &str) -> Result<Value> {
    json(&fetch(connect(host, port)?, host, what)?)
}

fn json(body: &str) -> Result<Value> {
    serde_json::from_str(body).context("the answer is no JSON")
}

/// A connection on which nothing takes for ever.
pub(crate) fn connect(host: &str, port: u16) -> Result<TcpStream> {
    let address = (host, port).to_socket_addrs()?.next().context("no such host")?;
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The body of what `GET /WHAT` answers.
pub(crate) fn fetch(mut stream: impl Read + Write, host: &str, what: &str) -> Result<String> {
    // In one piece: an agent may answer and close as soon as it has read enough.
    let request =
        format!("GET /{what} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(64 << 20).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let code = head.split(' ').nth(1).unwrap_or_default();
    if code != "200" {
        bail!("the answer is {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

fn show(status: &Value, out: &mut Out) -> Result<()> {
    let yes = |key: &str| if status[key] == true { "yes" } else { "no" };
    let mut table = Table::new(["NODE", "VERSION", "LIVE", "READY", "IN SYNC", "DATASTORE"]);
    let datastore = if status["datastore"]["connected"] == true { "connected" } else { "failing" };
    table.row([
        &cell(status, ".node"),
        &cell(status, ".version"),
        yes("live"),
        yes("ready"),
        yes("inSync"),
        datastore,
    ]);
    out.line(&table.boxed())?;
    if let Some(components) = status["components"].as_array().filter(|c| !c.is_empty()) {
        let mut table = Table::new(["COMPONENT", "LIVE", "READY", "DETAIL"]);
        for component in components {
            let of = |path| cell(component, path);
            table.row([of(".name"), of(".live"), of(".ready"), of(".detail")]);
        }
        out.line(&table.boxed())?;
    }
    for refused in status["refused"].as_array().into_iter().flatten() {
        let line = format!("{}: {}", cell(refused, ".object"), cell(refused, ".reasons"));
        complain(&format!("not programmed, denied instead: {line}"));
    }
    show_unconfirmed(status, out)?;
    if status["cutFlows"]["count"].as_u64().is_some_and(|n| n > 0) {
        let count = cell(&status["cutFlows"], ".count");
        out.line(&format!(
            "Established flows cut because policy denies them now: {count}, the last:"
        ))?;
        for flow in status["cutFlows"]["last"].as_array().into_iter().flatten() {
            out.line(&format!("  {}", flow.as_str().unwrap_or_default()))?;
        }
    }
    if let Some(foreign) = status["foreignHooks"].as_array().filter(|f| !f.is_empty()) {
        let count = foreign.len();
        out.line(&format!(
            "Hooks by which other programs decide about packets: {count} (calicoctl node preflight)"
        ))?;
    }
    out.line("BGP: not there yet; routes between nodes are programmed by the agent.")
}

/// Changes that wait for a confirmation, and the last that ended.
fn show_unconfirmed(status: &Value, out: &mut Out) -> Result<()> {
    for change in status["unconfirmed"].as_array().into_iter().flatten() {
        let of = |path| cell(change, path);
        let phase = match change["phase"].as_str() {
            Some("pending") => format!("in force, {} seconds left", of(".secondsLeft")),
            Some("seen") => "not in force yet".to_owned(),
            Some("reverted") => "taken back here, the datastore is to follow".to_owned(),
            _ => "confirmed".to_owned(),
        };
        let (id, objects) = (of(".transaction"), of(".objects"));
        out.line(&format!("Unconfirmed change {id}: {phase}: {objects}"))?;
    }
    for change in status["settled"].as_array().into_iter().flatten() {
        let of = |path| cell(change, path);
        out.line(&format!("Change {} was {}.", of(".transaction"), of(".decision")))?;
    }
    Ok(())
}
