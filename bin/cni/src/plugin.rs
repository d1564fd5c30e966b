//! A call from the first byte to the exit code.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::input::{BadInput, Command, Env, Input, SUPPORTED_VERSIONS};
use crate::protocol::{Failure, Reply, Request, codes};
use crate::spool;

/// Where the agent listens unless the configuration (`socket`) or the environment
/// (`CALICO_CNI_SOCKET`) says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/calico/cni.sock";

/// Configurations are small; anything longer is a mistake.
const MAX_INPUT: u64 = 4 << 20;

/// Does what the runtime asks and prints the answer.
pub fn run(env: &Env, stdin: impl Read, mut stdout: impl Write) -> ExitCode {
    let (document, code) = match answer(env, stdin) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(document)) => (document, ExitCode::SUCCESS),
        Err(bad) => (bad.failure.document(&bad.version), ExitCode::FAILURE),
    };
    let mut text = document.to_string();
    text.push('\n');
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(env: &Env, stdin: impl Read) -> Result<Option<Value>, BadInput> {
    let mut text = Vec::new();
    let version_only = env.command.as_deref() == Some(Command::Version.as_str());
    if let Err(e) = stdin.take(MAX_INPUT).read_to_end(&mut text) {
        let msg = format!("reading the network configuration: {e}");
        let failure = Failure::new(codes::IO_FAILURE, msg);
        return Err(BadInput { version: latest().into(), failure });
    }
    if version_only && text.iter().all(u8::is_ascii_whitespace) {
        return Ok(Some(versions(latest())));
    }
    let Input { command, request } = Input::parse(env, &text)?;
    let version = request.version().to_owned();
    if command == Command::Version {
        return Ok(Some(versions(&version)));
    }
    let socket = socket_of(&request, env);
    let result = match ask(&socket, command, &request) {
        Ok(Reply::Added(added)) => Ok(Some(added.document(&version))),
        Ok(Reply::Done) => Ok(None),
        Ok(Reply::Failed(failure)) => Err(failure),
        Err(e) => Err(unreachable_agent(command, &socket, &e)),
    };
    match result {
        Err(_) if command == Command::Del => {
            leave(&socket, &request);
            Ok(None)
        }
        other => other.map_err(|failure| BadInput { version, failure }),
    }
}

fn latest() -> &'static str {
    SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1]
}

fn versions(version: &str) -> Value {
    json!({"cniVersion": version, "supportedVersions": SUPPORTED_VERSIONS})
}

fn socket_of(request: &Request, env: &Env) -> PathBuf {
    let configured = request.config.get("socket").and_then(Value::as_str);
    configured.or(env.socket.as_deref()).unwrap_or(DEFAULT_SOCKET).into()
}

/// How long the agent may take; it answers on its own well before.
fn patience(command: Command) -> Duration {
    match command {
        Command::Add => Duration::from_mins(2),
        _ => Duration::from_secs(30),
    }
}

fn ask(socket: &PathBuf, command: Command, request: &Request) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience(command)))?;
    stream.set_write_timeout(Some(patience(command)))?;
    stream.write_all(&serde_json::to_vec(request)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.take(MAX_INPUT).read_to_end(&mut reply)?;
    Ok(serde_json::from_slice(&reply)?)
}

fn unreachable_agent(command: Command, socket: &std::path::Path, error: &io::Error) -> Failure {
    let code = if command == Command::Status { codes::NOT_AVAILABLE } else { codes::TRY_AGAIN };
    Failure {
        code,
        msg: "the node agent does not answer".into(),
        details: format!("{}: {error}", socket.display()),
    }
}

/// The agent finds leftovers by itself as well: failing here only makes it later.
fn leave(socket: &std::path::Path, request: &Request) {
    if let Err(e) = spool::leave(socket, request) {
        let note = format!("calico-cni: leaving {} for the agent: {e}\n", request.container_id);
        let _ = io::stderr().write_all(note.as_bytes());
    }
}
