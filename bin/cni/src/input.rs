//! What a runtime gives a plugin, checked.

use serde_json::Value;

use crate::protocol::{Failure, Request, codes};

/// Versions of the specification that configurations may be written in.
pub const SUPPORTED_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The variables of the environment that matter.
#[derive(Clone, Debug, Default)]
pub struct Env {
    /// `CNI_COMMAND`.
    pub command: Option<String>,
    /// `CNI_CONTAINERID`.
    pub container_id: Option<String>,
    /// `CNI_NETNS`.
    pub netns: Option<String>,
    /// `CNI_IFNAME`.
    pub ifname: Option<String>,
    /// `CNI_ARGS`.
    pub args: Option<String>,
    /// `CALICO_CNI_SOCKET`: where the agent listens, if the configuration does not say.
    pub socket: Option<String>,
}

impl Env {
    /// Of this process.
    pub fn of_process() -> Self {
        let var = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            command: var("CNI_COMMAND"),
            container_id: var("CNI_CONTAINERID"),
            netns: var("CNI_NETNS"),
            ifname: var("CNI_IFNAME"),
            args: var("CNI_ARGS"),
            socket: var("CALICO_CNI_SOCKET"),
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give the container an interface.
    Add,
    /// Take it away.
    Del,
    /// Is it as it should be?
    Check,
    /// Would ADD work?
    Status,
    /// Forget what belongs to no valid attachment.
    Gc,
    /// Which versions of the specification are spoken?
    Version,
}

impl Command {
    /// The name in the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
            Self::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Add, Self::Del, Self::Check, Self::Status, Self::Gc, Self::Version];
        all.into_iter().find(|c| c.as_str() == text)
    }

    fn since(self) -> &'static str {
        match self {
            Self::Check => "0.4.0",
            Self::Status | Self::Gc => "1.1.0",
            Self::Add | Self::Del | Self::Version => "0.3.0",
        }
    }
}

/// A command with everything that it needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// What to do.
    pub command: Command,
    /// In the agent's words.
    pub request: Request,
}

/// The runtime's call cannot be understood; in CNI's terms, with the version to answer in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadInput {
    /// Version of the answer.
    pub version: String,
    /// What is wrong.
    pub failure: Failure,
}

impl Input {
    /// Checks a call.
    ///
    /// # Errors
    /// [`BadInput`].
    pub fn parse(env: &Env, stdin: &[u8]) -> Result<Self, BadInput> {
        let latest = SUPPORTED_VERSIONS[SUPPORTED_VERSIONS.len() - 1];
        let bad = |version: &str, code, msg: String| BadInput {
            version: version.to_owned(),
            failure: Failure::new(code, msg),
        };
        let missing =
            |name: &str| bad(latest, codes::INVALID_ENVIRONMENT, format!("{name} is not set"));
        let command = env.command.as_deref().ok_or_else(|| missing("CNI_COMMAND"))?;
        let command = Command::parse(command).ok_or_else(|| {
            let msg =
                format!("CNI_COMMAND is {command:?}, want ADD, DEL, CHECK, STATUS, GC or VERSION");
            bad(latest, codes::INVALID_ENVIRONMENT, msg)
        })?;
        let config: Value = serde_json::from_slice(stdin).map_err(|e| {
            bad(
                latest,
                codes::DECODING_FAILURE,
                format!("standard input is no network configuration: {e}"),
            )
        })?;
        let request = Request {
            command: command.as_str().to_owned(),
            container_id: env.container_id.clone().unwrap_or_default(),
            netns: env.netns.clone().unwrap_or_default(),
            ifname: env.ifname.clone().unwrap_or_default(),
            args: env.args.clone().unwrap_or_default(),
            config,
        };
        if command != Command::Version {
            let version = match request.version() {
                known if SUPPORTED_VERSIONS.contains(&known) => known,
                _ => latest,
            };
            check(command, &request)
                .map_err(|failure| BadInput { version: version.into(), failure })?;
        }
        Ok(Self { command, request })
    }
}

fn check(command: Command, request: &Request) -> Result<(), Failure> {
    let fail = |code, msg: String| Err(Failure::new(code, msg));
    let version = request.version();
    if !SUPPORTED_VERSIONS.contains(&version) {
        let known = SUPPORTED_VERSIONS.join(", ");
        let msg = format!("cniVersion {version:?} is not supported, want one of {known}");
        return fail(codes::INCOMPATIBLE_VERSION, msg);
    }
    if version < command.since() {
        let msg = format!("{} needs cniVersion {} or later", command.as_str(), command.since());
        return fail(codes::INCOMPATIBLE_VERSION, msg);
    }
    if request.network().is_empty() {
        return fail(codes::INVALID_CONFIG, "the network configuration has no name".into());
    }
    if matches!(command, Command::Status | Command::Gc) {
        return Ok(());
    }
    if !is_container_id(&request.container_id) {
        let msg = format!("CNI_CONTAINERID {:?} is no container id", request.container_id);
        return fail(codes::INVALID_ENVIRONMENT, msg);
    }
    let name = &request.ifname;
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if !(1..=15).contains(&name.len()) || name.contains(odd) || matches!(&**name, "." | "..") {
        return fail(
            codes::INVALID_ENVIRONMENT,
            format!("CNI_IFNAME {name:?} is no interface name"),
        );
    }
    if request.netns.is_empty() && command != Command::Del {
        return fail(codes::INVALID_ENVIRONMENT, "CNI_NETNS is not set".into());
    }
    Ok(())
}

/// As the specification has it: a letter or digit, then also `_`, `.` and `-`.
fn is_container_id(id: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) && id.bytes().all(inner)
}
