//! `node run`: the agent of this node in a container, outside of Kubernetes.
//!
//! The command for the container engine is what upstream's tool makes, so that scripts and services around it keep
//! working: the same names of variables and places, the same name of the container. Docker is not the only engine: any
//! that takes Docker's arguments will do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use remote::settings::DatastoreType;

use crate::args::{Access, NodeBackend, NodeRunArgs};
use crate::print::{Out, complain};
use crate::settings::{self, ConfigFile};
use crate::{Outcome, usage};

/// The container's name, which scripts know.
const CONTAINER: &str = "calico-node";
/// Engines that take Docker's arguments.
const ENGINES: [&str; 3] = ["docker", "podman", "nerdctl"];
const FELIX_FILE: &str = "/etc/calico/felix.cfg";
const KUBECONFIG: &str = "/etc/calico/kubeconfig";

/// What the container gets.
#[derive(Default)]
struct Container {
    environment: BTreeMap<&'static str, String>,
    /// Variables whose values are passed on without being shown.
    passed: Vec<(&'static str, String)>,
    /// Here and there.
    mounts: Vec<(String, String)>,
}

pub(crate) fn run(access: &Access, args: &NodeRunArgs) -> Result<Outcome> {
    let file = settings::read(&access.config)?;
    let mut container = Container::default();
    container.node(args)?;
    container.datastore(access, &file)?;
    let engine = engine(args.engine.as_deref())?;
    let command = container.command(args);
    let shown = format!("{engine} {}", quoted(&command));
    let mut out = Out::new();
    if args.dryrun {
        out.line(&format!("Use this command to start the agent:\n\n{shown}\n"))?;
        if args.init_system {
            out.line(&format!("and this one to stop it:\n\n{engine} stop {CONTAINER}\n"))?;
        } else {
            out.line("For a service of an init system: --init-system.")?;
        }
        out.finish()?;
        return Ok(Outcome::Done);
    }
    if !is_root() {
        bail!("only root starts the agent: it programs the kernel (--dryrun shows the command)");
    }
    remove_old(&engine);
    out.line(&format!("Starting the agent:\n\n{shown}\n"))?;
    out.flush()?;
    let mut started = Command::new(&engine);
    started.args(&command).envs(container.passed.iter().map(|(k, v)| (*k, v.as_str())));
    let status = started.status().with_context(|| format!("cannot run {engine}"))?;
    if !status.success() {
        complain(&format!("{engine}: {status}"));
        return Ok(Outcome::Failed);
    }
    out.line(&format!("Started; {engine} logs -f {CONTAINER} shows what it does."))?;
    out.finish()?;
    Ok(Outcome::Done)
}

/// Whether the kernel lets us: the owner of our own process's files is root.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|about| about.uid() == 0)
}

/// A container of that name that is left; usually there is none.
fn remove_old(engine: &str) {
    let quiet = Command::new(engine)
        .args(["rm", "-f", CONTAINER])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = quiet {
        complain(&format!("cannot run {engine}: {error}"));
    }
}

/// The engine that was asked for, or the first that is installed.
fn engine(given: Option<&str>) -> Result<String> {
    let Some(given) = given else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let installed =
            |name: &&str| std::env::split_paths(&path).any(|at| at.join(name).is_file());
        // One that is not there is fit to be shown.
        return Ok(ENGINES.into_iter().find(installed).unwrap_or(ENGINES[0]).to_owned());
    };
    if given.is_empty() || given.starts_with('-') {
        bail!("--engine {given:?} is no program");
    }
    Ok(given.to_owned())
}

impl Container {
    /// What the arguments say of the node.
    fn node(&mut self, args: &NodeRunArgs) -> Result<()> {
        let name = match &args.name {
            Some(name) => name.clone(),
            None => host_name()?,
        };
        self.set("NODENAME", name);
        let backend = match args.backend {
            NodeBackend::Bird => "bird",
            NodeBackend::Vxlan => "vxlan",
            NodeBackend::None => "none",
        };
        self.set("CALICO_NETWORKING_BACKEND", backend);
        for (variable, flag, given) in [("IP", "--ip", &args.ip), ("IP6", "--ip6", &args.ip6)] {
            if let Some(text) = given {
                self.set(variable, address(flag, text, variable == "IP6")?);
            }
        }
        let methods = [
            ("IP_AUTODETECTION_METHOD", "--ip-autodetection-method", &args.ip_autodetection_method),
            (
                "IP6_AUTODETECTION_METHOD",
                "--ip6-autodetection-method",
                &args.ip6_autodetection_method,
            ),
        ];
        for (variable, flag, text) in methods {
            check_method(flag, text)?;
            if text != "first-found" {
                self.set(variable, text);
            }
        }
        if let Some(text) = &args.as_number {
            self.set("AS", as_number(text)?.to_string());
        }
        if args.no_default_ippools {
            self.set("NO_DEFAULT_POOLS", "true");
        }
        self.mount(&args.log_dir, "/var/log/calico");
        for path in ["/var/run/calico", "/var/lib/calico", "/lib/modules", "/run"] {
            self.mount(path, path);
        }
        if let Some(path) = &args.felix_config {
            self.mount(&absolute(path)?, FELIX_FILE);
        }
        Ok(())
    }

    /// How the agent reaches what we would reach.
    fn datastore(&mut self, access: &Access, file: &ConfigFile) -> Result<()> {
        match file.datastore_type()? {
            DatastoreType::Kubernetes => self.kubernetes(access, file),
            DatastoreType::Etcd => self.etcd(file),
        }
    }

    fn kubernetes(&mut self, access: &Access, file: &ConfigFile) -> Result<()> {
        self.set("DATASTORE_TYPE", "kubernetes");
        let given = file.kubernetes()?;
        let named = access.kubeconfig.clone().or(given.kubeconfig);
        let home = || {
            let home = std::env::var_os("HOME").map(PathBuf::from)?;
            Some(home.join(".kube/config")).filter(|path| path.exists())
        };
        let path = named.or_else(home).context(
            "the agent needs a kubeconfig: want --kubeconfig, KUBECONFIG or ~/.kube/config (or DATASTORE_TYPE=etcdv3)",
        )?;
        self.mount(&absolute(&path.display().to_string())?, KUBECONFIG);
        self.set("KUBECONFIG", KUBECONFIG);
        Ok(())
    }

    fn etcd(&mut self, file: &ConfigFile) -> Result<()> {
        file.etcd()?; // what is missing is told as everywhere else
        let given = file.etcd_environment();
        if given.inline {
            bail!(
                "certificates in the configuration file itself cannot be given to a container: want files"
            );
        }
        self.set("DATASTORE_TYPE", "etcdv3");
        for (name, value) in given.plain {
            self.set(name, value);
        }
        // Shown in no list of processes.
        self.passed.extend(given.password.map(|password| ("ETCD_PASSWORD", password)));
        for (name, here, inside) in given.files {
            self.mount(&absolute(&here)?, inside);
            self.set(name, inside);
        }
        Ok(())
    }

    fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.environment.insert(name, value.into());
    }

    fn mount(&mut self, here: &str, inside: &str) {
        self.mounts.push((here.to_owned(), inside.to_owned()));
    }

    /// The engine's arguments.
    fn command(&self, args: &NodeRunArgs) -> Vec<String> {
        let mut words: Vec<String> =
            ["run", "--net=host", "--privileged"].map(str::to_owned).to_vec();
        words.push(format!("--name={CONTAINER}"));
        if args.init_system {
            words.push("--rm".to_owned());
        } else {
            words.extend(["-d", "--restart=always"].map(str::to_owned));
        }
        for (name, value) in &self.environment {
            words.extend(["-e".to_owned(), format!("{name}={value}")]);
        }
        for (name, _) in &self.passed {
            words.extend(["-e".to_owned(), (*name).to_owned()]);
        }
        for (here, inside) in &self.mounts {
            words.extend(["-v".to_owned(), format!("{here}:{inside}")]);
        }
        words.push(args.node_image.clone());
        words
    }
}

/// As a shell would read it again.
fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=:/.,@+%".contains(c);
    let word = |word: &String| {
        if word.chars().all(plain) && !word.is_empty() {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn host_name() -> Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.context("the host's name cannot be read: want --name")?.trim().to_lowercase();
    if name.is_empty() {
        bail!("the host has no name: want --name");
    }
    Ok(name)
}

/// An engine takes no relative paths.
fn absolute(path: &str) -> Result<String> {
    let found = std::path::absolute(Path::new(path)).with_context(|| path.to_owned())?;
    if !found.exists() {
        bail!("{path}: there is no such file");
    }
    Ok(found.display().to_string())
}

fn address<'t>(flag: &str, text: &'t str, six: bool) -> Result<&'t str> {
    if text == "autodetect" || text == "none" {
        return Ok(text);
    }
    let plain = text.split_once('/').map_or(text, |(address, _)| address);
    match plain.parse::<IpAddr>() {
        Ok(found) if found.is_ipv6() == six => Ok(text),
        Ok(_) => Err(usage(format!("{flag} {text}: is an address of the other IP version"))),
        Err(_) => Err(usage(format!("{flag} {text}: want an address, autodetect or none"))),
    }
}

fn check_method(flag: &str, text: &str) -> Result<()> {
    let (method, value) = text.split_once('=').unwrap_or((text, ""));
    let well = match method {
        "first-found" | "kubernetes-internal-ip" => !text.contains('='),
        "can-reach" => !value.is_empty(),
        "interface" | "skip-interface" => {
            !value.is_empty() && value.split(',').all(|part| regex::Regex::new(part).is_ok())
        }
        "cidr" => value.split(',').all(|part| part.trim().parse::<ipnet::IpNet>().is_ok()),
        _ => false,
    };
    if well {
        return Ok(());
    }
    Err(usage(format!(
        "{flag} {text:?}: want first-found, can-reach=HOST, interface=REGEX,..., skip-interface=REGEX,..., cidr=CIDR,... \
         or kubernetes-internal-ip"
    )))
}

/// A number, or two of 16 bits with a dot.
fn as_number(text: &str) -> Result<u32> {
    let bad = || usage(format!("--as {text:?}: want a number up to 4294967295, or as 1.10"));
    match text.split_once('.') {
        None => text.parse().map_err(|_| bad()),
        Some((high, low)) => {
            let part = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| bad());
            Ok(part(high)? << 16 | part(low)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_addresses_and_methods() {
        assert_eq!((as_number("64512").unwrap(), as_number("1.10").unwrap()), (64_512, 65_546));
        for bad in ["", "4294967296", "1.65536", "a", "1.2.3"] {
            assert!(as_number(bad).is_err(), "{bad}");
        }
        for (text, six, good) in [
            ("10.0.0.1", false, true),
            ("10.0.0.1/24", false, true),
            ("fd00::1", true, true),
            ("autodetect", true, true),
            ("10.0.0.1", true, false),
            ("x", false, false),
        ] {
            assert_eq!(address("--ip", text, six).is_ok(), good, "{text}");
        }
        for (text, good) in [
            ("first-found", true),
            ("can-reach=example.com", true),
            ("interface=eth.*,enp0s.*", true),
            ("cidr=10.0.0.0/8,192.168.0.0/16", true),
            ("kubernetes-internal-ip", true),
            ("can-reach=", false),
            ("interface=(", false),
            ("cidr=10.0.0.0", false),
            ("last-found", false),
        ] {
            assert_eq!(check_method("--m", text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["-e".to_owned(), "A=b c".to_owned(), "it's".to_owned(), "eth.*".to_owned()];
        assert_eq!(quoted(&words), "-e 'A=b c' 'it'\\''s' 'eth.*'");
    }
}
